"""What the layers of a network compute and hold in a step: seen while its update is traced."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from mnist_flax import cpu
from mnist_flax.core.flops import count_flops
from mnist_flax.core.state import TrainState
from mnist_flax.core.task import Spec, Task
from mnist_flax.data.batch import batch_like
from mnist_flax.models import class_of

OUTSIDE = "(in no layer)"
_MARK = re.compile("‹([^‹›]*)›")  # of a named scope, around the path of a layer


class Layer(NamedTuple):
    """A layer in a step.

    Attributes:
      name: its path, 'generator/conv1'; '' for the network itself; OUTSIDE for what is in none.
      kind: its class; '' for what is in no layer.
      outputs: the shapes of what it gives, for a batch or for the part of one that is passed
        through at once; () for a layer that is made of others.
      calls: how often a step calls it.
      parameters: how many of its own.
      parameter_bytes: that these take.
      output_bytes: of all that it gives in a step, or in a part of one.
      flops: of a step, gradients included; core/flops.py says what is counted.
    """

    name: str
    kind: str
    outputs: tuple[tuple[int, ...], ...] = ()
    calls: int = 0
    parameters: int = 0
    parameter_bytes: int = 0
    output_bytes: int = 0
    flops: int = 0


def layers_of_step(task: Task, form: TrainState, spec: Spec, batch_size: int) -> list[Layer]:
    """Returns the layers of a step, in the order in which they are called first.

    The step is that of an accelerator: what cpu/ adds for speed is not counted.

    Args:
      task: from its builder; one that was traced before tells nothing.
      form: of the run's state, as jax.ShapeDtypeStructs.
      spec: of the data.
      batch_size: of the run.

    Returns:
      Those that compute, hold parameters, or are made of no others, and where anything is in no
      layer, that. Seen are layers of linen: a module of nnx is one layer.
    """
    key, step = jax.eval_shape(lambda: (jax.random.key(0), jnp.int32(0)))
    batch = batch_like(batch_size, spec.image_shape)
    seen: dict[str, _Seen] = {}

    def look(
        method: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext
    ) -> Any:
        name = "/".join(map(str, context.module.path))
        one = seen.setdefault(name, _Seen(class_of(context.module).__name__))
        with jax.named_scope(f"‹{name}›"):
            outputs = method(*args, **kwargs)
        if context.method_name == "__call__":
            one.calls.append([_form(leaf) for leaf in jax.tree.leaves(outputs)])
        return outputs

    with cpu.lowered_for("cuda"), nn.intercept_methods(look):
        # A function of its own: JAX keeps the traces of those that it knows.
        jaxpr = jax.make_jaxpr(lambda *args: task.update(*args))(
            form.variables, form.opt_state, batch, step, key
        )
    flops = count_flops(jaxpr.jaxpr, _innermost)
    owned = _owned(form.params, seen)
    layers = [_layer(name, seen, owned.get(name, []), flops[name]) for name in (*seen, OUTSIDE)]
    return [each for each in layers if each.outputs or each.parameters or each.flops]


@dataclass
class _Seen:
    """A module, and what each of its calls gave."""

    kind: str
    calls: list[list[jax.ShapeDtypeStruct]] = field(default_factory=list)


def _layer(
    name: str, seen: Mapping[str, _Seen], parameters: list[jax.ShapeDtypeStruct], flops: int
) -> Layer:
    one = seen.get(name) or _Seen("")
    inside = f"{name}/" if name else ""
    made_of_others = any(other != name and other.startswith(inside) for other in seen)
    given = [] if made_of_others else one.calls
    return Layer(
        name=name,
        kind=one.kind,
        outputs=tuple(leaf.shape for leaf in given[0]) if given else (),
        calls=len(one.calls),
        parameters=sum(leaf.size for leaf in parameters),
        parameter_bytes=num_bytes(parameters),
        output_bytes=num_bytes(given),
        flops=flops,
    )


def _form(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf))


def _innermost(scope: str) -> str:
    """Returns the layer that an equation stands in."""
    found = _MARK.findall(scope)
    return found[-1] if found else OUTSIDE


def _owned(params: Any, seen: Mapping[str, _Seen]) -> dict[str, list[jax.ShapeDtypeStruct]]:
    """Returns {layer: its own parameters}: each is that of the layer with the longest name."""
    owned: dict[str, list[jax.ShapeDtypeStruct]] = {}
    for path, leaf in jax.tree.leaves_with_path(params):
        parts = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
        names = ["/".join(parts[:end]) for end in range(len(parts), -1, -1)]
        owner = next((name for name in names if name in seen), OUTSIDE)
        owned.setdefault(owner, []).append(leaf)
    return owned


def num_bytes(tree: Any) -> int:
    """Returns how many bytes the arrays of a pytree take, or their forms."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))

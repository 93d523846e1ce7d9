"""What a task asks of a linen module: its start, its answers in training and at rest.

Each of these is traced with the task, and says in one line where a module of the user's own fails.
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from mnist_flax import cpu
from mnist_flax.core.task import Spec, Variables
from mnist_flax.core.trees import first_change
from mnist_flax.core.update import Loss, gradient_update
from mnist_flax.data.augment import normalize
from mnist_flax.errors import UsageError, UserError, where_it_failed
from mnist_flax.models import class_of


def one_network(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    spec: Spec,
    loss: Loss,
    accumulate_steps: int = 1,
    log_norms: bool = False,
) -> dict[str, Any]:
    """Returns what tasks of one network and one optimizer have in common, by Task's names.

    Args:
      model: a linen module.
      optimizer: of its parameters.
      spec: of the data.
      loss: as gradient_update() takes it.
      accumulate_steps, log_norms: likewise.
    """
    return {
        "init": functools.partial(init_variables, model, spec.image_shape),
        "init_opt": lambda variables: optimizer.init(variables["params"]),
        "update": gradient_update(loss, optimizer, accumulate_steps, log_norms),
        "model": model,
    }


def init_variables(
    model: nn.Module, image_shape: tuple[int, int, int], key: jax.Array
) -> Variables:
    """Returns the module's start: {'params': …, 'batch_stats': …}, either of which may be {}.

    Args:
      model: takes float32 [1, H, W, C].
      image_shape: (H, W, C).
      key: of the run's seed.

    Raises:
      UsageError: the module fails, or keeps variables that a run does not carry.
    """
    images = jnp.zeros((1, *image_shape), jnp.float32)
    with _told(model, images.shape):
        variables = dict(model.init(key, images))
    carried = {name: variables.pop(name, {}) for name in ("params", "batch_stats")}
    if variables:
        raise UsageError(
            f"config.model.name: {class_of(model).__name__} keeps the variables "
            f"{sorted(variables)}; a run carries 'params' and 'batch_stats' only."
        )
    return carried


def apply_train(
    model: nn.Module, variables: Variables, images: jax.Array, key: jax.Array, *more: jax.Array
) -> tuple[Any, dict[str, Any]]:
    """Applies a module in training, with gradients that are fast on a CPU (see cpu/).

    Args:
      model: a linen module.
      variables: 'params' and 'batch_stats'.
      images: uint8 [B, H, W, C].
      key: of its dropout.
      more: what the module takes after the images.

    Returns:
      What the module gives, float32 where it is floating point, whatever it computes in; and the
      collections that it changed: {'batch_stats': …}.

    Raises:
      UsageError: the module fails, or its batch statistics change their form.
    """

    def forward(params: Any, images: jax.Array, *more: jax.Array) -> tuple[Any, dict[str, Any]]:
        outputs, updates = model.apply(
            {**variables, "params": params},
            normalize(images),
            *more,
            train=True,
            rngs={"dropout": key},
            mutable=["batch_stats"],
        )
        return outputs, updates.get("batch_stats", {})

    with _told(model, images.shape):
        outputs, stats = cpu.for_backend(forward)(variables["params"], images, *more)
    changed = {"batch_stats": stats}
    if change := first_change({"batch_stats": variables["batch_stats"]}, changed):
        raise UsageError(
            f"config.model.name={_name(model)!r}: a step makes {change}; batch statistics must "
            "keep their form."
        )
    return single_precision(outputs), changed


def apply_eval(model: nn.Module, variables: Variables, images: jax.Array, *more: jax.Array) -> Any:
    """Applies a module at rest, running statistics and no dropout.

    Args:
      model: a linen module.
      variables: 'params' and 'batch_stats'.
      images: uint8 [B, H, W, C].
      more: what the module takes after the images.

    Returns:
      What the module gives, float32 where it is floating point, whatever it computes in.

    Raises:
      UsageError: the module fails.
    """
    with _told(model, images.shape):
        outputs = model.apply(variables, normalize(images), *more)
    return single_precision(outputs)


def require_width(model: nn.Module, outputs: Any, images: jax.Array, width: int, mode: str) -> None:
    """Raises UsageError unless a module's outputs are [B, width].

    Args:
      model: a linen module.
      outputs: what it gave.
      images: [B, …], for these.
      width: what is needed of each.
      mode: '' in training, ' with train=False' at rest; for the message.
    """
    shape = getattr(outputs, "shape", None)
    if shape != (len(images), width):
        got = "no array" if shape is None else f"logits {list(shape)}"
        raise UsageError(
            f"config.model.name={_name(model)!r}{mode} gives {got} for {len(images)} images of "
            f"{width} classes; needed are [{len(images)}, {width}]."
        )


def single_precision(outputs: Any) -> Any:
    """Returns the same outputs, a pytree, in float32 where they are of another floating point.

    A module may compute in bfloat16; a softmax of its logits there has 8 bits, its sum 0.997.
    """

    def cast_one(leaf: Any) -> Any:
        kind = getattr(leaf, "dtype", None)
        # float32 is not touched at all: a cast would be an equation in the step of every recipe.
        if kind is None or kind == jnp.float32 or not jnp.issubdtype(kind, jnp.floating):
            return leaf
        return leaf.astype(jnp.float32)

    return jax.tree.map(cast_one, outputs)


def _name(model: nn.Module) -> str:
    return f"{class_of(model).__module__}:{class_of(model).__name__}"


@contextlib.contextmanager
def _told(model: nn.Module, shape: tuple[int, ...]) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # whatever the module's author made it raise
        raise UsageError(
            f"config.model.name={_name(model)!r} fails on images {list(shape)}: "
            f"{where_it_failed(error, __file__)}"
        ) from error

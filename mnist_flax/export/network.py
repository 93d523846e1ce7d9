"""What a task answers to images, and what it draws, as equations with the weights inside."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import export
from jax.errors import InconclusiveDimensionOperation
from jax.extend.core import ClosedJaxpr, Literal

from mnist_flax.errors import UsageError, UserError, where_it_failed
from mnist_flax.use.restore import Restored


class Network(NamedTuple):
    """What an exported file computes.

    Attributes:
      names: of its outputs, in their order.
      equations: 'images' uint8 [batch, H, W, C], or 'latents' float32 [batch, L], -> [batch, …] for
        each name; batch is symbolic.
      given: what its input is called.
      stem: of its files' names.
    """

    names: tuple[str, ...]
    equations: ClosedJaxpr
    given: str = "images"
    stem: str = "model"

    @property
    def inputs(self) -> jax.ShapeDtypeStruct:
        """The form of its input."""
        return _form(self.equations.in_avals[0])

    @property
    def outputs(self) -> dict[str, jax.ShapeDtypeStruct]:
        """The form of each output."""
        return dict(zip(self.names, map(_form, self.equations.out_avals), strict=True))


def trace_network(restored: Restored) -> Network:
    """Traces task.predict for those of its outputs that task.exported names.

    Outputs of floating point become float32. What none of these outputs needs is left out, weights
    included. A model that asks for the number of images (`len(images)`) cannot be given a symbol
    for it: its images go through it one by one, side by side by `vmap`.

    Raises:
      UsageError: task.exported names what predict does not give.
      UserError: the task cannot be traced so.
    """
    names = _names(restored)

    def answers(images: jax.Array) -> tuple[jax.Array, ...]:
        outputs = restored.task.predict(restored.state.variables, images)
        return tuple(_single_precision(outputs[name]) for name in names)

    return Network(names, _equations(restored, answers, restored.image_shape, jnp.uint8))


def trace_sampler(restored: Restored) -> Network:
    """Traces task.sample: latents float32 [batch, latent_size] -> 'pictures' in [0, 1].

    Raises:
      UserError: the task cannot be traced so.
    """
    sample = restored.task.sample
    assert sample is not None  # who calls has looked

    def pictures(latents: jax.Array) -> tuple[jax.Array, ...]:
        return (_single_precision(sample(restored.state.variables, latents)),)

    equations = _equations(restored, pictures, (restored.task.latent_size,), jnp.float32)
    return Network(("pictures",), equations, given="latents", stem="sampler")


def _equations(
    restored: Restored,
    answers: Callable[[jax.Array], tuple[jax.Array, ...]],
    shape: tuple[int, ...],
    dtype: Any,
) -> ClosedJaxpr:
    """Traces what is answered to a batch of this shape and type, of any size."""

    def one_by_one(inputs: jax.Array) -> tuple[jax.Array, ...]:
        return jax.vmap(lambda each: tuple(values[0] for values in answers(each[None])))(inputs)

    inputs = jax.ShapeDtypeStruct((*export.symbolic_shape("batch"), *shape), dtype)
    try:
        equations = jax.make_jaxpr(answers)(inputs)
    except (TypeError, ValueError, InconclusiveDimensionOperation, UserError):  # tasks/ tells it so
        try:
            equations = jax.make_jaxpr(one_by_one)(inputs)
        except Exception as error:
            told = str(error) if isinstance(error, UserError) else where_it_failed(error, __file__)
            raise UserError(
                f"config.task.name={restored.config.task.name!r}: cannot be exported for any "
                f"number of images: {told}"
            ) from error
    return _without_the_unneeded(equations)


def tells_classes(outputs: Mapping[str, Any], class_names: Sequence[str]) -> bool:
    """Whether these outputs (their forms) include the probabilities [batch, K] of K classes."""
    given = outputs.get("probabilities")
    return given is not None and given.shape[1:] == (len(class_names),)


def _names(restored: Restored) -> tuple[str, ...]:
    """Returns those of task.exported, or all that predict gives, sorted."""
    task = restored.task
    image = jax.ShapeDtypeStruct((1, *restored.image_shape), jnp.uint8)
    given = jax.eval_shape(task.predict, restored.state.variables, image)
    if unknown := [name for name in task.exported or () if name not in given]:
        raise UsageError(
            f"config.task.name={restored.config.task.name!r}: its predict gives no {unknown[0]!r}, "
            f"which its `exported` names. It gives: {', '.join(sorted(given))}."
        )
    return task.exported or tuple(sorted(given))


def _single_precision(values: jax.Array) -> jax.Array:
    return values.astype(jnp.float32) if jnp.issubdtype(values.dtype, jnp.floating) else values


def _form(aval: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype)


def _without_the_unneeded(closed: ClosedJaxpr) -> ClosedJaxpr:
    """Drops the equations and the weights that no output depends on."""
    needed = {atom for atom in closed.jaxpr.outvars if not isinstance(atom, Literal)}
    kept = []
    for eqn in reversed(closed.eqns):
        if needed.intersection(eqn.outvars):
            kept.append(eqn)
            needed |= {atom for atom in eqn.invars if not isinstance(atom, Literal)}
    variables = zip(closed.jaxpr.constvars, closed.consts, strict=True)
    weights = {variable: value for variable, value in variables if variable in needed}
    jaxpr = closed.jaxpr.replace(constvars=list(weights), eqns=kept[::-1])
    return ClosedJaxpr(jaxpr, list(weights.values()))

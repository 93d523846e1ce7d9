"""What a run carries from step to step, and how a task is tried before anything is compiled."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from mnist_flax.core.sums import Sums, empty
from mnist_flax.core.task import Spec, Task, Variables
from mnist_flax.core.trees import first_change
from mnist_flax.data.sources import batch_like
from mnist_flax.errors import UsageError, UserError, where_it_failed
from mnist_flax.keys import rng_key

PyTree = Any


class TrainState(flax.struct.PyTreeNode):
    """Arrays only: the task and its schedules are closed over by the step, never stored.

    Attributes:
      step: int32 [], how many updates were made.
      variables: the task's: 'params', 'batch_stats' ({} for a model without any), …
      opt_state: the optimizer's.
      window: sums over the steps since the last training row. Part of the state, so that a run
        that was interrupted inside a window writes the same row as one that was not.
      epoch: likewise, since the last epoch row.
    """

    step: jax.Array
    variables: Variables
    opt_state: PyTree
    window: Sums
    epoch: Sums

    @property
    def params(self) -> PyTree:
        """The parameters among the variables."""
        return self.variables.get("params", {})

    @property
    def batch_stats(self) -> PyTree:
        """The running statistics among the variables."""
        return self.variables.get("batch_stats", {})


def create_state(task: Task, sums: Sums, seed: int) -> TrainState:
    """Returns the state before the first step: a function of the seed alone.

    Args:
      task: gives the variables and the optimizer's state.
      sums: of its update, or their shapes: `try_task` has them.
      seed: config.seed.
    """
    variables = task.init(rng_key(seed, "params", 0))
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        variables=variables,
        opt_state=task.init_opt(variables),
        window=empty(sums),
        epoch=empty(sums),
    )
    # Strong types: a weakly typed leaf would change its type in the first step.
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, leaf.dtype), state)


def try_task(task: Task, spec: Spec, name: str) -> TrainState:
    """Traces a task once, as a run will use it, and returns the form of its state.

    Args:
      task: from its builder.
      spec: of the data.
      name: config.task.name, for the message.

    Returns:
      A TrainState of jax.ShapeDtypeStructs.

    Raises:
      UsageError: a part of it fails, with the line where it does, or is not what its contract says.
    """
    key, step = jax.eval_shape(lambda: (jax.random.key(0), jnp.int32(0)))
    batch = batch_like(2, spec.image_shape)
    images, masked = batch.images, batch.replace(mask=jax.eval_shape(lambda: jnp.ones(2, bool)))
    try:
        variables = jax.eval_shape(task.init, key)
        opt_state = jax.eval_shape(task.init_opt, variables)
        updated = jax.eval_shape(task.update, variables, opt_state, batch, step, key)
        evaluated, _ = jax.eval_shape(task.evaluate, variables, masked)
        jax.eval_shape(task.predict, variables, images)
        drawn = _drawn(task, variables)
    except UserError:
        raise
    except Exception as error:  # whatever a user's own task raises
        raise UsageError(
            f"config.task.name={name!r} fails on images {list(images.shape)}: "
            f"{where_it_failed(error, __file__)}"
        ) from error
    if empty_leaf := _without_elements(variables):
        raise UsageError(
            f"config.model: {empty_leaf} has no elements, which no save can hold: a layer has a "
            "width of 0. Give it one of at least 1."
        )
    before, after = (
        {"variables": variables, "opt_state": opt_state},
        {"variables": updated[0], "opt_state": updated[1]},
    )
    if change := first_change(before, after):
        raise UsageError(
            f"config.task.name={name!r}: an update makes {change}; variables and optimizer state "
            "must keep their form."
        )
    for part, sums in (("update", updated[2]), ("evaluate", evaluated)):
        if "count" not in sums:
            raise UsageError(
                f"config.task.name={name!r}: the sums of {part} have no 'count', only "
                f"{', '.join(sums) or 'nothing'}. Add how many examples they are over."
            )
    evaluated = {*evaluated, *task.measured}
    if task.best and not (task.best in task.metrics and task.best in evaluated):
        raise UsageError(
            f"config.task.name={name!r}: best={task.best!r} is no metric that evaluate sums. It "
            f"sums {', '.join(sorted(evaluated))}; metrics are {', '.join(task.metrics)}."
        )
    if unknown := sorted({*task.metrics} - {*updated[2], *evaluated}):
        raise UsageError(
            f"config.task.name={name!r}: the metric {unknown[0]!r} is summed neither by update nor "
            f"by evaluate, which sums {', '.join(sorted(evaluated))}."
        )
    if drawn is not None:
        _check_drawn(drawn, images.shape, name)
    return jax.eval_shape(lambda: create_state(task, updated[2], 0))


def _without_elements(variables: Variables) -> str:
    """Returns the name and the form of the first array without elements; '' for none."""
    for path, leaf in jax.tree.leaves_with_path(variables):
        if leaf.size == 0:
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            return f"{name}, {leaf.dtype}{list(leaf.shape)},"
    return ""


def _drawn(task: Task, variables: Variables) -> jax.ShapeDtypeStruct | None:
    """The form of what a task draws from two latents; None where it draws nothing."""
    if task.sample is None:
        return None
    latents = jax.eval_shape(lambda: jnp.zeros((2, task.latent_size)))
    return jax.eval_shape(task.sample, variables, latents)


def _check_drawn(drawn: jax.ShapeDtypeStruct, shape: tuple[int, ...], name: str) -> None:
    if (drawn.shape, drawn.dtype) != (shape, jnp.float32):
        raise UsageError(
            f"config.task.name={name!r}: sample draws {drawn.dtype} {list(drawn.shape)} from two "
            f"latents; float32 {list(shape)} is needed."
        )

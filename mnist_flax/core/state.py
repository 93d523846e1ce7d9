"""What a run carries from step to step, and how a task is tried before anything is compiled."""

from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from mnist_flax import cpu
from mnist_flax.core.sums import Sums, empty
from mnist_flax.core.task import Spec, Task, Variables
from mnist_flax.core.trees import first_change
from mnist_flax.data.batch import batch_like
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


class Tried(NamedTuple):
    """What was seen of a task before anything is compiled.

    Attributes:
      form: of its state, as jax.ShapeDtypeStructs.
      slow_layers: a line for each convolution that cpu/ cannot make fast inside a loop on CPU; with
        one of them, a step called from Python is up to 100 times faster than one in a loop.
    """

    form: TrainState
    slow_layers: tuple[str, ...]


def traced_once(task: Task) -> Task:
    """Returns the same task, whose update and evaluation are traced once for a form of batch.

    Three programs make the same update, and `try_task` looks at it before them: it is written out
    in each of them, as if each had traced it.
    """
    # Functions of their own: JAX keeps the traces of those that it knows, beyond a run.
    update, evaluate = task.update, task.evaluate
    return task._replace(
        update=jax.jit(lambda *args: update(*args), inline=True),
        evaluate=jax.jit(lambda *args: evaluate(*args), inline=True),
    )


def try_task(task: Task, spec: Spec, name: str, batch_size: int = 2) -> Tried:
    """Traces a task, as a run will use it.

    Args:
      task: from its builder, or from `traced_once`.
      spec: of the data.
      name: config.task.name, for the message.
      batch_size: of the run.

    Raises:
      UsageError: a part of it fails, with the line where it does, or is not what its contract says.
    """
    key, step = jax.eval_shape(lambda: (jax.random.key(0), jnp.int32(0)))
    batch = batch_like(batch_size, spec.image_shape)
    images, masked = (
        batch.images,
        batch.replace(mask=jax.eval_shape(lambda: jnp.ones(batch_size, bool))),
    )
    try:
        variables = jax.eval_shape(task.init, key)
        opt_state = jax.eval_shape(task.init_opt, variables)
        given = (variables, opt_state, batch, step, key)
        # Before anything else has traced the update.
        slow = cpu.slow_in_loop(task.update, *given) if cpu.target() == "cpu" else []
        updated = jax.eval_shape(task.update, *given)
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
        _check_drawn(drawn, (2, *spec.image_shape), name)
    form = jax.eval_shape(lambda: create_state(task, updated[2], 0))
    return Tried(form, tuple(slow))


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

"""The mean of the last steps' parameters and running statistics, which answers in their place."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mnist_flax.core.sums import Sums
from mnist_flax.core.task import OptState, Task, Variables
from mnist_flax.data.batch import Batch

AVERAGE = "average"


def with_average(task: Task, decay: float) -> Task:
    """Returns a task that learns as before, and answers, is evaluated and draws by an average.

    The average of step n is a mean over the steps 1 to n, each of which counts `decay` times as
    much as the one after it (Polyak and Juditsky, "Acceleration of stochastic approximation by
    averaging", 1992, with weights that fall). It stands next to what is learnt, as
    variables['average'], and no other bit depends on it. An evaluation has the sums of what is
    learnt as well, as 'learnt_loss' and the like. What is `fixed` in the task is not averaged.

    Args:
      task: any.
      decay: in (0, 1): about 1 / (1 - decay) steps count.
    """

    def init(key: jax.Array) -> Variables:
        return _averaged(task.init(key), task.fixed)

    def update(
        variables: Variables, opt_state: OptState, batch: Batch, step: jax.Array, key: jax.Array
    ) -> tuple[Variables, OptState, Sums]:
        after, opt_state, sums = task.update(learnt(variables), opt_state, batch, step, key)
        # The weights sum to one from the first step on, in which the newest has all of it.
        share = (1 - decay) / -jnp.expm1((step + 1) * math.log(decay))

        def moved(average: jax.Array, new: jax.Array) -> jax.Array:
            return (average + share * (new - average)).astype(new.dtype)

        moving = {name: value for name, value in after.items() if name not in task.fixed}
        return {**after, AVERAGE: jax.tree.map(moved, variables[AVERAGE], moving)}, opt_state, sums

    def evaluate(variables: Variables, batch: Batch) -> tuple[Sums, dict[str, jax.Array]]:
        sums, outputs = task.evaluate(variables[AVERAGE], batch)
        others = task.evaluate(learnt(variables), batch)[0]
        beside = {f"learnt_{name}": value for name, value in others.items() if name != "count"}
        return {**sums, **beside}, outputs

    # On the console and the pages, of what is learnt only the metric that chooses.
    chosen = {task.best} - {"", *task.measured}
    sample = task.sample
    in_training = task.in_training
    return task._replace(
        init=init,
        init_opt=lambda variables: task.init_opt(learnt(variables)),
        update=update,
        evaluate=evaluate,
        metrics={**task.metrics, **{f"learnt_{name}": task.metrics[name] for name in chosen}},
        predict=lambda variables, images: task.predict(variables[AVERAGE], images),
        sample=sample and (lambda variables, latents: sample(variables[AVERAGE], latents)),
        in_training=in_training
        and (lambda variables, batch, key: in_training(learnt(variables), batch, key)),
        answering=lambda variables: task.answering(variables[AVERAGE]),
    )


def renewed(before: Variables, learnt: Variables) -> Variables:
    """Returns what is learnt, with an average of it alone if there was one before."""
    return _averaged(learnt) if AVERAGE in before else learnt


def _averaged(variables: Variables, fixed: Sequence[str] = ()) -> Variables:
    moving = {name: value for name, value in variables.items() if name not in fixed}
    # Copies: what a step is given is donated, and one buffer cannot be donated twice.
    return {**variables, AVERAGE: jax.tree.map(jnp.array, moving)}


def learnt(variables: Variables) -> Variables:
    """Returns the variables without their average."""
    return {name: value for name, value in variables.items() if name != AVERAGE}

"""A step that makes anything NaN or infinite is left out, and counted."""

from typing import Any

import jax
import jax.numpy as jnp

from mnist_flax.core.sums import Sums
from mnist_flax.core.task import Metric, OptState, Task, Variables
from mnist_flax.core.trees import finite
from mnist_flax.data.batch import Batch

SKIPPED = "skipped_steps"


def with_skipped_steps(task: Task) -> Task:
    """Returns a task whose bad steps change nothing but the count of them in the rows.

    A step is bad where its sums, or the variables or the optimizer's state that it leads to, are
    not finite. The next step has a batch and a key of its own, as it would have had.
    """

    def update(
        variables: Variables, opt_state: OptState, batch: Batch, step: jax.Array, key: jax.Array
    ) -> tuple[Variables, OptState, Sums]:
        after, new_opt_state, sums = task.update(variables, opt_state, batch, step, key)
        good = finite((after, sums), new_opt_state)

        def kept(new: Any, old: Any) -> Any:
            return jax.tree.map(lambda n, o: jnp.where(good, n, o), new, old)

        counted = kept(sums, jax.tree.map(jnp.zeros_like, sums))
        return (
            kept(after, variables),
            kept(new_opt_state, opt_state),
            {**counted, SKIPPED: (~good).astype(jnp.int32)},
        )

    return task._replace(
        update=update, metrics={**task.metrics, SKIPPED: Metric(".0f", summed=True)}
    )

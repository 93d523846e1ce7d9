"""An evaluation is a fold: every example of a split, counted once, divided once."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mnist_flax.core.sums import Sums, means, merge
from mnist_flax.core.task import Task, Variables
from mnist_flax.data.sources import Feed, Source
from mnist_flax.errors import UsageError


class Measure(NamedTuple):
    """What is measured of a whole evaluation, where no mean over examples tells it.

    Attributes:
      told: what is said of it before the first.
      digest: of whatever it measures with; '' where that is nothing.
      of: (outputs of task.evaluate over the split, on the host) -> numbers by name, which stand
        among the means.
    """

    told: str = ""
    digest: str = ""
    of: Callable[[Mapping[str, np.ndarray]], dict[str, float]] = lambda outputs: {}


@dataclass(frozen=True)
class Evaluation:
    """What a task says of a whole split.

    Attributes:
      means: of each metric, over all examples; and what is measured of all of them together.
      examples: how many.
      seconds: how long it took.
      outputs: of task.evaluate by name, [N, …], in the order of the split.
    """

    means: Mapping[str, float]
    examples: int
    seconds: float
    outputs: Mapping[str, np.ndarray]

    def row(self) -> dict[str, float]:
        """Returns what an evaluation row holds: the numbers alone."""
        return {**self.means, "examples": self.examples, "seconds": self.seconds}


def evaluate(
    eval_batch: Callable[[Variables, Feed, jax.Array], tuple[Sums, dict[str, Any]]],
    variables: Variables,
    source: Source,
    task: Task,
    should_stop: Callable[[], bool] = lambda: False,
    measure: Measure | None = None,
) -> Evaluation | None:
    """Evaluates batch by batch.

    Args:
      eval_batch: of core/chunk.py, compiled.
      variables: the task's.
      source: of the split; its last batch is filled up and masked.
      task: its metrics give the order of the means.
      should_stop: asked after every batch.
      measure: what is measured besides.

    Returns:
      The means and outputs, or None when it was stopped before the end.
    """
    started = time.perf_counter()
    total: Sums | None = None
    parts = []
    for index in range(source.steps_per_epoch):
        sums, outputs = eval_batch(variables, source.feed(index, 1), jnp.int32(index))
        total = sums if total is None else merge(total, sums)
        parts.append(outputs)
        # Without this wait all batches are queued at once, and a stop is seen when all are done.
        jax.block_until_ready(total)
        if should_stop():
            return None
    assert total is not None  # a split has at least one example
    examples, columns = int(total["count"]), jax.device_get(parts)
    # What fills the last batch up stands at its end.
    outputs = {
        name: np.concatenate([part[name] for part in columns])[:examples] for name in columns[0]
    }
    measured = measure.of(outputs) if measure else {}
    if lacking := [name for name in task.measured if name not in measured]:
        raise UsageError(f"Task.measure={task.measure!r}: gives no {lacking[0]!r} (Task.measured).")
    return Evaluation(
        means={**measured, **means(total, task.metrics)},
        examples=examples,
        seconds=time.perf_counter() - started,
        outputs=outputs,
    )

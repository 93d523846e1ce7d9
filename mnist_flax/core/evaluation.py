"""An evaluation is a fold: every example of a split, counted once, divided once."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mnist_flax.core.chunk import Evaluated, nothing_evaluated
from mnist_flax.core.sums import means
from mnist_flax.core.task import Task, Variables
from mnist_flax.data.sources import Feed, Source
from mnist_flax.errors import UsageError

_CHUNK_SECONDS = 1.0  # after so long a stop is looked for


class Measure(NamedTuple):
    """What is measured of a whole evaluation, where no mean over examples says it.

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
    eval_chunk: Callable[[Evaluated, Variables, Feed, jax.Array, jax.Array], Evaluated],
    variables: Variables,
    source: Source,
    task: Task,
    should_stop: Callable[[], bool] = lambda: False,
    measure: Measure | None = None,
    agree: Callable[[Any], Any] = lambda value: value,
) -> Evaluation | None:
    """Evaluates a split: one batch, and then as many at once as take about a second.

    Args:
      eval_chunk: of core/chunk.py, compiled.
      variables: the task's.
      source: of the split; its last batch is filled up and masked.
      task: its metrics give the order of the means.
      should_stop: asked between them.
      measure: what is measured as well.
      agree: gives the first process's value in all of them: of what a clock or a host computes.

    Returns:
      The means and outputs, or None when it was stopped before the end.
    """
    started = time.perf_counter()
    so_far = nothing_evaluated(task, variables, source)
    index, count = 0, 1
    while index < source.steps_per_epoch:
        asked = time.perf_counter()
        feed = source.feed(index, count)
        so_far = eval_chunk(so_far, variables, feed, jnp.int32(index), jnp.int32(count))
        jax.block_until_ready(so_far)
        if should_stop():
            return None
        index += count
        fitting = int(count / (time.perf_counter() - asked) * _CHUNK_SECONDS)
        fitting = max(1, agree(fitting))
        count = min(source.steps_per_epoch - index, source.most_steps(index), fitting)
    examples = int(so_far.sums["count"])
    # What fills the last batch up stands at its end.
    outputs = {name: values[:examples] for name, values in jax.device_get(so_far.outputs).items()}
    measured = measure.of(outputs) if measure else {}
    measured = agree({name: float(value) for name, value in measured.items()})
    if lacking := [name for name in task.measured if name not in measured]:
        raise UsageError(f"Task.measure={task.measure!r}: gives no {lacking[0]!r} (Task.measured).")
    return Evaluation(
        means={**measured, **means(so_far.sums, task.metrics)},
        examples=examples,
        seconds=time.perf_counter() - started,
        outputs=outputs,
    )

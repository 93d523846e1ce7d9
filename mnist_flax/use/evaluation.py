"""How well a restored network does on a split."""

import jax
from ml_collections import ConfigDict

from mnist_flax.config import registry
from mnist_flax.core.chunk import make_eval_chunk
from mnist_flax.core.evaluation import Evaluation, Measure, evaluate
from mnist_flax.core.task import Task
from mnist_flax.data.dataset import Dataset, Split
from mnist_flax.data.feeding import eval_source
from mnist_flax.data.streamed_images import Images
from mnist_flax.use.restore import Restored


def find_measure(task: Task, config: ConfigDict, dataset: Dataset, images: Images) -> Measure:
    """Returns what the task has measured of an evaluation of these images, apart from its means.

    Args:
      task: names it.
      config: of the run.
      dataset: its data.
      images: uint8 [N, H, W, C], those that are evaluated; parts of them are taken.

    Raises:
      UsageError: there is no such function, or what it needs is missing.
    """
    if not task.measure:
        return Measure()
    return registry.resolve(task.measure, {}, "Task.measure")(config, dataset, images)


def evaluate_restored(
    restored: Restored, split: Split, measure: Measure | None = None
) -> Evaluation:
    """Evaluates a restored network on all images of a split."""
    source = eval_source(split, min(restored.config.batch_size, len(split.labels)))
    eval_chunk = jax.jit(
        make_eval_chunk(restored.task, source.draw),
        donate_argnames="so_far",
        compiler_options=restored.compiler_options,
    )
    result = evaluate(eval_chunk, restored.state.variables, source, restored.task, measure=measure)
    assert result is not None  # nothing stops it
    return result

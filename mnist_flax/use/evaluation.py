"""How well a restored network does on a split."""

import jax

from mnist_flax.core.chunk import make_eval_batch
from mnist_flax.core.evaluation import Evaluation, evaluate
from mnist_flax.data.dataset import Split
from mnist_flax.data.sources import eval_source
from mnist_flax.use.restore import Restored


def evaluate_restored(restored: Restored, split: Split) -> Evaluation:
    """Evaluates a restored network on all images of a split."""
    source = eval_source(split, min(restored.config.batch_size, len(split.labels)))
    eval_batch = jax.jit(make_eval_batch(restored.task, source.draw))
    result = evaluate(eval_batch, restored.state.variables, source, restored.task)
    assert result is not None  # nothing stops it
    return result

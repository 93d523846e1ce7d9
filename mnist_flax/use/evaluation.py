"""How well a restored network does on a split."""

import jax

from mnist_flax.core.evaluation import Evaluation, evaluate
from mnist_flax.data.dataset import Split
from mnist_flax.tasks.programs import make_eval_batch
from mnist_flax.use.restore import Restored


def evaluate_restored(restored: Restored, split: Split) -> Evaluation:
    """Evaluates a restored network on all images of a split."""
    images, labels = jax.device_put((split.images, split.labels))
    batch_size = min(restored.config.batch_size, len(labels))
    eval_batch = jax.jit(make_eval_batch(restored.model, batch_size))
    result = evaluate(
        lambda state, index: eval_batch(state, images, labels, index),
        restored.state,
        len(labels),
        batch_size,
    )
    assert result is not None  # nothing stops it
    return result

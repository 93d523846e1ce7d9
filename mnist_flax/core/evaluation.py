"""How well a network does on a split: every image, counted once."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from mnist_flax.core.metrics import Metrics
from mnist_flax.core.state import TrainState


@dataclass(frozen=True)
class Evaluation:
    """Means over all images of a split.

    Attributes:
      loss: softmax cross-entropy in nats.
      accuracy: the share of images whose most probable class is their label.
      examples: how many images.
      seconds: how long it took.
      classes: int32 [N], the most probable class of each image, in the order of the split.
    """

    loss: float
    accuracy: float
    examples: int
    seconds: float
    classes: np.ndarray

    def row(self) -> dict[str, float]:
        """Returns what an evaluation row holds: the numbers alone."""
        return {
            "loss": self.loss,
            "accuracy": self.accuracy,
            "examples": self.examples,
            "seconds": self.seconds,
        }


def evaluate(
    eval_batch: Callable[[TrainState, jax.Array], tuple[Metrics, jax.Array]],
    state: TrainState,
    num_examples: int,
    batch_size: int,
    should_stop: Callable[[], bool] = lambda: False,
) -> Evaluation | None:
    """Evaluates batch by batch, the last one padded and masked.

    Args:
      eval_batch: (state, index) -> Metrics and classes of the index-th batch, of this batch_size.
      state: its parameters and running statistics are used.
      num_examples: images in the split.
      batch_size: any; it need not divide num_examples.
      should_stop: asked after every batch.

    Returns:
      The means, or None when it was stopped before the end.
    """
    started = time.perf_counter()
    total, classes = Metrics.empty(), []
    for index in range(math.ceil(num_examples / batch_size)):
        metrics, batch_classes = eval_batch(state, jnp.int32(index))
        total = total.merge(metrics)
        classes.append(batch_classes)
        # Without this wait all batches are queued at once, and a stop is seen when all are done.
        jax.block_until_ready(total)
        if should_stop():
            return None
    seconds = time.perf_counter() - started
    return Evaluation(
        **total.compute(),
        examples=int(total.count),
        seconds=seconds,
        classes=np.concatenate(jax.device_get(classes))[:num_examples],
    )

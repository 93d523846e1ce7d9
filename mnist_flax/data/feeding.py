"""Which source feeds steps: that of images in memory, or that of images that are streamed."""

from ml_collections import ConfigDict

from mnist_flax.data import sources, streams
from mnist_flax.data.dataset import Dataset, Split
from mnist_flax.data.placement import ONE_DEVICE, Placement
from mnist_flax.data.sources import Source
from mnist_flax.data.streamed_images import StreamedImages


def train_source(config: ConfigDict, dataset: Dataset, placement: Placement = ONE_DEVICE) -> Source:
    """Returns where training batches come from: the same, bit for bit, of either source.

    Raises:
      UsageError: the batch of a stream cannot be cut among the devices.
    """
    if dataset.streamed:
        return streams.train_source(config, dataset, placement)
    return sources.train_source(config, dataset, placement)


def eval_source(split: Split, batch_size: int, placement: Placement = ONE_DEVICE) -> Source:
    """Returns where an evaluation's batches come from, likewise."""
    if isinstance(split.images, StreamedImages):
        return streams.eval_source(split, batch_size, placement)
    return sources.eval_source(split, batch_size, placement)

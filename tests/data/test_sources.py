"""Which examples a training batch holds: every epoch in an order of its own, of the seed alone."""

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mnist_flax.config import default_config
from mnist_flax.data.dataset import Dataset, Split
from mnist_flax.data.sources import train_source

COUNT, BATCH = 23, 5  # four batches, three examples over


def epochs(count: int, **changes: int | bool) -> list[list[int]]:
    """The labels of so many epochs, in the order that they come in; each is its image's number."""
    config: ConfigDict = default_config()
    config.batch_size, config.seed = BATCH, changes.get("seed", 0)
    config.data.shuffle = changes.get("shuffle", True)
    images = np.repeat(np.arange(COUNT, dtype=np.uint8), 16).reshape(COUNT, 4, 4, 1)
    split = Split(images, np.arange(COUNT, dtype=np.int32))
    source = train_source(config, Dataset("mnist", "nowhere", split, split, (), "", ()))
    told = []
    for step in range(count * source.steps_per_epoch):
        batch = jax.jit(source.draw)(source.feed(step, 1), jnp.int32(step))
        np.testing.assert_array_equal(batch.images[:, 0, 0, 0], batch.labels)
        told += batch.labels.tolist()
    return np.reshape(told, (count, -1)).tolist()


def test_no_example_comes_twice_in_an_epoch_and_epochs_differ() -> None:
    first, second, third = epochs(3)
    for epoch in (first, second, third):
        assert len(epoch) == 20
        assert len(set(epoch)) == 20
    assert first != second != third != first


def test_the_order_is_that_of_the_seed() -> None:
    assert epochs(2) == epochs(2)
    assert epochs(2) != epochs(2, seed=1)


def test_without_shuffling_it_is_that_of_the_files() -> None:
    assert epochs(2, shuffle=False) == [list(range(20))] * 2

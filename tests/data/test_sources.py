"""Which examples a training batch holds: every epoch in an order of its own, of the seed alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from mnist_flax.config import default_config
from mnist_flax.data.dataset import Dataset, Split
from mnist_flax.data.sources import balanced, train_source

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


def test_a_balanced_order_takes_turns_by_hand() -> None:
    labels = np.array([2, 2, 0, 2, 0, 2, 2])  # five of class 2, two of class 0, none of class 1
    order = jnp.array([6, 4, 0, 3, 2, 1, 5])
    # Class 0 in the order given: 4, 2, and again; class 2: 6, 0, 3, and so on.
    np.testing.assert_array_equal(balanced(order, labels), [4, 6, 2, 0, 4, 3, 2])


@pytest.mark.parametrize("extended", [False, True])
def test_a_balanced_epoch_has_every_class_as_often(extended: bool) -> None:
    config: ConfigDict = default_config()
    config.data.balance, config.data.extended, config.batch_size = True, extended, 12
    labels = np.repeat([0, 1, 2, 3], [90, 20, 5, 5]).astype(np.int32)
    images = np.arange(120, dtype=np.uint8).repeat(64).reshape(120, 8, 8, 1)
    split = Split(images, labels)
    dataset = Dataset("mnist", "nowhere", split, split, tuple("0123"), "", ())
    source = train_source(config, dataset)
    draw, seen, labelled = jax.jit(source.draw), [], []
    for step in range(2 * source.steps_per_epoch):
        batch = draw(source.feed(step, 1), jnp.int32(step))
        np.testing.assert_array_equal(batch.labels, labels[np.asarray(batch.index) % 120])
        labelled.append(np.bincount(batch.labels, minlength=4))
        seen.append(np.asarray(batch.index))
    np.testing.assert_array_equal(labelled, np.full((len(labelled), 4), 3))
    first, second = np.split(np.concatenate(seen), 2)
    frequent = first[labels[first % 120] == 0]
    assert len(set(frequent.tolist())) == len(frequent)  # none twice while there are others
    assert set(range(110, 120)) <= set((first % 120).tolist())  # every one of the rare
    assert not np.array_equal(first, second)

"""Sums over examples, and the one division that makes means of them."""

import jax.numpy as jnp
import numpy as np

from mnist_flax.core.sums import Sums, empty, means, merge


def summed(count: int, loss: float, correct: int) -> Sums:
    return {
        "count": jnp.int32(count),
        "loss": jnp.float32(loss),
        "accuracy": jnp.int32(correct),
    }


def test_a_mean_is_a_sum_over_its_examples() -> None:
    assert means(summed(8, 6.0, 7)) == {"loss": 0.75, "accuracy": 0.875}
    assert list(means(summed(8, 6.0, 7), ["accuracy", "other"])) == ["accuracy", "loss"]


def test_sums_of_unequal_batches_give_the_mean_of_all_examples() -> None:
    both = merge(summed(6, 3.0, 6), summed(2, 9.0, 0))
    assert means(both) == {"loss": 1.5, "accuracy": 0.75}


def test_nothing_changes_nothing_and_keeps_its_types() -> None:
    nothing = empty(summed(6, 3.0, 6))
    assert {name: leaf.dtype for name, leaf in nothing.items()} == {
        "count": np.int32,
        "loss": np.float32,
        "accuracy": np.int32,
    }
    assert means(merge(nothing, summed(6, 3.0, 6))) == means(summed(6, 3.0, 6))

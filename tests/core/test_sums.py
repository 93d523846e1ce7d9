"""Sums over examples, and the one division that makes means of them."""

import jax.numpy as jnp
import numpy as np

from mnist_flax.core.sums import Metric, Sums, empty, means, merge


def summed(count: int, loss: float, correct: int) -> Sums:
    return {
        "count": jnp.int32(count),
        "loss": jnp.float32(loss),
        "accuracy": jnp.int32(correct),
    }


def test_a_mean_is_a_sum_over_its_examples() -> None:
    assert means(summed(8, 6.0, 7)) == {"loss": 0.75, "accuracy": 0.875}
    metrics = {"accuracy": Metric(), "other": Metric()}
    assert list(means(summed(8, 6.0, 7), metrics)) == ["accuracy", "loss"]


def test_a_number_of_steps_is_not_divided_and_there_are_no_means_of_nothing() -> None:
    metrics = {"skipped": Metric(summed=True)}
    some = {**summed(8, 6.0, 7), "skipped": jnp.int32(3)}
    assert means(some, metrics) == {"skipped": 3, "loss": 0.75, "accuracy": 0.875}
    assert means({**summed(0, 0.0, 0), "skipped": jnp.int32(3)}, metrics) == {"skipped": 3}


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

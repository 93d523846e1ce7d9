"""The sums of a classification: over examples, divided once."""

import math

import jax
import jax.numpy as jnp
import made
import numpy as np
import pytest

from mnist_flax.core.sums import Sums, empty, means, merge
from mnist_flax.tasks.classification import sums_of

# -log softmax: both rows give their first class 3 of 4 parts.
LOGITS = jnp.log(jnp.array([[3.0, 1.0], [3.0, 1.0]]))
SURE, UNSURE = math.log(4 / 3), math.log(4)


def numbers(sums: Sums) -> tuple[float, int, int]:
    return float(sums["loss"]), int(sums["accuracy"]), int(sums["count"])


@pytest.mark.parametrize("classes", [2, 10])
def test_equal_logits_cost_the_log_of_the_number_of_classes(classes: int) -> None:
    metrics = sums_of(jnp.full((3, classes), 7.0), jnp.array([0, 1, 0]))
    assert means(metrics) == pytest.approx({"loss": math.log(classes), "accuracy": 2 / 3})


@pytest.mark.parametrize(
    ("labels", "mask", "expected"),
    [
        ([0, 0], None, (2 * SURE, 2, 2)),
        ([0, 1], None, (SURE + UNSURE, 1, 2)),
        ([1, 1], None, (2 * UNSURE, 0, 2)),
        ([0, 1], [True, False], (SURE, 1, 1)),
        ([0, 1], [False, True], (UNSURE, 0, 1)),
        ([0, 1], [False, False], (0.0, 0, 0)),
    ],
)
def test_sums_by_hand(labels: list[int], mask: list[bool] | None, expected: tuple) -> None:
    counted = None if mask is None else jnp.array(mask)
    metrics = sums_of(LOGITS, jnp.array(labels), counted)
    assert numbers(metrics) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_lies_in_the_padding_does_not_reach_the_sum(bad: float) -> None:
    logits = LOGITS.at[1].set(bad)
    metrics = sums_of(logits, jnp.array([0, 0]), jnp.array([True, False]))
    assert numbers(metrics) == pytest.approx((SURE, 1, 1), rel=1e-6)


def test_a_nan_in_an_example_does_reach_it() -> None:
    metrics = sums_of(LOGITS.at[1].set(np.nan), jnp.array([0, 0]))
    assert math.isnan(means(metrics)["loss"])


def test_merging_with_nothing_changes_no_bit() -> None:
    metrics = sums_of(LOGITS, jnp.array([0, 1]))
    for merged in (merge(metrics, empty(metrics)), merge(empty(metrics), metrics)):
        assert numbers(merged) == numbers(metrics)


def test_the_mean_is_of_examples_not_of_batches() -> None:
    # One batch of 3 with one hit, one of 1 with one hit: 2 of 4, where means of means give 2/3.
    first = sums_of(jnp.zeros((3, 2)), jnp.array([0, 1, 1]))
    second = sums_of(jnp.zeros((1, 2)), jnp.array([0]))
    assert means(merge(first, second))["accuracy"] == 0.5


def test_counts_are_exact_where_floats_are_not() -> None:
    many = made.sums(0, 2**24, 2**24)
    one = sums_of(jnp.zeros((1, 2)), jnp.array([0]))
    assert numbers(merge(many, one))[1:] == (2**24 + 1, 2**24 + 1)


def test_every_sum_has_one_type_with_a_mask_or_without() -> None:
    labels = jnp.array([0, 1])
    for metrics in (
        empty(sums_of(LOGITS, labels)),
        sums_of(LOGITS, labels),
        sums_of(LOGITS, labels, labels == 0),
        merge(empty(made.sums()), sums_of(LOGITS, labels)),
    ):
        leaves = jax.tree.leaves(metrics)
        types = {name: leaf.dtype.name for name, leaf in metrics.items()}
        assert types == {"loss": "float32", "accuracy": "int32", "count": "int32"}
        assert not any(leaf.weak_type for leaf in leaves)

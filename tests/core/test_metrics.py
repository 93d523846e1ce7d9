"""Sums over examples, divided once."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_flax.core.metrics import Metrics

# -log softmax: both rows give their first class 3 of 4 parts.
LOGITS = jnp.log(jnp.array([[3.0, 1.0], [3.0, 1.0]]))
SURE, UNSURE = math.log(4 / 3), math.log(4)


def sums(metrics: Metrics) -> tuple[float, int, int]:
    return float(metrics.loss_sum), int(metrics.correct), int(metrics.count)


@pytest.mark.parametrize("classes", [2, 10])
def test_equal_logits_cost_the_log_of_the_number_of_classes(classes: int) -> None:
    metrics = Metrics.from_logits(jnp.full((3, classes), 7.0), jnp.array([0, 1, 0]))
    assert metrics.compute() == pytest.approx({"loss": math.log(classes), "accuracy": 2 / 3})


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
    metrics = Metrics.from_logits(LOGITS, jnp.array(labels), counted)
    assert sums(metrics) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_lies_in_the_padding_does_not_reach_the_sum(bad: float) -> None:
    logits = LOGITS.at[1].set(bad)
    metrics = Metrics.from_logits(logits, jnp.array([0, 0]), jnp.array([True, False]))
    assert sums(metrics) == pytest.approx((SURE, 1, 1), rel=1e-6)


def test_a_nan_in_an_example_does_reach_it() -> None:
    metrics = Metrics.from_logits(LOGITS.at[1].set(np.nan), jnp.array([0, 0]))
    assert math.isnan(metrics.compute()["loss"])


def test_merging_with_nothing_changes_no_bit() -> None:
    metrics = Metrics.from_logits(LOGITS, jnp.array([0, 1]))
    for merged in (metrics.merge(Metrics.empty()), Metrics.empty().merge(metrics)):
        assert sums(merged) == sums(metrics)


def test_the_mean_is_of_examples_not_of_batches() -> None:
    # One batch of 3 with one hit, one of 1 with one hit: 2 of 4, where means of means give 2/3.
    first = Metrics.from_logits(jnp.zeros((3, 2)), jnp.array([0, 1, 1]))
    second = Metrics.from_logits(jnp.zeros((1, 2)), jnp.array([0]))
    assert first.merge(second).compute()["accuracy"] == 0.5


def test_counts_are_exact_where_floats_are_not() -> None:
    many = Metrics(jnp.float32(0), jnp.int32(2**24), jnp.int32(2**24))
    one = Metrics.from_logits(jnp.zeros((1, 2)), jnp.array([0]))
    assert sums(many.merge(one))[1:] == (2**24 + 1, 2**24 + 1)


def test_every_sum_has_one_type_with_a_mask_or_without() -> None:
    labels = jnp.array([0, 1])
    for metrics in (
        Metrics.empty(),
        Metrics.from_logits(LOGITS, labels),
        Metrics.from_logits(LOGITS, labels, labels == 0),
        Metrics.empty().merge(Metrics.from_logits(LOGITS, labels)),
    ):
        leaves = jax.tree.leaves(metrics)
        assert [leaf.dtype.name for leaf in leaves] == ["float32", "int32", "int32"]
        assert not any(leaf.weak_type for leaf in leaves)

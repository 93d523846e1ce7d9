"""Rows as columns: of what types, and what stands where a row has nothing."""

import numpy as np
import pytest

from mnist_flax.errors import UsageError
from mnist_flax.workdir.columns import columns, rows_of

ROWS = [
    {"step": 20, "split": "train", "loss": 0.25, "skipped_steps": 1, "late": 3},
    {"step": 10, "split": "train", "loss": 1, "skipped_steps": 0},
    {"step": 20, "event": "epoch", "message": "m", "rates": ["a"]},
    {"step": 30, "event": "epoch", "message": "n", "first": True, "why": "w", "rates": ["b"]},
]


def test_each_column_has_a_type_of_its_own_and_all_one_length() -> None:
    table = columns(rows_of(ROWS, "train"))
    assert list(table) == ["step", "split", "loss", "skipped_steps", "late"]
    assert {name: column.dtype.kind for name, column in table.items()} == {
        "step": "i",
        "split": "U",
        "loss": "f",
        "skipped_steps": "i",
        "late": "f",
    }
    assert table["step"].tolist() == [10, 20]  # in their order
    assert table["loss"].tolist() == [1.0, 0.25]
    np.testing.assert_array_equal(table["late"], [np.nan, 3.0])


def test_lists_and_what_is_missing_among_texts_are_objects() -> None:
    table = columns(rows_of(ROWS, "epoch"))
    assert table["rates"].shape == (2,)
    assert table["rates"].tolist() == [["a"], ["b"]]
    assert table["why"].tolist() == [None, "w"]
    assert table["first"].tolist() == [None, True]
    assert columns([{"step": 2**70}])["step"].tolist() == [2**70]
    assert columns([{"step": 1, "none": None}])["none"].tolist() == [None]


def test_other_names_are_refused_with_those_there_are() -> None:
    with pytest.raises(
        UsageError, match=r"rows\('evl'\): no such rows\. There are: train, epoch\."
    ):
        rows_of(ROWS, "evl")
    with pytest.raises(UsageError, match=r"There are none yet\."):
        rows_of([], "eval")

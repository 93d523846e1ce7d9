"""What is looked at beside the rows, and when."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from conftest import rows
from ml_collections import ConfigDict

from mnist_flax.errors import UsageError
from mnist_flax.show.observers import Context
from mnist_flax.training import train

SEEN: list[tuple[str, int, Mapping[str, Any], Context]] = []


def remember(event: str, step: int, row: Mapping[str, Any], context: Context) -> None:
    SEEN.append((event, step, row, context))
    if event == "eval":
        context.say("remembered", "An evaluation was seen.", right=int(_right(context)))
    if event == "train":
        last = jax.device_get(context.last_batch())
        assert last.sums["count"] == 6


def _right(context: Context) -> int:
    return (context.outputs["classes"] == context.outputs["labels"]).sum()


no_function = 7


@pytest.fixture
def watched(tiny_config: ConfigDict) -> ConfigDict:
    SEEN.clear()
    tiny_config.observers = (f"{__name__}:remember",)
    return tiny_config


def test_an_observer_of_ones_own_is_called_at_every_event(watched, tmp_path: Path) -> None:
    train(watched, tmp_path)
    told = [(event, step) for event, step, _, _ in SEEN if event != "saved"]
    assert told == [
        *(("train", 1), ("train", 10), ("evaluated", 16), ("eval", 16), ("epoch", 17)),
        *(("train", 20), ("train", 30), ("evaluated", 32), ("eval", 32), ("epoch", 34)),
        *(("train", 40), ("evaluated", 40), ("eval", 40), ("ended", 40)),
    ]
    saved = [step for event, step, _, _ in SEEN if event == "saved"]
    assert saved == list(range(4, 41, 4))
    written = [row for row in rows(tmp_path, timed=True) if row["split"] == "eval"]
    for (_, step, row, context), line in zip(
        [seen for seen in SEEN if seen[0] == "eval"], written, strict=True
    ):
        assert {**row, "step": step}.items() <= line.items()
        assert _right(context) / 37 == pytest.approx(row["accuracy"])
        assert len(context.outputs["classes"]) == 37


def test_what_it_says_stands_in_the_rows_and_changes_no_bit(watched, tmp_path: Path) -> None:
    seen = train(watched, tmp_path / "seen")
    watched.observers = ()
    unseen = train(watched, tmp_path / "unseen")
    jax.tree.map(np.testing.assert_array_equal, seen, unseen)
    lines = map(json.loads, (tmp_path / "seen/metrics.jsonl").read_text().splitlines())
    said = [row for row in lines if row.get("event") == "remembered"]
    assert [row["step"] for row in said] == [16, 32, 40]
    assert said[0]["message"] == "An evaluation was seen."


def test_another_observer_is_no_obstacle_to_going_on(watched, tmp_path: Path, capsys) -> None:
    watched.num_steps = 4
    train(watched, tmp_path)
    watched.num_steps, watched.observers = 8, ()
    assert int(train(watched, tmp_path).step) == 8
    assert "config.observers was" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("lost_clases", "config.observers='lost_clases': unknown. Did you mean 'lost_classes'?"),
        (f"{__name__}:no_function", f"config.observers: '{__name__}:no_function' is no function"),
    ],
)
def test_an_unknown_observer_is_told_before_anything_begins(watched, tmp_path, name, told) -> None:
    watched.observers = (name,)
    with pytest.raises(UsageError) as caught:
        train(watched, tmp_path / "run")
    assert told in str(caught.value)
    assert not (tmp_path / "run").exists()

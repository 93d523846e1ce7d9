"""Accuracy and cost of finished runs, on tiny ones whose figures are counted here once more."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, TESTS, rows
from ml_collections import ConfigDict

from mnist_flax.training import train

BENCHMARK = ROOT / "benchmarks/accuracy.py"


def ask(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARK), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}  # where TinyNet lies
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.mark.slow
@pytest.mark.promise
def test_runs_are_counted_together(tiny_config: ConfigDict, tmp_path: Path) -> None:
    for seed in (0, 1):
        tiny_config.seed = seed
        train(tiny_config, tmp_path / f"tiny-{seed}")
    tiny_config.num_steps = 8
    train(tiny_config, tmp_path / "short-0")
    done = ask(tmp_path, "short=short-*", "tiny=tiny-*", "--output=out.json")
    assert done.returncode == 0, done.stderr

    short, tiny = json.loads((tmp_path / "out.json").read_text())["recipes"]
    last = [rows(tmp_path / f"tiny-{seed}")[-1] for seed in (0, 1)]
    assert tiny["seeds"] == [0, 1]
    assert tiny["accuracies"] == pytest.approx([row["accuracy"] for row in last])
    assert tiny["mean"] == pytest.approx(sum(row["accuracy"] for row in last) / 2)
    # Wilson (1927): the roots of (share - mean)² = 1.96² · mean · (1 - mean) / images.
    count = tiny["images"]
    share = round(tiny["mean"] * count) / count
    for end in tiny["interval"]:
        spread = 1.959964 * math.sqrt(end * (1 - end) / count)
        assert abs(share - end) == pytest.approx(spread, abs=1e-6)
    timed = rows(tmp_path / "short-0", timed=True)
    seconds, step = 0.0, 0
    for row in timed:
        if row["split"] == "train":
            seconds, step = seconds + (row["step"] - step) / row["steps_per_second"], row["step"]
        else:
            seconds += row["seconds"]
    assert short["seconds"] == [pytest.approx(seconds)]
    assert "p" not in short
    assert 0 < tiny["p"] <= 1
    assert short["answer_ms"] > 0
    assert f"| `tiny`  | 2     | {tiny['mean']:.4f}" in done.stdout


def test_runs_that_are_not_there(tmp_path: Path) -> None:
    done = ask(tmp_path, "best=nowhere-*")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "Error: best=nowhere-*: no finished run. Give NAME=GLOB, such as best='runs/best-*'.\n"
    )

"""A network trained for a minute or two on MNIST reads digits that nobody of MNIST has written."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT, launch_command, launch_environment
from drawings import drawings

AUGMENT = "'random_rotation','random_scaling','random_shift'"


def launched(*arguments: str) -> str:
    """What a launch prints, LLVM's optimizations on: this one trains for more than a few steps."""
    environment = {
        key: value for key, value in launch_environment(compiles=True).items() if key != "XLA_FLAGS"
    }
    done = subprocess.run(
        launch_command(*arguments), env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("MNIST_DIR"), reason="needs MNIST_DIR: the four IDX files")
def test_nine_in_ten_drawings_are_read_and_the_others_are_listed(tmp_path: Path) -> None:
    launched(
        f"--config={ROOT / 'configs/speedrun.py'}",
        f"--workdir={tmp_path / 'run'}",
        f"--config.data.data_dir={os.environ['MNIST_DIR']}",
        f"--config.augment.order={AUGMENT}",
        "--config.num_steps=1500",
        "--config.eval_every_steps=1500",
        "--config.checkpoint_every_steps=1500",
    )
    drawn = list(drawings())
    files = [tmp_path / drawing.name for drawing in drawn]
    for drawing, file in zip(drawn, files, strict=True):
        drawing.picture.save(file)
    told = launched(f"--workdir={tmp_path / 'run'}", "--mode=predict", *map(str, files))
    rows = [json.loads(line) for line in told.splitlines()]
    wrong = [
        f"{drawing.name}: taken for {row['classes']} ({max(row['probabilities']):.2f})"
        for drawing, row in zip(drawn, rows, strict=True)
        if row["classes"] != drawing.digit
    ]
    print(f"{len(drawn) - len(wrong)} of {len(drawn)} are read.", *wrong, sep="\n")
    assert len(drawn) >= 30
    assert {drawing.digit for drawing in drawn} == set(range(10))
    assert len(wrong) <= len(drawn) / 10, wrong

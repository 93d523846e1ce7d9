"""Networks of data that are no digits answer to pictures as well as they were trained."""

import json
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TESTS
from conftest import rows as rows_of
from own_data import write_folders
from PIL import Image
from tiny import get_config

from mnist_flax.training import train

Launch = Callable[..., subprocess.CompletedProcess[str]]
STEPS = 150
# Of how many pictures how many must be right, at least.
KINDS = {"dark on white": (200, 185), "place": (100, 100), "clothes": (40, 40), "hues": (30, 30)}


@pytest.mark.slow
@pytest.mark.promise
@pytest.mark.parametrize("kind", list(KINDS)[:3])
def test_a_network_is_as_right_on_picture_files_as_it_was_trained_to_be(
    launch: Launch, tmp_path: Path, kind: str
) -> None:
    count, least = KINDS[kind]
    files = write_folders(tmp_path / "data", kind, 240, count)
    config = get_config()
    config.batch_size = 24
    config.num_steps = config.eval_every_steps = config.checkpoint_every_steps = STEPS
    config.data.data_dir = str(tmp_path / "data")
    train(config, tmp_path / "run")
    done = launch("--workdir=run", "--mode=predict", *(str(path) for path, _ in files))
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    right = [row["class_name"] == name for row, (_, name) in zip(rows, files, strict=True)]
    assert sum(right) >= least
    assert sum(right) == round(rows_of(tmp_path / "run")[-1]["accuracy"] * count)
    assert done.stderr.count("Pictures (as the training data are): scaled to 28×28 pixels") == 1
    kept = json.loads((tmp_path / "run/config.json").read_text())["dataset"]["preparation"]
    ground = "light" if kind == "dark on white" else "dark"
    assert kept == {"layout": "size", "ground": ground}


@pytest.mark.slow
@pytest.mark.promise
def test_the_next_command_that_training_prints_works_for_colour_of_another_size(
    launch: Launch, tmp_path: Path
) -> None:
    count, least = KINDS["hues"]
    files = write_folders(tmp_path / "data", "hues", 60, count)
    settings = {"batch_size": 12, "num_steps": STEPS, "data.data_dir": tmp_path / "data"}
    done = launch(
        f"--config={TESTS / 'tiny.py'}",
        "--workdir=run",
        *(f"--config.{field}={value}" for field, value in settings.items()),
    )
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("Ask it with: "))
    command = shlex.split(line.partition(":")[2])
    assert command[-1] == "PICTURE.png"
    asked = launch(*command[2:-1], *(str(path) for path, _ in files))
    assert asked.returncode == 0, asked.stderr
    rows = [json.loads(line) for line in asked.stdout.splitlines()]
    assert (
        sum(row["class_name"] == name for row, (_, name) in zip(rows, files, strict=True)) >= least
    )

    Image.new("RGB", (300, 200), (200, 20, 20)).save(tmp_path / "PICTURE.png")
    asked = launch(*command[2:])
    assert asked.returncode == 0, asked.stderr
    row = json.loads(asked.stdout)
    assert (row["class_name"], row["prepared"]) == ("kind-0", ["scaled from 300x200 to 10x12"])
    assert "PICTURE.png: scaled from 300x200 to 10x12" in asked.stderr.splitlines()


@pytest.mark.slow
@pytest.mark.promise
def test_center_overrides_what_the_data_say(launch: Launch, tmp_path: Path) -> None:
    files = write_folders(tmp_path / "data", "place", 24, 1)
    config = get_config()
    config.num_steps = config.eval_every_steps = config.checkpoint_every_steps = 4
    config.data.data_dir = str(tmp_path / "data")
    train(config, tmp_path / "run")
    told = {"true": "centred by mass in 28×28", "false": "taken as they are, 28×28 pixels in grey"}
    for center, words in told.items():
        file = str(files[0][0])
        done = launch("--workdir=run", "--mode=predict", f"--center={center}", file)
        assert done.returncode == 0, done.stderr
        assert "Pictures (--center): " in done.stderr
        assert words in done.stderr
    pair = Image.new("L", (90, 60), 255)
    for left in (20, 50):
        pair.paste(0, (left, 15, left + 6, 45))
    pair.save(tmp_path / "pair.png")
    done = launch("--workdir=run", "--mode=predict", "--center=true", "pair.png")
    assert done.returncode == 0, done.stderr
    assert "pair.png: Warning: several drawings stand side by side" in done.stderr
    assert "warning" in json.loads(done.stdout)

"""A run goes on wherever it is taken up: other devices, processes, and where its images lie."""

import subprocess
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from conftest import TESTS, launch_command, launch_environment
from pair import Pair
from PIL import Image

from mnist_flax.data.idx import read_idx

pytestmark = pytest.mark.distributed

BATCH, IMAGES = 8, 105


@pytest.fixture
def pictures(digits: Path, tmp_path: Path) -> Path:
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images = read_idx(digits / f"{prefix}-images-idx3-ubyte.gz")
        labels = read_idx(digits / f"{prefix}-labels-idx1-ubyte.gz")
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            place = tmp_path / "pictures" / split / str(label)
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place / f"{number:03}.png")
    return tmp_path / "pictures"


def test_one_device_eight_two_processes_and_a_stream(pictures: Path, tmp_path: Path) -> None:
    environment = launch_environment() | {
        "JAX_ENABLE_X64": "1",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }

    def command(workdir: str, steps: int, *more: str) -> list[str]:
        return launch_command(
            f"--config={TESTS / 'tiny_wide.py'}",
            "--config.data.name=pictures",
            f"--config.data.data_dir={pictures}",
            f"--workdir={tmp_path / workdir}",
            f"--config.num_steps={steps}",
            f"--config.batch_size={BATCH}",
            *more,
        )

    def alone(devices: int, *launch: str) -> str:
        done = subprocess.run(
            launch,
            env=environment | {"JAX_NUM_CPU_DEVICES": str(devices)},
            stderr=subprocess.PIPE,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return done.stderr

    alone(1, *command("undisturbed", 40))
    alone(1, *command("journey", 9))
    said = alone(8, *command("journey", 20))
    assert "Resumed at step 9 " in said
    assert "device was 1 × cpu, is 8 × cpu. " in said
    commands = {0: command("journey", 30), 1: command("second", 30)}
    statuses, told = Pair(commands, environment).end()
    assert statuses == [0, 0], told
    assert "device was 8 × cpu, is 2 × cpu. " in told[0]
    said = alone(1, *command("journey", 40, "--config.data.stream=true"))
    assert "Resumed at step 30 " in said
    assert "config.data.stream was False, is True. " in said

    ours, theirs = (state_of(tmp_path / name, 40) for name in ("journey", "undisturbed"))
    assert ours.keys() == theirs.keys()
    seen = ours["variables.seen.times"]
    assert seen.sum() == 40 * BATCH
    np.testing.assert_array_equal(seen, theirs["variables.seen.times"])
    epochs = 40 // (IMAGES // BATCH)  # whole ones, each of which leaves three images out
    assert seen.max() <= epochs + 1
    assert (epochs - seen).clip(0).sum() <= 3 * epochs
    for name, values in theirs.items():
        np.testing.assert_allclose(ours[name], values, rtol=1e-9, atol=1e-12, err_msg=name)


def state_of(workdir: Path, step: int) -> dict[str, np.ndarray]:
    """Every leaf of a save, by its path, as Orbax alone reads it."""
    path = workdir / "checkpoints/latest" / str(step) / "state"
    with ocp.StandardCheckpointer() as reader:
        tree = jax.tree_util.tree_leaves_with_path(reader.restore(path))
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf)
        for path, leaf in tree
    }

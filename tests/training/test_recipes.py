"""Every recipe of configs/ from the outside: it trains, goes on to the bit, evaluates, predicts."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import jax
import numpy as np
import pytest
from conftest import ROOT, TAKING, events, recipe, rows
from PIL import Image

from mnist_flax.config import overridden
from mnist_flax.data import load
from mnist_flax.data.sample import read_sample
from mnist_flax.training import train
from mnist_flax.use.restore import restore

Launch = Callable[..., CompletedProcess[str]]
CLASSIFYING = (
    *("tutorial", "adam", "lenet", "lenet_augmented", "rmsprop", "speedrun", "fast995", "best"),
)
DRAWING = ("vae", "dcgan", "dcgan_fast")  # each has a test of its own in tests/tasks
RECIPES = (*CLASSIFYING, *DRAWING)

# 240 digits, so that an epoch of four batches ends inside the run (of 24 with the extended set).
SMALL: dict[str, Any] = {
    "data.name": "mnist_sample",
    "data.train_split": "train[:240]",
    "data.eval_split": "test[:70]",
    "batch_size": 60,
    "num_steps": 6,
    "log_every_steps": 2,
    "eval_every_steps": 3,
    "checkpoint_every_steps": 2,
    "log_probabilities": True,
}


def test_every_recipe_is_here() -> None:
    stems = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
    assert stems == sorted((*RECIPES, *TAKING))


@pytest.mark.slow  # 15 to 30 s each; test_golden.py has what is first computed in each
@pytest.mark.parametrize("name", CLASSIFYING)
def test_a_recipe_trains_resumes_evaluates_and_predicts(
    name: str, launch: Launch, tmp_path: Path
) -> None:
    straight, cut = tmp_path / "straight", tmp_path / "cut"
    config, _ = overridden(recipe(name), SMALL)
    train(config, straight)
    train(config, cut, should_stop=lambda: any(row["step"] == 2 for row in rows(cut)))

    flags = [f"--config={ROOT / 'configs' / name}.py", f"--workdir={cut}"]
    values = [f"--config.{field}={value}" for field, value in SMALL.items()]
    done = launch(*flags, *values)
    assert done.returncode == 0, done.stderr
    assert "Resumed at step 2" in done.stderr
    for one, other in zip(_leaves(straight), _leaves(cut), strict=True):
        assert one.dtype == other.dtype
        assert one.tobytes() == other.tobytes()
    assert rows(cut) == rows(straight)
    for kind in ("epoch", "probabilities"):
        assert events(cut, kind) == events(straight, kind)
    assert len(events(cut, "epoch")) == (0 if name == "lenet_augmented" else 1)  # 24 steps, or 4
    assert len(events(cut, "probabilities")) == 4
    assert events(cut, "predictions") == events(straight, "predictions")

    done = launch(f"--workdir={cut}", "--mode=eval")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["accuracy"] == rows(cut)[-1]["accuracy"]
    digit = read_sample().splits["test"].images[7, :, :, 0]
    Image.fromarray(digit).save(tmp_path / "7.png")
    done = launch(f"--workdir={cut}", "--mode=predict", "--center=false", str(tmp_path / "7.png"))
    assert done.returncode == 0, done.stderr
    assert sum(json.loads(done.stdout)["probabilities"]) == pytest.approx(1.0)


def _leaves(workdir: Path) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(restore(workdir, "latest", {}).state)]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_takes_the_sample_whole_where_its_split_does_not_fit(name: str) -> None:
    config, _ = overridden(recipe(name), {"data.name": "mnist_sample"})
    dataset = load(config.data)
    assert (len(dataset.train.labels), len(dataset.eval.labels)) == (4000, 1000)
    beyond = "is beyond the 4,000 digits that the mnist_sample has in 'train'"
    expected = {"adam": ["train_split='train[5000:]'"], "rmsprop": ["train_split='train[5000:]'"]}
    expected["dcgan"] = expected["adam"]
    expected["dcgan_fast"] = ["train_split='train[:55000]'", "select_split='train[55000:]'"]
    for note, told in zip(dataset.notes, expected.get(name, []), strict=True):
        assert note.startswith(f"config.data.{told} {beyond}: ")


def test_the_sizes_on_the_full_mnist() -> None:
    """Steps an epoch, as the tutorials have them: 60,000 and 55,000 images, extended or not."""
    examples = {"tutorial": 60_000, "adam": 55_000, "lenet": 60_000, "rmsprop": 55_000}
    examples["lenet_augmented"] = 6 * 60_000
    steps = {name: count // recipe(name).batch_size for name, count in examples.items()}
    assert steps == {
        "tutorial": 600,
        "adam": 429,
        "lenet": 468,
        "lenet_augmented": 2812,
        "rmsprop": 429,
    }

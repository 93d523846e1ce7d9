"""A user's own model, optimizer and augmentation, named from a config file of the user's."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from conftest import ROOT, rows

Launch = Callable[..., CompletedProcess[str]]

PIECES = """
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn


class Net(nn.Module):
    num_classes: int = 10
    width: int = 8

    @nn.compact
    def __call__(self, images, *, train=False):
        x = nn.relu(nn.Conv(self.width, (3, 3), name="conv")(images))
        x = nn.max_pool(x, (2, 2), (2, 2)).reshape(len(x), -1)
        x = nn.Dropout(0.1, deterministic=not train)(x)
        return nn.Dense(self.num_classes, name="logits")(x)


def slow_sgd(learning_rate, factor):
    return optax.chain(optax.scale(factor), optax.sgd(learning_rate))


def salt(key, images, *, share):
    grains = jax.random.bernoulli(key, share, images.shape)
    return jnp.where(grains, jnp.uint8(255), images)
"""

CONFIG = """
from ml_collections import ConfigDict

from mnist_flax.config import default_config

def get_config():
    config = default_config()
    config.model = ConfigDict({"name": "pieces:Net", "width": 6})
    config.optimizer = ConfigDict(
        {"name": "pieces:slow_sgd", "learning_rate": 0.5, "factor": 0.2}
    )
    config.augment = ConfigDict(
        {
            "order": ("random_shift", "pieces:salt"),
            "random_shift": {"max_pixels": 1},
            "salt": {"share": 0.02},
        }
    )
    config.batch_size = 20
    config.num_steps = 12
    config.data.name = "mnist_sample"
    config.data.train_split = "train[:200]"
    config.data.eval_split = "test[:50]"
    return config
"""


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder outside the repository, and not the one that the command is given in."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "pieces.py").write_text(PIECES)
    (folder / "config.py").write_text(CONFIG)
    return folder


@pytest.mark.slow
@pytest.mark.promise
def test_they_train_resume_and_are_restored(launch: Launch, folder: Path, tmp_path: Path) -> None:
    assert ROOT not in folder.parents
    flags = (f"--config={folder / 'config.py'}", "--workdir=run")
    done = launch(*flags, "--config.num_steps=5")
    assert done.returncode == 0, done.stderr
    done = launch(*flags)
    assert done.returncode == 0, done.stderr
    assert "Resumed at step 5" in done.stderr
    assert "float32[1,28,28,6]" in done.stderr  # the width that the config gives
    train_rows = [row for row in rows(tmp_path / "run") if row["split"] == "train"]
    assert train_rows[-1]["step"] == 12
    assert train_rows[-1]["loss"] < train_rows[0]["loss"]
    done = launch(*flags, "--mode=eval")
    assert done.returncode == 0, done.stderr


FAULTS = {
    "the model": (
        "images, *, train=False):\n        x",
        "images, *, train=False):\n        images = images @ 7\n        x",
        "config.model.name='pieces:Net' fails on images [1, 28, 28, 1]: ",
        "images = images @ 7",
    ),
    "the optimizer, when it is made": (
        "optax.scale(factor)",
        "optax.sclae(factor)",
        "config.optimizer.name='pieces:slow_sgd': ",
        "optax.sclae(factor)",
    ),
    "the optimizer, when it is used": (
        "optax.scale(factor), ",
        "optax.stateless(lambda u, p: u + 1), ",
        "config.optimizer.name='pieces:slow_sgd' fails on the model's parameters: ",
        "lambda u, p: u + 1",
    ),
    "the augmentation": (
        "images.shape)",
        "images.shpae)",
        "config.augment.order: 'pieces:salt' fails on images [2, 28, 28, 1]: ",
        "images.shpae",
    ),
    "the file": ("import optax", "import optax as", "config.model.name='pieces:Net': ", "optax as"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_told_with_its_file_and_line(
    launch: Launch, folder: Path, tmp_path: Path, name: str
) -> None:
    right, wrong, beginning, faulty = FAULTS[name]
    file = folder / "pieces.py"
    text = PIECES.replace(right, wrong, 1)
    assert text != PIECES
    file.write_text(text)
    done = launch(f"--config={folder / 'config.py'}", "--workdir=run")
    number = next(i for i, line in enumerate(text.splitlines(), start=1) if faulty in line)
    assert done.returncode == 2, done.stderr
    assert f"{beginning}{file}, line {number}: " in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_several_faults_are_told_at_once(launch: Launch, folder: Path) -> None:
    text = CONFIG.replace('"width"', '"widht"').replace('"factor"', '"fcator"')
    (folder / "config.py").write_text(text.replace('"share"', '"shrae"'))
    done = launch(f"--config={folder / 'config.py'}", "--workdir=run")
    assert done.returncode == 2, done.stderr
    for told in (
        "config.model.widht: 'pieces:Net' has no such field. Did you mean 'width'?",
        "config.optimizer.fcator: 'pieces:slow_sgd' takes no such argument. Did you mean 'factor'?",
        "config.augment.salt: 'pieces:salt' is called with (key, images) and shrae=0.02: ",
    ):
        assert told in done.stderr

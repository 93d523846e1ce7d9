"""--config and its overrides: how often the file is executed, and which values a run is given."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from conftest import ROOT, TESTS

Launch = Callable[..., CompletedProcess[str]]
TINY = f"--config={TESTS / 'tiny.py'}"

COUNTED = """
from pathlib import Path

import tiny


def note(what):
    with Path(__file__).with_name("executed").open("a") as file:
        print(what, file=file)


def get_config():
    note("get_config()")
    config = tiny.get_config()
    config.num_steps = 2
    return config


note("the file")
"""


@pytest.fixture(scope="module")
def trained(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a run of 2 steps."""
    from tiny import get_config

    from mnist_flax.training import train

    config = get_config()
    config.data.data_dir = str(digits)
    config.num_steps = 2
    workdir = tmp_path_factory.mktemp("trained")
    train(config, workdir)
    return workdir


STARTS = {
    "training, and its report": (
        ["--workdir=run", "--config.data.data_dir={digits}", "--report"],
        0,
    ),
    "--mode=eval": (["--workdir={trained}", "--mode=eval"], 0),
    "three overrides": (
        [
            *("--workdir={trained}", "--mode=eval", "--config.data.data_dir={digits}"),
            *("--config.batch_size=5", "--config.data.eval_split=test[:11]"),
        ],
        0,
    ),
    "two faults": (["--config.num_step=3", "--config.seed=x"], 2),
}


@pytest.mark.parametrize("name", STARTS)
def test_a_recipe_is_executed_once(
    launch: Launch, digits: Path, trained: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "counted.py").write_text(COUNTED)
    arguments, status = STARTS[name]
    filled = (argument.format(digits=digits, trained=trained) for argument in arguments)
    done = launch("--config=counted.py", *filled)
    assert done.returncode == status, done.stderr
    assert (tmp_path / "executed").read_text() == "the file\nget_config()\n"


def test_every_way_to_write_an_override(launch: Launch, digits: Path, tmp_path: Path) -> None:
    (tmp_path / "more.flags").write_text("--config.keep_checkpoints=3\n--workdir=run\n")
    done = launch(
        *("--config.seed", "3", "-config", str(TESTS / "tiny.py"), "-config.num_steps=1"),
        *("--noconfig.data.shuffle", "--config.log_probabilities", "--flagfile=more.flags"),
        *("--config.augment.order=random_shift", "--config.augment.order=random_rotation"),
        *("--config.clip_by_global_norm=5", f"--config.data.data_dir={digits}"),
        *("--config.batch_size=4", "--config.batch_size=5"),
    )
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "run/config.json").read_text())["config"]
    assert (config["seed"], config["num_steps"], config["keep_checkpoints"]) == (3, 1, 3)
    assert config["data"]["shuffle"] is False
    assert config["log_probabilities"] is True
    assert config["augment"]["order"] == ["random_shift", "random_rotation"]
    assert config["clip_by_global_norm"] == 5.0
    assert config["batch_size"] == 5


def test_the_last_recipe_counts(launch: Launch) -> None:
    last = f"--config={ROOT / 'configs/tutorial.py'}"
    done = launch("--config=nosuch.py", TINY, last, "--config.model.dropout_rate=much")
    assert done.returncode == 2
    assert done.stderr == "Error: --config.model.dropout_rate=much: the value must be a number.\n"
    done = launch(TINY, last, "--config.model.dropout_rate=0.5", "--mode=eval")
    assert "comes from runs/tutorial/config.json" in done.stderr  # the folder is named after it


def test_a_flag_file_names_the_recipe(launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "my.flags").write_text(f"{TINY}\n--config.batch_size=0\n")
    done = launch("--flagfile=my.flags")
    assert done.returncode == 2
    assert done.stderr == "Error: config.batch_size=0: must be at least 1.\n"
    done = launch("--flagfile=nosuch.flags")
    assert done.returncode == 2
    assert "nosuch.flags" in done.stderr
    assert "Traceback" not in done.stderr

"""--config and its overrides: how often the file is executed, and which values a run is given."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from conftest import ROOT, TESTS

from mnist_flax.config import flatten

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


@pytest.mark.slow
@pytest.mark.promise
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
    assert "runs/tutorial/config.json: not found" in done.stderr  # the folder is named after it


def test_a_flag_file_names_the_recipe(launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "my.flags").write_text(f"{TINY}\n--config.batch_size=0\n")
    done = launch("--flagfile=my.flags")
    assert done.returncode == 2
    assert done.stderr == "Error: config.batch_size=0: must be at least 1.\n"
    done = launch("--flagfile=nosuch.flags")
    assert done.returncode == 2
    assert "nosuch.flags" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "more"),
    [("config.json", " A run goes on with the recipe that it was made with."), ("notes.txt", "")],
)
def test_a_recipe_is_python(name: str, more: str, called: Launch, tmp_path: Path) -> None:
    (tmp_path / name).write_text("{}")
    done = called(f"--config={name}")
    assert done.returncode == 2
    told = f"must be a Python file (.py) that has get_config().{more}"
    assert done.stderr == f"Error: --config={name}: {told}\n"


OWN = """
import tiny


def salt(key, images, share, light=255):
    return images


def get_config():
    config = tiny.get_config()
    config.model = {"name": "compact"}
    config.optimizer = {"name": "sgd", "learning_rate": 0.01}
    config.augment.order = ("own:salt",)
    config.num_steps = 1
    return config
"""
ADDED = {
    "--config.optimizer.momentum=0.5": ("optimizer.momentum", 0.5),
    "--config.optimizer.nesterov=true": ("optimizer.nesterov", True),
    "--config.model.features=(4,6)": ("model.features", [4, 6]),
    "--config.model.shifted_views=False": ("model.shifted_views", False),
    "--config.augment.salt.share=0.1": ("augment.salt.share", 0.1),
    "--config.augment.salt.light=200": ("augment.salt.light", 200),
}


def test_a_field_may_be_added_where_fields_are_passed_on(
    launch: Launch, digits: Path, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(OWN)
    data = f"--config.data.data_dir={digits}"
    done = launch("--config=own.py", "--workdir=run", data, *ADDED)
    assert done.returncode == 0, done.stderr
    config = flatten(json.loads((tmp_path / "run/config.json").read_text())["config"])
    for field, value in ADDED.values():
        assert (config[field], type(config[field])) == (value, type(value))
    # The same command goes on, and does with another mode behind it.
    for more in ((), ("--mode=eval",), ("--mode=export",)):
        done = launch("--config=own.py", "--workdir=run", data, *ADDED, *more)
        assert done.returncode == 0, done.stderr
    done = launch("--config=own.py", "--workdir=run", "--config.seed=7", "--mode=eval")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: config.seed=7: the run in run was trained with 0, ")


@pytest.mark.parametrize(
    ("flag", "told"),
    [
        ("optimizer.momentun=0.5", "config.optimizer.momentun: 'sgd' takes no such argument. Did"),
        ("optimizer.momentum=high", "config.optimizer.momentum='high': must be a number"),
        ("model.feature=3", "config.model.feature: 'compact' has no such field. Did you mean 'fea"),
        ("model.features=3", "config.model.features=3: must be a tuple of positive whole"),
        ("schedule.decay=3", "config.schedule.decay: 'constant_schedule' takes no such"),
        ("task.judge=x", "config.task.judge: the task 'classification' has no such field. It has"),
        (
            "augment.salt.shares=1",
            "config.augment.salt: 'own:salt' is called with (key, images) an",
        ),
        ("augment.sald.share=1", "config.augment.sald: config.augment.order names no such func"),
    ],
)
def test_what_the_function_does_not_take(
    flag: str, told: str, called: Launch, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(OWN)
    done = called("--config=own.py", f"--config.{flag}", "--config.augment.salt.share=0.1")
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("flag", "told"),
    [
        ("--config.model.extra.deep=3", "--config.model.extra.deep: no such field."),
        ("--config.extra=3", "--config.extra: no such field."),
        ("--config.data.extra=3", "--config.data.extra: no such field."),
        ("--config.optimizer.momentum", "--config.optimizer.momentum: is no field yet; give it a"),
        ("--noconfig.optimizer.nesterov", "--config.optimizer.nesterov: is no field yet; give it"),
        ("--noconfig.data.shuffle=3", "--noconfig.data.shuffle=3: says false: without a value, of"),
        ("--noconfig.seed", "--noconfig.seed: says false: without a value, of what is true or f"),
    ],
)
def test_what_no_flag_says(flag: str, told: str, called: Launch) -> None:
    done = called(TINY, flag)
    assert done.returncode == 2
    assert done.stderr.startswith(f"Error: {told}")

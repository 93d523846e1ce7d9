"""Bad input: one clear line (or one a fault), a status that is not zero, and nothing lost."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from conftest import ROOT, TESTS

from mnist_flax.data.idx import write_idx
from mnist_flax.workdir.lock import locked

Launch = Callable[..., CompletedProcess[str]]
TUTORIAL = f"--config={ROOT / 'configs/tutorial.py'}"
TINY = f"--config={TESTS / 'tiny.py'}"


def _lines(done: CompletedProcess[str], status: int) -> list[str]:
    """The error's lines; checks what is true of every error."""
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    start = done.stderr.index("Error: ")
    return done.stderr[start:].removeprefix("Error: ").splitlines()


FLAG_FAULTS = {
    "unknown field": (
        ["--config.num_step=3"],
        ["--config.num_step: no such field. Did you mean 'num_steps'?"],
    ),
    "unknown field in a section": (
        ["--config.data.shufle=true"],
        ["--config.data.shufle: no such field. Did you mean 'data.shuffle'?"],
    ),
    "an unknown section, beside other faults": (
        [
            "--config.modle.x=1",
            "--config.seed",
            "3",
            "--config.batch_size=0",
            "--config.data.shuffle",
            "--config.model.name=tutorail",
        ],
        [
            "--config.modle.x: no such field. Did you mean 'model'?",
            "config.batch_size=0: must be at least 1.",
            "config.model.name='tutorail': unknown. Did you mean 'tutorial'? Known: compact, ",
        ],
    ),
    "an unknown field of an unknown section": (
        ["--config.optimiser.name=sgd"],
        ["--config.optimiser.name: no such field. Did you mean 'optimizer.name'?"],
    ),
    "a whole section": (
        ["--config.data=3"],
        ["--config.data: no such field. It is a section; set data.balance or another."],
    ),
    "wrong type": (
        ["--config.batch_size=many"],
        ["--config.batch_size=many: the value must be a whole number."],
    ),
    "float for int": (
        ["--config.seed=1.5"],
        ["--config.seed=1.5: the value must be a whole number."],
    ),
    "several flags at once": (
        ["--config.num_step=3", "--config.seed=x", "--config.data.shuffle=perhaps"],
        [
            "--config.num_step: no such field. Did you mean 'num_steps'?",
            "--config.seed=x: the value must be a whole number.",
            "--config.data.shuffle=perhaps: the value must be true or false.",
        ],
    ),
    "both durations": (
        ["--config.num_steps=3", "--config.num_epochs=2"],
        ["config.num_steps=3 and config.num_epochs=2: give one of the two."],
    ),
    "an unknown mode": (
        ["--mode=trian"],
        [
            "--mode=trian: must be train, sweep, check, eval, predict, report, sample, serve or "
            "export. Did you mean 'train'?"
        ],
    ),
    "an unknown flag": (
        ["--wrokdir=x"],
        ["--wrokdir: no such flag. Did you mean 'workdir'? See --help."],
    ),
    "a flag that is like none": (["--colour=x"], ["--colour: no such flag. See --help."]),
    "no whole number": (["--jobs=two"], ["--jobs=two: must be a whole number, at least 1."]),
    "a number that is too small": (
        ["--count=0"],
        ["--count=0: must be a whole number, at least 1."],
    ),
    "a number that is too large": (
        ["--port=70000"],
        ["--port=70000: must be a whole number, at least 0 and at most 65,535."],
    ),
    "neither true nor false": (["--report=x"], ["--report=x: must be true or false."]),
    "false, and a value": (["--nocenter=3"], ["--nocenter=3 does not take an argument. See"]),
    "a value that is missing": (["--workdir"], ["Missing value for flag --workdir. See --help."]),
    "a flag of another mode": (
        ["--checkpoint=best"],
        ["--checkpoint: is for --init_from, which is not given. Leave it out."],
    ),
    "flags of other modes": (
        ["--seeds=1", "--output=x.png"],
        [
            "--output: is for --mode=predict and sample, not for --mode=train. Leave it out, or ",
            "--seeds: is for --mode=sweep, not for --mode=train. Leave it out, or change the mode.",
        ],
    ),
    "an argument that training does not take": (
        ["7.png"],
        ["the argument '7.png': --mode=predict takes files, and --mode=train takes none. Leave "],
    ),
}


@pytest.mark.parametrize("name", FLAG_FAULTS)
def test_flags(called: Launch, tmp_path: Path, name: str) -> None:
    arguments, expected = FLAG_FAULTS[name]
    lines = _lines(called(TUTORIAL, *arguments), status=2)
    assert len(lines) == len(expected)
    for line, beginning in zip(lines, expected, strict=True):
        assert line.startswith(beginning)
    assert not list(tmp_path.iterdir())  # no workdir was begun


def test_wrong_values_are_all_listed(launch: Launch, tmp_path: Path) -> None:
    done = launch(
        TUTORIAL,
        "--config.batch_size=0",
        "--config.num_steps=-5",
        "--config.optimizer.learning_rate=-0.1",
        "--config.log_every_steps=-1",
        "--config.model.name=tutorail",
        "--config.optimizer.name=sdg",
        "--config.data.train_split=train[",
        "--config.data.fallback=maybe",
    )
    lines = _lines(done, status=2)
    for beginning in (
        "config.batch_size=0: must be at least 1.",
        "config.num_steps=-5: must be at least 1.",
        "config.log_every_steps=-1: must be at least 0.",
        "config.optimizer.learning_rate=-0.1: must be positive and finite.",
        "config.model.name='tutorail': unknown. Did you mean 'tutorial'? Known: compact, ",
        "config.optimizer.name='sdg': unknown. Did you mean 'sgd'? Known: ",
        "config.data.train_split='train['",
        "config.data.fallback='maybe': allowed is 'mnist_sample' or 'none'.",
    ):
        assert sum(line.startswith(beginning) for line in lines) == 1, (beginning, lines)
    assert len(lines) == 8
    assert not list(tmp_path.iterdir())


def test_a_model_field_out_of_range(launch: Launch) -> None:
    done = launch(TUTORIAL, "--config.model.dropout_rate=1.5", "--config.model.kernel_init=xavier")
    assert "xavier" in _lines(done, status=2)[0]


CONFIG_FILES = {
    "no such file": (None, "there is no file"),
    "syntax": ("def get_config(:\n", "line 1: SyntaxError"),
    "unknown field": (
        "from mnist_flax.config import default_config\n"
        "def get_config():\n    config = default_config()\n    config.batchsize = 3\n",
        "line 4: config.batchsize=3: no such field. Did you mean 'batch_size'?",
    ),
    "wrong type": (
        "from mnist_flax.config import default_config\n"
        "def get_config():\n    config = default_config()\n    config.seed = 'x'\n",
        "line 4: config.seed='x': must be a whole number.",
    ),
    "missing import": ("import a_module_that_is_not_there\n", "line 1: ModuleNotFoundError"),
    "no get_config": ("x = 1\n", "get_config"),
    "a section without its fields": (
        "from ml_collections import ConfigDict\nfrom mnist_flax.config import default_config\n"
        "def get_config():\n    config = default_config()\n"
        "    config.optimizer = ConfigDict({'name': 'adam'})\n    return config\n",
        "has no config.optimizer.learning_rate: start from default_config()",
    ),
    "a dict": ("def get_config():\n    return {}\n", "get_config() returns dict {}: return what"),
    "nothing": (
        "from mnist_flax.config import default_config\ndef get_config():\n    default_config()\n",
        "--config=mine.py: get_config() returns nothing: end it with `return config`.",
    ),
}


@pytest.mark.parametrize("name", CONFIG_FILES)
def test_config_files(called: Launch, tmp_path: Path, name: str) -> None:
    text, expected = CONFIG_FILES[name]
    if text is not None:
        (tmp_path / "mine.py").write_text(text)
    done = called("--config=mine.py")
    lines = _lines(done, status=2)
    assert len(lines) == 1
    assert expected in lines[0]
    assert "WARNING" not in done.stderr


def test_an_unknown_variant_and_a_missing_config(launch: Launch) -> None:
    assert _lines(launch(TUTORIAL + ":fast"), status=2)[0].endswith("the only variant is 'quick'.")
    assert _lines(launch(), status=2)[0].startswith("--config is missing")


def _damage(folder: Path, name: str) -> None:
    images, labels = (folder / f"train-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1"))
    if name == "missing":
        labels.unlink()
    elif name == "truncated":
        images.write_bytes(images.read_bytes()[:-100])
    elif name == "swapped":
        content = images.read_bytes()
        images.write_bytes(labels.read_bytes())
        labels.write_bytes(content)
    elif name == "not IDX":
        images.write_bytes(b"this is no IDX file")
    elif name == "label out of range":
        write_idx(labels, np.full(105, 12, np.uint8))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("missing", "train-labels-idx1-ubyte"),
        ("truncated", "train-images-idx3-ubyte.gz"),
        ("swapped", "swapped"),
        ("not IDX", "train-images-idx3-ubyte.gz"),
        ("label out of range", "12"),
    ],
)
def test_data_files(called: Launch, digits: Path, tmp_path: Path, name: str, expected: str) -> None:
    folder = tmp_path / "data"
    shutil.copytree(digits, folder)
    _damage(folder, name)
    lines = _lines(called(TINY, f"--config.data.data_dir={folder}"), status=1)
    assert len(lines) == 1
    assert expected in lines[0]


@pytest.mark.parametrize(
    ("override", "status", "expected"),
    [
        ("batch_size=106", 2, "has only 105 examples"),
        ("data.train_split=train[200:]", 2, "105"),
        ("data.eval_split=validation", 2, "validation"),
        ("data.train_split=train[5:5]", 2, "config.data.train_split"),
        ("data.data_dir=nowhere", 1, "does not exist"),
        ("model.name=mine:Net", 2, "there is no module 'mine'"),
    ],
)
def test_values_that_only_the_data_refuse(
    called: Launch, digits: Path, override: str, status: int, expected: str
) -> None:
    lines = _lines(
        called(TINY, f"--config.data.data_dir={digits}", f"--config.{override}"), status=status
    )
    assert expected in lines[0]


def test_an_unknown_dataset(launch: Launch, tmp_path: Path) -> None:
    line = _lines(
        launch(TUTORIAL, "--config.data.name=mnits", f"--config.data.data_dir={tmp_path}"), 2
    )[0]
    assert "config.data.name='mnits'" in line
    assert "mnist, fashion_mnist, kmnist, mnist_sample" in line


def test_a_workdir_that_is_a_file(launch: Launch, digits: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    done = launch(TINY, f"--config.data.data_dir={digits}", "--workdir=file")
    assert "workdir=file: cannot be written" in _lines(done, status=1)[0]
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder nobody can write in")
def test_a_workdir_that_cannot_be_written(launch: Launch, digits: Path) -> None:
    done = launch(TINY, f"--config.data.data_dir={digits}", "--workdir=/proc/run")
    assert "workdir=/proc/run: cannot be written" in _lines(done, status=1)[0]


def test_a_workdir_in_which_another_process_trains(
    launch: Launch, digits: Path, tmp_path: Path
) -> None:
    with locked(tmp_path / "run"):
        done = launch(TINY, f"--config.data.data_dir={digits}", f"--workdir={tmp_path / 'run'}")
    assert f"process {os.getpid()} on " in _lines(done, status=1)[0]


def test_eval_and_predict_without_a_run(launch: Launch) -> None:
    for mode in (["eval"], ["predict", "7.png"]):
        done = launch(TUTORIAL, f"--mode={mode[0]}", *mode[1:])
        assert "config.json: not found" in _lines(done, status=1)[0]


@pytest.fixture(scope="module")
def trained(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny import get_config

    from mnist_flax.training import train

    config = get_config()
    config.data.data_dir = str(digits)
    config.num_steps = 4
    workdir = tmp_path_factory.mktemp("trained")
    train(config, workdir)
    return workdir


RESTORED_FAULTS = {
    "another field": (
        [TINY, "--mode=eval", "--config.seed=3"],
        2,
        "was trained with 0, and only training can change that. Leave it out. A trained run takes",
    ),
    "no such checkpoint": (["--mode=eval", "--checkpoint=17"], 2, "Saved steps: 4."),
    "a missing picture": (["--mode=predict", "--center=false", "7.png"], 1, "7.png"),
    "no picture": (["--mode=predict", "--center=false", "text.png"], 1, "text.png"),
    "files and a split": (
        ["--mode=predict", "--split=test", "--output=x.npz", "7.png"],
        2,
        "either picture files, or --split",
    ),
    "an output that is a folder": (
        ["--mode=predict", "--split=test", "--output=."],
        2,
        "--output=.: is a folder; name a file",
    ),
    "overrides without a recipe": (
        ["--mode=eval", "--config.batch_size=3"],
        2,
        "name it with --config=FILE",
    ),
    "a split without an output": (["--mode=predict", "--split=test"], 2, "--output=FILE.npz"),
    "an unknown split": (["--mode=predict", "--split=tset", "--output=x.npz"], 2, "tset"),
}


@pytest.mark.parametrize("name", RESTORED_FAULTS)
def test_restored_networks(called: Launch, trained: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "text.png").write_text("this is no picture")
    before = sorted(path for path in trained.rglob("*"))
    arguments, status, expected = RESTORED_FAULTS[name]
    assert expected in _lines(called(f"--workdir={trained}", *arguments), status=status)[0]
    assert sorted(path for path in trained.rglob("*")) == before


def test_a_checkpoint_of_another_model(launch: Launch, trained: Path, digits: Path) -> None:
    done = launch(
        TINY,
        f"--workdir={trained}",
        f"--config.data.data_dir={digits}",
        "--config.model.name=tiny:SlowNet",
    )
    lines = _lines(done, status=1)
    assert "holds another run, saved at step 4" in lines[0]
    assert "  model.name: was tiny:TinyNet, now tiny:SlowNet" in lines


def test_a_checkpoint_of_other_data(launch: Launch, trained: Path, digits: Path, tmp_path) -> None:
    other = tmp_path / "other"
    shutil.copytree(digits, other)
    write_idx(other / "train-labels-idx1-ubyte.gz", np.zeros(105, np.uint8))
    done = launch(TINY, f"--workdir={trained}", f"--config.data.data_dir={other}")
    lines = _lines(done, status=1)
    assert any(line.startswith("  the data's fingerprint: was ") for line in lines)
    assert any(str(other) in line for line in lines)

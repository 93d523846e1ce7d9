"""A folder's name is a name: no character of it is a pattern, and `~` is the home folder."""

import contextlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TESTS, launch_command, launch_environment
from made import sums
from ml_collections import ConfigDict

from mnist_flax.config.paths import expanded
from mnist_flax.core.state import TrainState
from mnist_flax.data import load
from mnist_flax.errors import UsageError, UserError
from mnist_flax.training import train
from mnist_flax.workdir.checkpoints import Checkpoints
from mnist_flax.workdir.plain_path import plain_path

Launch = Callable[..., subprocess.CompletedProcess[str]]

NOT_UTF8 = os.fsdecode(b"caf\xe9")
NAMES = [
    *("[a] b", "[!a]/x", "a*b?", "back\\slash", "a**b", NOT_UTF8, "ü 数字", "two\nlines"),
    *("100%41#x", "-", " ", "'\"$x", "a,b;c", "{b}", "7.orbax-checkpoint-tmp-0", "~", "\x01"),
]


def make_state(step: int) -> TrainState:
    params = {"kernel": jnp.arange(4096, dtype=jnp.float32)}
    return TrainState(jnp.int32(step), {"params": params}, {}, sums(0.1, 3, 4), sums(0.7, 5, 6))


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_what_is_saved_in_a_folder_of_any_name_is_read_back(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name / "checkpoints"
    with contextlib.closing(Checkpoints(folder)) as checkpoints:
        checkpoints.save(make_state(3), {"step": 3}, best=False)
        checkpoints.copy_to_best(3, make_state(3))
        assert checkpoints.path(3) == folder / "best" / "3"
    with contextlib.closing(Checkpoints(folder, read_only=True)) as checkpoints:
        restored = checkpoints.restore(3, make_state(3))
    jax.tree.map(np.testing.assert_array_equal, restored, make_state(3))


NASTY = os.fsdecode(b"[a] b\\**\xe9")


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Path:
    """A home with a run of such a name in it."""
    home = tmp_path_factory.mktemp("home")
    done = _launch(
        home, digits, f"--workdir=~/{NASTY}", "--config.num_steps=2", "--config.tensorboard"
    )
    assert done.returncode == 0, done.stderr
    assert "Finished at step 2" in done.stderr
    return home


def _launch(home: Path, digits: Path, *more: str) -> subprocess.CompletedProcess[str]:
    arguments = [f"--config={TESTS / 'tiny.py'}", f"--config.data.data_dir={digits}", *more]
    return subprocess.run(
        launch_command(*arguments),
        cwd=home,
        env=launch_environment() | {"HOME": str(home)},
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=300,
    )


@pytest.mark.slow
@pytest.mark.promise
@pytest.mark.parametrize(
    ("arguments", "file"),
    [
        (("--mode=eval",), ""),
        (("--mode=predict", "--split=test", f"--output=~/{NASTY}.npz"), f"{NASTY}.npz"),
        (("--mode=report",), f"{NASTY}/report/index.html"),
        (("--mode=export", "--format=all"), f"{NASTY}/export/MODEL_CARD.md"),
        (("--workdir=~/new [x]", f"--init_from=~/{NASTY}", "--config.num_steps=1"), ""),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_every_mode_takes_such_names_and_home(
    nasty: Path, digits: Path, arguments: tuple[str, ...], file: str
) -> None:
    workdir = () if arguments[0].startswith("--workdir") else (f"--workdir=~/{NASTY}",)
    done = _launch(nasty, digits, *workdir, *arguments)
    assert done.returncode == 0, done.stderr
    assert (nasty / file).exists()
    if arguments[0] == "--mode=report":
        assert done.stdout == f"{nasty / file}\n"
    assert not (nasty / "~").exists()


@pytest.mark.slow
def test_compare_takes_such_names_and_home(nasty: Path, digits: Path) -> None:
    other = (f"--workdir={nasty / 'other'}", "--config.num_steps=2", "--config.seed=1")
    assert _launch(nasty, digits, *other).returncode == 0
    done = _launch(nasty, digits, other[0], "--mode=report", f"--compare=~/{NASTY}")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "flags",
    [
        ("--workdir=~nobody-such/x",),
        ("--workdir=run", "--init_from=~nobody-such/x"),
        ("--workdir=run", "--config.data.data_dir=~nobody-such/x"),
        ("--mode=predict", "--split=test", "--output=~nobody-such/x"),
    ],
    ids=" ".join,
)
def test_an_unknown_user_is_told_in_a_line(launch: Launch, tmp_path: Path, flags) -> None:
    done = launch(f"--config={TESTS / 'tiny.py'}", *flags)
    field = flags[-1].removeprefix("--").removesuffix("=~nobody-such/x")
    assert done.returncode == 2, done.stderr
    assert f"{field}=~nobody-such/x: there is no user 'nobody-such'. " in done.stderr
    assert done.stderr.startswith("Error: ")
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_home_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch, tiny_config) -> None:
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as without HOME and an account
    with pytest.raises(UsageError, match=r"^--workdir=~/x: no home folder is known\. [^\n]*$"):
        expanded("~/x", "--workdir")
    tiny_config.data.data_dir = None
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    with pytest.raises(UsageError, match=r"^config\.data\.data_dir=~/tensor.* no home folder"):
        load(tiny_config.data)


def test_a_plain_name_needs_no_link(tmp_path: Path) -> None:
    with plain_path(tmp_path / "größe-1.0 数字") as path:
        assert path == tmp_path / "größe-1.0 数字"


def test_nothing_of_a_link_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, links = tmp_path / "[a]", tmp_path / "links"
    folder.mkdir()
    links.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(links))
    with plain_path(folder) as path:
        (path / "file").write_text("here")
        assert path.is_relative_to(links)
    assert (folder / "file").read_text() == "here"
    assert list(links.iterdir()) == []


@pytest.mark.parametrize("links", ["missing", "[odd]"])
def test_where_there_can_be_no_link_nothing_is_trained(
    tiny_config: ConfigDict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: str
) -> None:
    (tmp_path / "[odd]").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / links))
    with pytest.raises(UserError, match=r"checkpoints: its name needs a link[^\n]*$"):
        train(tiny_config, tmp_path / "[a]")
    assert not (tmp_path / "[a]" / "metrics.jsonl").exists()

"""config.data.select_split: the best save is chosen on images that neither train nor judge it."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import jax
import numpy as np
import pytest
from conftest import TESTS, events, rows
from ml_collections import ConfigDict

from mnist_flax import restore, train
from mnist_flax.data.idx import read_idx, write_idx
from mnist_flax.errors import UserError
from mnist_flax.report import write_report
from mnist_flax.use.evaluation import evaluate_restored
from mnist_flax.use.run_data import load_data

Launch = Callable[..., CompletedProcess[str]]
SPLITS = {"train_split": "train[:80]", "select_split": "train[80:]"}


@pytest.fixture(scope="module")
def selected(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny import get_config

    config, workdir = get_config(), tmp_path_factory.mktemp("selected") / "run"
    config.data.update(data_dir=str(digits), **SPLITS)
    config.tensorboard = True
    train(config, workdir)
    return workdir


def test_rows_say_on_what_they_were_evaluated(selected: Path) -> None:
    evaluated = [row for row in rows(selected) if row["split"] != "train"]
    assert [row["split"] for row in evaluated] == ["select"] * 3  # after 16, 32 and 40 steps
    assert {row["examples"] for row in evaluated} == {25}
    size = "80 images to train, 37 to evaluate, 25 to choose the best save"
    assert any(size in row["message"] for row in events(selected, "data"))


def test_the_best_save_is_best_on_them(selected: Path) -> None:
    evaluated = [row for row in rows(selected) if row["split"] == "select"]
    best = restore(selected, "best", {})
    dataset = load_data(best, print)
    assert int(best.state.step) == max(evaluated, key=lambda row: row["accuracy"])["step"]
    accuracy = evaluate_restored(best, dataset.select).means["accuracy"]
    assert accuracy == max(row["accuracy"] for row in evaluated)


def test_the_best_save_is_judged_on_others(selected: Path, launch: Launch) -> None:
    flags = (f"--workdir={selected}", "--mode=eval", "--checkpoint=best")
    done = launch(f"--config={TESTS / 'tiny.py'}", *flags)
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    assert row["examples"] == 37
    assert "examples_chosen_on" not in row
    done = launch(f"--config={TESTS / 'tiny.py'}", *flags, "--config.data.eval_split=train[75:]")
    row = json.loads(done.stdout)
    assert (row["examples_trained_on"], row["examples_chosen_on"]) == (5, 25)


def test_other_data_need_not_have_these_images(
    selected: Path, digits: Path, tmp_path: Path
) -> None:
    for path in digits.iterdir():
        write_idx(tmp_path / path.name, read_idx(path)[:30])
    overrides = {"data.data_dir": str(tmp_path), "data.train_split": "train"}
    dataset = load_data(restore(selected, "best", overrides), print)
    assert len(dataset.eval.labels) == 30
    assert dataset.select is None


@pytest.mark.slow
@pytest.mark.promise
def test_its_report_draws_them(selected: Path) -> None:
    restored = restore(selected, "best", {})
    page = write_report(selected, restored, load_data(restored, print)).read_text()
    assert "It has not been evaluated yet" not in page
    assert "made on the 25 images of" in page
    assert "37 to evaluate, 25 to choose the best save" in page


def test_its_event_file_names_them(selected: Path) -> None:
    written = b"".join(path.read_bytes() for path in (selected / "tensorboard").iterdir())
    assert b"select/accuracy" in written
    assert b"eval/" not in written


@pytest.mark.slow
@pytest.mark.promise
def test_a_run_goes_on_from_its_best_on_them(
    tiny_config: ConfigDict, selected: Path, tmp_path: Path
) -> None:
    tiny_config.data.update(**SPLITS)
    stopped = train(tiny_config, tmp_path, should_stop=(tmp_path / "checkpoints/latest/20").exists)
    assert 20 <= int(stopped.step) < 32
    train(tiny_config, tmp_path)
    assert rows(tmp_path) == rows(selected)
    best = [restore(workdir, "best", {}).state for workdir in (tmp_path, selected)]
    jax.tree.map(np.testing.assert_array_equal, *best)


def test_a_run_does_not_go_on_with_others(tiny_config: ConfigDict, tmp_path: Path) -> None:
    tiny_config.data.update(**SPLITS)
    tiny_config.num_steps = 4
    train(tiny_config, tmp_path)
    tiny_config.data.select_split, tiny_config.num_steps = "train[90:]", 8
    with pytest.raises(UserError, match=r"data\.select_split: was train\[80:\], now train\[90:\]"):
        train(tiny_config, tmp_path)


def test_copies_of_training_images_are_told(tiny_config: ConfigDict, tmp_path: Path) -> None:
    folder = Path(tiny_config.data.data_dir)
    for path in folder.iterdir():
        content = read_idx(path)
        if path.name.startswith("train-"):
            content[81:84] = content[1]
        write_idx(tmp_path / path.name, content)
    tiny_config.data.update(data_dir=str(tmp_path), **SPLITS)
    tiny_config.num_steps = 2
    train(tiny_config, tmp_path / "run")
    (told,) = events(tmp_path / "run", "known_images")
    assert told["message"].startswith("config.data.select_split: 3 of 25 images are also among")


@pytest.mark.parametrize(
    ("flags", "which"),
    [
        ([], "latest"),
        ([f"--config.data.{name}={split}" for name, split in SPLITS.items()], "best"),
    ],
)
def test_the_next_command_is_of_what_may_be_judged(
    launch: Launch, digits: Path, flags: list[str], which: str
) -> None:
    config = (f"--config={TESTS / 'tiny.py'}", f"--config.data.data_dir={digits}")
    done = launch(*config, "--workdir=run", "--config.num_steps=3", *flags)
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("Evaluate it with"))
    assert line.endswith(f"--checkpoint={which}")


def test_what_would_be_trained_on_is_refused(launch: Launch, digits: Path) -> None:
    config = (f"--config={TESTS / 'tiny.py'}", f"--config.data.data_dir={digits}")
    done = launch(*config, "--workdir=run", "--config.data.select_split=train[80:]")
    assert done.returncode == 2
    assert "25 of its images are those of config.data.train_split='train', too" in done.stderr

"""Runs on data that are handed in: the bits are those of files, and they go on with the same."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from conftest import TESTS, events, rows
from handed import Torch
from ml_collections import ConfigDict
from tiny import get_config

from mnist_flax import restore, train
from mnist_flax.data.idx import read_idx
from mnist_flax.errors import UsageError, UserError
from mnist_flax.export.licences import is_known
from mnist_flax.report import write_report
from mnist_flax.training import check
from mnist_flax.use.evaluation import evaluate_restored
from mnist_flax.use.run_data import load_data

Launch = Callable[..., subprocess.CompletedProcess[str]]
Arrays = tuple[np.ndarray, ...]


@pytest.fixture(scope="module")
def arrays(digits: Path) -> Arrays:
    """The four arrays of the digits."""
    return tuple(
        read_idx(digits / f"{split}-{what}.gz")
        for split in ("train", "t10k")
        for what in ("images-idx3-ubyte", "labels-idx1-ubyte")
    )


def config_of(**changes: Any) -> ConfigDict:
    config = get_config()
    config.data.fallback = "mnist_sample"  # its default
    config.data.update(changes)
    return config


@pytest.fixture(scope="module")
def from_files(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("files")
    train(config_of(data_dir=str(digits)), workdir)
    return workdir


@pytest.fixture(scope="module")
def handed(arrays: Arrays, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("handed")
    train(config_of(), workdir, data=arrays)
    return workdir


def same_bits(one: Path, other: Path) -> None:
    states = [jax.device_get(restore(workdir, "latest", {}).state) for workdir in (one, other)]
    jax.tree.map(np.testing.assert_array_equal, *states)


def nameless(workdir: Path) -> list[dict[str, Any]]:
    return [{**row, "dataset": ""} for row in rows(workdir)]


def test_bits_and_rows_are_those_of_files(handed: Path, from_files: Path) -> None:
    same_bits(handed, from_files)
    assert nameless(handed) == nameless(from_files)


def test_a_run_says_that_they_were_handed_in(handed: Path, from_files: Path) -> None:
    assert {row["dataset"] for row in rows(handed)} == {"handed_in"}
    (told,) = events(handed, "data")
    want = "Data: handed_in, 105 images to train, 37 to evaluate, from arrays that were handed in."
    assert told["message"] == want
    written, theirs = (
        json.loads((workdir / "config.json").read_text()) for workdir in (handed, from_files)
    )
    assert written["config"]["data"]["name"] == written["dataset"]["name"] == "handed_in"
    assert written["dataset"]["data_dir"] is None
    assert (written["dataset"]["handed_in"], theirs["dataset"]["handed_in"]) == (True, False)
    assert written["dataset"]["fingerprint"] == theirs["dataset"]["fingerprint"]
    assert not is_known({**theirs["dataset"], "name": "kmnist", "handed_in": True})


def test_a_stopped_run_goes_on_with_the_same_in_another_form(
    arrays: Arrays, handed: Path, tmp_path: Path
) -> None:
    stop = (tmp_path / "checkpoints/latest/4").exists
    assert int(train(config_of(), tmp_path, should_stop=stop, data=arrays).step) == 8
    objects = (Torch(*arrays[:2], None), Torch(*arrays[2:], None))
    assert int(train(config_of(), tmp_path, data=objects).step) == 40
    same_bits(handed, tmp_path)
    assert rows(tmp_path) == rows(handed)


def test_a_run_does_not_go_on_with_others(arrays: Arrays, tmp_path: Path) -> None:
    config = config_of()
    config.num_steps = 4
    train(config, tmp_path, data=arrays)
    config.num_steps = 8
    other = arrays[0].copy()
    other[3, 0, 0] += 1
    with pytest.raises(UserError) as error:
        train(config, tmp_path, data=(other, *arrays[1:]))
    told = str(error.value)
    assert "the data's fingerprint: was " in told
    assert "(they were handed in: train(config, workdir, data=…))" in told
    assert "--config.data.name" not in told
    assert int(train(config, tmp_path, data=arrays).step) == 8


def test_it_goes_on_with_the_same_in_files_and_not_without_any(
    arrays: Arrays, digits: Path, tmp_path: Path
) -> None:
    config = config_of()
    config.num_steps = 4
    train(config, tmp_path, data=arrays)
    config.num_steps = 8
    with pytest.raises(UserError) as error:
        train(config, tmp_path)
    assert str(error.value) == (
        f"workdir={tmp_path} holds a run: its data were handed in, train(config, workdir, "
        "data=…). From Python hand the same in again, data=(images, labels, eval_images, "
        "eval_labels); or name data in files with config.data.data_dir=FOLDER"
    )
    config.data.data_dir = str(digits)
    assert int(train(config, tmp_path).step) == 8
    (told,) = events(tmp_path, "resumed")
    assert "config.data.name was handed_in, is mnist." in told["message"]
    assert {row["dataset"] for row in rows(tmp_path)} == {"handed_in", "mnist"}
    config.data.data_dir = None
    config.num_steps = 12
    assert int(train(config, tmp_path, data=arrays).step) == 12  # and back


def test_what_a_command_says_that_cannot_have_them(
    handed: Path, digits: Path, launch: Launch
) -> None:
    for mode in ("eval", "report", "export"):
        done = launch(f"--workdir={handed}", f"--mode={mode}")
        assert done.returncode == 1
        (line,) = (line for line in done.stderr.splitlines() if line.startswith("Error: "))
        assert line.endswith(
            "is of a run: its data were handed in, train(config, workdir, data=…). From Python "
            "restore(workdir).evaluate(images, labels) judges it: images uint8 [N, 8, 8, 1], "
            "labels whole numbers [N], 0 to 9; or name data in files with "
            "config.data.data_dir=FOLDER"
        )
    tiny = f"--config={TESTS / 'tiny.py'}"
    done = launch(tiny, f"--workdir={handed}", "--mode=eval", f"--config.data.data_dir={digits}")
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    assert row["accuracy"] == rows(handed)[-1]["accuracy"]
    assert row["examples"] == 37
    done = launch(tiny, f"--workdir={handed}")
    assert done.returncode == 1
    assert "its data were handed in" in done.stderr


def test_from_python_it_is_judged_on_them_again(
    handed: Path, arrays: Arrays, tmp_path: Path
) -> None:
    restored = restore(handed, "latest", {})
    dataset = load_data(restored, print, arrays)
    result = evaluate_restored(restored, dataset.eval)
    assert result.means["accuracy"] == rows(handed)[-1]["accuracy"]
    with pytest.raises(UserError, match=r"not the data of the run in .* Hand those in\."):
        load_data(restored, print, (*arrays[:3], arrays[3][::-1]))


@pytest.mark.slow
@pytest.mark.promise
def test_its_report_says_it(handed: Path, arrays: Arrays) -> None:
    restored = restore(handed, "latest", {})
    page = write_report(handed, restored, load_data(restored, print, arrays)).read_text()
    assert "handed_in: 105 images to train" in page
    assert "from arrays that were handed in" in page


def test_wrong_fields_beside_them_are_told_with_all_other_faults(
    arrays: Arrays, digits: Path, tmp_path: Path
) -> None:
    config = config_of(data_dir=str(digits))
    config.batch_size = 0
    with pytest.raises(UsageError) as error:
        train(config, tmp_path / "run", data=arrays)
    assert [line.partition("=")[0] for line in str(error.value).splitlines()] == [
        "config.batch_size",
        "config.data.data_dir",
    ]
    assert not (tmp_path / "run").exists()
    config.batch_size = 6
    check(config)  # which is right without them
    with pytest.raises(UsageError, match="data: want four arrays"):
        train(config_of(), tmp_path / "run", data=arrays[:3])


def test_the_callers_config_is_left_as_it_was(arrays: Arrays, tmp_path: Path) -> None:
    config = config_of()
    config.num_steps = 1
    train(config, tmp_path, data=arrays)
    assert config.data.name == "mnist"

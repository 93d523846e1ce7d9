"""A run and its data: they are recorded with their place, and nothing else stands in for them."""

import contextlib
import json
import shutil

import numpy as np
import pytest
from conftest import events

from mnist_flax.config import default_config
from mnist_flax.data import download
from mnist_flax.data.idx import write_idx
from mnist_flax.errors import UserError
from mnist_flax.training import train
from mnist_flax.use.restore import restore
from mnist_flax.use.run_data import load_data


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    """No network, and no data in the default folder."""

    def refuse(remote):
        raise download.Unavailable("no download (offline)")

    monkeypatch.setattr(download, "_receive", refuse)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "default"))


@pytest.fixture
def own(tiny_config, digits, tmp_path):
    """A run of two steps on a copy of the digits; its config without data_dir, and their folder."""
    folder = tmp_path / "own"
    shutil.copytree(digits, folder)
    tiny_config.data.data_dir, tiny_config.num_steps = str(folder), 2
    tiny_config.data.fallback = "mnist_sample"
    train(tiny_config, tmp_path / "run")
    tiny_config.data.data_dir, tiny_config.num_steps = default_config().data.data_dir, 4
    return tiny_config, folder


def written(workdir):
    return json.loads((workdir / "config.json").read_text())


def test_the_same_command_without_data_dir_goes_on_with_the_runs_data(own, tmp_path, capsys):
    config, folder = own
    assert int(train(config, tmp_path / "run").step) == 4
    told = f"config.data.data_dir is not given: the data of this run are in {folder}."
    assert told in capsys.readouterr().err.splitlines()
    assert written(tmp_path / "run")["config"]["data"]["data_dir"] == str(folder)
    assert written(tmp_path / "run")["dataset"]["data_dir"] == str(folder)
    assert config.data.data_dir is None  # the caller's own is left as it was
    assert int(train(config, tmp_path / "run").step) == 4  # a finished run, too


def test_data_under_a_relative_name_are_found_from_another_folder(
    own, tmp_path, monkeypatch, capsys
):
    config, _ = own
    monkeypatch.chdir(tmp_path)
    config.data.data_dir = "own"
    train(config, tmp_path / "other")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    config.data.data_dir, config.num_steps = default_config().data.data_dir, 6
    assert int(train(config, tmp_path / "other").step) == 6
    assert load_data(restore(tmp_path / "other", "latest", {}), str).data_dir.endswith("/own")


def test_data_of_another_default_folder_are_found_again(own, tmp_path, monkeypatch):
    config, folder = own
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder))
    train(config, tmp_path / "other")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "default"))
    config.num_steps = 6
    assert load_data(restore(tmp_path / "other", "latest", {}), str).data_dir == str(folder)
    assert int(train(config, tmp_path / "other").step) == 6


def test_data_that_are_gone_are_told_with_their_place(own, tmp_path):
    config, folder = own
    folder.rename(tmp_path / "moved")
    with pytest.raises(UserError) as error:
        train(config, tmp_path / "run")
    assert str(error.value) == (
        f"workdir={tmp_path / 'run'}: the data of its run were in {folder}, which is not there. "
        "Put them back, or say where they are with config.data.data_dir=FOLDER"
    )
    with pytest.raises(UserError, match=r"data_dir='.*/own' does not exist"):
        load_data(restore(tmp_path / "run", "latest", {}), str)
    config.data.data_dir = str(tmp_path / "moved")
    assert int(train(config, tmp_path / "run").step) == 4  # what was told works
    moved = restore(tmp_path / "run", "latest", {"data.data_dir": str(tmp_path / "moved")})
    assert len(load_data(moved, str).eval.labels) == 37


def test_the_sample_stands_in_for_no_runs_data(own, tmp_path, monkeypatch):
    """Of a run in the default folder, from which the data are gone."""
    config, folder = own
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder))
    train(config, tmp_path / "other")
    shutil.rmtree(folder)
    config.num_steps = 6
    with pytest.raises(UserError, match=r"its run is on mnist, IDX files in .*\. Put it back, or"):
        train(config, tmp_path / "other")
    with pytest.raises(UserError, match=r"There is no mnist in .*\(offline\)"):
        load_data(restore(tmp_path / "other", "latest", {}), str)


def test_data_that_have_changed_are_not_taken_for_the_runs_own(own, tmp_path):
    _, folder = own
    write_idx(folder / "t10k-labels-idx1-ubyte.gz", np.zeros(37, np.uint8))
    with pytest.raises(UserError, match="not the data of the run in") as error:
        load_data(restore(tmp_path / "run", "latest", {}), str)
    assert "\n" not in str(error.value)
    assert str(error.value).endswith(f" config.data.data_dir={folder}")
    asked = restore(tmp_path / "run", "latest", {"data.data_dir": str(folder)})
    assert len(load_data(asked, str).eval.labels) == 37  # what was told works


def test_without_config_json_other_data_are_told_with_the_place_of_the_runs_own(own, tmp_path):
    config, folder = own
    (tmp_path / "run/config.json").unlink()
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    write_idx(other / "t10k-labels-idx1-ubyte.gz", np.zeros(37, np.uint8))
    config.data.data_dir = str(other)
    with pytest.raises(UserError) as error:
        train(config, tmp_path / "run")
    assert f"(they were in config.data.data_dir={folder})" in str(error.value)


@pytest.mark.parametrize(
    ("train_split", "told"),
    [
        (  # labels go 0, 7, 4, 1, 8, 5, 2, 9, 6, 3, again and again
            "train[:8]",
            ["No image to train on is of the classes '3', '6', which are evaluated: they cannot"],
        ),
        (
            "train[:1]",
            [
                "No image to train on is of the classes '1', '2', '3', '4', '5' and 4 more, which",
                "All images to train on are of one class, '0': whatever is shown, that will be",
            ],
        ),
        ("train[:10]", []),
    ],
)
def test_classes_that_cannot_be_learnt_are_told(tiny_config, tmp_path, capsys, train_split, told):
    tiny_config.data.train_split, tiny_config.batch_size, tiny_config.num_steps = train_split, 1, 1
    train(tiny_config, tmp_path)
    lines = [line for line in capsys.readouterr().err.splitlines() if "to train on" in line]
    assert len(lines) == 2 * len(told)  # at the start and at the end
    assert all(line.startswith(want) for line, want in zip(lines, told * 2, strict=True))
    notes = [row["message"] for row in events(tmp_path, "data")]
    assert notes[:-1] == lines[: len(told)]


def test_a_run_from_before_a_field_of_the_data_is_read_and_goes_on(own, tmp_path):
    config, folder = own
    content = written(tmp_path / "run")
    for field in ("transpose", "resize"):
        del content["config"]["data"][field]
    del content["dataset"]["data_dir"]
    (tmp_path / "run/config.json").write_text(json.dumps(content))
    assert load_data(restore(tmp_path / "run", "latest", {}), str).data_dir == str(folder)
    assert int(train(config, tmp_path / "run").step) == 4


@pytest.mark.parametrize("harm", [("config", "data"), ("dataset",), ("config", "data", "data_dir")])
def test_an_edited_config_json_is_no_traceback(own, tmp_path, harm):
    config, folder = own
    content = written(tmp_path / "run")
    *path, last = harm
    inner = content
    for key in path:
        inner = inner[key]
    inner[last] = 5
    (tmp_path / "run/config.json").write_text(json.dumps(content))
    with contextlib.suppress(UserError):
        restore(tmp_path / "run", "latest", {})
    with contextlib.suppress(UserError):  # it may not know where its data were
        train(config, tmp_path / "run")
    config.data.data_dir = str(folder)
    assert int(train(config, tmp_path / "run").step) == 4

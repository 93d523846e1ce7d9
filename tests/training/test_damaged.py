"""A damaged checkpoint stops a run, or is passed over where the config says so."""

from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import events, rows
from ml_collections import ConfigDict
from tiny import get_config

from mnist_flax.core.state import TrainState
from mnist_flax.errors import UsageError, UserError
from mnist_flax.training import train


@pytest.fixture(scope="module")
def undisturbed(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainState, Path]:
    config, workdir = get_config(), tmp_path_factory.mktemp("undisturbed")
    config.data.data_dir = str(digits)
    return jax.device_get(train(config, workdir)), workdir


@pytest.fixture
def config(tiny_config: ConfigDict) -> ConfigDict:
    tiny_config.keep_checkpoints = 3
    return tiny_config


def interrupted(config: ConfigDict, workdir: Path) -> Path:
    """A run that was stopped at step 28, with saves of 20, 24 and 28; its newest save."""
    latest = workdir / "checkpoints" / "latest"
    train(config, workdir, should_stop=(latest / "24").is_dir)
    return latest / "28"


def spoil(save: Path) -> None:
    """Cuts each file of its arrays in half."""
    for path, content in contents(save / "state").items():
        path.write_bytes(content[: len(content) // 2])


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_same(state: TrainState, other: TrainState) -> None:
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state), other)


def test_by_default_it_stops_the_run_and_nothing_changes(config, tmp_path):
    newest = interrupted(config, tmp_path / "run")
    spoil(newest)
    before = contents(tmp_path / "run" / "checkpoints")
    with pytest.raises(UserError, match=rf"^{newest}: .* damaged .* To go on from step 24: con"):
        train(config, tmp_path / "run")
    assert contents(tmp_path / "run" / "checkpoints") == before


def test_the_save_before_it_is_used_where_the_config_says_so(config, tmp_path, undisturbed):
    newest = interrupted(config, tmp_path / "run")
    spoil(newest)
    spoiled = contents(newest)
    config.on_damaged_checkpoint = "previous"
    assert_same(train(config, tmp_path / "run"), undisturbed[0])
    assert rows(tmp_path / "run") == rows(undisturbed[1])
    moved = tmp_path / "run" / "checkpoints" / "damaged" / "latest-28"
    assert list(contents(moved).values()) == list(spoiled.values())
    (told,) = events(tmp_path / "run", "damaged_checkpoint")
    assert told["message"] == f"{newest} is damaged: moved to {moved}, going on from step 24."


@pytest.mark.slow
@pytest.mark.promise
def test_several_damaged_ones_are_passed_over(config, tmp_path, undisturbed):
    newest = interrupted(config, tmp_path / "run")
    for step in (28, 24):
        spoil(newest.with_name(str(step)))
    config.on_damaged_checkpoint = "previous"
    assert_same(train(config, tmp_path / "run"), undisturbed[0])
    aside = tmp_path / "run" / "checkpoints" / "damaged"
    assert sorted(p.name for p in aside.iterdir()) == ["latest-24", "latest-28"]
    assert "step 20" in events(tmp_path / "run", "resumed")[-1]["message"]


@pytest.mark.slow
@pytest.mark.promise
def test_a_damaged_best_save_is_passed_over_too(config, tmp_path, undisturbed):
    interrupted(config, tmp_path / "run")
    (best,) = (tmp_path / "run" / "checkpoints" / "best").iterdir()
    (best / "metadata" / "metadata").write_text("{}")
    config.on_damaged_checkpoint = "previous"
    assert_same(train(config, tmp_path / "run"), undisturbed[0])
    assert rows(tmp_path / "run") == rows(undisturbed[1])
    assert (tmp_path / "run" / "checkpoints" / "damaged" / f"best-{best.name}").is_dir()


def test_where_none_is_whole_nothing_is_moved(config, tmp_path):
    newest = interrupted(config, tmp_path / "run")
    saves = [p for kind in ("latest", "best") for p in (newest.parents[1] / kind).iterdir()]
    for save in saves:
        spoil(save)
    config.on_damaged_checkpoint = "previous"
    with pytest.raises(UserError, match="all 4 checkpoints are damaged; nothing was changed"):
        train(config, tmp_path / "run")
    assert all(save.is_dir() for save in saves)


def test_another_word_is_refused(config, tmp_path):
    config.on_damaged_checkpoint = "delete"
    with pytest.raises(UsageError, match="'delete': must be 'stop' or 'previous'"):
        train(config, tmp_path)

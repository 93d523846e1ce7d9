"""A save counts when it was read back: before that nothing is deleted, and nothing called saved."""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from made import sums

from mnist_flax.core.state import TrainState
from mnist_flax.errors import UserError
from mnist_flax.training import train
from mnist_flax.workdir.checkpoints import Checkpoints

Harm = Callable[[Path], None]


def make_state(step: int) -> TrainState:
    noise = np.random.default_rng(step).standard_normal(4096)
    params = {"kernel": jnp.asarray(noise, jnp.float32)}
    return TrainState(jnp.int32(step), {"params": params}, {}, sums(0.1, 3, 4), sums(0.7, 5, 6))


def flip_a_number(save: Path) -> None:
    """Flips a bit of the arrays, which Orbax believes."""
    path = max((save / "state").rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def cut_the_metadata(save: Path) -> None:
    (save / "metadata" / "metadata").write_text("{}")


def remove_the_arrays(save: Path) -> None:
    shutil.rmtree(save / "state")


HARMS = [flip_a_number, cut_the_metadata, remove_the_arrays]


@pytest.fixture
def checkpoints(tmp_path: Path) -> Iterator[Checkpoints]:
    with contextlib.closing(Checkpoints(tmp_path / "checkpoints", keep=2)) as opened:
        for step in (3, 5):
            opened.save(make_state(step), {"step": step, "evaluation": None}, best=False)
        opened.save(make_state(3), {"step": 3, "evaluation": None}, best=True)
        yield opened


def spoil_writing(monkeypatch: pytest.MonkeyPatch, harm: Harm, at: int) -> None:
    """Has a disk write something else than it is given: of one step, or of copies of it."""
    save, copy = ocp.CheckpointManager.save, shutil.copytree

    def saving(self: ocp.CheckpointManager, step: int, **kwargs: Any) -> bool:
        done = save(self, step, **kwargs)
        if step == at:
            harm(Path(self.directory) / str(step))
        return done

    def copying(source: Path, target: Path, *more: Any) -> None:
        copy(source, target, *more)  # which calls itself for the folders inside
        if str(target).endswith("-tmp"):
            harm(target)

    monkeypatch.setattr(ocp.CheckpointManager, "save", saving)
    monkeypatch.setattr(shutil, "copytree", copying)


def assert_whole(checkpoints: Checkpoints, *steps: int) -> None:
    assert checkpoints.steps() == sorted(steps)
    for step in steps:
        restored = checkpoints.restore(step, make_state(step))
        jax.tree.map(np.testing.assert_array_equal, restored, make_state(step))


@pytest.mark.parametrize("best", [False, True])
@pytest.mark.parametrize("harm", HARMS)
def test_a_save_that_does_not_read_back_replaces_nothing(
    checkpoints: Checkpoints,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    harm: Harm,
    best: bool,
) -> None:
    spoil_writing(monkeypatch, harm, at=8)
    kind = "best" if best else "latest"
    with pytest.raises(UserError) as error:
        checkpoints.save(make_state(8), {"step": 8, "evaluation": None}, best=best)
    told = str(error.value)
    folder = tmp_path / "checkpoints"
    assert told.startswith(f"{folder}/{kind}/8: the checkpoint does not read back as it was writ")
    assert f"It was moved to {folder}/damaged/{kind}-8. Older ones were kept. Check the" in told
    assert told.endswith("start again: saved so far: [3, 5].")
    assert "\n" not in told
    assert_whole(checkpoints, 3, 5)
    assert checkpoints.find("best") == 3


@pytest.mark.parametrize("harm", HARMS)
def test_a_copy_that_does_not_read_back_replaces_nothing(
    checkpoints: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: Harm
) -> None:
    spoil_writing(monkeypatch, harm, at=-1)
    with pytest.raises(UserError, match=r"best/5: the checkpoint does not read back [^\n]*$"):
        checkpoints.copy_to_best(5, make_state(5))
    assert_whole(checkpoints, 3, 5)
    assert checkpoints.find("best") == 3


def test_nothing_is_deleted_before_the_new_save_was_read(
    checkpoints: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    restore, seen = ocp.CheckpointManager.restore, []

    def restoring(self: ocp.CheckpointManager, step: int, **kwargs: Any) -> Any:
        seen.append(sorted(path.name for path in Path(self.directory).iterdir()))
        return restore(self, step, **kwargs)

    monkeypatch.setattr(ocp.CheckpointManager, "restore", restoring)
    checkpoints.save(make_state(8), {"step": 8, "evaluation": None}, best=False)
    assert seen
    assert all(names == ["3", "5", "8"] for names in seen)
    assert sorted(path.name for path in (tmp_path / "checkpoints/latest").iterdir()) == ["5", "8"]
    seen.clear()
    checkpoints.copy_to_best(8, make_state(8))
    assert ["3", "8"] in seen
    assert [path.name for path in (tmp_path / "checkpoints/best").iterdir()] == ["8"]


def test_a_save_that_cannot_even_be_moved_is_told(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: Path, *args: object, **kwargs: object) -> None:
        raise OSError(5, "Input/output error")

    spoil_writing(monkeypatch, flip_a_number, at=8)
    save = ocp.CheckpointManager.save

    def saving(self: ocp.CheckpointManager, step: int, **kwargs: Any) -> bool:
        done = save(self, step, **kwargs)
        monkeypatch.setattr(Path, "rename", failing)
        return done

    monkeypatch.setattr(ocp.CheckpointManager, "save", saving)
    with pytest.raises(UserError, match=r"latest/8: .* written \([^)]*\)\. Older ones were kept"):
        checkpoints.save(make_state(8), {"step": 8, "evaluation": None}, best=False)


def test_the_run_stops_with_that_line_and_goes_on_from_the_older_save(
    tiny_config, tmp_path, monkeypatch, capsys
) -> None:
    spoil_writing(monkeypatch, remove_the_arrays, at=12)
    with pytest.raises(UserError, match=r"latest/12: .* saved so far: \[4, 8\]\.$"):
        train(tiny_config, tmp_path)
    monkeypatch.undo()
    tiny_config.num_steps = 13
    assert int(train(tiny_config, tmp_path).step) == 13
    assert "Resumed at step 8" in capsys.readouterr().err

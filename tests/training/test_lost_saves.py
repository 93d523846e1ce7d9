"""Rows of a run whose checkpoints are gone are never cut; one that had none starts again."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import events, rows
from ml_collections import ConfigDict
from old_run import write_old_run
from tiny import get_config

from mnist_flax.errors import UserError
from mnist_flax.training import train
from mnist_flax.workdir.checkpoints import Checkpoints

Spoil = Callable[[Path], None]


def contents(workdir: Path) -> dict[Path, bytes | None]:
    return {
        path: path.read_bytes() if path.is_file() else None
        for path in workdir.rglob("*")
        if path.name not in (".lock", ".holder")
    }


def remove(checkpoints: Path) -> None:
    shutil.rmtree(checkpoints)


def empty(checkpoints: Path) -> None:
    for folder in checkpoints.iterdir():
        shutil.rmtree(folder)
        folder.mkdir()


def leave_unfinished(checkpoints: Path) -> None:
    empty(checkpoints)
    (checkpoints / "latest" / "4.orbax-checkpoint-tmp").mkdir()


@pytest.fixture(scope="module")
def finished(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config, workdir = get_config(), tmp_path_factory.mktemp("finished") / "run"
    config.data.data_dir = str(digits)
    train(config, workdir)
    return workdir


def assert_refused(config: ConfigDict, workdir: Path) -> None:
    before = contents(workdir)
    for _ in range(2):  # the first refusal must not leave what makes the second start again
        with pytest.raises(UserError) as error:
            train(config, workdir)
        assert contents(workdir) == before
    told = str(error.value)
    assert told.startswith(f"workdir={workdir}: metrics.jsonl holds ")
    assert "Put checkpoints/ back" in told
    assert "remove metrics.jsonl on purpose" in told
    assert "\n" not in told


@pytest.mark.parametrize("spoil", [remove, empty, leave_unfinished])
def test_a_finished_run_without_its_saves_is_refused(
    tiny_config: ConfigDict, finished: Path, tmp_path: Path, spoil: Spoil
) -> None:
    workdir = Path(shutil.copytree(finished, tmp_path / "run"))
    spoil(workdir / "checkpoints")
    assert_refused(tiny_config, workdir)
    (workdir / "metrics.jsonl").unlink()
    tiny_config.num_steps = 2
    assert int(train(tiny_config, workdir).step) == 2


def killed_in_save(config: ConfigDict, workdir: Path, monkeypatch, *, after: bool) -> None:
    """Ends a run as a kill would: before its second save, or before the first."""
    save, saves = Checkpoints.save, []

    def killing(self: Checkpoints, *args: object, **kwargs: object) -> None:
        if len(saves) == after:
            raise KeyboardInterrupt
        saves.append(save(self, *args, **kwargs))

    monkeypatch.setattr(Checkpoints, "save", killing)
    with pytest.raises(KeyboardInterrupt):
        train(config, workdir)
    monkeypatch.undo()


def test_a_run_that_was_killed_after_its_first_save_is_refused(tiny_config, tmp_path, monkeypatch):
    workdir = tmp_path / "run"
    killed_in_save(tiny_config, workdir, monkeypatch, after=True)
    (told,) = events(workdir, "saved")
    assert (told["step"], told["message"]) == (4, "First save: step 4.")
    empty(workdir / "checkpoints")
    assert_refused(tiny_config, workdir)


def test_a_run_that_was_killed_before_its_first_save_starts_again(
    tiny_config, tmp_path, monkeypatch, capsys
):
    workdir = tmp_path / "run"
    tiny_config.checkpoint_every_steps = tiny_config.eval_every_steps = 30
    killed_in_save(tiny_config, workdir, monkeypatch, after=False)
    assert [row["step"] for row in rows(workdir)] == [1, 10, 20, 30, 30]
    train(tiny_config, workdir)
    assert "Nothing of the run before was saved: it starts again" in capsys.readouterr().err
    assert [row["step"] for row in rows(workdir)] == [1, 10, 20, 30, 30, 40, 40]
    assert [row["step"] for row in events(workdir, "saved")] == [30]


@pytest.mark.slow
@pytest.mark.promise
def test_the_first_save_is_told_once(tiny_config, tmp_path):
    stop = (tmp_path / "checkpoints/latest/4").exists
    train(tiny_config, tmp_path, should_stop=stop)
    train(tiny_config, tmp_path)
    assert [row["step"] for row in events(tmp_path, "saved")] == [4]


@pytest.mark.parametrize("told", ["stopped", "evaluated", "interval"])
def test_an_old_run_without_its_saves_is_refused(tiny_config, digits, tmp_path, told):
    """It has no row of its first save: its end, an evaluation or the interval tells."""
    workdir = write_old_run(tmp_path / "run", digits).workdir
    metrics = workdir / "metrics.jsonl"
    kept = [json.loads(line) for line in metrics.read_text().splitlines()]
    if told != "stopped":
        kept[-1] = {"step": 10, "split": "train", "loss": 2.5, "accuracy": 0.25}
    if told == "evaluated":
        (workdir / "config.json").unlink()
    if told == "interval":
        kept = [row for row in kept if row.get("split") != "eval"]
    metrics.write_text("".join(json.dumps(row) + "\n" for row in kept))
    empty(workdir / "checkpoints")
    assert_refused(tiny_config, workdir)

"""The event file of a run, read back by TensorBoard's own reader."""

import errno
import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from conftest import TESTS, events, launch_command, launch_environment, rows
from ml_collections import ConfigDict
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.plugins.hparams import metadata

from mnist_flax.config import flatten
from mnist_flax.errors import UserError
from mnist_flax.show.tensorboard import EventFile
from mnist_flax.training import train
from mnist_flax.use.restore import restore


@pytest.fixture
def told_config(tiny_config: ConfigDict) -> ConfigDict:
    tiny_config.tensorboard = True
    return tiny_config


def read(workdir: Path) -> EventAccumulator:
    everything = {"scalars": 0, "images": 0}
    return EventAccumulator(str(workdir / "tensorboard"), size_guidance=everything).Reload()


def curves(workdir: Path) -> dict[str, list[tuple[int, float]]]:
    """{'train/loss': [(1, 2.5), …], …}, in the order of the file."""
    seen = read(workdir)
    return {
        tag: [(event.step, event.value) for event in seen.Scalars(tag)]
        for tag in seen.Tags()["scalars"]
    }


def curves_of_rows(workdir: Path) -> dict[str, list[tuple[int, float]]]:
    """What curves() should give, from metrics.jsonl: float32, as event files hold them."""
    made: dict[str, list[tuple[int, float]]] = {}
    for row in map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines()):
        split = row.get("split") or row["event"]
        for name, value in row.items():
            if (
                split in ("train", "eval", "epoch")
                and type(value) in (float, int)
                and name != "step"
            ):
                made.setdefault(f"{split}/{name}", []).append((row["step"], np.float32(value)))
    return made


def places(workdir: Path) -> Counter:
    """How often each tag and step is in the folder, for a reader that drops nothing."""
    return Counter(
        (value.tag, event.step)
        for path in (workdir / "tensorboard").iterdir()
        for event in LegacyEventFileLoader(str(path)).Load()
        for value in event.summary.value
    )


def event_files(workdir: Path) -> list[Path]:
    """Those that are not empty, as one is that was the last start's."""
    return [path for path in (workdir / "tensorboard").iterdir() if path.stat().st_size]


def assert_told(workdir: Path) -> None:
    """Curves are the rows, images are those of the evaluations, and nothing is there twice."""
    assert curves(workdir) == curves_of_rows(workdir)
    evaluated = [row["step"] for row in rows(workdir) if row["split"] == "eval"]
    seen = read(workdir)
    for tag in ("eval/confusion_matrix", "eval/filters/conv"):
        assert [event.step for event in seen.Images(tag)] == evaluated
    assert set(places(workdir).values()) == {1}
    assert len(event_files(workdir)) == 1


def test_a_run_is_told_and_its_bits_are_as_without(told_config, tmp_path) -> None:
    state = train(told_config, tmp_path / "told")
    assert_told(tmp_path / "told")
    found = curves(tmp_path / "told")
    assert [step for step, _ in found["train/loss"]] == [1, 10, 20, 30, 40]
    assert [step for step, _ in found["eval/accuracy"]] == [16, 32, 40]
    assert found["epoch/epoch"] == [(17, 1), (34, 2)]
    told_config.tensorboard = False
    untold = train(told_config, tmp_path / "untold")
    jax.tree.map(np.testing.assert_array_equal, state, untold)
    assert rows(tmp_path / "told") == rows(tmp_path / "untold")
    assert not (tmp_path / "untold/tensorboard").exists()


def test_images_decode_to_what_was_evaluated(told_config, tmp_path) -> None:
    state = train(told_config, tmp_path)
    seen = read(tmp_path)
    last = seen.Images("eval/confusion_matrix")[-1]
    shown = np.asarray(Image.open(io.BytesIO(last.encoded_image_string)))
    told = events(tmp_path, "predictions")[0]  # the first twenty of 37
    assert (last.width, last.height) == shown.shape[:2] == (331, 331)
    for label, taken_for in zip(told["labels"], told["classes"], strict=True):
        assert (shown[33 * label + 16, 33 * taken_for + 16] < 255).any()
    filters = seen.Images("eval/filters/conv")[-1]
    shown = np.asarray(Image.open(io.BytesIO(filters.encoded_image_string)))
    kernel = np.asarray(state.params["conv"]["kernel"])
    assert shown.shape == (2 * 43 + 4, 2 * 43 + 4, 3)  # four of 3 × 3, 13 times as large
    corner = np.rint(127.5 + 127.5 * kernel[0, 0, 0, 0] / np.abs(kernel).max())
    assert shown[10, 10].tolist() == [corner] * 3


def test_the_config_is_there_as_hyperparameters(told_config, tmp_path) -> None:
    told_config.num_steps = 2
    train(told_config, tmp_path)
    content = read(tmp_path).PluginTagToContent("hparams")
    start = metadata.parse_session_start_info_plugin_data(content[metadata.SESSION_START_INFO_TAG])
    found = {
        name: getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()
    }
    assert found["optimizer.learning_rate"] == 0.01
    assert found["model.name"] == "tiny:TinyNet"
    assert found["data.shuffle"] is True
    wanted = {name for name, value in flatten(told_config).items() if value is not None}
    assert found.keys() == wanted
    experiment = metadata.parse_experiment_plugin_data(content[metadata.EXPERIMENT_TAG])
    assert {info.name.tag for info in experiment.metric_infos} == {"eval/accuracy", "eval/loss"}


@pytest.mark.slow
def test_two_stops_and_a_kill_leave_each_step_once(told_config, tmp_path) -> None:
    """The kill: rows up to step 32 are written when the newest save is that of step 17."""
    train(told_config, tmp_path / "straight")
    cut = tmp_path / "cut"
    train(told_config, cut, should_stop=(cut / "checkpoints/latest/16").exists)
    assert [row["step"] for row in rows(cut)] == [1, 10, 16]
    shutil.copytree(cut / "checkpoints", tmp_path / "before")
    train(told_config, cut, should_stop=(cut / "checkpoints/latest/32").exists)
    assert max(step for step, _ in curves(cut)["eval/loss"]) == 32
    first_clock = read(cut).Scalars("train/loss")[0].wall_time
    shutil.rmtree(cut / "checkpoints")
    shutil.copytree(tmp_path / "before", cut / "checkpoints")
    (event_file,) = event_files(cut)
    with event_file.open("ab") as file:
        file.write(event_file.read_bytes()[:30])  # the next event was not whole on the disk
    train(told_config, cut)
    assert_told(cut)
    assert rows(cut) == rows(tmp_path / "straight")
    clocks = ("train/steps_per_second", "train/images_per_second", "eval/seconds")
    left, right = curves(cut), curves(tmp_path / "straight")
    assert left.keys() == right.keys()
    assert all(left[tag] == right[tag] for tag in left if tag not in clocks)
    assert read(cut).Scalars("train/loss")[0].wall_time == first_clock  # it keeps its time
    (told,) = events(cut, "damaged_event_file")
    assert f"{event_file} is damaged or cut short after byte" in told["message"]


@pytest.mark.slow
@pytest.mark.promise
@pytest.mark.parametrize("moment", ["images", "row"])
def test_a_kill_at_an_evaluation_that_a_stop_put_off(
    told_config, tmp_path, monkeypatch, moment: str
) -> None:
    """The save is that of the evaluation's step, so nothing cuts what the kill left of it."""
    # Asked after the first part of the evaluation of step 16.
    train(told_config, tmp_path, should_stop=(tmp_path / "checkpoints/latest/12").exists)
    assert [row["step"] for row in rows(tmp_path)] == [1, 10]
    assert (tmp_path / "checkpoints/latest/16").exists()

    def killed(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(EventFile, moment, killed)
        with pytest.raises(KeyboardInterrupt):
            train(told_config, tmp_path)
    told = [row["step"] for row in rows(tmp_path)]
    assert told == ([1, 10] if moment == "images" else [1, 10, 16])
    train(told_config, tmp_path)
    assert_told(tmp_path)


@pytest.mark.slow
@pytest.mark.promise
def test_the_field_may_be_turned_on_in_the_middle(told_config, tmp_path) -> None:
    told_config.tensorboard = False
    train(told_config, tmp_path, should_stop=(tmp_path / "checkpoints/latest/20").exists)
    told_config.tensorboard = True
    train(told_config, tmp_path)
    assert curves(tmp_path) == curves_of_rows(tmp_path)
    assert [step for step, _ in curves(tmp_path)["train/loss"]] == [1, 10, 20, 30, 40]
    images = [event.step for event in read(tmp_path).Images("eval/confusion_matrix")]
    assert images == [32, 40]  # that of step 16 was never drawn


def test_a_run_from_before_the_field_opens(tiny_config, tmp_path) -> None:
    tiny_config.num_steps = 1
    train(tiny_config, tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    del written["config"]["tensorboard"]
    del written["environment"]["mnist_flax"]  # as 0.1.0 wrote it
    (tmp_path / "config.json").write_text(json.dumps(written))
    assert int(restore(tmp_path, "latest", {}).state.step) == 1


ROW = {"step": 16, "split": "eval", "loss": 0.5, "accuracy": 0.75, "dataset": "mnist"}
DRAWN = {"dot": np.zeros((2, 3, 3), np.uint8)}


def test_a_crash_between_an_image_and_its_row_or_a_row_and_its_event(tmp_path) -> None:
    """In each case the folder has what metrics.jsonl has after the next start."""
    folder = tmp_path / "tensorboard"
    with closing(EventFile(folder, [], {}, (), pytest.fail)) as event_file:
        event_file.images(16, "eval", DRAWN)  # killed before metrics.jsonl has the row
    with closing(EventFile(folder, [], {}, (), pytest.fail)) as event_file:
        assert places(tmp_path) == {
            ("_hparams_/experiment", 0): 1,
            ("_hparams_/session_start_info", 0): 1,
        }
        event_file.images(16, "eval", DRAWN)  # killed when it has
    EventFile(folder, [ROW], {}, (), pytest.fail).close()
    assert curves(tmp_path) == {"eval/loss": [(16, 0.5)], "eval/accuracy": [(16, 0.75)]}
    assert [event.step for event in read(tmp_path).Images("eval/dot")] == [16]
    assert set(places(tmp_path).values()) == {1}


def test_a_crash_before_the_older_file_is_removed(tmp_path) -> None:
    folder = tmp_path / "tensorboard"
    with closing(EventFile(folder, [], {}, (), pytest.fail)) as event_file:
        event_file.row(ROW)
        event_file.row(ROW | {"step": 17})
    (older,) = folder.iterdir()
    kept = older.read_bytes()
    with closing(EventFile(folder, [ROW], {}, (), pytest.fail)):
        older.write_bytes(kept)
    assert [step for step, _ in curves(tmp_path)["eval/loss"]] == [16]  # TensorBoard drops them
    with closing(EventFile(folder, [ROW], {}, (), pytest.fail)):
        assert older.stat().st_size == 0  # a TensorBoard that reads it finds its end
        assert set(places(tmp_path).values()) == {1}
    with closing(EventFile(folder, [ROW], {}, (), pytest.fail)):
        assert not older.exists()


def test_a_row_is_on_the_disk_before_the_next_line_runs(tmp_path) -> None:
    with closing(EventFile(tmp_path / "tensorboard", [], {}, (), pytest.fail)) as event_file:
        event_file.row(ROW)
        assert curves(tmp_path)["eval/loss"] == [(16, 0.5)]
        event_file.row({"step": 17, "event": "resumed", "message": "…", "rows": 3})
        assert len(places(tmp_path)) == 4  # two values and the hyperparameters


@pytest.mark.slow
@pytest.mark.promise
def test_a_flipped_bit_costs_images_and_is_told(told_config, tmp_path) -> None:
    train(told_config, tmp_path, should_stop=(tmp_path / "checkpoints/latest/32").exists)
    (event_file,) = event_files(tmp_path)
    content = bytearray(event_file.read_bytes())
    content[content.rindex(b"IHDR")] ^= 1  # in the last image
    event_file.write_bytes(content)
    train(told_config, tmp_path)
    assert curves(tmp_path) == curves_of_rows(tmp_path)
    images = [event.step for event in read(tmp_path).Images("eval/confusion_matrix")]
    assert images == [16, 40]
    assert len(events(tmp_path, "damaged_event_file")) == 1


@pytest.mark.slow  # a kill at an evaluation is in the ordinary run
def test_kill_9_and_the_same_command_again(digits, tmp_path, launch) -> None:
    workdir = tmp_path / "run"
    arguments = [
        f"--config={TESTS / 'tiny.py'}",
        f"--workdir={workdir}",
        f"--config.data.data_dir={digits}",
        "--config.tensorboard=true",
        "--config.num_steps=4000",
        "--config.log_every_steps=7",
        "--config.eval_every_steps=400",
        "--config.checkpoint_every_steps=900",
    ]
    process = subprocess.Popen(
        launch_command(*arguments), cwd=tmp_path, env=launch_environment(), stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 120
    while not (workdir / "checkpoints/latest/900").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.communicate()
    done = launch(*arguments)
    assert done.returncode == 0, done.stderr
    assert "Resumed at step" in done.stderr
    assert_told(workdir)
    assert [step for step, _ in curves(workdir)["eval/loss"]] == [*range(400, 4001, 400)]


def test_without_the_extra_one_line_says_so_before_anything_is_done(digits, tmp_path) -> None:
    missing = tmp_path / "path/tensorboardX"
    missing.mkdir(parents=True)
    text = "raise ModuleNotFoundError(\"No module named 'tensorboardX'\")\n"
    (missing / "__init__.py").write_text(text)
    environment = launch_environment() | {"PYTHONPATH": f"{missing.parent}{os.pathsep}{TESTS}"}
    arguments = (f"--config={TESTS / 'tiny.py'}", f"--config.data.data_dir={digits}")
    command = launch_command(*arguments, "--config.tensorboard=true")
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == (
        "Error: config.tensorboard=true: No module named 'tensorboardX'. Install it with "
        "pip install -e '.[tensorboard]', or leave the field out.\n"
    )
    assert not (tmp_path / "runs").exists()


def test_a_run_without_the_field_needs_no_tensorboard(tiny_config, tmp_path, monkeypatch) -> None:
    for name in ("tensorboardX", "mnist_flax.show.tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)  # to import it would be an error
    tiny_config.num_steps = 1
    assert int(train(tiny_config, tmp_path).step) == 1


def test_what_cannot_be_written_is_told_in_a_line(tmp_path, monkeypatch) -> None:
    (tmp_path / "tensorboard").write_text("")
    with pytest.raises(UserError, match=r"tensorboard: File exists\. Make room, or see to"):
        EventFile(tmp_path / "tensorboard", [], {}, (), pytest.fail)

    def full(_descriptor: int) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    with closing(EventFile(tmp_path / "other", [], {}, (), pytest.fail)) as event_file:
        monkeypatch.setattr(os, "fsync", full)
        for write in (lambda: event_file.row(ROW), lambda: event_file.images(1, "eval", DRAWN)):
            with pytest.raises(UserError, match=r"other: No space left on device\. Make room"):
                write()
        monkeypatch.undo()

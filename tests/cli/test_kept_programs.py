"""What is compiled is kept for the next process, and believed only if it is what was written."""

import contextlib
import json
import multiprocessing
import os
import subprocess
from pathlib import Path

import pytest
from conftest import launch_command, launch_environment

from mnist_flax.cli import kept_programs
from mnist_flax.errors import UserError
from mnist_flax.workdir.checkpoints import Checkpoints
from mnist_flax.workdir.lock import locked

TINY = ("--config.num_steps=2", "--config.eval_every_steps=2", "--config.checkpoint_every_steps=2")


@pytest.fixture
def start(tmp_path, digits):
    """Starts a run of two steps, which is done in a workdir of its own; returns what it says."""
    home = tmp_path / "cache"
    environment = launch_environment() | {"XDG_CACHE_HOME": str(home)}
    for name in list(environment):
        if name.startswith(("JAX_", "TF_CPP")) and "PLATFORMS" not in name:
            del environment[name]

    def run(name: str, *more: str, **variables: str) -> str:
        command = launch_command(
            "--config=tiny.py", f"--workdir={tmp_path / name}", f"--config.data.data_dir={digits}"
        )
        done = subprocess.run(
            [*command, *TINY, *more],
            cwd=Path(__file__).parent.parent,
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return done.stderr

    return run


def saved(workdir: Path) -> str:
    """The digest of the state that a run ended with."""
    checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
    with contextlib.closing(checkpoints):
        return checkpoints.metadata(2)["state_sha256"]


def programs(tmp_path: Path) -> list[Path]:
    (folder,) = (tmp_path / "cache" / "mnist_flax" / "compiled").iterdir()
    return sorted(kept_programs._programs(folder))


@pytest.mark.slow
@pytest.mark.promise
@pytest.mark.compiles
def test_a_second_start_reads_what_the_first_compiled(start, tmp_path):
    assert "Compiled programs are kept in" in start("first")
    kept = {path: path.stat().st_mtime_ns for path in programs(tmp_path)}
    assert any("jit_train_chunk" in path.name for path in kept)
    (table,) = (tmp_path / "cache").rglob("digests.json")
    assert set(json.loads(table.read_text())) == {path.name for path in kept}

    said = start("second")
    assert "kept" not in said
    assert "cpu_aot_loader" not in said
    assert {path: path.stat().st_mtime_ns for path in programs(tmp_path)} == kept
    assert saved(tmp_path / "second") == saved(tmp_path / "first")

    spoiled = next(path for path in kept if "jit_train_chunk" in path.name)
    content = bytearray(spoiled.read_bytes())
    content[len(content) // 2] ^= 1
    spoiled.write_bytes(content)
    (half,) = [spoiled.with_name("jit_half-cache")]
    half.write_bytes(b"a kill left this")
    said = start("third")
    assert "Kept programs that were not what was written: 1, deleted from" in said
    assert not half.exists()
    assert spoiled.stat().st_mtime_ns != kept[spoiled]
    assert saved(tmp_path / "third") == saved(tmp_path / "first")


@pytest.mark.slow
@pytest.mark.compiles
@pytest.mark.parametrize("off", ["field", "variable"])
def test_it_can_be_turned_off(start, tmp_path, off):
    if off == "field":
        start("first", "--config.compilation_cache=false")
    else:
        start("first", JAX_ENABLE_COMPILATION_CACHE="false")
    assert not (tmp_path / "cache").exists()


def test_a_folder_that_cannot_be_made_is_no_reason_to_stop(start, tmp_path):
    (tmp_path / "cache").write_text("a file")
    assert "Finished at step 2" in start("first")


def recorded_by_another(folder, started):
    """Records the folder's programs again and again, as a sweep's runs do when they end."""
    started.wait()
    for _ in range(200):
        kept_programs._alone(folder, kept_programs._tidy)
        kept_programs._alone(folder, kept_programs._record)


def test_runs_that_end_at_once_keep_the_table_and_each_other_alive(tmp_path):
    (tmp_path / "jit_step-cache").write_bytes(b"a program")
    kept_programs._record(tmp_path)
    context = multiprocessing.get_context("forkserver")
    started = context.Barrier(3)
    processes = [
        context.Process(target=recorded_by_another, args=(tmp_path, started)) for _ in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert list(kept_programs._digests(tmp_path)) == ["jit_step-cache"]


def test_a_full_disk_costs_the_table_and_not_the_run(tmp_path):
    def full(folder):
        raise UserError(f"{folder}: cannot be written (No space left on device).")

    assert kept_programs._alone(tmp_path, full) == 0


def test_a_folder_that_another_run_holds_is_left_to_it(tmp_path, monkeypatch):
    (tmp_path / "jit_step-cache").write_bytes(b"a program")
    monkeypatch.setattr(kept_programs, "_PATIENCE", 0.1)
    with locked(tmp_path):
        assert kept_programs._alone(tmp_path, kept_programs._record) == 0
    assert not (tmp_path / "digests.json").exists()
    assert kept_programs._alone(tmp_path, kept_programs._record) == 1


def test_what_was_spoiled_while_a_run_went_on_is_not_believed(tmp_path):
    program = tmp_path / "jit_step-cache"
    program.write_bytes(b"a program")
    kept_programs._record(tmp_path)
    program.write_bytes(b"a programm")
    kept_programs._record(tmp_path)  # by a run that started before it was spoiled
    assert kept_programs._tidy(tmp_path) == 1
    assert not program.exists()


def test_the_oldest_go_where_there_are_too_many(tmp_path, monkeypatch):
    for age, name in enumerate(("newest", "middle", "oldest")):
        path = tmp_path / name
        path.write_bytes(b"x" * 100)
        os.utime(path, (1e9 - age, 1e9 - age))
    kept_programs._record(tmp_path)
    monkeypatch.setattr(kept_programs, "_MOST_BYTES", 250)
    assert kept_programs._tidy(tmp_path) == 0
    assert sorted(path.name for path in kept_programs._programs(tmp_path)) == ["middle", "newest"]


def test_false_alarms_are_hidden_where_there_are_some(monkeypatch):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    monkeypatch.setattr(kept_programs.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(kept_programs.importlib.metadata, "version", lambda name: "0.12.0")
    kept_programs.hide_false_alarms()
    assert "TF_CPP_MIN_LOG_LEVEL" not in os.environ
    monkeypatch.setattr(kept_programs.importlib.metadata, "version", lambda name: "0.10.1")
    kept_programs.hide_false_alarms()
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3"
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    kept_programs.hide_false_alarms()
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "0"

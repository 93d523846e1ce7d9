"""The folder of a run: one process at a time, files whole or not at all, rows that can be cut."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mnist_flax.errors import UserError
from mnist_flax.workdir import files as folder
from mnist_flax.workdir.files import read_config
from mnist_flax.workdir.lock import locked
from mnist_flax.workdir.rows import append_row, read_rows, truncate_rows

HOLD = """
import sys
from pathlib import Path
from mnist_flax.workdir.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen]:
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def metrics(tmp_path: Path, text: str) -> Path:
    (tmp_path / "metrics.jsonl").write_text(text)
    return tmp_path


def test_a_second_process_is_kept_out_and_told_who_is_in(
    tmp_path: Path, holder: subprocess.Popen
) -> None:
    with pytest.raises(UserError) as error, locked(tmp_path / "run"):
        pytest.fail("two in one folder")
    assert str(error.value).startswith(f"workdir={tmp_path}/run: process {holder.pid} on ")
    assert "trains in it" in str(error.value)


@pytest.mark.parametrize("end", ["orderly", "killed"])
def test_the_folder_is_free_once_its_holder_is_gone(
    tmp_path: Path, holder: subprocess.Popen, end: str
) -> None:
    if end == "killed":
        holder.kill()
        holder.wait()
    else:
        holder.communicate()
    with locked(tmp_path / "run"):
        assert str(os.getpid()) in (tmp_path / "run" / ".holder").read_text()


def test_one_process_cannot_enter_twice_but_again(tmp_path: Path) -> None:
    for _ in range(2):
        with locked(tmp_path), pytest.raises(UserError, match="trains in it"):  # noqa: SIM117
            with locked(tmp_path):
                pytest.fail("entered twice")


def test_the_lock_goes_with_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        raise ZeroDivisionError
    with locked(tmp_path):
        pass


def test_parents_are_created(tmp_path: Path) -> None:
    with locked(tmp_path / "runs" / "first"):
        assert (tmp_path / "runs" / "first").is_dir()


@pytest.mark.parametrize("path", ["file", "file/run"])
def test_a_file_is_no_folder(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=rf"^workdir=\S*/{path}: cannot be written \("):  # noqa: SIM117
        with locked(tmp_path / path):
            pytest.fail("entered a file")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "config.json"
    folder.write_atomic(path, "old ü")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        UserError, match=r"config\.json: cannot be written \(No space left on device\)"
    ):
        folder.write_atomic(path, "new")
    assert path.read_text(encoding="utf-8") == "old ü"
    monkeypatch.undo()
    folder.write_atomic(path, "new")
    assert path.read_text(encoding="utf-8") == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_the_config_comes_back(tmp_path: Path) -> None:
    versions = {"jax": "1", "mnist_flax": "2"}
    content = {"config": {"seed": 0, "num_epochs": None, "rate": 0.1}, "environment": versions}
    folder.write_config(tmp_path, content)
    assert read_config(tmp_path) == content


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "not found, so no run was started in {}. Train first"),
        ("", "cannot be read (Expecting value"),
        ('{"config": {"seed": 0', "cannot be read (Expecting"),
        ("[]", "holds no config"),
        ('{"seed": 0}', "holds no config"),
        ('{"config": 1}', "holds no config"),
    ],
)
def test_what_is_told_of_a_config_that_is_none(tmp_path: Path, text: str | None, told: str) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError) as error:
        read_config(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'config.json'}: {told.format(tmp_path)}")


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    rows = [{"step": 1, "loss": 0.1 + 0.2, "message": "zwei\nZeilen"}, {"step": 2, "none": None}]
    for row in rows:
        append_row(tmp_path, row)
    assert read_rows(tmp_path) == rows
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 2


def test_no_file_is_no_rows(tmp_path: Path) -> None:
    assert read_rows(tmp_path) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_row_that_json_cannot_hold_leaves_the_file_alone(tmp_path: Path, value: float) -> None:
    append_row(tmp_path, {"step": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        append_row(tmp_path, {"step": 2, "loss": value})
    assert read_rows(tmp_path) == [{"step": 1}]


@pytest.mark.parametrize("rest", ["", '{"st', '{"step": 2}', "\0\0\0"])
def test_a_last_line_without_its_end_is_dropped(tmp_path: Path, rest: str) -> None:
    assert read_rows(metrics(tmp_path, '{"step": 1}\n' + rest)) == [{"step": 1}]


@pytest.mark.parametrize("line", [b'{"st', b"", b"5", b'["step"]', b"\xff\xfe", b"\0\0\0"])
def test_a_broken_line_in_the_middle_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + line + b'\n{"step": 3}\n')
    with pytest.raises(UserError) as error:
        read_rows(tmp_path)
    assert str(error.value).startswith(f"{path}, line 2: is no JSON object.")


ROWS = [
    {"step": 0, "event": "started"},
    {"step": 1, "split": "train"},
    {"step": 5, "split": "train"},
    {"step": 5, "split": "eval"},
    {"step": 5, "event": "stopped"},
    {"step": 6, "split": "train"},
]


@pytest.mark.parametrize(
    ("step", "left"), [(-1, []), (0, [0]), (1, [0, 1]), (5, [0, 1, 2, 3, 4]), (6, [*range(6)])]
)
def test_rows_that_will_be_written_again_are_cut(
    tmp_path: Path, step: int, left: list[int]
) -> None:
    metrics(tmp_path, "".join(json.dumps(row) + "\n" for row in ROWS) + '{"step": 7, "cut sho')
    truncate_rows(tmp_path, step)
    assert read_rows(tmp_path) == [ROWS[i] for i in left]
    append_row(tmp_path, {"step": 8})
    assert read_rows(tmp_path)[-1] == {"step": 8}


def test_cutting_changes_no_byte_of_what_stays(tmp_path: Path) -> None:
    append_row(tmp_path, {"step": 1, "loss": 2.3025850929940455, "split": "train", "ü": "ß"})
    before = (tmp_path / "metrics.jsonl").read_bytes()
    append_row(tmp_path, {"step": 2})
    truncate_rows(tmp_path, 1)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_what_is_written_is_on_the_disk_before_anything_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row before its step is saved, a file before it takes the place of the old one."""
    sizes: list[int] = []

    def fsync(number: int) -> None:
        sizes.append(os.fstat(number).st_size)
        assert not (tmp_path / "whole").exists()

    monkeypatch.setattr(os, "fsync", fsync)
    append_row(tmp_path, {"step": 1})
    append_row(tmp_path, {"step": 2})
    folder.write_atomic(tmp_path / "whole", "text")
    row = len('{"step": 1}\n')
    assert sizes == [row, 2 * row, len("text")]

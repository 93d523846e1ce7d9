"""What is done to a workdir, or to what a run finds around it."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from harness import Bench, digests, files_of, how_it_ended

from mnist_flax.workdir.rows import METRICS_FILE

NEWEST = "checkpoints/latest/24"  # of the run that was killed at step 28


def truncate(path: Path) -> None:
    """Leaves the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zero(path: Path) -> None:
    """Replaces a file's bytes by zeros."""
    path.write_bytes(bytes(path.stat().st_size))


def flip(path: Path) -> None:
    """Flips a bit in the middle of a file; of Orbax's tree, in the first name of an array.

    Much else of what that file says is read by nobody: the arrays' digests decide.
    """
    content = bytearray(path.read_bytes())
    name = content.find(b'"key": "kernel"')
    content[len(content) // 2 if name < 0 else name + 8] ^= 4
    path.write_bytes(content)


HARMS = {"truncated": truncate, "zeroed": zero, "with a flipped bit": flip, "missing": Path.unlink}


def harm_file(
    harm: Callable[[Path], object], part: str, save: str = NEWEST
) -> Callable[[Path], None]:
    """Returns what harms one file of a save, or each of its arrays' files."""

    def harming(workdir: Path) -> None:
        found = list(files_of(workdir / save, part))
        assert found, f"no file of {save} has {part}"
        for path in found:
            harm(path)

    return harming


def remove(name: str) -> Callable[[Path], None]:
    """Returns what removes a file or folder of the workdir."""

    def removing(workdir: Path) -> None:
        path = workdir / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return removing


def remove_all_but_the_config(workdir: Path) -> None:
    """Removes the saves, and on purpose what is left of metrics.jsonl."""
    remove("checkpoints")(workdir)
    (workdir / METRICS_FILE).unlink(missing_ok=True)


def empty_folders(workdir: Path) -> None:
    """Leaves of the saves nothing but the folders that they lay in."""
    remove("checkpoints")(workdir)
    for name in ("latest", "best"):
        (workdir / "checkpoints" / name).mkdir(parents=True)


def as_before_the_first_save(workdir: Path) -> None:
    """Leaves what a kill at step 2 would have left: a row, an unfinished save, no save."""
    unfinished = workdir / "kept"
    shutil.copytree(workdir / NEWEST, unfinished)
    empty_folders(workdir)
    unfinished.rename(workdir / "checkpoints/latest/4.orbax-checkpoint-tmp")
    edit_rows(lambda lines: lines[: next(i for i, x in enumerate(lines) if b"saved" in x)])(workdir)


def half_of_an_old_save(workdir: Path) -> None:
    """Removes every second file of step 20, which a later save would have deleted."""
    for path in list(files_of(workdir / "checkpoints/latest/20", ""))[::2]:
        path.unlink()


def empty_old_save(workdir: Path) -> None:
    """Leaves nothing of step 20 but its folder."""
    remove("checkpoints/latest/20")(workdir)
    (workdir / "checkpoints/latest/20").mkdir()


def unfinished_saves(workdir: Path) -> None:
    """Leaves what a kill leaves of saves: of a step that comes again, and of one that does not."""
    latest = workdir / "checkpoints/latest"
    for name in ("28", "23"):
        shutil.copytree(latest / "24", latest / f"{name}.orbax-checkpoint-tmp")
    shutil.copytree(
        workdir / "checkpoints/best/16", workdir / "checkpoints/best/15.orbax-checkpoint-tmp"
    )


def stale_lock(workdir: Path) -> None:
    """Has the lock name a process that is gone."""
    assert (workdir / ".lock").exists()
    (workdir / ".holder").write_text("process 999999 on elsewhere")


def future(workdir: Path) -> None:
    """Has every file be of next year, as if the clock had been set back since."""
    next_year = time.time() + 365 * 24 * 3600
    for path in workdir.rglob("*"):
        os.utime(path, (next_year, next_year))


def edit_rows(edit: Callable[[list[bytes]], list[bytes]]) -> Callable[[Path], None]:
    """Returns what changes the lines of metrics.jsonl."""

    def editing(workdir: Path) -> None:
        path = workdir / METRICS_FILE
        path.write_bytes(b"".join(edit(path.read_bytes().splitlines(keepends=True))))

    return editing


def no_namespaces() -> str:
    """Says why this process cannot mount anything of its own, if it cannot."""
    tried = subprocess.run(["unshare", "--mount", "true"], capture_output=True, text=True)
    return tried.stderr.strip() if tried.returncode else ""


def in_namespace(script: str) -> tuple[str, ...]:
    """Returns a prefix that runs a shell script, in which "$@" is the command, with own mounts."""
    return ("unshare", "--mount", "sh", "-c", "W={workdir}; " + script, "sh")


READ_ONLY = 'mount --bind "$W" "$W" && mount -o remount,ro,bind "$W" && exec "$@"'
# A disk of 8 MiB of which 40 KiB are free, less than a save; it goes with its namespace, so what it
# held is copied back.
SMALL_DISK = (
    'cp -a "$W" "$W-kept" && mount -t tmpfs -o size=8m tmpfs "$W" && cp -a "$W-kept/." "$W" && '
    'free=$(df -k --output=avail "$W" | tail -n 1) && '
    'head -c $(((free - 40) * 1024)) /dev/zero > "$W/filler" && rm -r "$W-kept" && '
    '{ "$@"; status=$?; } && rm "$W/filler" && cp -a "$W" "$W-full" && umount "$W" && '
    'rm -r "$W" && mv "$W-full" "$W" && exit $status'
)


def two_processes(bench: Bench, workdir: Path) -> str:
    """Starts a second process while the first is stopped in a chunk; then lets that end."""
    first = subprocess.Popen(
        bench.command(workdir, during="stop@chunk#6"),
        cwd=bench.folder,
        env=bench.environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        os.waitid(os.P_PID, first.pid, os.WSTOPPED)
        before = digests(workdir)
        second = bench.launch(workdir)
        told = how_it_ended(second)
        assert second.returncode == 1, second.stderr
        assert f"process {first.pid} on" in second.stderr
        assert digests(workdir) == before
        first.send_signal(18)  # SIGCONT
        errors = first.communicate(timeout=120)[1]
        assert first.returncode == 0, errors
    finally:
        first.kill()
    return f"the second {told}; the first goes on; {bench.compare(workdir)}"

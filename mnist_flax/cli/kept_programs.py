"""What a process compiles is kept for the next one: JAX's own cache, in a folder to be trusted.

It lies in ~/.cache/mnist_flax/compiled/, one folder for each machine and each set of versions: a
program for one processor may not run on another. JAX believes whatever it finds there, so a table
of digests stands next to it: a file that is not what was written, or that a kill has left half
written, is deleted before JAX looks, and compiled again.

Nothing here imports JAX before it is needed: hide_false_alarms() must come first.
"""

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from mnist_flax.cli.flags import Launch
from mnist_flax.config.paths import cache_folder

_DIGESTS = "digests.json"
_PATIENCE = 10.0  # seconds that another process may take for its table
_MOST_BYTES = 256 * 2**20  # the oldest programs go
_SHORTEST = 0.1  # seconds: what is compiled sooner is not worth a file
_ALARMING = "0.10.1"  # jaxlib whose every program read back is an error on the console


def hide_false_alarms() -> None:
    """Hides what jaxlib 0.10.1 reports of each compiled program that it reads back on a CPU.

    Two lines of 2 kB each, about features that no processor has (jax issue 38445). Other errors of
    XLA's raise exceptions as well. A TF_CPP_MIN_LOG_LEVEL of the user's own stays, and so does
    everything where JAX is installed for an accelerator. Called before JAX is imported.
    """
    accelerator = importlib.util.find_spec("jax_plugins") is not None
    if not accelerator and importlib.metadata.version("jaxlib") == _ALARMING:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@contextlib.contextmanager
def kept_programs(launch: Launch, report: Callable[[str], None]) -> Iterator[None]:
    """Has JAX read what an earlier process compiled, and keep what this one compiles.

    Nothing is changed where config.compilation_cache is false, where JAX_COMPILATION_CACHE_DIR or
    JAX_ENABLE_COMPILATION_CACHE say what is to be done, where the folder cannot be written, or
    where false alarms would fill the console.

    Args:
      launch: without a recipe, programs are kept, as they are by default.
      report: gets a line about where they are if there are none yet, and about spoiled files.

    Raises:
      UserError: JAX has no device, or is set so that no run can work.
    """
    recipe = {} if launch.recipe is None else launch.recipe
    if not launch.overrides.get("compilation_cache", recipe.get("compilation_cache", True)):
        yield
        return
    import jax

    from mnist_flax.core.settings import require_jax

    require_jax()
    folder = None if _left_to_the_user() or _alarms() else _folder(report)
    if folder is None:
        yield
        return
    before = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    if spoiled := _alone(folder, _tidy):
        report(f"Kept programs that were not what was written: {spoiled}, deleted from {folder}.")
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _SHORTEST)
    try:
        with warnings.catch_warnings():
            # What cannot be kept is compiled again: on a full disk, and, with jax 0.12, programs
            # of the kernels of cpu/half_precision.py.
            warnings.filterwarnings("ignore", "Error writing persistent compilation cache entry")
            yield
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
        _alone(folder, _record)


def _alone(folder: Path, work: Callable[[Path], int]) -> int:
    """Does the work while no other run of this machine does; where that fails, no run ends of it.

    On a full disk, or where a file system knows no locks, programs are compiled again.
    """
    from mnist_flax.errors import UserError
    from mnist_flax.workdir.lock import locked

    try:
        with locked(folder, patience=_PATIENCE):
            return work(folder)
    except (OSError, UserError):
        return 0


def _left_to_the_user() -> bool:
    import jax

    enabled = jax.config.jax_enable_compilation_cache  # type: ignore[attr-defined]
    return not enabled or "JAX_COMPILATION_CACHE_DIR" in os.environ


def _alarms() -> bool:
    import jax

    if jax.default_backend() != "cpu" or importlib.metadata.version("jaxlib") != _ALARMING:
        return False
    return os.environ.get("TF_CPP_MIN_LOG_LEVEL", "0") < "3"


def _folder(report: Callable[[str], None]) -> Path | None:
    """Returns this machine's folder, made if need be; None where it cannot be."""
    from mnist_flax.cpu import processor
    from mnist_flax.workdir.environment import environment

    known = {**environment(), "flags": processor.fields().get("flags", "")}
    machine = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]
    folder = cache_folder() / "compiled" / machine
    try:
        if not folder.exists():
            folder.mkdir(parents=True)
            report(f"Compiled programs are kept in {folder} (config.compilation_cache).")
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def _tidy(folder: Path) -> int:
    """Deletes what is not what was written, and the oldest beyond _MOST_BYTES.

    Returns:
      How many files were other than their digests say; those without one are a killed process's.
    """
    digests, spoiled, kept = _digests(folder), 0, []
    for path in _programs(folder):
        if digests.get(path.name) == _digest(path):
            kept.append((path.stat().st_mtime, path.stat().st_size, path))
        else:
            spoiled += path.name in digests
            path.unlink(missing_ok=True)
    total = 0
    for _, size, path in sorted(kept, reverse=True):
        total += size
        if total > _MOST_BYTES:
            path.unlink(missing_ok=True)
    return spoiled


def _record(folder: Path) -> int:
    """Writes the digest of each file, of those known before as they were; returns their number."""
    from mnist_flax.workdir.files import write_atomic

    digests = _digests(folder)
    table = {path.name: digests.get(path.name) or _digest(path) for path in _programs(folder)}
    write_atomic(folder / _DIGESTS, json.dumps(table, indent=1) + "\n")
    return len(table)


def _programs(folder: Path) -> list[Path]:
    """Returns every file but the table, and what holds the folder (.lock, .holder)."""
    files = (path for path in folder.iterdir() if path.is_file())
    return [path for path in files if path.name != _DIGESTS and not path.name.startswith(".")]


def _digests(folder: Path) -> Mapping[str, str]:
    try:
        table = json.loads((folder / _DIGESTS).read_text())
    except (OSError, ValueError):  # not there yet, or spoiled itself: everything is compiled again
        return {}
    return table if isinstance(table, dict) else {}


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:  # another process has just deleted it
        return ""

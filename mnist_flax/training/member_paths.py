"""The workdirs that config.task.members names, one by one or by globs."""

import glob
from collections.abc import Sequence
from pathlib import Path

from mnist_flax.config.paths import expanded
from mnist_flax.errors import UsageError
from mnist_flax.workdir.files import CONFIG_FILE

_FIELD = "config.task.members"


def member_paths(members: Sequence[str]) -> list[Path]:
    """Returns the workdirs, those of a glob in alphabetical order.

    Args:
      members: a workdir each, or a glob of the workdirs of several: 'runs/sweep/seed=*'. What a
        glob matches besides runs, such as a sweep's own files, is left out.

    Raises:
      UsageError: none is named, a glob matches no run, or a run is named twice.
    """
    found: list[Path] = []
    for name in members:
        path = expanded(name, _FIELD)
        if not glob.has_magic(name) or path.is_dir():
            found.append(path)
            continue
        start = Path(path.anchor)
        runs = sorted(start.glob(str(path.relative_to(start) if path.anchor else path)))
        runs = [run for run in runs if (run / CONFIG_FILE).is_file()]
        if not runs:
            raise UsageError(f"{_FIELD}: {name!r} matches no run's workdir.")
        found += runs
    if not found:
        raise UsageError(
            f"{_FIELD}: names no run. Name the workdirs of finished classifications: "
            "--config.task.members=\"('runs/a', 'runs/b')\", or a glob: \"('runs/sweep/seed=*',)\""
        )
    resolved = [path.resolve() for path in found]
    for place, path in enumerate(found):
        if resolved.index(resolved[place]) != place:
            raise UsageError(f"{_FIELD}: {path} is named twice. Name each member once.")
    return found

"""Other runs whose networks are taken in: found by name or by globs, restored, and compared."""

import glob
from collections.abc import Sequence
from pathlib import Path

import jax

from mnist_flax.config import diff
from mnist_flax.config.paths import expanded
from mnist_flax.errors import UsageError, UserError
from mnist_flax.use.prediction import is_classification
from mnist_flax.use.restore import Restored, restore
from mnist_flax.workdir.files import CONFIG_FILE
from mnist_flax.workdir.rows import read_rows

_FIELD = "config.task.members"
BESIDES = ("data_dir", "extra_eval_splits")  # of config.data: they make no data others


def member_paths(members: Sequence[str]) -> list[Path]:
    """Returns the workdirs of members, those of a glob in alphabetical order.

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
            "config.task.members=\"('runs/a', 'runs/b')\", or a glob: \"('runs/sweep/seed=*',)\""
        )
    resolved = [path.resolve() for path in found]
    for place, path in enumerate(found):
        if resolved.index(resolved[place]) != place:
            raise UsageError(f"{_FIELD}: {path} is named twice. Name each member once.")
    return found


def classification_of(path: Path, which: str, field: str) -> Restored:
    """Restores a network that tells classes apart by its logits.

    Raises:
      UserError: there is none in this workdir.
    """
    try:
        found = restore(path, which, {})
    except UserError as error:
        told = str(error).removeprefix(f"workdir={path}: ")
        kind = UsageError if isinstance(error, UsageError) else UserError
        raise kind(f"{field}: {path}: {told}") from error
    if found.task.model is None or not is_classification(found):
        raise UsageError(
            f"{field}: {path} holds no classification, but the task "
            f"{found.config.task.name!r}. Name the workdir of one."
        )
    _require_logits(found, path, field)
    return found


def _require_logits(found: Restored, path: Path, field: str) -> None:
    """Raises UsageError unless a network gives a logit for each class: a user's own may not."""
    assert found.task.model is not None  # who calls has looked
    images = jax.ShapeDtypeStruct((1, *found.image_shape), "float32")
    logits = jax.eval_shape(found.task.model.apply, found.variables, images)
    if getattr(logits, "shape", None) != (1, len(found.class_names)):
        raise UsageError(
            f"{field}: {path}: its model {found.config.model.name!r} gives no logits [B, "
            f"{len(found.class_names)}], which are needed here."
        )


def require_alike(
    field: str, path: Path, found: Restored, first_path: Path, first: Restored
) -> None:
    """Raises UserError if a member was trained on something else than the first one."""
    shapes = ["×".join(map(str, one.image_shape)) for one in (found, first)]
    classes = [", ".join(one.class_names) for one in (found, first)]
    for what, (one, other) in (("another image shape", shapes), ("other classes", classes)):
        if one != other:
            raise UserError(f"{field}: {path} has {what} than {first_path}: {one} and {other}.")
    if found.trained_on["fingerprint"] == first.trained_on["fingerprint"]:
        return
    theirs, ours = found.config.data.to_dict(), first.config.data.to_dict()
    fields = [
        f"config.data.{name} {one!r} and {other!r}"
        for name, (one, other) in diff(theirs, ours).items()
        if name.partition(".")[0] not in BESIDES
    ]
    sources = f"{found.trained_on['source']} and {first.trained_on['source']}"
    raise UserError(
        f"{field}: {path} was trained on other data than {first_path}: "
        f"{', '.join(fields) or sources}. Take members of the same data."
    )


def is_finished(workdir: Path) -> bool:
    """Says whether the newest process of a run has ended it."""
    of_ends = ("started", "resumed", "stopped", "finished")
    events = [row["event"] for row in read_rows(workdir) if row.get("event") in of_ends]
    return events[-1:] == ["finished"]

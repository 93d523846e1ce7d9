"""Networks of other runs that a run takes in when it starts: an ensemble's members, a teacher.

Their form goes into the run's config, their arrays into its first state, their digests into its
config and its rows. From its first save on, the run needs their workdirs no longer.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from mnist_flax.config import default_config, diff
from mnist_flax.config.paths import expanded
from mnist_flax.core.state import TrainState
from mnist_flax.core.trees import first_change
from mnist_flax.data.dataset import Dataset
from mnist_flax.errors import UsageError, UserError
from mnist_flax.training.members import (
    BESIDES,
    classification_of,
    is_finished,
    member_paths,
    require_alike,
)
from mnist_flax.use.restore import Restored, restore
from mnist_flax.workdir.digests import state_digest
from mnist_flax.workdir.files import read_config
from mnist_flax.workdir.saves import saved_steps

# What a run of these tasks writes into its config when it starts, and has when it goes on.
_WRITTEN = {
    "ensemble": ("model", "compute_dtype", "task.taken"),
    "distillation": ("task.network", "task.taken"),
}


class Taken(NamedTuple):
    """What a start takes in.

    Attributes:
      variables: the collections of the run's own variables that are theirs, whole.
      told: {'member1': a line}, what is said of each.
      digests: {'member1': SHA-256 of the variables that it answers with}.
      workdirs: theirs, in this order.
      trained_on: their data, as workdir/metadata.py describes them.
      same_data: whether the run must be on these; else its images and classes must be like them.
    """

    variables: Mapping[str, Any]
    told: Mapping[str, str]
    digests: Mapping[str, str]
    workdirs: tuple[Path, ...]
    trained_on: Mapping[str, Any]
    same_data: bool


def takes_networks(config: ConfigDict) -> bool:
    """Says whether the task of a config takes other runs' networks in."""
    return config.task.name in _WRITTEN


def with_taken(
    config: ConfigDict, workdir: Path, report: Callable[[str], None]
) -> tuple[ConfigDict, Taken | None]:
    """Returns the config with what it takes in written into it, and that itself.

    A run that goes on has it already, and does not look for it: only where the workdir of a member
    or teacher is still there and has changed, this is reported.

    Args:
      config: checked.
      workdir: of the run.
      report: gets what must be known.

    Raises:
      UserError: a workdir is missing, or what it holds does not fit.
    """
    if not takes_networks(config):
        return config, None
    if recorded := _recorded(workdir, config.task.name):
        _report_changed(recorded["task"], report)
        return _written(config, recorded), None
    if config.task.name == "ensemble":
        return _with_members(config)
    return _with_teacher(config)


def start(state: TrainState, taken: Taken, dataset: Dataset) -> TrainState:
    """Returns a new run's state with what it takes in.

    Raises:
      UserError: the run is on other data than it must be, or a module has another form than its
        run has saved.
    """
    theirs, path = taken.trained_on, taken.workdirs[0]
    field = "config.task.members" if taken.same_data else "config.task.teacher"
    shape = list(dataset.train.images.shape[1:])
    for what, one, other in (
        ("images of another shape", theirs["image_shape"], shape),
        ("other classes", theirs["class_names"], list(dataset.class_names)),
    ):
        if one != other:
            told = " and here ".join(", ".join(map(str, each)) for each in (one, other))
            raise UserError(f"{field}: {path} knows {what}: {told}. Name one of the same.")
    if taken.same_data and theirs["fingerprint"] != dataset.fingerprint:
        raise UserError(
            f"{field}: {path} was trained on other data than these: {theirs['name']}, "
            f"{theirs['source']}, and here {dataset.name}, {dataset.source}; or its splits are "
            "others. Leave config.data out, and it is that of the members."
        )
    variables = {name: jax.tree.map(jnp.asarray, tree) for name, tree in taken.variables.items()}
    before = {name: state.variables[name] for name in variables}
    if change := first_change(before, variables):
        raise UserError(
            f"{', '.join(map(str, taken.workdirs))}: a network has another form here than its run "
            f"has saved: {change}."
        )
    return state.replace(variables={**state.variables, **variables})


def _recorded(workdir: Path, name: str) -> dict[str, Any] | None:
    """Returns the config of the run that a workdir holds saves of; None for no such run."""
    if not saved_steps(workdir / "checkpoints"):
        return None
    config: dict[str, Any] = read_config(workdir)["config"]
    task = config.get("task", {})
    return config if task.get("name") == name and "taken" in task else None


def _written(config: ConfigDict, values: Mapping[str, Any]) -> ConfigDict:
    """Returns the config with what a run of its task writes into it; see _WRITTEN."""
    new = config.copy_and_resolve_references()
    with new.unlocked(), new.ignore_type():
        for field in _WRITTEN[config.task.name]:
            section, _, name = field.rpartition(".")
            value = (values[section] if section else values)[name]
            place = new[section] if section else new
            place[name] = ConfigDict(value) if isinstance(value, Mapping) else value
    if config.task.name == "ensemble" and _unsaid(config.data):
        kept = {"extra_eval_splits"} | ({"data_dir"} if config.data.data_dir else set())
        for name in values["data"].keys() - kept:
            new.data[name] = values["data"][name]
    return new


def _unsaid(data: ConfigDict) -> bool:
    """Whether a config says nothing of its data, but where they are and what is seen as well."""
    said = diff(default_config().data.to_dict(), data.to_dict())
    return not [name for name in said if name.partition(".")[0] not in BESIDES]


def _with_members(config: ConfigDict) -> tuple[ConfigDict, Taken]:
    which, field = config.task.get("checkpoint", "latest"), "config.task.members"
    paths = member_paths(config.task.get("members", ()))
    found = [classification_of(path, which, field) for path in paths]
    for path, one in zip(paths, found, strict=True):
        require_alike(field, path, one, paths[0], found[0])
    width = len(str(len(paths)))
    names = [f"member{number:0{width}}" for number in range(1, len(paths) + 1)]
    members = dict(zip(names, found, strict=True))
    collections = {
        collection: {
            name: one.variables[collection]
            for name, one in members.items()
            if one.variables.get(collection)
        }
        for collection in ("params", "batch_stats")
    }
    dtypes = {one.config.compute_dtype for one in found}
    dtype = "bfloat16" if "bfloat16" in dtypes else "float32"
    if config.compute_dtype not in ("float32", dtype):
        raise UsageError(
            f"config.compute_dtype={config.compute_dtype!r}: the members compute in {dtype}, as "
            "they were trained. Leave it out."
        )
    described = {name: _described(one) for name, one in members.items()}
    taken = _taken(members, paths, collections, same_data=True)
    values = {
        "model": {"name": "ensemble", "members": described},
        "compute_dtype": dtype,
        "task": {"taken": _provenance(members, taken)},
        "data": found[0].config.data.to_dict(),
    }
    return _written(config, values), taken


def _with_teacher(config: ConfigDict) -> tuple[ConfigDict, Taken]:
    name, which = config.task.get("teacher", ""), config.task.get("checkpoint", "latest")
    if not name:
        raise UsageError(
            "config.task.teacher: names no run. Name the workdir of a finished classification, "
            "such as an ensemble: config.task.teacher=runs/ensemble"
        )
    path = expanded(name, "config.task.teacher")
    teacher = classification_of(path, which, "config.task.teacher")
    carried = {name: teacher.variables.get(name, {}) for name in ("params", "batch_stats")}
    members = {"teacher": teacher}
    taken = _taken(members, [path], {"teacher": carried}, same_data=False)
    values = {"task": {"network": _described(teacher), "taken": _provenance(members, taken)}}
    return _written(config, values), taken


def _taken(
    found: Mapping[str, Restored],
    paths: Sequence[Path],
    variables: Mapping[str, Any],
    *,
    same_data: bool,
) -> Taken:
    told, digests = {}, {}
    for (name, one), path in zip(found.items(), paths, strict=True):
        digests[name] = state_digest(jax.device_get(one.variables))
        ended = "" if is_finished(path) else " Its run is not finished."
        told[name] = (
            f"{name}: {path}, step {int(one.state.step):,}, {one.config.model.name}, SHA-256 "
            f"{digests[name][:16]}….{ended}"
        )
    trained_on = next(iter(found.values())).trained_on
    return Taken(variables, told, digests, tuple(paths), trained_on, same_data)


def _provenance(found: Mapping[str, Restored], taken: Taken) -> dict[str, Any]:
    return {
        name: {"workdir": str(path), "step": int(one.state.step), "digest": taken.digests[name]}
        for (name, one), path in zip(found.items(), taken.workdirs, strict=True)
    }


def _described(found: Restored) -> dict[str, Any]:
    """Returns what rebuilds a network: the model section of its config, and what it computes in."""
    model = found.config.model.to_dict()
    # What an ensemble's members compute in stands with each of them.
    dtype = "float32" if model["name"] == "ensemble" else found.config.compute_dtype
    return {"model": model, "compute_dtype": dtype}


def _report_changed(task: Mapping[str, Any], report: Callable[[str], None]) -> None:
    """Reports which of the networks that a run has taken in are others by now, where they were."""
    for name, record in sorted(task["taken"].items()):
        path = Path(record["workdir"]).expanduser()
        with contextlib.suppress(UserError):  # gone, or spoilt: nothing here depends on it
            now = restore(path, task.get("checkpoint", "latest"), {})
            if state_digest(jax.device_get(now.variables)) != record["digest"]:
                report(
                    f"{name}: {path} has changed since: it stands at step "
                    f"{int(now.state.step):,}. This run keeps what it took, of step "
                    f"{record['step']:,}."
                )

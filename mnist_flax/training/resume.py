"""Whether a run may go on from what its workdir holds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mnist_flax.config import OF_EXTRA_SPLITS, WHAT_IS_EVALUATED, diff, is_harmless
from mnist_flax.core.optimizers import length_matters
from mnist_flax.core.state import TrainState
from mnist_flax.core.sums import empty
from mnist_flax.data import sample
from mnist_flax.data.dataset import Dataset
from mnist_flax.errors import UserError
from mnist_flax.show.data_lines import data_line, extra_lines
from mnist_flax.show.writer import Writer
from mnist_flax.training.own_data import where_they_were
from mnist_flax.workdir.checkpoints import Checkpoints, DamagedCheckpoint
from mnist_flax.workdir.environment import DRAWS, changes, environment
from mnist_flax.workdir.files import write_config
from mnist_flax.workdir.metadata import describe_data
from mnist_flax.workdir.rows import read_rows, truncate_rows


def restore_newest(
    checkpoints: Checkpoints,
    config: ConfigDict,
    dataset: Dataset,
    workdir: Path,
    like: TrainState,
) -> tuple[dict[str, Any], TrainState] | None:
    """Returns what `newest_whole` finds, and moves the saves aside that it has passed over.

    Metadata has one field more: 'damaged', a line for each save that was moved.

    Raises:
      UserError: as `newest_whole` does.
    """
    found = newest_whole(checkpoints, config, dataset, workdir, like)
    if found is None:
        return None
    metadata, state, damaged = found
    lines = [
        f"{error.path} is damaged: moved to {path}, going on from step {metadata['step']:,}."
        for error, path in zip(damaged, checkpoints.set_aside(), strict=True)
    ]
    return metadata | {"damaged": lines}, state


def newest_whole(
    checkpoints: Checkpoints,
    config: ConfigDict,
    dataset: Dataset,
    workdir: Path,
    like: TrainState,
) -> tuple[dict[str, Any], TrainState, list[DamagedCheckpoint]] | None:
    """Returns the metadata and the state of the newest save that is whole; nothing is changed.

    With config.on_damaged_checkpoint='previous' damaged ones are passed over, the best save
    included, and returned too. Metadata has two fields more: 'changed', {field: [old, new]} for the
    fields that changed without harm, and 'others', the extra splits whose images did.

    Returns:
      None where nothing was saved yet.

    Raises:
      DamagedCheckpoint: with 'stop', or if no save is whole.
      UserError: the save belongs to another config or other data; the message lists each field.
    """
    damaged: list[DamagedCheckpoint] = []
    while checkpoints.steps():
        try:
            metadata = _newest_metadata(checkpoints, config, dataset, workdir)
            state = checkpoints.restore(metadata["step"], like)
            checkpoints.best_evaluation()
        except DamagedCheckpoint as error:
            if config.on_damaged_checkpoint == "stop":
                raise
            damaged.append(error)
            checkpoints.pass_over(error.path)
            continue
        return metadata, state, damaged
    if damaged:
        raise UserError(
            f"workdir={workdir}: all {len(damaged)} checkpoints are damaged; nothing was "
            f"changed. Start afresh with workdir={workdir}-new"
        )
    return None


def _newest_metadata(
    checkpoints: Checkpoints, config: ConfigDict, dataset: Dataset, workdir: Path
) -> dict[str, Any]:
    """Returns the metadata of the newest save if this config and data continue it."""
    steps = checkpoints.steps()
    metadata = checkpoints.metadata(steps[-1])
    changed = diff(metadata["config"], config.to_dict())
    theirs, ours = metadata["dataset"], describe_data(dataset)
    _refuse_other_draws(workdir, metadata["environment"])
    other_data = theirs["fingerprint"] != ours["fingerprint"]
    matters = length_matters(config.schedule)
    evaluations_matter = config.early_stopping_patience or config.plateau_patience
    if other_data and dataset.name == sample.NAME != config.data.name:
        raise UserError(
            f"workdir={workdir}: its run is on {theirs['name']}, {theirs['source']}, which is "
            "not to be had now. Put it back, or name its place with config.data.data_dir=FOLDER. "
            + " ".join(dataset.notes)
        )
    harmful = {
        name: pair
        for name, pair in changed.items()
        if not (is_harmless(name, length_matters=matters) or _is_more_patient(name, pair))
        or (evaluations_matter and name in WHAT_IS_EVALUATED)
        or (other_data and name.startswith("data.") and not name.startswith(OF_EXTRA_SPLITS))
    }
    if other_data:
        keys = [key for key in ("name", "source", "fingerprint") if theirs[key] != ours[key]]
        harmful |= {f"the data's {key}": (theirs[key], ours[key]) for key in keys}
    if harmful:
        rows = "\n".join(f"  {name}: was {old}, now {new}" for name, (old, new) in harmful.items())
        if other_data:
            rows += where_they_were(theirs, ours)
        raise UserError(
            f"workdir={workdir} holds another run, saved at step {steps[-1]}:\n{rows}\n"
            f"Undo the change to go on, or start afresh with workdir={workdir}-new; add "
            f"init_from={workdir} to start from its parameters."
        )
    kept = sum(row["step"] <= metadata["step"] for row in read_rows(workdir))
    if kept < metadata.get("rows", 0):
        raise UserError(
            f"{workdir}/metrics.jsonl holds {kept} of the {metadata['rows']} rows that it had at "
            f"step {steps[-1]}. Put it back, or start afresh with workdir={workdir}-new"
        )
    before, now = theirs.get("extra_eval_splits", {}), ours["extra_eval_splits"]
    both = before.keys() & now.keys()
    return metadata | {
        "changed": {name: list(pair) for name, pair in changed.items()},
        "others": [n for n in sorted(both) if before[n]["fingerprint"] != now[n]["fingerprint"]],
    }


def _is_more_patient(name: str, pair: tuple[Any, Any]) -> bool:
    """Says whether all that changed is how long a run waits that may end early before and after."""
    return name == "early_stopping_patience" and all(pair)


def close_what_was_told(state: TrainState, step: int, rows: Sequence[dict[str, Any]]) -> TrainState:
    """Returns a saved state with an empty window, or epoch, if its row stands in the file.

    A later process wrote that row: one that went on from this save with another interval, under
    which a row was due at its very step, and was killed before it saved again.

    Args:
      state: of the save.
      step: that it was saved at.
      rows: of metrics.jsonl.
    """
    here = [row for row in rows if row["step"] == step]
    if any(row.get("split") == "train" for row in here):
        state = state.replace(window=empty(state.window))
    if any(row.get("event") == "epoch" for row in here):
        state = state.replace(epoch=empty(state.epoch))
    return state


def _refuse_other_draws(workdir: Path, trained_in: Mapping[str, Any]) -> None:
    """Raises UserError if the same keys would give other random numbers here."""
    for name, (old, new) in changes(trained_in, environment()).items():
        if name in DRAWS:
            raise UserError(
                f"workdir={workdir}: this run draws its random numbers with {name}={old}; here "
                f"it is {new}. Set {DRAWS[name]}={old} to go on, or start afresh with "
                f"workdir={workdir}-new"
            )


def open_run(
    config: ConfigDict,
    workdir: Path,
    writer: Writer,
    dataset: Dataset,
    saved: dict[str, Any] | None,
    devices: int = 1,
) -> None:
    """Cuts metrics.jsonl to the save, writes config.json, and says what starts or goes on."""
    step = saved["step"] if saved else 0
    lost = bool(read_rows(workdir)) and saved is None
    writer.rows = truncate_rows(workdir, step if saved else -1)
    write_config(
        workdir,
        {
            "config": config.to_dict(),
            "dataset": describe_data(dataset),
            "environment": environment(config.compute_dtype, devices),
        },
    )
    for note in dataset.notes:
        writer.event(step, "fallback" if dataset.name != config.data.name else "data", note)
    writer.event(step, "data", data_line(dataset))
    for line in extra_lines(dataset):
        writer.event(step, "data", line)
    if saved is None:
        again = " Nothing of the run before was saved: it starts again." if lost else ""
        writer.event(step, "started", f"Started in {workdir}.{again}")
    else:
        for line in saved["damaged"]:
            writer.event(step, "damaged_checkpoint", line)
        changed = changes_told(saved, environment(config.compute_dtype, devices))
        resumed = f"Resumed at step {step:,} from {workdir}.{changed}"
        writer.event(step, "resumed", resumed, changed=saved["changed"])


def changes_told(saved: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Says what is not as it was when a save was written; '' for nothing."""
    message = ""
    for name, (old, new) in saved["changed"].items():
        message += f" config.{name} was {old}, is {new}."
    for name in saved["others"]:
        message += f" The images of config.{OF_EXTRA_SPLITS}{name} are others than they were."
    moved = changes(saved["environment"], now)
    for name, (old, new) in moved.items():
        message += f" {name} was {old}, is {new}."
    return message + (" The bits may differ from an undisturbed run's." if moved else "")

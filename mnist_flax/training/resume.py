"""Whether a run may go on from what its workdir holds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mnist_flax.config import diff, is_harmless
from mnist_flax.core.optimizers import length_matters
from mnist_flax.core.state import TrainState
from mnist_flax.data.dataset import Dataset
from mnist_flax.errors import UserError
from mnist_flax.show.writer import Writer
from mnist_flax.workdir.checkpoints import Checkpoints, DamagedCheckpoint
from mnist_flax.workdir.environment import DRAWS, changes, environment
from mnist_flax.workdir.files import write_config
from mnist_flax.workdir.rows import read_rows, truncate_rows


def restore_newest(
    checkpoints: Checkpoints,
    config: ConfigDict,
    dataset: Dataset,
    workdir: Path,
    like: TrainState,
) -> tuple[dict[str, Any], TrainState] | None:
    """Returns the metadata and the state of the newest save that is whole.

    With config.on_damaged_checkpoint='previous' damaged ones are moved aside once a whole one is
    found, the best save included. Metadata has two fields more: 'changed', {field: [old, new]} for
    the fields that changed without harm, and 'damaged', a line for each save that was moved.

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
        moved = checkpoints.set_aside()
        lines = [
            f"{error.path} is damaged: moved to {path}, going on from step {metadata['step']:,}."
            for error, path in zip(damaged, moved, strict=True)
        ]
        return metadata | {"damaged": lines}, state
    if damaged:
        raise UserError(
            f"--workdir={workdir}: all {len(damaged)} checkpoints are damaged; nothing was "
            f"changed. Start afresh with --workdir={workdir}-new"
        )
    return None


def _newest_metadata(
    checkpoints: Checkpoints, config: ConfigDict, dataset: Dataset, workdir: Path
) -> dict[str, Any]:
    """Returns the metadata of the newest save if this config and data continue it."""
    steps = checkpoints.steps()
    metadata = checkpoints.metadata(steps[-1])
    changed = diff(metadata["config"], config.to_dict())
    _refuse_other_draws(workdir, metadata["environment"])
    theirs, ours = metadata["dataset"], describe(dataset)
    other_data = theirs["fingerprint"] != ours["fingerprint"]
    matters = length_matters(config.schedule)
    harmful = {
        name: pair
        for name, pair in changed.items()
        if not is_harmless(name, length_matters=matters)
        or (other_data and name.startswith("data."))
    }
    if other_data:
        keys = [key for key in ("name", "source", "fingerprint") if theirs[key] != ours[key]]
        harmful |= {f"the data's {key}": (theirs[key], ours[key]) for key in keys}
    if harmful:
        rows = "\n".join(f"  {name}: was {old}, now {new}" for name, (old, new) in harmful.items())
        if other_data and theirs["name"] != ours["name"]:
            rows += f"\n  (--config.data.name={theirs['name']} asks for the data that it was)"
        raise UserError(
            f"--workdir={workdir} holds another run, saved at step {steps[-1]}:\n{rows}\n"
            f"Undo the change to go on, or start afresh with --workdir={workdir}-new"
        )
    kept = sum(row["step"] <= metadata["step"] for row in read_rows(workdir))
    if kept < metadata.get("rows", 0):
        raise UserError(
            f"{workdir}/metrics.jsonl holds {kept} of the {metadata['rows']} rows that it had at "
            f"step {steps[-1]}. Put it back, or start afresh with --workdir={workdir}-new"
        )
    return metadata | {"changed": {name: list(pair) for name, pair in changed.items()}}


def _refuse_other_draws(workdir: Path, trained_in: Mapping[str, Any]) -> None:
    """Raises UserError if the same keys would give other random numbers here."""
    for name, (old, new) in changes(trained_in, environment()).items():
        if name in DRAWS:
            raise UserError(
                f"--workdir={workdir}: this run draws its random numbers with {name}={old}; here "
                f"it is {new}. Set {DRAWS[name]}={old} to go on, or start afresh with "
                f"--workdir={workdir}-new"
            )


def open_run(
    config: ConfigDict,
    workdir: Path,
    writer: Writer,
    dataset: Dataset,
    saved: dict[str, Any] | None,
) -> None:
    """Cuts metrics.jsonl to the save, writes config.json, and says what starts or goes on."""
    step = saved["step"] if saved else 0
    lost = bool(read_rows(workdir)) and saved is None
    writer.rows = truncate_rows(workdir, step if saved else -1)
    write_config(
        workdir,
        {
            "config": config.to_dict(),
            "dataset": describe(dataset),
            "environment": environment(),
        },
    )
    for note in dataset.notes:
        writer.event(step, "fallback" if dataset.name != config.data.name else "data", note)
    train, evaluation = len(dataset.train.labels), len(dataset.eval.labels)
    size = f"{train:,} images to train, {evaluation:,} to evaluate"
    writer.event(step, "data", f"Data: {dataset.name}, {size}, from {dataset.source}.")
    if saved is None:
        again = " Nothing of the run before was saved: it starts again." if lost else ""
        writer.event(step, "started", f"Started in {workdir}.{again}")
    else:
        for line in saved["damaged"]:
            writer.event(step, "damaged_checkpoint", line)
        writer.event(step, "resumed", _resumed(workdir, saved), changed=saved["changed"])


def _resumed(workdir: Path, saved: dict[str, Any]) -> str:
    """Says where a run goes on, and what is not as it was."""
    message = f"Resumed at step {saved['step']:,} from {workdir}."
    for name, (old, new) in saved["changed"].items():
        message += f" config.{name} was {old}, is {new}."
    moved = changes(saved["environment"], environment())
    for name, (old, new) in moved.items():
        message += f" {name} was {old}, is {new}."
    return message + (" The bits may differ from an undisturbed run's." if moved else "")


def describe(dataset: Dataset) -> dict[str, Any]:
    """Returns what a checkpoint keeps of the data: enough to recognise them, and to predict."""
    return {
        "name": dataset.name,
        "source": dataset.source,
        "fingerprint": dataset.fingerprint,
        "class_names": list(dataset.class_names),
        "image_shape": list(dataset.train.images.shape[1:]),
    }

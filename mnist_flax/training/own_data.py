"""Where the data of a run that goes on are, if the command does not say it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mnist_flax.data import handed_in, place, sample
from mnist_flax.errors import UserError
from mnist_flax.workdir.files import read_config


def with_own_data(config: ConfigDict, workdir: Path, report: Callable[[str], None]) -> ConfigDict:
    """Returns the config with the folder that a run has its data in, and reports which.

    For a run that goes on, and a command that names no data_dir. Otherwise, and where the run had
    its data in the default folder, the config stays as it is.

    Raises:
      UserError: the folder is not there any more, or the data were handed in.
    """
    unnamed = config.data.data_dir is None and config.data.name != sample.NAME
    recorded = _recorded(workdir) if unnamed else {}
    if recorded.get("dataset", {}).get("handed_in"):
        raise UserError(
            handed_in.missing(
                f"workdir={workdir} holds a run",
                "hand the same in again, data=(images, labels, eval_images, eval_labels)",
            )
        )
    own = _own_data_dir(recorded)
    if own is None:
        return config
    if not Path(own).expanduser().is_dir():
        raise UserError(
            f"workdir={workdir}: the data of its run were in {own}, which is not there. Put them "
            "back, or say where they are with config.data.data_dir=FOLDER"
        )
    report(f"config.data.data_dir is not given: the data of this run are in {own}.")
    config = config.copy_and_resolve_references()
    config.data.data_dir = own
    return config


def _recorded(workdir: Path) -> dict[str, Any]:
    """Returns what config.json says of the data of a saved run; {} where it says nothing.

    What does not tell it is written anew; what the newest save says is compared in any case.
    """
    if not any((workdir / "checkpoints").glob("*/[0-9]*")):
        return {}
    try:
        recorded = read_config(workdir)
    except UserError:
        return {}
    dataset, theirs = recorded.get("dataset"), recorded["config"].get("data")
    told = isinstance(dataset, dict) and isinstance(theirs, dict)
    return {"dataset": dataset, "data": theirs} if told else {}


def _own_data_dir(recorded: Mapping[str, Any]) -> str | None:
    """Returns where the data lay, if that was not the default folder."""
    if not recorded or recorded["dataset"].get("name") == sample.NAME:
        return None
    return place.of_a_run(recorded["data"].get("data_dir"), recorded["dataset"].get("data_dir"))


def where_they_were(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """Returns lines that say where a run's own data are, where others were given."""
    if theirs.get("handed_in"):
        return "\n  (they were handed in: train(config, workdir, data=…))"
    told = ""
    if theirs["name"] != ours["name"]:
        told += f"\n  (config.data.name={theirs['name']} asks for the data that it was)"
    if theirs.get("data_dir", ours["data_dir"]) != ours["data_dir"]:
        told += f"\n  (they were in config.data.data_dir={theirs['data_dir']})"
    return told

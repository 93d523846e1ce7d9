"""What must be known of an exported network by whoever gets it, as Markdown. Text out, no files.

After Mitchell et al., "Model Cards for Model Reporting", FAT* 2019.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mnist_flax.core.evaluation import Evaluation
from mnist_flax.data.dataset import Dataset
from mnist_flax.export import card_data, card_network
from mnist_flax.export.how_to_run import example, how_to_run
from mnist_flax.export.markdown import json_of, table_of
from mnist_flax.export.network import Network
from mnist_flax.export.onnx import versions
from mnist_flax.use.restore import Restored
from mnist_flax.workdir.environment import environment

CARD_FILE = "MODEL_CARD.md"
__all__ = ["CARD_FILE", "example", "model_card"]


def model_card(
    restored: Restored,
    networks: Sequence[Network],
    dataset: Dataset,
    recorded: Mapping[str, Any],
    result: Evaluation,
    calibration_error: float | None,
    rows: Sequence[Mapping[str, Any]],
    *,
    known: Sequence[str] = (),
) -> str:
    """Returns the card of an exported network.

    Nothing in it tells where a folder of this machine lies: a card travels.

    Args:
      restored: what was learnt.
      networks: what of it is exported: what answers images, or draws, or both, in this order.
      dataset: what it was evaluated on, dataset.eval.
      recorded: the run's config.json: how it was trained.
      result: of the evaluation.
      calibration_error: likewise, expected; see calibration.py. None where there are no classes.
      rows: of its files, as export_network gives them.
      known: what there is to say of evaluated images that the run was trained or chosen on.
    """
    files = [Path(row["file"]).name for row in rows]
    config = without_places(recorded["config"])
    shape, network = restored.image_shape, networks[0]
    of_stem = {each.stem: each for each in networks}
    of_file = [of_stem[file.partition(".")[0]] for file in files]
    measured = card_data.evaluation(restored, dataset, result, calibration_error, known)
    chapters = (
        card_network.title(restored, network),
        "## Files\n\n" + _file_table(files, of_file, rows),
        "## Input and output\n\n" + card_network.signature(restored, networks),
        *(
            f"## Run {file}\n\n{how_to_run(file, shape, each)}"
            for file, each in zip(files, of_file, strict=True)
        ),
        "## Evaluation\n\n" + measured,
        "## Data\n\n" + card_data.data(restored, dataset, recorded["config"]["data"]),
        "## Limits\n\n" + card_network.limits(restored, network),
        "## Training\n\nEvery field of the config, the data's place aside:\n\n" + json_of(config),
        "## Versions\n\n" + _versions(recorded.get("environment", {}), files),
    )
    return "\n\n".join(chapters) + "\n"


def without_places(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a run's config without what names folders: of its data, and of other runs."""
    of_runs = ("judge", "members", "teacher")
    task = {name: value for name, value in config["task"].items() if name not in of_runs}
    if "taken" in task:
        task["taken"] = {
            name: {part: value for part, value in record.items() if part != "workdir"}
            for name, record in task["taken"].items()
        }
    data = {name: value for name, value in config["data"].items() if name != "data_dir"}
    data["extra_eval_splits"] = {
        name: {part: value for part, value in asked.items() if part != "data_dir"}
        if isinstance(asked, Mapping)
        else asked
        for name, asked in data.get("extra_eval_splits", {}).items()
    }
    return {**config, "task": task, "data": data}


def _file_table(
    files: Iterable[str], of_file: Iterable[Network], rows: Iterable[Mapping[str, Any]]
) -> str:
    return table_of(
        ("file", "bytes", "SHA-256", "largest difference from the network"),
        (
            (
                f"`{file}`",
                f"{row['bytes']:,}",
                f"`{row['sha256']}`",
                f"{row['max_abs_difference']:.1e} over the {' and '.join(network.names)} of "
                f"{row['examples']:,} {network.given}",
            )
            for file, network, row in zip(files, of_file, rows, strict=True)
        ),
    )


def _versions(trained_in: Mapping[str, Any], files: Sequence[str]) -> str:
    here = {
        **environment(),
        **(versions() if any(file.endswith(".onnx") for file in files) else {}),
    }
    names = dict.fromkeys((*trained_in, *here))
    values = ((name, trained_in.get(name, ""), here.get(name, "")) for name in names)
    return table_of(("", "trained with", "exported with"), values)

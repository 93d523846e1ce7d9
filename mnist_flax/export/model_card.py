"""What must be known of an exported network by whoever gets it, as Markdown. Text out, no files.

After Mitchell et al., "Model Cards for Model Reporting", FAT* 2019.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

import mnist_flax
from mnist_flax.core.evaluation import Evaluation
from mnist_flax.data import preparation
from mnist_flax.data.augment import EXTENDED_PARTS
from mnist_flax.data.dataset import Dataset
from mnist_flax.data.sample import NAME as SAMPLE
from mnist_flax.export.how_to_run import example, how_to_run
from mnist_flax.export.licences import data_licence, is_known
from mnist_flax.export.markdown import json_of, table_of
from mnist_flax.export.network import Network, tells_classes
from mnist_flax.export.onnx import versions
from mnist_flax.export.prepare_file import PREPARE_FILE, takes_pictures
from mnist_flax.use.calibration import BINS
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
    chapters = (
        _title(restored, network),
        "## Files\n\n" + _file_table(files, of_file, rows),
        "## Input and output\n\n" + _signature(restored, networks),
        *(
            f"## Run {file}\n\n{how_to_run(file, shape, each)}"
            for file, each in zip(files, of_file, strict=True)
        ),
        "## Evaluation\n\n" + _evaluation(restored, dataset, result, calibration_error, known),
        "## Data\n\n" + _data(restored, dataset, recorded["config"]["data"]),
        "## Limits\n\n" + _limits(restored, network),
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


def _title(restored: Restored, network: Network) -> str:
    config, state = restored.config, restored.state
    name = (config.model if _is_classification(restored) else config.task).name
    if network.given == "latents":
        does = ""
    elif tells_classes(network.outputs, restored.class_names):
        does = f"It tells {len(restored.class_names)} classes of images apart."
    else:
        answers = " and ".join(f"`{name}`" for name in network.names)
        does = f"It answers an image with {answers}, as the task `{config.task.name}` has it."
    if restored.task.sample is not None:
        does = f"{does} `sampler` draws pictures out of latents, standard normal noise.".strip()
    statistics = sum(
        leaf.size
        for path, leaf in jax.tree.leaves_with_path(restored.variables)
        if jax.tree_util.DictKey("batch_stats") in path
    )
    parameters = sum(leaf.size for leaf in jax.tree.leaves(restored.variables)) - statistics
    running = f" and {statistics:,} running statistics" if statistics else ""
    if network.given == "latents":
        running += ", of which the file holds those that draw"
    taught = ""
    if not restored.task.trains:
        taught = f" It is the mean of the probabilities of {len(config.model.members)} networks."
    elif "network" in config.task:
        taught = f" It was taught by another network, {config.task.network.model.name!r}."
    known, data = is_known(restored.trained_on), restored.trained_on["name"]
    data = data if known else f"data of the user's own, called {data!r}"
    return (
        f"# {name}, trained on {data}\n\n"
        f"{does} {parameters:,} parameters"
        f"{running}, as they were after step {int(state.step):,} of a run of mnist_flax "
        f"{mnist_flax.__version__}.{taught}"
    )


def _is_classification(restored: Restored) -> bool:
    """Whether it is a task whose model gives logits, and whose loss is theirs."""
    return restored.config.task.name in ("classification", "distillation", "ensemble")


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


def _signature(restored: Restored, networks: Sequence[Network]) -> str:
    lines, network = [], networks[0]
    for each in networks:
        kind = "uint8, 0 to 255" if each.given == "images" else "float32, standard normal"
        lines.append((f"input of {each.stem}", f"`{each.given}`", kind, _shape(each.inputs)))
        lines += [
            (f"output of {each.stem}", f"`{name}`", str(form.dtype), _shape(form))
            for name, form in each.outputs.items()
        ]
    if len(networks) == 1:
        lines = [(line[0].partition(" ")[0], *line[1:]) for line in lines]
    table = table_of(("", "name", "type", "shape"), lines)
    if network.given == "latents":
        return f"{table}\n\nAny number at a time. Pictures: rows, columns, channels, in [0, 1]."
    scaling = "Scaling to [0, 1]" if _is_classification(restored) else "Whatever scales them"
    told = f"Any number of images at a time: rows, columns, channels. {scaling} is inside."
    if len(networks) > 1:
        told += " Pictures that are drawn are in [0, 1]."
    if len(network.names) > 1:
        told += " The StableHLO file gives a dict of the outputs, the ONNX file each by its name."
    if tells_classes(network.outputs, restored.class_names):
        names = json_of(list(restored.class_names), indent=None)
        told += f" The probabilities of an image add up to 1 and are in this order:\n\n{names}"
    if takes_pictures(restored.image_shape):
        made = preparation.told(restored.preparation, restored.image_shape)
        told += f"\n\n`{PREPARE_FILE}` makes such an image of a PNG or JPEG file: {made}."
    return f"{table}\n\n{told}"


def _shape(form: jax.ShapeDtypeStruct) -> str:
    return f"[{', '.join(map(str, form.shape))}]"


def _evaluation(
    restored: Restored,
    dataset: Dataset,
    result: Evaluation,
    calibration_error: float | None,
    known: Sequence[str],
) -> str:
    same = dataset.fingerprint == restored.trained_on["fingerprint"]
    others = "the run's own data" if same else "other data or splits than the run's own"
    metrics, best = restored.task.metrics, restored.task.best
    lines = [
        (_measure(restored, name), format(result.means[name], metrics[name].format))
        for name in sorted(metrics, key=lambda name: name != best)  # the best one's first
        if name in result.means
    ]
    if calibration_error is not None:
        measure = f"expected calibration error, {BINS} bins (Guo et al. 2017)"
        lines.append((measure, f"{calibration_error:.4f}"))
    table = table_of(("measure", "value"), lines)
    table = "\n\n".join([table, *known])
    return (
        f"On `{restored.config.data.eval_split}` of {dataset.name}: {result.examples:,} images, "
        f"{others}, SHA-256 `{dataset.fingerprint}` of both splits.\n\n{table}"
    )


def _measure(restored: Restored, name: str) -> str:
    known = _is_classification(restored) and name == "loss"
    return "loss, softmax cross-entropy in nats" if known else name


def _data(restored: Restored, dataset: Dataset, config: Mapping[str, Any]) -> str:
    trained_on = restored.trained_on
    name, fingerprint = trained_on["name"], trained_on["fingerprint"]
    fell_back = config["name"] == "mnist" and name == SAMPLE
    train, evaluation = (
        ("train", "test") if fell_back else (config["train_split"], config["eval_split"])
    )
    same = dataset.fingerprint == fingerprint
    size = f", {len(dataset.train.labels):,} images" if same else ""
    rows = [
        ("name", name),
        ("trained on", f"`{train}`{size}"),
        ("kept for evaluation", f"`{evaluation}`"),
        ("SHA-256 of both splits", f"`{fingerprint}`"),
        ("licence", data_licence(trained_on)),
    ]
    if config["select_split"]:
        rows.insert(2, ("chose the best save", f"`{config['select_split']}`"))
    if config["resplit"] is not None:
        mixed = "the two were put together, mixed, and cut at their sizes again, with the seed"
        rows.append(("mixed", f"{mixed} {config['resplit']}: neither is the split of that name"))
    if config["extended"]:
        parts = "each image as it is, shifted by a pixel to four sides, and flipped left to right"
        rows.append(("extended", f"{EXTENDED_PARTS} times as many images to train on: {parts}"))
    if fell_back:
        rows.append(("fallback", "mnist was asked for and was not to be had: this stood in for it"))
    return table_of(("", ""), rows)


def _limits(restored: Restored, network: Network) -> str:
    if network.given == "latents":
        return _limits_of_drawings()
    height, width, channels = restored.image_shape
    kind = "grey" if channels == 1 else f"{channels}-channel"
    if tells_classes(network.outputs, restored.class_names):
        answers = (
            f"It answers with one of its {len(restored.class_names)} classes, whatever the image "
            "shows, and may be sure of it."
        )
    else:
        answers = "It answers whatever the image shows, even one that it knows nothing of."
    if takes_pictures(restored.image_shape):
        how = f"`{PREPARE_FILE}` does what it can"
    else:
        how = "cut, scaled, its colours as in those"
    lines = [
        answers,
        f"It takes {kind} images of {height}×{width} that look like those it was trained on. A "
        f"photograph has to be made so first: {how}.",
        "The figures above are for the images named there. Other writers, cameras or scanners "
        "were not tried; nor were images that someone changed to deceive it.",
        "It was made to learn and to teach with, not to decide anything about people: no cheques, "
        "ballots, forms or findings without someone who looks.",
    ]
    if is_known(restored.trained_on) and restored.trained_on["name"] in ("mnist", SAMPLE):
        lines.insert(
            2, "MNIST is light ink on black: give it dark ink on white, unprepared, and it is lost."
        )
    return "\n".join(f"- {line}" for line in lines)


def _limits_of_drawings() -> str:
    lines = (
        "It draws what looks like the images it was trained on, and nothing says what it will "
        "draw: some of its pictures show nothing that has a name.",
        "What is drawn may lie close to an image that it was trained on.",
        "It was made to learn and to teach with. No drawing of it is anybody's handwriting.",
    )
    return "\n".join(f"- {line}" for line in lines)


def _versions(trained_in: Mapping[str, Any], files: Sequence[str]) -> str:
    here = {
        **environment(),
        **(versions() if any(file.endswith(".onnx") for file in files) else {}),
    }
    names = dict.fromkeys((*trained_in, *here))
    values = ((name, trained_in.get(name, ""), here.get(name, "")) for name in names)
    return table_of(("", "trained with", "exported with"), values)

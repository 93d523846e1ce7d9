"""What must be known of an exported network by whoever gets it, as Markdown. Text out, no files.

After Mitchell et al., "Model Cards for Model Reporting", FAT* 2019.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

import mnist_flax
from mnist_flax.core.evaluation import Evaluation
from mnist_flax.data.dataset import Dataset
from mnist_flax.data.sample import NAME as SAMPLE
from mnist_flax.export.licences import data_licence, is_known
from mnist_flax.export.onnx import versions
from mnist_flax.use.calibration import BINS
from mnist_flax.use.restore import Restored
from mnist_flax.workdir.environment import environment

CARD_FILE = "MODEL_CARD.md"

_RUN_STABLEHLO = """\
import numpy as np
from jax import export
from PIL import Image

with open("model.stablehlo", "rb") as file:
    network = export.deserialize(bytearray(file.read()))
image = Image.open("picture.png").convert("MODE").resize((WIDTH, HEIGHT))
images = np.asarray(image, np.uint8).reshape(1, HEIGHT, WIDTH, CHANNELS)
probabilities = np.asarray(network.call(images))
print(probabilities[0].argmax(), probabilities[0].max())
"""
_RUN_ONNX = """\
import numpy as np
import onnxruntime
from PIL import Image

network = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
image = Image.open("picture.png").convert("MODE").resize((WIDTH, HEIGHT))
images = np.asarray(image, np.uint8).reshape(1, HEIGHT, WIDTH, CHANNELS)
(probabilities,) = network.run(["probabilities"], {"images": images})
print(probabilities[0].argmax(), probabilities[0].max())
"""
_HOW = {
    "model.stablehlo": (
        "StableHLO, for `pip install jax flatbuffers pillow`, on a CPU, a CUDA GPU or a TPU. It "
        "was written by jax {jax}; JAX promises that its releases of the next six months read it.",
        _RUN_STABLEHLO,
    ),
    "model.onnx": ("ONNX, for `pip install onnxruntime pillow`.", _RUN_ONNX),
}


def model_card(
    restored: Restored,
    dataset: Dataset,
    recorded: Mapping[str, Any],
    result: Evaluation,
    calibration_error: float,
    rows: Sequence[Mapping[str, Any]],
) -> str:
    """Returns the card of an exported network.

    Nothing in it tells where a folder of this machine lies: a card travels.

    Args:
      restored: the network.
      dataset: what it was evaluated on, dataset.eval.
      recorded: the run's config.json: how it was trained.
      result: of the evaluation.
      calibration_error: likewise, expected; see calibration.py.
      rows: of its files, as export_network gives them.
    """
    files = [Path(row["file"]).name for row in rows]
    config = recorded["config"] | {"data": dict(recorded["config"]["data"])}
    config["data"].pop("data_dir", None)
    chapters = (
        _title(restored),
        "## Files\n\n" + _file_table(files, rows),
        "## Input and output\n\n" + _signature(restored),
        *(f"## Run {file}\n\n{_how_to_run(file, restored.image_shape)}" for file in files),
        "## Evaluation\n\n" + _evaluation(restored, dataset, result, calibration_error),
        "## Data\n\n" + _data(restored, dataset, recorded["config"]["data"]),
        "## Limits\n\n" + _limits(restored),
        "## Training\n\nEvery field of the config, the data's place aside:\n\n" + _json(config),
        "## Versions\n\n" + _versions(recorded.get("environment", {}), files),
    )
    return "\n\n".join(chapters) + "\n"


def _title(restored: Restored) -> str:
    state = restored.state
    parameters, statistics = (
        sum(leaf.size for leaf in jax.tree.leaves(tree))
        for tree in (state.params, state.batch_stats)
    )
    running = f" and {statistics:,} running statistics" if statistics else ""
    known, name = is_known(restored.trained_on), restored.trained_on["name"]
    data = name if known else f"data of the user's own, called {name!r}"
    return (
        f"# {restored.config.model.name}, trained on {data}\n\n"
        f"It tells {len(restored.class_names)} classes of images apart. {parameters:,} parameters"
        f"{running}, as they were after step {int(state.step):,} of a run of mnist_flax "
        f"{mnist_flax.__version__}."
    )


def _file_table(files: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> str:
    return _table(
        ("file", "bytes", "SHA-256", "largest difference from the network"),
        (
            (
                f"`{file}`",
                f"{row['bytes']:,}",
                f"`{row['sha256']}`",
                f"{row['max_abs_difference']:.1e} over the probabilities of {row['examples']:,} "
                "images",
            )
            for file, row in zip(files, rows, strict=True)
        ),
    )


def _signature(restored: Restored) -> str:
    height, width, channels = restored.image_shape
    table = _table(
        ("", "name", "type", "shape"),
        (
            ("input", "`images`", "uint8, 0 to 255", f"[batch, {height}, {width}, {channels}]"),
            ("output", "`probabilities`", "float32", f"[batch, {len(restored.class_names)}]"),
        ),
    )
    return (
        f"{table}\n\nAny number of images at a time: rows, columns, channels. Scaling to [0, 1] is "
        "inside. The probabilities of an image add up to 1 and are in this order:\n\n"
        f"{_json(list(restored.class_names), indent=None)}"
    )


def _how_to_run(file: str, image_shape: tuple[int, int, int]) -> str:
    told = _HOW[file][0].format(**environment())
    return f"{told}\n\n```python\n{example(file, image_shape)}```"


def example(file: str, image_shape: tuple[int, int, int]) -> str:
    """Returns the Python that runs an exported file on a picture, without this package.

    Args:
      file: 'model.stablehlo' or 'model.onnx'.
      image_shape: (H, W, C) that the network takes.
    """
    code = _HOW[file][1]
    height, width, channels = image_shape
    values = {
        "MODE": {1: "L", 3: "RGB", 4: "RGBA"}.get(channels, "L"),
        "HEIGHT": str(height),
        "WIDTH": str(width),
        "CHANNELS": str(channels),
    }
    for name, value in values.items():
        code = code.replace(name, value)
    return code


def _evaluation(
    restored: Restored, dataset: Dataset, result: Evaluation, calibration_error: float
) -> str:
    same = dataset.fingerprint == restored.trained_on["fingerprint"]
    others = "the run's own data" if same else "other data or splits than the run's own"
    table = _table(
        ("measure", "value"),
        (
            ("accuracy", f"{result.means['accuracy']:.4f}"),
            ("loss, softmax cross-entropy in nats", f"{result.means['loss']:.4f}"),
            (
                f"expected calibration error, {BINS} bins (Guo et al. 2017)",
                f"{calibration_error:.4f}",
            ),
        ),
    )
    return (
        f"On `{restored.config.data.eval_split}` of {dataset.name}: {result.examples:,} images, "
        f"{others}, SHA-256 `{dataset.fingerprint}` of both splits.\n\n{table}"
    )


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
    if fell_back:
        rows.append(("fallback", "mnist was asked for and was not to be had: this stood in for it"))
    return _table(("", ""), rows)


def _limits(restored: Restored) -> str:
    height, width, channels = restored.image_shape
    kind = "grey" if channels == 1 else f"{channels}-channel"
    lines = [
        f"It answers with one of its {len(restored.class_names)} classes, whatever the image "
        "shows, and may be sure of it.",
        f"It takes {kind} images of {height}×{width} that look like those it was trained on. A "
        "photograph has to be made so first: cut, scaled, centred, its ink as light or dark.",
        "The figures above are for the images named there. Other writers, cameras or scanners "
        "were not tried; nor were images that someone changed to deceive it.",
        "It was made to learn and to teach with, not to decide anything about people: no cheques, "
        "ballots, forms or findings without someone who looks.",
    ]
    if is_known(restored.trained_on) and restored.trained_on["name"] in ("mnist", SAMPLE):
        lines.insert(2, "MNIST is light ink on black: give it dark ink on white and it is lost.")
    return "\n".join(f"- {line}" for line in lines)


def _versions(trained_in: Mapping[str, Any], files: Sequence[str]) -> str:
    here = {**environment(), **(versions() if "model.onnx" in files else {})}
    names = dict.fromkeys((*trained_in, *here))
    values = ((name, trained_in.get(name, ""), here.get(name, "")) for name in names)
    return _table(("", "trained with", "exported with"), values)


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    # A bar in a text would end its cell: a split or a model is named by the user.
    cells = ([str(cell).replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _json(value: Any, indent: int | None = 2) -> str:
    return f"```json\n{json.dumps(value, indent=indent, ensure_ascii=False)}\n```"

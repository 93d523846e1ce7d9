"""A trained network as files that run without this package, each checked before it is written.

network.py traces what the task answers, stablehlo.py and onnx.py make files of it and run them,
check.py compares, prepare_file.py makes the Python that prepares a picture for them, model_card.py
says what must be known.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from mnist_flax.data.dataset import Dataset
from mnist_flax.errors import UserError
from mnist_flax.export.check import expected_outputs, largest_difference
from mnist_flax.export.model_card import CARD_FILE, model_card
from mnist_flax.export.network import tells_classes, trace_network
from mnist_flax.export.onnx import require, run_onnx, to_onnx
from mnist_flax.export.prepare_file import PREPARE_FILE, prepare_file, takes_pictures
from mnist_flax.export.stablehlo import run_stablehlo, to_stablehlo
from mnist_flax.use.calibration import calibration
from mnist_flax.use.evaluation import evaluate_restored
from mnist_flax.use.restore import Restored
from mnist_flax.workdir.files import read_config, write_atomic
from mnist_flax.workdir.known_images import count_known

FILES = {"stablehlo": "model.stablehlo", "onnx": "model.onnx"}
_WRITERS = {"stablehlo": to_stablehlo, "onnx": to_onnx}
_RUNNERS = {"stablehlo": run_stablehlo, "onnx": run_onnx}


def export_network(
    workdir: Path,
    restored: Restored,
    dataset: Dataset,
    formats: Sequence[str],
    report: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Writes a network in each format, prepare.py and its model card into workdir/export/.

    Nothing is written before every file, read back, has given the network's outputs for all images
    of dataset.eval.

    Args:
      workdir: the run's; its config.json says how it was trained.
      restored: the network.
      dataset: of its shape and classes.
      formats: 'stablehlo', 'onnx'.
      report: gets a line for each format's check.

    Returns:
      A row for each file: 'file', 'bytes', 'sha256'; and, of a network, 'max_abs_difference' of
      its outputs over so many 'examples'.

    Raises:
      UserError: a format's packages are missing, it cannot hold this network, its outputs are too
        far off, or the folder cannot be written.
    """
    if "onnx" in formats:
        require()
    images, labels = dataset.eval.images, dataset.eval.labels
    batch_size = min(restored.config.batch_size, len(labels))
    contents, rows = {}, []
    # Full float32 on a GPU too, where the default is less: a file gives the same on every device.
    with jax.default_matmul_precision("highest"):
        network = trace_network(restored)
        for name in formats:
            contents[name] = _WRITERS[name](network)
        expected = expected_outputs(restored, network, images, batch_size)
        result = evaluate_restored(restored, dataset.eval)
        for name, content in contents.items():
            got = _RUNNERS[name](content, network.names, images, batch_size)
            difference = largest_difference(name, got, expected)
            told = f"largest difference {difference:.1e}" if difference else "equal to the bit"
            what = " and ".join(network.names)
            report(f"{FILES[name]}: {told}, over the {what} of {len(labels):,} images.")
            row = _row(workdir / "export" / FILES[name], content)
            rows.append(row | {"max_abs_difference": difference, "examples": len(labels)})
    classes = tells_classes(network.outputs, restored.class_names)
    error = calibration(expected["probabilities"], labels).error if classes else None
    recorded = read_config(workdir)
    known = count_known(workdir, images, chosen=restored.chosen)
    card = model_card(
        restored, network, dataset, recorded, result, error, rows, known=known.told()
    ).encode()
    texts = {CARD_FILE: card}
    if takes_pictures(restored.image_shape):
        prepare = prepare_file(restored.preparation, restored.image_shape).encode()
        texts = {PREPARE_FILE: prepare, **texts}
    _write(workdir / "export", contents, texts, report)
    return [*rows, *(_row(workdir / "export" / name, text) for name, text in texts.items())]


def _write(
    folder: Path,
    contents: Mapping[str, bytes],
    texts: Mapping[str, bytes],
    report: Callable[[str], None],
) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: no folder ({error.strerror}). Move what is there.") from error
    for name in FILES:
        if name in contents:
            write_atomic(folder / FILES[name], contents[name])
        elif (folder / FILES[name]).exists():
            report(f"{folder / FILES[name]} is an earlier export's; --format=all renews both.")
    for name, text in texts.items():
        write_atomic(folder / name, text)


def _row(path: Path, content: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    return {"file": str(path), "bytes": len(content), "sha256": digest}

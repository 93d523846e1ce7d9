"""A trained network as files that run without this package, each checked before it is written.

network.py traces what the task answers, stablehlo.py and onnx.py make files of it and run them,
check.py compares, prepare_file.py makes the Python that prepares a picture for them, model_card.py
says what must be known, card_network.py and card_data.py each a part of it.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mnist_flax.core.sampling import latents_of
from mnist_flax.data.dataset import Dataset
from mnist_flax.data.streamed_images import Images
from mnist_flax.errors import UsageError, UserError
from mnist_flax.export.check import expected_outputs, largest_difference
from mnist_flax.export.model_card import CARD_FILE, model_card
from mnist_flax.export.network import Network, tells_classes, trace_network, trace_sampler
from mnist_flax.export.onnx import require, run_onnx, to_onnx
from mnist_flax.export.prepare_file import PREPARE_FILE, prepare_file, takes_pictures
from mnist_flax.export.stablehlo import run_stablehlo, to_stablehlo
from mnist_flax.use.calibration import calibration
from mnist_flax.use.evaluation import evaluate_restored, find_measure
from mnist_flax.use.restore import Restored
from mnist_flax.workdir.files import read_config, write_atomic
from mnist_flax.workdir.known_images import count_known
from mnist_flax.workdir.weights import WEIGHTS_FILE, read_weights, weights_content

FORMATS = ("stablehlo", "onnx")
_LATENTS = 1000  # that a sampler is tried on
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

    model.* answers images, unless its task has no use for that; of a task that draws, sampler.*
    makes pictures of latents. Nothing is
    written before every file, read back, has given the network's outputs: for all images of
    dataset.eval, or for a thousand latents.

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
    # Full float32 on a GPU too, where the default is less: a file gives the same on every device.
    with jax.default_matmul_precision("highest"):
        networks = _networks(restored, images)
        contents = _contents(networks, formats)
        expected = {
            stem: expected_outputs(restored, network, inputs, batch_size)
            for stem, (network, inputs) in networks.items()
        }
        measure = find_measure(restored.task, restored.config, dataset, images)
        result = evaluate_restored(restored, dataset.eval, measure)
        rows = [
            _row(workdir / "export" / file, content)
            | _tried(file, content, networks, expected, batch_size, report)
            for file, content in contents.items()
        ]
    error = None
    answers = "model" in networks
    if answers and tells_classes(networks["model"][0].outputs, restored.class_names):
        error = calibration(expected["model"]["probabilities"], labels).error
    of_files, recorded = [network for network, _ in networks.values()], read_config(workdir)
    known = count_known(workdir, images, chosen=restored.chosen).told()
    card = model_card(restored, of_files, dataset, recorded, result, error, rows, known=known)
    # A class may be called by a folder's name, which need not be UTF-8.
    texts = {CARD_FILE: card.encode(errors="backslashreplace")}
    if answers and takes_pictures(restored.image_shape):
        prepare = prepare_file(restored.preparation, restored.image_shape).encode()
        texts = {PREPARE_FILE: prepare, **texts}
    _write(_folder(workdir), contents, texts, report)
    return [*rows, *(_row(workdir / "export" / name, text) for name, text in texts.items())]


def export_weights(workdir: Path, restored: Restored) -> dict[str, Any]:
    """Writes the arrays that a network answers with into workdir/export/, to be taken elsewhere.

    Returns:
      A row: 'file', 'bytes', 'sha256', and how many 'arrays'.

    Raises:
      UserError: the folder cannot be written, or the file does not read back as it was written.
    """
    about = {
        "model": restored.config.model.to_dict(),
        "class_names": restored.class_names,
        "image_shape": restored.image_shape,
        "step": int(restored.state.step),
        "ema_decay": restored.config.ema_decay,  # not 0: these are an average
    }
    path = _folder(workdir) / WEIGHTS_FILE
    content = weights_content(restored.variables, about)
    write_atomic(path, content)
    arrays = read_weights(path)
    if weights_content(arrays, about) != content:
        raise UserError(f"{path}: does not read back as it was written. Check the disk.")
    return _row(path, content) | {"arrays": len(arrays)}


def _tried(
    file: str,
    content: bytes,
    networks: Mapping[str, tuple[Network, Images]],
    expected: Mapping[str, Mapping[str, np.ndarray]],
    batch_size: int,
    report: Callable[[str], None],
) -> dict[str, Any]:
    """Runs what a file will hold; returns how far it is from what the network says."""
    stem, _, name = file.partition(".")
    network, inputs = networks[stem]
    got = _RUNNERS[name](content, network.names, inputs, batch_size)
    difference = largest_difference(name, got, expected[stem], network.given)
    told = f"largest difference {difference:.1e}" if difference else "equal to the bit"
    what = " and ".join(network.names)
    report(f"{file}: {told}, over the {what} of {len(inputs):,} {network.given}.")
    return {"max_abs_difference": difference, "examples": len(inputs)}


def _contents(
    networks: Mapping[str, tuple[Network, Images]], formats: Sequence[str]
) -> dict[str, bytes]:
    return {
        f"{stem}.{name}": _WRITERS[name](network)
        for stem, (network, _) in networks.items()
        for name in formats
    }


def _networks(restored: Restored, images: Images) -> dict[str, tuple[Network, Images]]:
    """Returns, by the stems of their files, what is exported, and what each is tried on."""
    networks = {}
    if restored.task.exported is not None:
        networks["model"] = trace_network(restored), images
    if restored.task.sample is not None:
        index = jnp.arange(_LATENTS)
        latents = latents_of(restored.config.seed, index, restored.task.latent_size)
        networks["sampler"] = trace_sampler(restored), np.asarray(latents)
    if not networks:
        raise UsageError(
            f"config.task.name={restored.config.task.name!r}: gives no file: it exports no answers "
            "and draws nothing (Task.exported, Task.sample)."
        )
    return networks


def _write(
    folder: Path,
    contents: Mapping[str, bytes],
    texts: Mapping[str, bytes],
    report: Callable[[str], None],
) -> None:
    for name, content in contents.items():
        write_atomic(folder / name, content)
    written = {name.partition(".")[0] for name in contents}
    for stem in ("model", "sampler"):
        advice = (
            "an export as all formats renews both"
            if stem in written
            else "nothing renews it: delete it"
        )
        for name in (f"{stem}.{form}" for form in FORMATS):
            if name not in contents and (folder / name).exists():
                report(f"{folder / name} is an earlier export's; {advice}.")
    for name, text in texts.items():
        write_atomic(folder / name, text)


def _folder(workdir: Path) -> Path:
    folder = workdir / "export"
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: no folder ({error.strerror}). Move what is there.") from error
    return folder


def _row(path: Path, content: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    return {"file": str(path), "bytes": len(content), "sha256": digest}

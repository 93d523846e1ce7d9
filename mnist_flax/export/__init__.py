"""A trained network as files that run without this package, each checked before it is written."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import export
from jax.errors import InconclusiveDimensionOperation
from jax.extend.core import ClosedJaxpr

from mnist_flax.data.dataset import Dataset
from mnist_flax.errors import UserError, where_it_failed
from mnist_flax.export.model_card import CARD_FILE, model_card
from mnist_flax.export.onnx import require, run_onnx, to_onnx
from mnist_flax.tasks.networks import apply_eval
from mnist_flax.use.calibration import calibration
from mnist_flax.use.evaluation import evaluate_restored
from mnist_flax.use.prediction import predict
from mnist_flax.use.restore import Restored
from mnist_flax.workdir.files import read_config, write_atomic

FILES = {"stablehlo": "model.stablehlo", "onnx": "model.onnx"}
# How far the probabilities of a file may be from the network's.
_TOLERANCES = {"stablehlo": 1e-6, "onnx": 1e-5}
_PLATFORMS = ("cpu", "cuda", "tpu")


def trace_network(restored: Restored) -> ClosedJaxpr:
    """Returns the network at rest, its weights inside, for any number of images.

    A model that asks for that number (`len(images)`) cannot be given a symbol for it: its images
    go through it one by one, side by side by `vmap`.

    Returns:
      uint8 [batch, H, W, C] -> logits [batch, K].

    Raises:
      UserError: the model cannot be traced so.
    """

    def network(images: jax.Array) -> jax.Array:
        return apply_eval(restored.model, restored.state.variables, images)

    def one_by_one(images: jax.Array) -> jax.Array:
        return jax.vmap(lambda image: network(image[None])[0])(images)

    batch = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((*batch, *restored.image_shape), jnp.uint8)
    try:
        return jax.make_jaxpr(network)(images)
    except (TypeError, ValueError, InconclusiveDimensionOperation):
        try:
            return jax.make_jaxpr(one_by_one)(images)
        except Exception as error:
            raise UserError(
                f"config.model.name={restored.config.model.name!r}: cannot be exported for any "
                f"number of images: {where_it_failed(error, __file__)}"
            ) from error


def to_stablehlo(network: ClosedJaxpr) -> bytes:
    """Serializes a network and the softmax after it, for CPU, CUDA and TPU.

    Args:
      network: uint8 [batch, H, W, C] -> logits [batch, K].

    Returns:
      What jax.export.deserialize reads: uint8 [batch, H, W, C] -> float32 [batch, K].
    """

    def probabilities(images: jax.Array) -> jax.Array:
        # Behind the barrier the compiler computes nothing from the weights in advance, as it does
        # not in the network itself: the same bits.
        weights = jax.lax.optimization_barrier(network.consts)
        (logits,) = jax.core.eval_jaxpr(network.jaxpr, weights, images)
        return nn.softmax(logits).astype(jnp.float32)

    aval: Any = network.in_avals[0]
    images = jax.ShapeDtypeStruct(aval.shape, aval.dtype)
    exported = export.export(jax.jit(probabilities), platforms=_PLATFORMS)(images)
    return bytes(exported.serialize())


def run_stablehlo(content: bytes, images: np.ndarray, batch_size: int) -> np.ndarray:
    """Runs what to_stablehlo gave: images uint8 [N, H, W, C] -> probabilities float32 [N, K]."""
    network = jax.jit(export.deserialize(bytearray(content)).call)
    starts = range(0, len(images), batch_size)
    return np.concatenate([network(images[start : start + batch_size]) for start in starts])


_WRITERS = {"stablehlo": to_stablehlo, "onnx": to_onnx}
_RUNNERS = {"stablehlo": run_stablehlo, "onnx": run_onnx}


def export_network(
    workdir: Path,
    restored: Restored,
    dataset: Dataset,
    formats: Sequence[str],
    report: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Writes a network in each format, and its model card, into workdir/export/.

    Nothing is written before every file, read back, has given the network's probabilities for all
    images of dataset.eval.

    Args:
      workdir: the run's; its config.json says how it was trained.
      restored: the network.
      dataset: of its shape and classes.
      formats: 'stablehlo', 'onnx'.
      report: gets a line for each format's check.

    Returns:
      A row for each file: 'file', 'bytes', 'sha256'; and, of a network, 'max_abs_difference' of
      its probabilities over so many 'examples'.

    Raises:
      UserError: a format's packages are missing, it cannot hold this network, its probabilities
        are too far off, or the folder cannot be written.
    """
    if "onnx" in formats:
        require()
    images, labels = dataset.eval.images, dataset.eval.labels
    batch_size = min(restored.config.batch_size, len(labels))
    # Full float32 on a GPU too, where the default is less: a file gives the same on every device.
    with jax.default_matmul_precision("highest"):
        network = trace_network(restored)
        contents = {name: _WRITERS[name](network) for name in formats}
        expected = _expected(restored, images, batch_size)
        result = evaluate_restored(restored, dataset.eval)
        differences = {
            name: _checked(name, _RUNNERS[name](content, images, batch_size), expected, report)
            for name, content in contents.items()
        }
    folder = workdir / "export"
    rows = [
        _row(folder / FILES[name], content)
        | {"max_abs_difference": differences[name], "examples": len(labels)}
        for name, content in contents.items()
    ]
    error = calibration(expected, labels).error
    card = model_card(restored, dataset, read_config(workdir), result, error, rows).encode()
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: no folder ({error.strerror}). Move what is there.") from error
    for name in FILES:
        if name in contents:
            write_atomic(folder / FILES[name], contents[name])
        elif (folder / FILES[name]).exists():
            report(f"{folder / FILES[name]} is an earlier export's; --format=all renews both.")
    write_atomic(folder / CARD_FILE, card)
    return [*rows, _row(folder / CARD_FILE, card)]


def _expected(restored: Restored, images: np.ndarray, batch_size: int) -> np.ndarray:
    """Returns the network's probabilities, from batches of the sizes that the files are given.

    predict() fills the last batch up, and a float32 sum's last bits depend on the batch's size.
    """
    parts = np.split(images, [len(images) // batch_size * batch_size])
    return np.concatenate([predict(restored, part)["probabilities"] for part in parts if len(part)])


def _checked(
    name: str, got: np.ndarray, expected: np.ndarray, report: Callable[[str], None]
) -> float:
    """Returns the largest difference of two arrays [N, K]; raises UserError if it is too large."""
    difference, allowed = float(np.abs(got - expected).max()), _TOLERANCES[name]
    if not difference <= allowed:  # NaN, too
        raise UserError(
            f"--format={name}: over {len(expected):,} images {FILES[name]} differs from the "
            f"network by up to {difference:.1e}, more than the {allowed:.0e} that is allowed. No "
            "file was written."
        )
    told = f"largest difference {difference:.1e}" if difference else "equal to the bit"
    report(f"{FILES[name]}: {told}, over the probabilities of {len(expected):,} images.")
    return difference


def _row(path: Path, content: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    return {"file": str(path), "bytes": len(content), "sha256": digest}

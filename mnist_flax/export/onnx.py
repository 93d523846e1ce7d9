"""A traced network as ONNX, and what onnxruntime makes of it.

The only importer of jax2onnx, which brings onnx, and of onnxruntime. They are an extra.
"""

import importlib.metadata
import logging
import warnings

import jax
import numpy as np

from mnist_flax.data.streamed_images import Images
from mnist_flax.errors import UserError, installing, where_it_failed
from mnist_flax.export import equations
from mnist_flax.export.network import Network

_OPSET = 18  # jax2onnx's own, 23, is unknown to runtimes of 2024; nothing here needs it
_PACKAGES = ("jax2onnx", "onnx", "onnxruntime")


def require() -> None:
    """Raises UserError if the extra is not installed."""
    for name in _PACKAGES:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError as error:
            raise UserError(
                f"format=onnx: {name} is not installed. Install it with "
                f"{installing('onnx')}, or export as stablehlo."
            ) from error


def versions() -> dict[str, str]:
    """Returns those of the packages that write and run ONNX here."""
    return {name: importlib.metadata.version(name) for name in _PACKAGES}


def to_onnx(network: Network) -> bytes:
    """Converts a network.

    Returns:
      An ONNX model, its weights inside: an input of the name network.given -> an output [batch, …]
      of each of the network's names.

    Raises:
      UserError: jax2onnx cannot convert an operation of it, or has another version of itself.
    """
    import jax2onnx

    def answers(inputs: jax.Array) -> tuple[jax.Array, ...]:
        return tuple(equations.evaluate(network.equations, [inputs]))

    logging.getLogger("onnx_ir").setLevel(logging.ERROR)  # warns of types that ONNX infers itself
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of jax2onnx's own old names in JAX
            model = jax2onnx.to_onnx(
                answers,
                [network.inputs],
                model_name="mnist_flax",
                opset=_OPSET,
                input_names=[network.given],
                output_names=list(network.names),
            )
    except Exception as error:  # of any kind, on an operation that it does not know
        told = where_it_failed(error, __file__, equations.__file__)
        raise UserError(
            f"format=onnx: jax2onnx {versions()['jax2onnx']} cannot convert this network "
            f"({told}). Export it as stablehlo."
        ) from error
    return model.SerializeToString()


def run_onnx(
    content: bytes, names: tuple[str, ...], inputs: Images, batch_size: int
) -> dict[str, np.ndarray]:
    """Runs an ONNX model in onnxruntime, on the CPU.

    Args:
      content: as to_onnx gives it.
      names: of the network's outputs.
      inputs: [N, …], as the network takes them.
      batch_size: the last batch may be smaller.

    Returns:
      {name: [N, …]}.

    Raises:
      UserError: onnxruntime cannot run it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; not what it finds superfluous
    try:
        session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
        given = session.get_inputs()[0].name
        parts = [
            session.run(list(names), {given: inputs[start : start + batch_size]})
            for start in range(0, len(inputs), batch_size)
        ]
    except Exception as error:  # its errors have no class in common
        raise UserError(
            f"format=onnx: onnxruntime {versions()['onnxruntime']} cannot run this network "
            f"({where_it_failed(error, __file__)}). Export it as stablehlo."
        ) from error
    return {
        name: np.concatenate(values)
        for name, values in zip(names, zip(*parts, strict=True), strict=True)
    }

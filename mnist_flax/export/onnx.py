"""A traced network as ONNX, and what onnxruntime makes of it.

The only importer of jax2onnx, which brings onnx, and of onnxruntime. They are an extra.

jax2onnx is given the network's equations, not its layers. Of layers it has versions of its own,
whose `nn.max_pool` knows neither positional arguments nor explicit padding, which it silently takes
for none (0.13 to 0.17). Equations it converts one by one, and well, but for two: a max-pool becomes
one over four dimensions, which onnxruntime refuses, and padding fails on any number of images. So
these go through its `nn.max_pool` and `jnp.pad`.
"""

import importlib.metadata
import logging
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal, primitives

from mnist_flax.errors import UserError, where_it_failed

_OPSET = 18  # jax2onnx's own, 23, is unknown to runtimes of 2024; nothing here needs it
_PACKAGES = ("jax2onnx", "onnx", "onnxruntime")


def require() -> None:
    """Raises UserError if the extra is not installed."""
    for name in _PACKAGES:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError as error:
            raise UserError(
                f"--format=onnx: {name} is not installed. Install it with pip install -e "
                "'.[onnx]', or export with --format=stablehlo."
            ) from error


def versions() -> dict[str, str]:
    """Returns those of the packages that write and run ONNX here."""
    return {name: importlib.metadata.version(name) for name in _PACKAGES}


def to_onnx(network: ClosedJaxpr) -> bytes:
    """Converts a network and the softmax after it.

    Args:
      network: uint8 [batch, H, W, C] -> logits [batch, K]; batch is symbolic.

    Returns:
      An ONNX model, its weights inside: images uint8 [batch, H, W, C] -> probabilities float32
      [batch, K].

    Raises:
      UserError: jax2onnx cannot convert an operation of it, or has another version of itself.
    """
    import jax2onnx

    def probabilities(images: jax.Array) -> jax.Array:
        (logits,) = _evaluate(network, [images])
        return nn.softmax(logits).astype(jnp.float32)

    aval: Any = network.in_avals[0]
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)  # warns of types that ONNX infers itself
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of jax2onnx's own old names in JAX
            model = jax2onnx.to_onnx(
                probabilities,
                [jax.ShapeDtypeStruct(aval.shape, aval.dtype)],
                model_name="mnist_flax",
                opset=_OPSET,
                input_names=["images"],
                output_names=["probabilities"],
            )
    except Exception as error:  # of any kind, on an operation that it does not know
        raise UserError(
            f"--format=onnx: jax2onnx {versions()['jax2onnx']} cannot convert this network "
            f"({where_it_failed(error, __file__)}). Export it with --format=stablehlo."
        ) from error
    return model.SerializeToString()


def run_onnx(content: bytes, images: np.ndarray, batch_size: int) -> np.ndarray:
    """Runs an ONNX model in onnxruntime, on the CPU.

    Args:
      content: as to_onnx gives it.
      images: uint8 [N, H, W, C].
      batch_size: the last batch may be smaller.

    Returns:
      float32 [N, K].

    Raises:
      UserError: onnxruntime cannot run it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; not what it finds superfluous
    try:
        session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
        parts = [
            session.run(["probabilities"], {"images": images[start : start + batch_size]})[0]
            for start in range(0, len(images), batch_size)
        ]
    except Exception as error:  # its errors have no class in common
        raise UserError(
            f"--format=onnx: onnxruntime {versions()['onnxruntime']} cannot run this network "
            f"({where_it_failed(error, __file__)}). Export it with --format=stablehlo."
        ) from error
    return np.concatenate(parts)


def _evaluate(closed: ClosedJaxpr, args: list[Any]) -> list[Any]:
    """Evaluates equation by equation, for jax2onnx to see each, or what stands for it."""
    inputs = [*closed.jaxpr.constvars, *closed.jaxpr.invars]
    env: dict[Any, Any] = dict(zip(inputs, [*closed.consts, *args], strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else env[atom]

    for eqn in closed.eqns:
        values = [read(atom) for atom in eqn.invars]
        if not any(isinstance(value, jax.core.Tracer) for value in values):
            with jax.ensure_compile_time_eval():  # of weights alone: no work for the file
                outputs = _bind(eqn, values)
        elif eqn.primitive is primitives.jit_p:
            outputs = _evaluate(eqn.params["jaxpr"], values)
        elif eqn.primitive is primitives.reduce_window_max_p and _pools_images(eqn):
            outputs = [_max_pool(eqn, values[0])]
        elif eqn.primitive is primitives.pad_p and _pads_plainly(eqn):
            widths = [(low, high) for low, high, _ in eqn.params["padding_config"]]
            outputs = [jnp.pad(values[0], widths, constant_values=np.asarray(values[1]).item())]
        else:
            outputs = _bind(eqn, values)
        env.update(zip(eqn.outvars, outputs, strict=True))
    return [read(atom) for atom in closed.jaxpr.outvars]


def _bind(eqn: JaxprEqn, values: list[Any]) -> list[Any]:
    outputs = eqn.primitive.bind(*values, **eqn.primitive.get_bind_params(eqn.params))
    return outputs if eqn.primitive.multiple_results else [outputs]


def _pads_plainly(eqn: JaxprEqn) -> bool:
    """Whether nothing is put between elements, and nothing cut off."""
    return all(
        low >= 0 and high >= 0 and not inner for low, high, inner in eqn.params["padding_config"]
    )


def _pools_images(eqn: JaxprEqn) -> bool:
    """Whether the windows of a pooling extend in the rows and columns of [..., H, W, C] alone."""
    p = eqn.params
    sizes, strides = p["window_dimensions"], p["window_strides"]
    others = [*zip(sizes[:-3], strides[:-3], strict=True), (sizes[-1], strides[-1])]
    dilated = {*p["base_dilation"], *p["window_dilation"]} != {1}
    return len(sizes) >= 4 and all(pair == (1, 1) for pair in others) and not dilated


def _max_pool(eqn: JaxprEqn, images: jax.Array) -> jax.Array:
    p: Any = eqn.params
    shape = images.shape
    images = jax.lax.collapse(images, 0, images.ndim - 3)  # [batch, 1, H, W, C] under a vmap
    pads = [(0, 0), *p["padding"][-3:]]
    if any(map(any, pads)):
        images = jnp.pad(images, pads, constant_values=-jnp.inf)
    pooled = nn.max_pool(
        images, window_shape=p["window_dimensions"][-3:-1], strides=p["window_strides"][-3:-1]
    )
    return pooled.reshape(*shape[:-3], *pooled.shape[1:])

"""Whether a file, read back, says what the network says."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from mnist_flax.data.streamed_images import Images, taken
from mnist_flax.errors import UserError
from mnist_flax.export.network import Network
from mnist_flax.use.prediction import predict
from mnist_flax.use.restore import Restored

# How far an output may be from the network's, whose values are up to 1; of larger ones, so much of
# the largest.
_TOLERANCES = {"stablehlo": 1e-6, "onnx": 1e-5}


def expected_outputs(
    restored: Restored, network: Network, inputs: Images, batch_size: int
) -> dict[str, np.ndarray]:
    """Returns what the network says, {name: [N, …]}, from batches of the sizes that files get.

    predict() fills the last batch up, and a float32 sum's last bits depend on the batch's size.
    """
    if network.given == "latents":
        assert isinstance(inputs, np.ndarray)
        return {network.names[0]: _drawn(restored, inputs, batch_size)}
    whole = len(inputs) // batch_size * batch_size
    parts = [taken(inputs, slice(0, whole)), taken(inputs, slice(whole, None))]
    answers = [predict(restored, part) for part in parts if len(part)]
    return {
        name: np.concatenate([answer[name] for answer in answers]).astype(form.dtype)
        for name, form in network.outputs.items()
    }


def _drawn(restored: Restored, latents: np.ndarray, batch_size: int) -> np.ndarray:
    assert restored.task.sample is not None
    draw, starts = jax.jit(restored.task.sample), range(0, len(latents), batch_size)
    parts = [draw(restored.state.variables, latents[n : n + batch_size]) for n in starts]
    return np.concatenate(parts).astype(np.float32)


def largest_difference(
    form: str,
    got: Mapping[str, np.ndarray],
    expected: Mapping[str, np.ndarray],
    given: str = "images",
) -> float:
    """Returns the largest difference of any output; what is not floating point must be equal.

    Args:
      form: 'stablehlo' or 'onnx'.
      got: of a file, {name: [N, …]}.
      expected: of the network, likewise.
      given: what its inputs are called.

    Raises:
      UserError: an output is too far off, or of another type or shape.
    """
    return max(
        _difference(f"format={form}: over {len(values):,} {given} ", form, name, got[name], values)
        for name, values in expected.items()
    )


def _difference(over: str, form: str, name: str, got: np.ndarray, expected: np.ndarray) -> float:
    told = f"{over}the file's {name!r} "
    if (got.dtype, got.shape) != (expected.dtype, expected.shape):
        raise UserError(
            f"{told}is {got.dtype} {list(got.shape)}, the network's {expected.dtype} "
            f"{list(expected.shape)}. No file was written."
        )
    if not jnp.issubdtype(expected.dtype, jnp.floating):
        if unequal := int((got != expected).sum()):
            raise UserError(
                f"{told}differs from the network's in {unequal:,} of {expected.size:,} values, "
                "which must be equal. No file was written."
            )
        return 0.0
    difference = float(np.abs(got - expected).max())
    largest = float(np.abs(expected[np.isfinite(expected)]).max(initial=1))
    allowed = _TOLERANCES[form] * largest
    if not difference <= allowed:  # NaN, too
        raise UserError(
            f"{told}differs from the network's by up to {difference:.1e}, more than the "
            f"{allowed:.2g} that is allowed. No file was written."
        )
    return difference

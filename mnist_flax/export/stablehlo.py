"""A traced network as StableHLO, and what JAX makes of it."""

import jax
import numpy as np
from jax import export

from mnist_flax.data.streamed_images import Images
from mnist_flax.export.network import Network

_PLATFORMS = ("cpu", "cuda", "tpu")


def to_stablehlo(network: Network) -> bytes:
    """Serializes a network for CPU, CUDA and TPU.

    Returns:
      What jax.export.deserialize reads: the network's input -> its output; or, of one with
      several, a dict of them by name.
    """

    def answers(inputs: jax.Array) -> jax.Array | dict[str, jax.Array]:
        # Behind the barrier the compiler computes nothing from the weights in advance, as it does
        # not in the network itself: the same bits.
        weights = jax.lax.optimization_barrier(network.equations.consts)
        values = jax.core.eval_jaxpr(network.equations.jaxpr, weights, inputs)
        return values[0] if len(values) == 1 else dict(zip(network.names, values, strict=True))

    exported = export.export(jax.jit(answers), platforms=_PLATFORMS)(network.inputs)
    return bytes(exported.serialize())


def run_stablehlo(
    content: bytes, names: tuple[str, ...], inputs: Images, batch_size: int
) -> dict[str, np.ndarray]:
    """Runs what to_stablehlo gave.

    Args:
      content: as to_stablehlo gives it.
      names: of the network's outputs.
      inputs: [N, …], as the network takes them.
      batch_size: the last batch may be smaller.

    Returns:
      {name: [N, …]}.
    """
    answers = jax.jit(export.deserialize(bytearray(content)).call)
    parts = []
    for start in range(0, len(inputs), batch_size):
        given = answers(inputs[start : start + batch_size])
        parts.append({names[0]: given} if len(names) == 1 else given)
    return {name: np.concatenate([part[name] for part in parts]) for name in names}

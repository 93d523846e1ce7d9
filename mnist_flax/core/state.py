"""What a run carries from step to step, and where its random numbers come from."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from mnist_flax.core.metrics import Metrics
from mnist_flax.errors import UsageError
from mnist_flax.keys import rng_key

PyTree = Any


class TrainState(flax.struct.PyTreeNode):
    """Arrays only: model, optimizer and schedule are closed over by the step, never stored.

    Attributes:
      step: int32 [], how many updates were made.
      params: the model's parameters.
      batch_stats: its running statistics; {} for a model without any.
      opt_state: the optimizer's.
      window: sums over the steps since the last training row. Part of the state, so that a run
        that was interrupted inside a window writes the same row as one that was not.
      epoch: likewise, since the last epoch row.
    """

    step: jax.Array
    params: PyTree
    batch_stats: PyTree
    opt_state: PyTree
    window: Metrics
    epoch: Metrics


def create_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    seed: int,
) -> TrainState:
    """Returns the state before the first step: a function of the seed alone.

    Args:
      model: takes float32 [1, H, W, C].
      optimizer: gives the form of opt_state.
      image_shape: (H, W, C).
      seed: config.seed.

    Raises:
      UsageError: the model keeps variables that the loop does not carry.
    """
    images = jnp.zeros((1, *image_shape), jnp.float32)
    variables = dict(model.init(rng_key(seed, "params", 0), images))
    params = variables.pop("params", {})
    batch_stats = variables.pop("batch_stats", {})
    if variables:
        raise UsageError(
            f"config.model.name: {type(model).__name__} keeps the variables {sorted(variables)}; "
            "a run carries 'params' and 'batch_stats' only."
        )
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=optimizer.init(params),
        window=Metrics.empty(),
        epoch=Metrics.empty(),
    )
    # Strong types: a weakly typed leaf would change its type in the first step.
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, leaf.dtype), state)

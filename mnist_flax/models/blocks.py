"""What the networks share: how weights start, and convolution, activation and pooling in a row.

Plain functions, called inside a module's `__call__`, so that the layers are the module's own and
the parameter tree reads conv1, conv2, dense1, logits.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from mnist_flax.config import registry
from mnist_flax.errors import UsageError

INITIALIZERS = {
    name: f"flax.linen.initializers:{name}"
    for name in (
        "lecun_uniform",
        "lecun_normal",
        "glorot_uniform",
        "glorot_normal",
        "he_uniform",
        "he_normal",
        "normal",
        "zeros",
    )
}


def initializer(name: str, stddev: float, field: str) -> nn.initializers.Initializer:
    """Returns an initializer by name; `stddev` is that of 'normal' alone, the mean is 0.

    Raises:
      UsageError: the config field names none, or the standard deviation is not positive.
    """
    if name not in INITIALIZERS:
        near = registry.nearest(str(name), INITIALIZERS)
        known = ", ".join(sorted(INITIALIZERS))
        raise UsageError(f"{field}={name!r}: unknown.{near} Known: {known}.")
    found = registry.resolve(name, INITIALIZERS, field)
    if name == "zeros":
        return found
    if name != "normal":
        return found()
    if stddev is None or not 0 < stddev < float("inf"):
        raise UsageError(f"config.model.init_stddev={stddev}: must be positive and finite.")
    return found(stddev)


def check_rate(rate: float, field: str) -> None:
    """Raises UsageError unless the rate is a share that dropout may drop."""
    if rate is None or not 0 <= rate < 1:
        raise UsageError(
            f"config.model.{field}={rate}: the share that is dropped, at least 0 and below 1."
        )


def conv_pool(
    conv: nn.Conv,
    images: jax.Array,
    *,
    window: int = 2,
    padding: str = "SAME",
    activation: Callable[[jax.Array], jax.Array] | None = nn.relu,
) -> jax.Array:
    """Convolution, activation and max-pooling with stride 2: [B, H, W, C] -> [B, ~H/2, ~W/2, F].

    Args:
      conv: the layer, made where it is called, so that it carries its name.
      images: float32 [B, H, W, C].
      window: of the pooling, in both directions.
      padding: of the pooling. 'SAME' gives ceil(H / 2) rows, 'VALID' floor((H - window) / 2) + 1.
      activation: between the two; None for none.
    """
    x = conv(images)
    x = x if activation is None else activation(x)
    return nn.max_pool(x, (window, window), strides=(2, 2), padding=padding)


def flatten(images: jax.Array) -> jax.Array:
    """Maps [B, H, W, C] to [B, H·W·C]."""
    return images.reshape(images.shape[0], -1)


def at_least_float32(x: jax.Array) -> jax.Array:
    """Returns the same numbers, in float32 where they are of fewer bits."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))

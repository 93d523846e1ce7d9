"""The pixels that an answer hangs on. Pure JAX."""

from typing import cast

import jax
import jax.numpy as jnp
from flax import linen as nn

from mnist_flax.core.task import Variables
from mnist_flax.data.augment import normalize


def saliency(
    model: nn.Module, variables: Variables, images: jax.Array, classes: jax.Array
) -> jax.Array:
    """Returns how much each pixel moves the logit of a class.

    The magnitude of the gradient of that logit with respect to the input, the largest over the
    channels: Simonyan, Vedaldi, Zisserman, "Deep Inside Convolutional Networks", arXiv 1312.6034,
    section 3.1.

    Args:
      model: a linen module that gives logits [B, K], run at rest.
      variables: its parameters and running statistics.
      images: uint8 [B, H, W, C].
      classes: int32 [B].

    Returns:
      float32 [B, H, W].
    """

    def chosen_logits(pixels: jax.Array) -> jax.Array:
        logits = cast(jax.Array, model.apply(variables, pixels))
        # At rest no image touches another's logits, so the gradient of the sum is that of each.
        return jnp.take_along_axis(logits, classes[:, None], axis=1).sum()

    return jnp.abs(jax.grad(chosen_logits)(normalize(images))).max(-1)

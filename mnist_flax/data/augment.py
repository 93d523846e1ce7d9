"""Pure functions on batches of images, inside the jitted step."""

import jax
import jax.numpy as jnp


def normalize(images: jax.Array) -> jax.Array:
    """Maps uint8 [B, H, W, C] in 0…255 to float32 in [0, 1].

    The one place where pixels become numbers: training, evaluation and prediction all pass here.
    """
    return images.astype(jnp.float32) / 255.0

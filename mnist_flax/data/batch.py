"""What a step and an evaluation are given: one batch of images with their labels."""

import flax.struct
import jax
import jax.numpy as jnp


class Batch(flax.struct.PyTreeNode):
    """One batch.

    Attributes:
      images: uint8 [B, H, W, C].
      labels: int32 [B].
      index: int32 [B], the place of each example in its split; of the extended set p·N + i.
      mask: bool [B], False where an image only fills up the last batch; None: all count.
      soft_labels: float32 [B, K], what an augmentation that mixes images makes of the labels; None
        where none does. `labels` are then those of the image that has the largest share.
    """

    images: jax.Array
    labels: jax.Array
    index: jax.Array
    mask: jax.Array | None = None
    soft_labels: jax.Array | None = None


def batch_like(size: int, image_shape: tuple[int, ...]) -> Batch:
    """Returns the form of a batch, as jax.ShapeDtypeStructs."""
    return jax.eval_shape(
        lambda: Batch(
            images=jnp.zeros((size, *image_shape), jnp.uint8),
            labels=jnp.zeros(size, jnp.int32),
            index=jnp.zeros(size, jnp.int32),
        )
    )

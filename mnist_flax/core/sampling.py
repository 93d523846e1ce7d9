"""Pictures out of noise: what a task that has `sample` draws; from noise that stays the same."""

import jax
import jax.numpy as jnp
import numpy as np

from mnist_flax.core.task import Task, Variables
from mnist_flax.keys import rng_key


def latents_of(seed: int, index: jax.Array, size: int) -> jax.Array:
    """Returns standard normal noise float32 [B, size]: of each picture its own, by its index.

    Args:
      seed: config.seed.
      index: int32 [B], the number of each picture.
      size: task.latent_size.
    """
    return jax.vmap(lambda i: jax.random.normal(rng_key(seed, "sample", i), (size,)))(index)


def sample(task: Task, variables: Variables, seed: int, count: int, batch_size: int) -> np.ndarray:
    """Draws the first `count` pictures of a seed.

    Whatever the count, a picture is drawn with the same neighbours: a network that normalises by
    the batch at hand makes them part of it.

    Args:
      task: with `sample`.
      variables: the task's.
      seed: config.seed.
      count: at least 1.
      batch_size: that many at once; the last batch is drawn whole, too.

    Returns:
      uint8 [count, H, W, C].
    """
    batches = (
        latents_of(seed, jnp.arange(start, start + batch_size), task.latent_size)
        for start in range(0, count, batch_size)
    )
    drawn = [draw_latents(task, variables, latents) for latents in batches]
    return np.concatenate(drawn)[:count]


def draw_latents(task: Task, variables: Variables, latents: np.ndarray | jax.Array) -> np.ndarray:
    """Draws latents float32 [B, latent_size], all at once: uint8 [B, H, W, C]."""
    assert task.sample is not None  # who calls has looked
    pictures = np.asarray(jax.jit(task.sample)(variables, latents))
    return np.rint(np.clip(pictures, 0, 1) * 255).astype(np.uint8)

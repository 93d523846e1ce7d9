"""What the server draws: pictures out of noise by their number, and walks from one to another."""

import base64
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mnist_flax.core.sampling import draw_latents, latents_of
from mnist_flax.use.restore import Restored

MOST_FRAMES = 64
Draw = Callable[[int, int, int], dict[str, Any]]


def make_draw(restored: Restored) -> Draw:
    """Compiles what a task draws.

    Args:
      restored: a network whose task has `sample`.

    Returns:
      draw(start, end, frames): the way from the picture of one number to that of another, both
      included, as many frames as asked for, at least 1: {'start', 'end', 'shape': [frames, H, W,
      C], 'pixels': the base64 of so many bytes}. A number's noise is that of --mode=sample. A
      network that normalises by the batch at hand draws each frame next to the same neighbours,
      those of the first numbers, so that a walk does not jump.
    """
    task, variables, seed = restored.task, restored.state.variables, restored.config.seed
    size = task.latent_size
    beside = latents_of(seed, jnp.arange(restored.config.batch_size), size)
    alone, among = draw_latents(task, variables, beside[:1]), draw_latents(task, variables, beside)
    # Where the difference is rounding alone, frames are drawn together, which is many times faster.
    by_itself = np.abs(alone[0].astype(int) - among[0]).max() <= 1

    def draw(start: int, end: int, frames: int) -> dict[str, Any]:
        first, last = latents_of(seed, jnp.array([start, end], jnp.int32), size)
        way = walk(first, last, frames)
        if by_itself:
            drawn = draw_latents(task, variables, _filled(way))[:frames]
        else:
            at_once = [draw_latents(task, variables, beside.at[0].set(z))[:1] for z in way]
            drawn = np.concatenate(at_once)
        pixels = base64.b64encode(drawn.tobytes()).decode()
        return {"start": start, "end": end, "shape": drawn.shape, "pixels": pixels}

    draw(0, 1, 1)  # compiles
    return draw


def walk(start: jax.Array, end: jax.Array, frames: int) -> jax.Array:
    """Returns latents float32 [frames, size] from start to end, both included, on a great circle.

    On the straight line latents would be shorter than a normal distribution has them, and what is
    drawn of them paler (White, arXiv 1609.04468).

    Args:
      start: float32 [size], not zero.
      end: likewise.
      frames: at least 1; 1 is the start alone.
    """
    lengths = jnp.linalg.norm(start), jnp.linalg.norm(end)
    angle = jnp.arccos(jnp.clip(start @ end / (lengths[0] * lengths[1]), -1.0, 1.0))
    share = jnp.linspace(0.0, 1.0, frames)[:, None]
    sine = jnp.sin(angle)
    # Beside each other (or the same), the line is the circle.
    near = sine < 1e-4
    weights = [
        jnp.where(near, straight, jnp.sin(straight * angle) / jnp.where(near, 1.0, sine))
        for straight in (1 - share, share)
    ]
    return weights[0] * start + weights[1] * end


def _filled(way: jax.Array) -> jax.Array:
    """Fills up to MOST_FRAMES rows: one program for any number of frames."""
    return jnp.pad(way, ((0, MOST_FRAMES - len(way)), (0, 0)))

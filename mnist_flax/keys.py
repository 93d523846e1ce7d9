"""Where every random number comes from: a function of (seed, purpose, step), nothing carried."""

import zlib

import jax


def rng_key(seed: int, purpose: str, step: int | jax.Array) -> jax.Array:
    """Returns the key for a purpose at a step. Nothing is split and carried.

    Args:
      seed: config.seed.
      purpose: 'params', 'dropout', 'shuffle', …: its CRC-32 is folded in, which unlike hash() is
        the same in every process.
      step: a step or an epoch; may be traced.
    """
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(purpose.encode()))
    return jax.random.fold_in(key, step)

"""The platform that a program is traced and lowered for, which decides whether cpu/ rewrites it.

By default it is the one that JAX computes on. `lowered_for` names another, which need not be there:

    with cpu.lowered_for("cuda"):
        exported = jax.export.export(jax.jit(chunk), platforms=["cuda"])(state, feed, count)

The name is part of the key under which `jit` keeps what it has traced, lowered and compiled. So
nothing that was traced for one platform is ever used for another, whoever traced it, and a function
that was jitted outside may be called inside.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax

from mnist_flax.errors import UsageError

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")  # as jax.export names them

# A ContextVar would do the same, but JAX would know nothing of it: a task that was traced for the
# CPU would be taken from jit's cache for others.
_named: Any = jax.make_user_context(None)


@contextlib.contextmanager
def lowered_for(platform: str) -> Iterator[None]:
    """Has what this thread traces and lowers in the `with` be for this platform.

    Raises:
      UsageError: it is none of PLATFORMS.
    """
    if platform not in PLATFORMS:
        raise UsageError(f"platform={platform!r}: must be one of {', '.join(PLATFORMS)}.")
    with _named(platform):
        yield


def target() -> str:
    """Returns the platform that `lowered_for` names, or else that of JAX's default backend."""
    return _named.value or jax.default_backend()

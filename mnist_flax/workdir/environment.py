"""What a run's bits depend on besides its config and data."""

import functools
import importlib.metadata
import os
import platform
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

import mnist_flax
from mnist_flax.config import diff
from mnist_flax.cpu import half_precision
from mnist_flax.cpu.processor import fields

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
# What random numbers are made of, and the variable that sets each: another one is another run.
DRAWS = {
    name: name.upper()
    for name in ("jax_default_prng_impl", "jax_enable_x64", "jax_threefry_partitionable")
}


def environment(compute_dtype: str = "float32", devices: int = 1) -> dict[str, str | int]:
    """Returns what config.json and every checkpoint keep.

    These are versions, the processor, the devices that are used, visible cores, how XLA and JAX are
    set, and what programs that compute in this dtype are compiled with. Training uses all devices
    there are, of all processes; whatever uses a trained network, one.
    """
    [used] = jnp.zeros(()).devices()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    # A flag that names a file says where something is written, and a model card travels.
    flags = sorted(flag for flag in os.environ.get("XLA_FLAGS", "").split() if "/" not in flag)
    precision = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    return {
        **_fixed(),
        "device": f"{devices} × {used.device_kind}",
        "cores": cores or 0,
        "XLA_FLAGS": " ".join(flags) or "none",
        "compiler_options": " ".join(half_precision.options(compute_dtype)) or "none",
        "jax_default_matmul_precision": precision or "default",
        **{name: str(getattr(jax.config, name)) for name in DRAWS},
    }


def changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Returns {name: (then, now)} of what differs, of what both have: older runs kept less."""
    both = then.keys() & now.keys()
    return diff({name: then[name] for name in both}, {name: now[name] for name in both})


def processor() -> str:
    """Returns the processor's name, as far as the system says it."""
    return fields().get("model name") or platform.processor() or platform.machine()


@functools.cache
def _fixed() -> dict[str, str | int]:
    """What cannot change while a process lives."""
    # Virtual machines call many processors by one name; these three tell them apart.
    numbers = [fields().get(field, "") for field in ("cpu family", "model", "stepping")]
    return {
        "mnist_flax": mnist_flax.__version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
        "processor": processor() + (f" ({'-'.join(numbers)})" if all(numbers) else ""),
    }

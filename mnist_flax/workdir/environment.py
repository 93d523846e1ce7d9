"""What a run's bits depend on besides its config and data."""

import functools
import importlib.metadata
import os
import platform

import jax

import mnist_flax

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


@functools.cache
def environment() -> dict[str, str | int]:
    """Returns versions, devices and visible cores, for config.json and every checkpoint."""
    devices = jax.devices()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "mnist_flax": mnist_flax.__version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
        "device": f"{len(devices)} × {devices[0].device_kind}",
        "cores": cores or 0,
    }

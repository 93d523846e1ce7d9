"""What a run's bits depend on besides its config and data; and where JAX keeps its programs."""

import functools
import importlib.metadata
import os
import platform
from pathlib import Path

import jax

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


@functools.cache
def environment() -> dict[str, str | int]:
    """Returns versions, devices and visible cores, for config.json and every checkpoint."""
    devices = jax.devices()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
        "device": f"{len(devices)} × {devices[0].device_kind}",
        "cores": cores or 0,
    }


def keep_compiled_programs() -> Path | None:
    """Has JAX keep what it compiles for an accelerator, so that the next start is shorter.

    Returns the folder; None where nothing is changed: JAX_COMPILATION_CACHE_DIR names one already,
    or the device is a CPU. There the variable alone decides, for up to jax 0.10.1 every program
    read back comes with false alarms about the processor (jax issue 38445).
    """
    if jax.default_backend() == "cpu" or os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return None
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "mnist_flax" / "compiled"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    return folder

"""A small functional training framework in JAX/Flax.

A model is a pure function, a task is a handful of pure functions, a step is a pure function, a run
is a fold of steps over data, and all of it can be repeated bit for bit. Four names are
enough to begin with:

    from mnist_flax import Task, default_config, restore, train

Each folder imports only from those above it, and this is the order to read them in:

    errors.py  what a user can cause
    keys.py    where every random number comes from
    cpu/       why a step inside a loop is fast on a CPU
    config/    every field, once; every fault at once
    data/      where images come from (NumPy); sources draw batches, augmentations change them (JAX)
    models/    linen modules
    core/      pure JAX: what a task is, what a run carries, its updates, chunks and sums
    tasks/     what is learnt: one page each
    workdir/   what lies on disk and survives: rows, checkpoints
    use/       a trained network out of its workdir: restored, evaluated, asked, looked into
    show/      what a person sees: console, figures, TensorBoard, W&B; observers, writers
    training/  the run: config in, trained state out
    report/    a page of curves, mistakes and layers
    serve/     a page to draw on
    export/    files that run without this package, and a model card
    cli/       flags into calls: launch.py, mnist-flax, python -m mnist_flax
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnist_flax.config import default_config
    from mnist_flax.core.task import Task
    from mnist_flax.training import train
    from mnist_flax.use.run import restore

__version__ = "0.3.0"
__all__ = ["Task", "default_config", "restore", "train"]

_HOMES = {
    "Task": "mnist_flax.core.task",
    "default_config": "mnist_flax.config",
    "restore": "mnist_flax.use.run",
    "train": "mnist_flax.training",
}


def __getattr__(name: str) -> Any:
    """Imports the public names when they are asked for: `--help` waits for no JAX."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """Returns the names of the module, and those that are imported when they are asked for."""
    return sorted({*globals(), *_HOMES})

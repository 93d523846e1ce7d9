"""Networks that were never trained, to be asked, without a workdir. Not a test itself."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
from tiny import get_config

from mnist_flax.core.state import create_state
from mnist_flax.tasks import Spec, create_task
from mnist_flax.use.restore import Restored


def untrained(
    shape: tuple[int, int, int], class_names: tuple[str, ...], **trained_on: Any
) -> Restored:
    """TinyNet with its first variables; trained_on is what a save tells of its data."""
    config = get_config()
    task = create_task(config, Spec(shape, class_names, 1))
    state = create_state(task, {"count": jnp.int32(0)}, 0)
    return Restored(config, task, state, Path("nowhere"), trained_on, class_names, shape)

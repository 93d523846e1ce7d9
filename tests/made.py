"""Tasks and states made of a linen module and an optimizer, without a config. Not a test itself."""

import jax.numpy as jnp
import optax
from flax import linen as nn

from mnist_flax.core.state import TrainState, create_state
from mnist_flax.core.sums import Sums
from mnist_flax.core.task import Spec, Task
from mnist_flax.tasks.classification import classifier


def spec_of(image_shape: tuple[int, int, int] = (8, 8, 1), num_classes: int = 10) -> Spec:
    return Spec(image_shape, tuple(map(str, range(num_classes))), num_steps=40)


def task_of(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, int, int] = (8, 8, 1),
    num_classes: int = 10,
    label_smoothing: float = 0.0,
) -> Task:
    return classifier(model, optimizer, spec_of(image_shape, num_classes), label_smoothing)


def sums(loss: float = 0.0, right: int = 0, count: int = 0) -> Sums:
    """A classification's sums."""
    return {
        "loss": jnp.float32(loss),
        "accuracy": jnp.int32(right),
        "count": jnp.int32(count),
    }


def state_of(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    seed: int,
) -> TrainState:
    return create_state(task_of(model, optimizer, image_shape), sums(), seed)

"""A network and a recipe small enough that a test run takes seconds. Not a test itself."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from ml_collections import ConfigDict

from mnist_flax.config import default_config


class TinyNet(nn.Module):
    """Convolution, batch-norm, overlapping max-pool, dropout: whatever resume may get wrong."""

    num_classes: int = 10
    features: int = 4
    dtype: Any = None  # that it computes in; None: in that of its parameters

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        norm = functools.partial(nn.BatchNorm, momentum=0.9, dtype=self.dtype)
        x = nn.Conv(self.features, (3, 3), dtype=self.dtype, name="conv")(images)
        x = norm(use_running_average=not train, name="norm")(x)
        x = nn.max_pool(nn.relu(x), (3, 3), strides=(2, 2))
        x = nn.Dropout(0.3, deterministic=not train, name="dropout")(x)
        head = nn.Dense(self.num_classes, dtype=self.dtype, name="logits")
        return head(x.reshape(len(x), -1))


class HalfNet(TinyNet):
    """The same, computing in bfloat16."""

    dtype: Any = jnp.bfloat16


def get_config() -> ConfigDict:
    """Returns a recipe with odd numbers: no interval divides another or an epoch of 17 steps."""
    config = default_config()
    config.model = ConfigDict({"name": "tiny:TinyNet"})
    config.optimizer = ConfigDict({"name": "adam", "learning_rate": 0.01})
    config.batch_size = 6
    config.num_steps = 40
    config.log_every_steps = 10
    config.eval_every_steps = 16
    config.checkpoint_every_steps = 4
    config.data.fallback = "none"
    return config


@jax.custom_jvp
def own_convolution(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """A convolution with a derivative of its own, where cpu/ must not go."""
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=numbers)


@own_convolution.defjvp
def _own_derivative(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    images, kernel = primals
    change = own_convolution(tangents[0], kernel) + own_convolution(images, tangents[1])
    return own_convolution(images, kernel), change


class SlowNet(nn.Module):
    """A convolution that no loop runs fast on a CPU, and dropout."""

    num_classes: int = 10

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        kernel = self.param("hidden", nn.initializers.lecun_normal(), (3, 3, images.shape[-1], 4))
        x = own_convolution(images, kernel)
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(self.num_classes, name="logits")(x.reshape(len(x), -1))


class ShapedNet(nn.Module):
    """Convolutions of kernels that a recipe gives."""

    num_classes: int = 10
    kernels: tuple = ((3, 3),)

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        del train
        for size in self.kernels:
            images = nn.relu(nn.Conv(2, tuple(size))(images))
        return nn.Dense(self.num_classes)(images.reshape(len(images), -1))


class WideNet(nn.Module):
    """Gives twelve logits, whatever the data are."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        del train
        return nn.Dense(12)(images.reshape(len(images), -1))


class BrokenNet(nn.Module):
    """Has an error of its author's in it."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        del train
        return nn.Dense(10)(images.reshape(len(images), 7))


def spoil(learning_rate: optax.Schedule) -> optax.GradientTransformation:
    """An optimizer that turns every parameter into NaN."""
    del learning_rate
    return optax.scale(float("nan"))


def spoil_late(learning_rate: optax.Schedule) -> optax.GradientTransformation:
    """SGD that turns every parameter into NaN in its 14th update."""
    rates = optax.join_schedules([learning_rate, lambda step: float("nan")], [13])
    return optax.sgd(rates)


def overflow(learning_rate: optax.Schedule) -> optax.GradientTransformation:
    """SGD with a record of squares that becomes infinite in the 14th update, and hurts nothing."""

    def init(params: Any) -> Any:
        return optax.ScaleByRmsState(nu=jax.tree.map(jnp.ones_like, params))

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        return updates, state._replace(nu=jax.tree.map(lambda leaf: leaf * 900.0, state.nu))

    return optax.chain(optax.GradientTransformation(init, update), optax.sgd(learning_rate))


class DeadNet(nn.Module):
    """Logits behind a ReLU that lets none through: the loss stays at ln(num_classes)."""

    num_classes: int = 10

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        del train
        bias = nn.initializers.constant(-100.0)
        return nn.relu(nn.Dense(self.num_classes, bias_init=bias)(images.reshape(len(images), -1)))


class TinyHead(nn.Module):
    """TinyNet with a last layer of another name."""

    num_classes: int = 10

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        x = nn.Conv(4, (3, 3), name="conv")(images)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="norm")(x)
        x = nn.max_pool(nn.relu(x), (3, 3), strides=(2, 2))
        return nn.Dense(self.num_classes, name="head")(x.reshape(len(x), -1))

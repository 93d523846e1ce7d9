"""Feature maps: values that a reader can compute, their names and order."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mnist_flax.models.compact import Compact
from mnist_flax.models.threeconv import ThreeConv
from mnist_flax.tasks.networks import init_variables
from mnist_flax.use.features import feature_maps


def maps(model: nn.Module, images: np.ndarray, **params: object) -> dict[str, jax.Array]:
    variables = init_variables(model, images.shape[1:], jax.random.key(0))
    if params:
        variables["params"] = params
    return jax.jit(functools.partial(feature_maps, model))(variables, images)


class Twice(nn.Module):
    """Doubles its images with one convolution, called twice, inside a block."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        del train
        double = nn.Conv(1, (1, 1), use_bias=False, name="double")
        x = double(double(images))
        return nn.Dense(3, name="logits")(x.reshape(len(x), -1))


class Wrapped(nn.Module):
    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        return Twice(name="zeroth")(nn.Conv(2, (3, 3), name="zz")(images)[..., :1], train=train)


def test_values_are_those_of_each_call() -> None:
    images = np.array([[51, 0], [102, 255]], np.uint8).reshape(1, 2, 2, 1)  # 0.2, 0, 0.4, 1
    kernel = jnp.full((1, 1, 1, 1), 2.0)
    logits = {"kernel": jnp.zeros((4, 3)), "bias": jnp.zeros(3)}
    found = maps(Twice(), images, double={"kernel": kernel}, logits=logits)
    assert list(found) == ["double", "double#2"]  # the dense layer has no map
    np.testing.assert_allclose(found["double"].ravel(), [0.4, 0, 0.8, 2], rtol=1e-6)
    np.testing.assert_allclose(found["double#2"].ravel(), [0.8, 0, 1.6, 4], rtol=1e-6)


def test_names_follow_the_calls_and_the_nesting() -> None:
    found = maps(Wrapped(), np.zeros((2, 4, 4, 1), np.uint8))
    assert list(found) == ["zz", "zeroth/double", "zeroth/double#2"]
    assert found["zz"].shape == (2, 4, 4, 2)


@pytest.mark.parametrize(
    ("model", "shapes"),
    [
        (
            Compact(),
            {
                "conv1": (1, 28, 28, 16),
                "norm1": (1, 14, 14, 16),
                "conv2": (1, 14, 14, 32),
                "norm2": (1, 7, 7, 32),
                "conv3": (1, 7, 7, 64),
                "norm3": (1, 4, 4, 64),
            },
        ),
        (
            ThreeConv(),
            {
                "conv1": (1, 28, 28, 32),
                "dropout1": (1, 14, 14, 32),
                "conv2": (1, 14, 14, 64),
                "dropout2": (1, 7, 7, 64),
                "conv3": (1, 7, 7, 128),
                "dropout3": (1, 4, 4, 128),
            },
        ),
    ],
)
def test_the_shapes_of_known_networks(model: nn.Module, shapes: dict[str, tuple]) -> None:
    found = maps(model, np.zeros((1, 28, 28, 1), np.uint8))
    assert [(name, value.shape) for name, value in found.items()] == list(shapes.items())


def test_of_several_views_the_first_is_shown() -> None:
    images = np.arange(2 * 28 * 28, dtype=np.uint8).reshape(2, 28, 28, 1)
    plain, viewing = (maps(Compact(shifted_views=views), images) for views in (False, True))
    assert list(plain) == list(viewing)
    for name, values in plain.items():
        np.testing.assert_allclose(viewing[name], values, atol=1e-5)


def test_the_network_is_at_rest() -> None:
    class Norm(nn.Module):
        @nn.compact
        def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
            norm = nn.BatchNorm(use_running_average=not train, epsilon=0.0, name="norm")
            return nn.Dense(2)(norm(images).reshape(len(images), -1))

    model, images = Norm(), np.full((1, 2, 2, 1), 255, np.uint8)
    variables = init_variables(model, (2, 2, 1), jax.random.key(0))
    statistics = {"norm": {"mean": jnp.array([-1.0]), "var": jnp.array([4.0])}}
    found = feature_maps(model, {**variables, "batch_stats": statistics}, images)
    np.testing.assert_array_equal(found["norm"], np.ones((1, 2, 2, 1)))  # (1 + 1) / √4


def test_a_network_without_maps_has_none() -> None:
    class Dense(nn.Module):
        @nn.compact
        def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
            del train
            return nn.Dense(2)(images.reshape(len(images), -1))

    assert maps(Dense(), np.zeros((1, 2, 2, 1), np.uint8)) == {}

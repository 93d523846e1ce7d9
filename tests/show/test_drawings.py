"""What is drawn of an evaluation, pixel by pixel, and which filters are the first."""

from collections.abc import Callable

import jax
import numpy as np
import pytest
from flax import linen as nn
from tiny import DeadNet, SlowNet, TinyNet

from mnist_flax.show.drawings import confusion_image, draw_evaluation, filters_image
from mnist_flax.tasks.networks import init_variables
from mnist_flax.use.filters import first_filters


def test_a_row_of_squares_for_each_label() -> None:
    labels = np.array([0] * 8 + [1] * 2, np.int32)
    classes = np.zeros(10, np.int32)  # both ones are taken for 0
    classes[0] = 1  # an eighth of the zeros, whose cube root is a half
    image = confusion_image(labels, classes, 2)
    assert (image.shape, image.dtype) == ((323, 323, 3), np.uint8)  # 2 × 160 and three lines
    centres = image[[81, 81, 242, 242], [81, 242, 81, 242]]
    amber, violet = (np.array(colour) for colour in ((154, 103, 0), (111, 66, 193)))
    assert centres[1].tolist() == np.rint((255 + amber) / 2).tolist()
    assert centres[2].tolist() == amber.tolist()
    assert centres[3].tolist() == [255, 255, 255]
    assert centres[0].tolist() == np.rint(255 + 0.875 ** (1 / 3) * (violet - 255)).tolist()
    assert image[161, 5].tolist() == [224, 224, 224]  # the line between them


def test_a_class_without_images_and_more_classes_than_pixels() -> None:
    assert confusion_image(np.array([0]), np.array([0]), 400).shape == (801, 801, 3)
    image = confusion_image(np.array([0]), np.array([0]), 2)
    assert (image[170:320, 170:320] == 255).all()


def test_filters_are_scaled_by_the_largest_weight_of_all() -> None:
    kernel = np.array([4.0, -2.0, 0.0]).reshape(1, 1, 1, 3)
    image = filters_image(kernel)
    assert image.shape == (2 * 44 + 4, 2 * 44 + 4, 3)  # three in a grid of 2 × 2
    centres = image[[24, 24, 68, 68], [24, 68, 24, 68], 0]
    assert centres.tolist() == [255, 64, 128, 255]  # the fourth is empty
    assert (filters_image(np.zeros((3, 3, 1, 1)))[4:-4, 4:-4] == 128).all()


def test_filters_of_three_channels_are_in_colour_and_of_others_a_mean() -> None:
    assert filters_image(np.array([1.0, -1.0, 0.0]).reshape(1, 1, 3, 1))[24, 24].tolist() == [
        255,
        0,
        128,
    ]
    assert filters_image(np.array([1.0, -1.0]).reshape(1, 1, 2, 1))[24, 24].tolist() == [128] * 3


def test_filters_are_drawn_where_there_are_any() -> None:
    labels, kernel = np.array([0, 1]), np.ones((3, 3, 1, 4))
    assert list(draw_evaluation(labels, labels, 2, None)) == ["confusion_matrix"]
    images = draw_evaluation(labels, labels[::-1], 2, ("conv1", kernel))
    assert list(images) == ["confusion_matrix", "filters/conv1"]
    np.testing.assert_array_equal(
        images["confusion_matrix"], confusion_image(labels, labels[::-1], 2)
    )
    np.testing.assert_array_equal(images["filters/conv1"], filters_image(kernel))


class Late(nn.Module):
    """Normalises its images, and has convolutions whose names sort against their order."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        x = nn.BatchNorm(use_running_average=not train, name="a")(images)
        for name in ("stem", "block"):
            x = Inner(name=name)(x)
        return nn.Dense(3, name="logits")(x.reshape(len(x), -1))


class Inner(nn.Module):
    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        return nn.Conv(1, (3, 3), name="conv")(images)


@pytest.mark.parametrize(
    ("model", "name", "kernel"),
    [
        (TinyNet, "conv", lambda params: params["conv"]["kernel"]),
        (SlowNet, "hidden", lambda params: params["hidden"]),  # a parameter of its own
        (Late, "stem/conv", lambda params: params["stem"]["conv"]["kernel"]),
    ],
)
def test_the_first_convolution(
    model: type[nn.Module], name: str, kernel: Callable[[dict], jax.Array]
) -> None:
    variables = init_variables(model(), (8, 8, 1), jax.random.key(0))
    found = first_filters(model(), variables, (8, 8, 1))
    assert found is not None
    assert found[0] == name
    np.testing.assert_array_equal(found[1], kernel(variables["params"]))


class Mixed(nn.Module):
    """A dense layer sees the images; a convolution what that makes of them."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        del train
        x = nn.Dense(32)(images.reshape(len(images), -1)).reshape(-1, 4, 4, 2)
        return nn.Dense(3)(nn.Conv(1, (3, 3))(x).reshape(len(images), -1))


@pytest.mark.parametrize("model", [DeadNet, Mixed])
def test_dense_layers_have_no_filters(model: type[nn.Module]) -> None:
    variables = init_variables(model(), (8, 8, 1), jax.random.key(0))
    assert first_filters(model(), variables, (8, 8, 1)) is None

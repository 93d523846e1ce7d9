"""What training data say of how a foreign picture is brought into their form."""

import numpy as np
import pytest
from own_data import KINDS

from mnist_flax.data.preparation import (
    AS_IS,
    DIGIT,
    Preparation,
    derive,
    of_run,
    on_its_ground,
    told,
)
from mnist_flax.data.sample import read_sample
from mnist_flax.errors import UserError


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    return read_sample().splits["train"].images


def made(kind: str) -> np.ndarray:
    random = np.random.default_rng(0)
    images = np.stack([KINDS[kind](random, number)[0] for number in range(80)])
    return images if images.ndim == 4 else images[..., None]


def centred_squares(sides: range) -> np.ndarray:
    """Light squares in the middle of black, of these sides in turn."""
    images = np.zeros((60, 28, 28, 1), np.uint8)
    for number, image in enumerate(images):
        half = sides[number % len(sides)] // 2
        image[14 - half : 15 + half, 14 - half : 15 + half] = 200
    return images


def test_mnists_digits_are_laid_out(digits: np.ndarray) -> None:
    assert derive(digits) == DIGIT
    some = digits.copy()
    some[::50] = 0  # two in a hundred are something else
    assert derive(some) == DIGIT


@pytest.mark.parametrize(
    ("change", "ground"),
    [
        (lambda digits: 255 - digits, "light"),
        (lambda digits: np.roll(digits, 4, axis=2), "dark"),  # not centred
        (lambda digits: digits[:, ::2, ::2], "dark"),  # of another size
        (lambda digits: np.repeat(digits, 3, axis=-1), "dark"),  # in colour
        (lambda digits: digits // 2 + 90, "any"),  # on grey
        (lambda digits: np.concatenate([digits, 255 - digits]), "any"),  # either way
    ],
)
def test_digits_in_another_form_are_scaled_alone(digits: np.ndarray, change, ground: str) -> None:
    assert derive(change(digits)) == Preparation("size", ground)


@pytest.mark.parametrize(
    ("kind", "ground"),
    [("dark on white", "light"), ("place", "dark"), ("clothes", "dark"), ("hues", "any")],
)
def test_other_data_are_scaled_alone(kind: str, ground: str) -> None:
    assert derive(made(kind)) == Preparation("size", ground)


def test_what_tells_by_its_size_is_not_scaled_to_one() -> None:
    assert derive(centred_squares(range(5, 20, 4))).layout == "size"
    assert derive(centred_squares(range(19, 20))).layout == "digit"


def test_one_image_and_blank_ones_have_a_preparation() -> None:
    assert derive(np.zeros((1, 28, 28, 1), np.uint8)) == Preparation("size", "dark")
    assert derive(np.full((3, 1, 1, 3), 255, np.uint8)) == Preparation("size", "light")


def test_a_picture_on_the_other_ground_is_inverted_and_no_other() -> None:
    light = np.full((28, 28, 1), 250, np.uint8)
    light[5:20, 5:20] = 9
    np.testing.assert_array_equal(on_its_ground(light, "dark"), 255 - light)
    np.testing.assert_array_equal(on_its_ground(255 - light, "light"), light)
    for image, ground in ((light, "light"), (light, "any"), (255 - light, "dark")):
        np.testing.assert_array_equal(on_its_ground(image, ground), image)
    busy = np.random.default_rng(0).integers(0, 256, (28, 28, 1), np.uint8)
    np.testing.assert_array_equal(on_its_ground(busy, "dark"), busy)


def test_a_run_that_kept_none_goes_by_its_datas_name() -> None:
    shape = [28, 28, 1]
    for name in ("mnist", "mnist_sample"):
        assert of_run({"name": name, "image_shape": shape}) == DIGIT
    assert of_run({"name": "mnist", "image_shape": [8, 8, 1]}) == Preparation("size")
    assert of_run({"name": "fashion_mnist", "image_shape": shape}) == Preparation("size")
    kept = {"name": "mnist", "preparation": {"layout": "size", "ground": "light"}}
    assert of_run(kept) == Preparation("size", "light")


@pytest.mark.parametrize("kept", [{}, {"layout": "round", "ground": "dark"}, {"layout": "size"}])
def test_a_preparation_that_is_not_known_is_one_line(kept: dict) -> None:
    with pytest.raises(
        UserError, match=r"^dataset\.preparation=.* Say what is to be done: DIGIT"
    ) as error:
        of_run({"name": "mnist", "preparation": kept})
    assert "\n" not in str(error.value)


def test_a_preparation_is_told_in_words() -> None:
    assert told(DIGIT, (28, 28, 1)).endswith("centred by mass in 28×28, light on black")
    assert told(Preparation("size", "light"), (12, 10, 3)) == (
        "scaled to 10×12 pixels in colour, on a light ground"
    )
    assert told(AS_IS, (8, 8, 1)) == "taken as they are, 8×8 pixels in grey"

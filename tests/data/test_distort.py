"""Elastic distortion and random erasing, by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy.ndimage import gaussian_filter, map_coordinates

from mnist_flax.config import default_config
from mnist_flax.data.augment import check_augment
from mnist_flax.data.distort import elastic_distortion, random_erasing
from mnist_flax.errors import UsageError

KEY = jax.random.key(3)
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 20, 16, 2), np.uint8)


def test_elastic_distortion_is_scipys() -> None:
    ours = np.asarray(jax.jit(lambda key: elastic_distortion(key, IMAGES))(KEY), int)
    field = np.asarray(jax.random.uniform(KEY, (5, 2, 20, 16), minval=-1.0), float)
    for image, moves, told in zip(IMAGES, field, ours, strict=True):
        smooth = [34 * gaussian_filter(move, 4.0, mode="constant", truncate=8) for move in moves]
        places = np.indices((20, 16)) + smooth
        for channel in range(2):
            wanted = map_coordinates(
                image[..., channel].astype(float), places, order=1, mode="constant"
            )
            # Between the last pixel and nothing JAX interpolates; scipy gives nothing.
            inside = (places >= 0).all(0) & (places[0] <= 19) & (places[1] <= 15)
            assert np.abs(told[..., channel] - wanted)[inside].max() <= 1
    assert not np.array_equal(ours, IMAGES)


def test_without_a_move_it_is_the_image() -> None:
    np.testing.assert_array_equal(elastic_distortion(KEY, IMAGES, alpha=0.0), IMAGES)


def test_random_erasing_hides_one_rectangle_of_the_size_that_was_drawn() -> None:
    images = np.zeros((2000, 20, 16, 1), np.uint8)
    erased = np.asarray(
        jax.jit(lambda key: random_erasing(key, images, share=0.5, max_area=0.3))(KEY)
    )[..., 0]
    areas, touched = [], 0
    for image in erased:
        places = np.argwhere(image)
        if not len(places):
            continue
        touched += 1
        (top, left), (bottom, right) = places.min(0), places.max(0) + 1
        areas.append((bottom - top) * (right - left) / 320)
        box = image[top:bottom, left:right]
        if box.size > 60:
            assert (box > 0).mean() > 0.9  # noise, in which a zero is one of 256
            assert box.std() > 40
    assert 900 < touched < 1100
    assert max(areas) < 0.35
    assert 0.14 < np.mean(areas) < 0.18  # uniform from 0.02 to 0.3
    everywhere = (erased > 0).mean(0)
    assert everywhere.min() > 0


def test_no_image_and_every_image() -> None:
    ones = jnp.ones((50, 8, 8, 1), jnp.uint8)
    np.testing.assert_array_equal(random_erasing(KEY, ones, share=0.0), ones)
    changed = np.asarray(random_erasing(KEY, ones, share=1.0) != 1).any((1, 2, 3))
    assert changed.mean() > 0.9  # of one or two pixels the noise may be what was there


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"elastic_distortion": {"alpha": -1.0}}, "elastic_distortion.alpha=-1.0: from 0 to 1,000"),
        ({"elastic_distortion": {"sigma": 0.0}}, "elastic_distortion.sigma=0.0: from 0.1 to 1,000"),
        ({"random_erasing": {"share": 2.0}}, "random_erasing.share=2.0: from 0 to 1."),
        ({"random_erasing": {"max_area": 0.0}}, "random_erasing.max_area=0.0: from 0.02 to 1."),
    ],
)
def test_what_is_wrong_is_told(sections: Any, told: str) -> None:
    given = default_config().augment.to_dict() | {"order": tuple(sections)} | sections
    with pytest.raises(UsageError) as error:
        check_augment(ConfigDict(given), (28, 28, 1))
    assert str(error.value).startswith(f"config.augment.{told}")

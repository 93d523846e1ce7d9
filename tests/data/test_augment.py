"""Augmentations as pure functions, and the virtual extended set against a stored one."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from mnist_flax.config import default_config
from mnist_flax.data.augment import AUGMENTATIONS, check_augment, create_augment, normalize
from mnist_flax.data.distort import random_rotation, random_scaling, random_shift
from mnist_flax.data.sources import take_batch
from mnist_flax.errors import UsageError

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(1, 256, (5, 6, 7, 2), np.uint8)
LABELS = np.arange(5, dtype=np.int32)
DOT = np.zeros((64, 9, 9, 1), np.uint8)
DOT[:, 4, 4] = 200


def stored() -> np.ndarray:
    """The extended set as one would store it: six parts of all images, by plain indexing."""
    down, up, right, left = (np.zeros_like(IMAGES) for _ in range(4))
    down[:, 1:] = IMAGES[:, :-1]
    up[:, :-1] = IMAGES[:, 1:]
    right[:, :, 1:] = IMAGES[:, :, :-1]
    left[:, :, :-1] = IMAGES[:, :, 1:]
    return np.concatenate([IMAGES, down, up, right, left, IMAGES[:, :, ::-1]])


def test_pixels_are_numbers_from_0_to_1() -> None:
    numbers = normalize(jnp.arange(256, dtype=jnp.uint8).reshape(1, 16, 16, 1))
    assert numbers.dtype == jnp.float32
    assert numbers.shape == (1, 16, 16, 1)
    np.testing.assert_allclose(numbers.ravel(), np.arange(256) / 255, rtol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 6, 30])
def test_the_virtual_extended_set_is_the_stored_one_image_by_image(batch_size: int) -> None:
    order = jnp.asarray(RANDOM.permutation(30), jnp.int32)
    for index in range(30 // batch_size):
        picks = np.asarray(order)[index * batch_size :][:batch_size]
        batch = take_batch(
            jnp.asarray(IMAGES),
            jnp.asarray(LABELS),
            order,
            jnp.int32(index),
            batch_size,
            extended=True,
        )
        assert batch.images.dtype == jnp.uint8
        np.testing.assert_array_equal(batch.images, stored()[picks])
        np.testing.assert_array_equal(batch.labels, np.tile(LABELS, 6)[picks])


def test_a_shift_moves_every_image_by_its_own_whole_pixels() -> None:
    shifted = np.asarray(random_shift(jax.random.key(0), DOT, max_pixels=2))
    places = np.argwhere(shifted[..., 0])
    np.testing.assert_array_equal(places[:, 0], np.arange(64))  # one dot an image, none lost
    assert set(shifted[shifted > 0]) == {200}
    for axis in (1, 2):  # all of 5 shifts, among 64 images: missed by chance once in 300,000
        assert set(places[:, axis]) == {2, 3, 4, 5, 6}
    assert (places[:, 1] != places[:, 2]).any()


def test_what_is_shifted_out_is_gone_and_zeros_come_in() -> None:
    full = np.full((32, 3, 3, 1), 9, np.uint8)
    shifted = np.asarray(random_shift(jax.random.key(1), full, max_pixels=2))[..., 0]
    counts = (shifted == 9).sum((1, 2))
    # (3 - |down|) × (3 - |right|) of nine pixels are left.
    assert set(counts) <= {1, 2, 3, 4, 6, 9}
    assert len(set(counts)) > 3


def test_a_quarter_turn_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.zeros((1, 3, 3, 1), np.uint8)
    image[0, :, :, 0] = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape, **_: jnp.full(shape, jnp.pi / 2))
    turned = random_rotation(jax.random.key(0), image, max_degrees=90.0)
    assert np.asarray(turned)[0, :, :, 0].tolist() in (
        [[3, 6, 9], [2, 5, 8], [1, 4, 7]],
        [[7, 4, 1], [8, 5, 2], [9, 6, 3]],
    )


def test_twice_the_size_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.zeros((1, 5, 5, 1), np.uint8)
    image[0, 2, 2:, 0] = [100, 50, 30]
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape, **_: jnp.full(shape, jnp.log(2)))
    larger = random_scaling(jax.random.key(0), image, max_factor=2.0)
    # Seen from the centre, column 3 shows what lay half a pixel to the right: (100 + 50) / 2.
    assert np.asarray(larger)[0, 2, :, 0].tolist() == [0, 50, 100, 75, 50]


# A block of nine pixels, ten to the right of the centre.
BLOCK = np.zeros((200, 41, 41, 1), np.uint8)
BLOCK[:, 19:22, 29:32] = 200


def seen_from_the_centre(images: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """How far up and to the right the middle of the ink lies, of each image."""
    ink = np.asarray(images, float)[..., 0]
    away = np.arange(41) - 20
    total = ink.sum((1, 2))
    return -(ink.sum(2) @ away) / total, (ink.sum(1) @ away) / total


def test_rotations_go_to_both_sides_by_up_to_as_many_degrees() -> None:
    turned = random_rotation(jax.random.key(0), BLOCK, max_degrees=30.0)
    up, right = seen_from_the_centre(turned)
    degrees = np.degrees(np.arctan2(up, right))
    np.testing.assert_allclose(np.hypot(up, right), 10, atol=0.2)
    assert -30.5 < degrees.min() < -27
    assert 27 < degrees.max() < 30.5
    assert abs(np.median(degrees)) < 4


def test_scalings_go_both_ways_by_up_to_the_factor() -> None:
    scaled = random_scaling(jax.random.key(0), BLOCK, max_factor=1.5)
    up, right = seen_from_the_centre(scaled)
    np.testing.assert_allclose(up, 0, atol=0.1)
    assert 1 / 1.55 < (right / 10).min() < 1 / 1.4
    assert 1.4 < (right / 10).max() < 1.55
    assert abs(np.median(np.log(right / 10))) < 0.06


@pytest.mark.parametrize(
    "function",
    [
        lambda key, images: random_rotation(key, images, max_degrees=30.0),
        lambda key, images: random_scaling(key, images, max_factor=1.5),
        lambda key, images: random_shift(key, images, max_pixels=1),
    ],
    ids=["rotation", "scaling", "shift"],
)
def test_each_image_and_each_key_draws_anew_and_colours_move_together(
    function: Callable[..., jax.Array],
) -> None:
    image = RANDOM.integers(1, 256, (9, 9, 1), np.uint8)
    images = np.tile(image, (16, 1, 1, 2))
    made = np.asarray(jax.jit(function)(jax.random.key(0), images))
    assert (made.shape, made.dtype) == (images.shape, np.uint8)
    assert len({one.tobytes() for one in made}) > 5
    np.testing.assert_array_equal(made[..., 0], made[..., 1])
    np.testing.assert_array_equal(made, function(jax.random.key(0), images))
    assert not np.array_equal(made, function(jax.random.key(1), images))


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (random_rotation, {"max_degrees": 0.0}),
        (random_scaling, {"max_factor": 1.0}),
        (random_shift, {"max_pixels": 0}),
    ],
)
def test_a_strength_of_nothing_changes_nothing(
    function: Callable[..., jax.Array], parameters: dict[str, Any]
) -> None:
    np.testing.assert_array_equal(function(jax.random.key(0), IMAGES, **parameters), IMAGES)


def section(*order: Any, **sections: Any) -> ConfigDict:
    config = default_config().augment.to_dict()
    return ConfigDict(config | {"order": order} | sections)


def darken(key: jax.Array, images: jax.Array, *, by: int = 2) -> jax.Array:
    del key
    return images // by


def brighten(key: jax.Array, images: jax.Array) -> jax.Array:
    del key
    return images + 1


def test_order_and_parameters_come_from_the_config() -> None:
    names = f"{__name__}:darken", f"{__name__}:brighten"
    images = jnp.full((1, 2, 2, 1), 9, jnp.uint8)

    def value(config: ConfigDict) -> int:
        return int(create_augment(config)(jax.random.key(0), images)[0, 0, 0, 0])

    assert value(section()) == 9
    assert value(section(*names)) == 9 // 2 + 1
    assert value(section(*reversed(names))) == (9 + 1) // 2
    assert value(section(*names, darken={"by": 3})) == 9 // 3 + 1


def test_two_random_functions_do_not_share_their_draws() -> None:
    twice = create_augment(section("random_shift", "random_shift", random_shift={"max_pixels": 1}))
    moved = np.argwhere(np.asarray(twice(jax.random.key(0), DOT))[..., 0])[:, 1] - 4
    assert 1 in moved  # a sum of two equal shifts of one is never odd
    assert set(moved) == {-2, -1, 0, 1, 2}


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_every_name_works_with_its_defaults(name: str) -> None:
    check_augment(section(name), (28, 28, 1))


def fails(key: jax.Array, images: jax.Array) -> jax.Array:
    raise RuntimeError("out of ink")


def order(key: jax.Array, images: jax.Array) -> jax.Array:
    raise RuntimeError("a function may be called anything")


def to_float(key: jax.Array, images: jax.Array) -> jax.Array:
    return images / 255


def crops(key: jax.Array, images: jax.Array) -> jax.Array:
    return images[:, 1:]


def gives_nothing(key: jax.Array, images: jax.Array) -> None:
    return None


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (
            section("random_shfit"),
            "config.augment.order='random_shfit': unknown. Did you mean 'random_shift'? Known: "
            "cutmix, elastic_distortion, mixup, random_erasing, random_rotation, random_scaling, "
            "random_shift; or 'package.module:attribute'",
        ),
        (
            section("random_shift,random_rotation"),
            "config.augment.order='random_shift,random_rotation': several names are quoted, each "
            "by itself: \"'random_shift','random_rotation'\".",
        ),
        (section(3), "config.augment.order: 3 is no name. Known: elastic_distortion, "),
        (section("builtins:max"), "config.augment.max: 'builtins:max' is called with (key, "),
        (section(f"{__name__}:order"), f"config.augment.order: '{__name__}:order' fails on"),
        (
            section(f"{__name__}:darken", drak={"by": 5}),
            "config.augment.drak: config.augment.order names no such function. Did you mean 'dark",
        ),
        (
            section("random_shift", random_shift=2),
            "config.augment.random_shift=2: must be a section of parameters by name.",
        ),
        (
            ConfigDict({"order": "random_shift"}),
            "config.augment.order='random_shift': must be a tuple of names, such as ('random_shif",
        ),
        (section("math:pi"), "config.augment.order: 'math:pi' is no function, but 3.14"),
        (
            section("random_shift", random_shift={"pixels": 1}),
            "config.augment.random_shift: 'random_shift' is called with (key, images) and pixels=1",
        ),
        (
            section("random_shift", random_shift={}),
            "config.augment.random_shift: 'random_shift' is called with (key, images) and nothing",
        ),
        (
            section("random_shift", random_shift={"max_pixels": -1}),
            "config.augment.random_shift.max_pixels=-1: at least 0, and less than the image's 6.",
        ),
        (
            section("random_shift", random_shift={"max_pixels": 6}),
            "config.augment.random_shift.max_pixels=6: ",
        ),
        (
            section("random_rotation", random_rotation={"max_degrees": 181.0}),
            "config.augment.random_rotation.max_degrees=181.0: from 0 to 180.",
        ),
        (
            section("random_scaling", random_scaling={"max_factor": 0.9}),
            "config.augment.random_scaling.max_factor=0.9: from 1 to 10.",
        ),
        (section(f"{__name__}:fails"), f"config.augment.order: '{__name__}:fails' fails on"),
        (section(f"{__name__}:to_float"), f"config.augment.order: '{__name__}:to_float' makes flo"),
        (section(f"{__name__}:crops"), f"config.augment.order: '{__name__}:crops' makes uint8 [2"),
        (section(f"{__name__}:gives_nothing"), f"config.augment.order: '{__name__}:gives_nothing"),
    ],
)
def test_what_is_told_of_a_wrong_augmentation(config: ConfigDict, told: str) -> None:
    with pytest.raises(UsageError) as error:
        check_augment(config, (6, 7, 2))
    assert str(error.value).startswith(told)


def test_a_users_fault_is_told_with_its_line() -> None:
    with pytest.raises(UsageError) as error:
        check_augment(section(f"{__name__}:fails"), (6, 7, 2))
    line = fails.__code__.co_firstlineno + 1
    assert f"{__file__}, line {line}: RuntimeError: out of ink" in str(error.value)

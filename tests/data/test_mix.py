"""mixup and cutmix: the labels have the shares that the pixels have."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from mnist_flax.config import default_config
from mnist_flax.data.augment import check_augment, create_augment, create_batch_augment
from mnist_flax.data.batch import Batch
from mnist_flax.data.mix import cutmix, mixup
from mnist_flax.errors import UsageError

COUNT = 64
# Image k is k + 1 everywhere, its label k: what is mixed can be read off.
IMAGES = np.broadcast_to(
    np.arange(1, COUNT + 1, dtype=np.uint8)[:, None, None, None] * 3, (64, 9, 7, 1)
)
BATCH = Batch(jnp.asarray(IMAGES), jnp.arange(COUNT), jnp.arange(COUNT), soft_labels=jnp.eye(COUNT))


def test_mixup_adds_another_image_and_its_label_by_one_share() -> None:
    mixed = jax.jit(lambda key: mixup(key, BATCH, alpha=1.0))(jax.random.key(0))
    soft = np.asarray(mixed.soft_labels)
    np.testing.assert_allclose(soft.sum(1), 1, rtol=1e-6)
    assert (soft > 0).sum(1).max() == 2
    assert (soft.argmax(1) == np.arange(COUNT)).all()
    wanted = np.rint(soft @ (3.0 * np.arange(1, COUNT + 1)))
    assert mixed.images.dtype == jnp.uint8
    assert np.abs(np.asarray(mixed.images, int) - wanted[:, None, None, None]).max() <= 1
    np.testing.assert_array_equal(mixed.labels, BATCH.labels)
    own = soft.max(1)[soft.max(1) < 1]
    # Beta(1, 1), folded at a half, is uniform from a half to 1.
    assert own.min() < 0.55
    assert own.max() > 0.95
    assert abs(own.mean() - 0.75) < 0.06


def test_cutmix_puts_a_rectangle_of_another_image_in_and_counts_its_pixels() -> None:
    mixed = jax.jit(lambda key: cutmix(key, BATCH, alpha=1.0))(jax.random.key(1))
    images, soft = np.asarray(mixed.images)[..., 0], np.asarray(mixed.soft_labels)
    sizes = set()
    for place, (image, label) in enumerate(zip(images, soft, strict=True)):
        others = np.argwhere(image != 3 * (place + 1))
        share = 1 - len(others) / 63
        assert label[place] == pytest.approx(share, abs=1e-6)
        assert label.sum() == pytest.approx(1, abs=1e-6)
        if not len(others):
            continue
        (top, left), (bottom, right) = others.min(0), others.max(0) + 1
        box = image[top:bottom, left:right]
        assert len(others) == box.size  # a rectangle, of one other image
        (value,) = set(box.ravel().tolist())
        assert label[value // 3 - 1] == pytest.approx(1 - share, abs=1e-6)
        sizes.add(box.shape)
    assert len(sizes) > 10


@pytest.mark.parametrize("mix", [mixup, cutmix])
def test_a_share_of_none_leaves_all_as_it_is(mix: Any) -> None:
    same = mix(jax.random.key(0), BATCH, share=0.0)
    np.testing.assert_array_equal(same.images, BATCH.images)
    np.testing.assert_array_equal(same.soft_labels, BATCH.soft_labels)
    half = np.asarray(mix(jax.random.key(0), BATCH, share=0.5).soft_labels).max(1)
    assert 20 < (half == 1).sum() < 50


def section(**sections: Any) -> ConfigDict:
    return ConfigDict(default_config().augment.to_dict() | {"order": tuple(sections)} | sections)


def swap_labels(key: jax.Array, batch: Batch) -> Batch:
    del key
    return batch.replace(soft_labels=batch.soft_labels[:, ::-1])


def loses_labels(key: jax.Array, batch: Batch) -> Batch:
    return batch.replace(soft_labels=None)


def test_one_after_another_they_mix_what_is_mixed() -> None:
    config = section(mixup={"alpha": 1.0}, random_shift={"max_pixels": 1}, cutmix={"alpha": 1.0})
    augment = jax.jit(create_batch_augment(config, 3))
    batch = Batch(jnp.asarray(IMAGES), jnp.arange(COUNT) % 3, jnp.arange(COUNT))
    mixed = augment(jax.random.key(0), batch)
    np.testing.assert_allclose(mixed.soft_labels.sum(1), 1, rtol=1e-5)
    assert (np.asarray(mixed.soft_labels) > 0).sum(1).max() == 3
    shown = create_augment(config)(jax.random.key(0), batch.images)  # as the report shows them
    np.testing.assert_array_equal(shown, mixed.images)


def test_one_of_ones_own_sees_labels_by_the_name_of_its_parameter() -> None:
    config = section(swap_labels={}).to_dict() | {"order": (f"{__name__}:swap_labels",)}
    batch = Batch(jnp.asarray(IMAGES[:2]), jnp.array([0, 2]), jnp.arange(2))
    mixed = create_batch_augment(ConfigDict(config), 3)(jax.random.key(0), batch)
    np.testing.assert_array_equal(mixed.soft_labels, [[0, 0, 1], [1, 0, 0]])


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"mixup": {"alpha": 0.0}}, "config.augment.mixup.alpha=0.0: must be positive and finite."),
        ({"cutmix": {"share": 1.5}}, "config.augment.cutmix.share=1.5: from 0 to 1."),
        ({"cutmix": {"beta": 1.5}}, "config.augment.cutmix: 'cutmix' is called with (key, images)"),
    ],
)
def test_what_is_wrong_is_told(sections: Any, told: str) -> None:
    with pytest.raises(UsageError) as error:
        check_augment(section(**sections), (28, 28, 1))
    assert str(error.value).startswith(told)


def test_an_own_one_must_return_what_it_takes() -> None:
    config = ConfigDict(section().to_dict() | {"order": (f"{__name__}:loses_labels",)})
    with pytest.raises(UsageError, match=r"takes a batch and must return one, with images and sof"):
        check_augment(config, (28, 28, 1))

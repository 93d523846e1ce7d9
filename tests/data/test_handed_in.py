"""Data that are handed in: arrays, and objects as torchvision, Hugging Face and TFDS have them."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from handed import NAMES, Cifar, Face, Plain, Torch
from ml_collections import ConfigDict
from PIL import Image

from mnist_flax import data
from mnist_flax.config import default_config
from mnist_flax.data import handed_in, items
from mnist_flax.data.dataset import Dataset
from mnist_flax.data.idx import read_idx
from mnist_flax.errors import UsageError, UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 6, 5), np.uint8)
LABELS = np.arange(40) % 4
ARRAYS = (IMAGES[:30], LABELS[:30], IMAGES[30:], LABELS[30:])


def config_of(**changes: Any) -> ConfigDict:
    config = default_config()
    config.data.update(changes)
    return config.data


def load(given: Any, **changes: Any) -> Dataset:
    return data.load(config_of(**changes), lambda line: None, given)


def pair(kind: Any, **fields: Any) -> tuple[Any, Any]:
    return kind(IMAGES[:30], LABELS[:30], **fields), kind(IMAGES[30:], LABELS[30:], **fields)


def test_arrays_are_what_files_are(digits: Path) -> None:
    from_files = data.load(config_of(data_dir=str(digits)), lambda line: None)
    arrays = [
        read_idx(digits / f"{split}-{what}.gz")
        for split in ("train", "t10k")
        for what in ("images-idx3-ubyte", "labels-idx1-ubyte")
    ]
    from_arrays = load(arrays)
    assert from_arrays.fingerprint == from_files.fingerprint
    assert from_arrays.class_names == from_files.class_names
    assert (from_arrays.name, from_arrays.data_dir) == ("handed_in", None)
    assert (from_arrays.handed_in, from_files.handed_in) == (True, False)
    assert from_arrays.source == "arrays that were handed in"
    for split in ("train", "eval"):
        ours, theirs = getattr(from_arrays, split), getattr(from_files, split)
        np.testing.assert_array_equal(ours.images, theirs.images)
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        assert (ours.images.dtype, ours.labels.dtype) == (np.uint8, np.int32)


@pytest.mark.parametrize(
    "given",
    [
        [IMAGES[:30, ..., None], LABELS[:30].astype(np.uint8), IMAGES[30:], LABELS[30:].tolist()],
        tuple(map(jnp.asarray, ARRAYS)),
        tuple(np.asfortranarray(array) for array in ARRAYS),
        pair(Torch, classes=None),
        pair(Face, classes=None),
        (Plain(*zip(IMAGES[:30], LABELS[:30], strict=True)),
         Plain(*[[image[..., None], label] for image, label in zip(*ARRAYS[2:], strict=True)])),
    ],
    ids=["lists", "jax", "fortran", "torch", "face", "plain"],
)  # fmt: skip
def test_however_they_are_handed_in_they_are_the_same(given: Any) -> None:
    assert load(given).fingerprint == load(ARRAYS).fingerprint
    assert load(given).class_names == ("0", "1", "2", "3")


@pytest.mark.parametrize("kind", [Torch, Face, Cifar])
def test_class_names_are_those_that_are_offered(kind: Any) -> None:
    dataset = load(pair(kind))
    assert dataset.class_names == tuple(NAMES)
    assert dataset.source == "data sets that were handed in"


def test_one_of_the_two_may_offer_none() -> None:
    train, other = pair(Torch)[0], pair(Torch, classes=None)[1]
    assert load((train, other)).class_names == tuple(NAMES)


def test_a_name_of_the_users_own_is_kept_and_a_known_one_has_class_names() -> None:
    assert load(ARRAYS, name="letters").name == "letters"
    assert load(ARRAYS, name="fashion_mnist").class_names[0] == "T-shirt/top"
    assert load(pair(Torch), name="fashion_mnist").class_names == tuple(NAMES)


def test_splits_hold_for_them() -> None:
    dataset = load(
        ARRAYS, train_split="train[:20]", select_split="train[20:]", eval_split="test[5:]"
    )
    np.testing.assert_array_equal(dataset.select.images[..., 0], IMAGES[20:30])
    np.testing.assert_array_equal(dataset.eval.images[..., 0], IMAGES[35:])
    mixed = load(ARRAYS, resplit=3)
    assert sorted(map(bytes, (*mixed.train.images, *mixed.eval.images))) == sorted(
        map(bytes, IMAGES)
    )
    assert not np.array_equal(mixed.train.images[..., 0], IMAGES[:30])
    with pytest.raises(UsageError, match=r"There is: train \(30 images\), test \(10 images\)"):
        load(ARRAYS, eval_split="validation")


@pytest.mark.parametrize("given", [ARRAYS, pair(Torch)], ids=["arrays", "objects"])
def test_they_are_turned_and_scaled(given: Any) -> None:
    turned = load(given, transpose=True)
    np.testing.assert_array_equal(turned.train.images[..., 0], IMAGES[:30].transpose(0, 2, 1))
    scaled = load(given, resize=4)
    assert scaled.train.images.shape == (30, 4, 4, 1)
    assert scaled.notes == (
        "Pictures of 5x6 are scaled to 4x4, whatever their proportions (config.data.resize, "
        "LANCZOS).",
    )
    assert (
        load(ARRAYS, resize=4).fingerprint == load(pair(Torch, classes=None), resize=4).fingerprint
    )


def test_colour() -> None:
    colour = np.stack([IMAGES] * 3, -1)
    colour[..., 1] = 7
    given = (colour[:30], LABELS[:30], colour[30:], LABELS[30:])
    objects = [Torch(images, labels, None) for images, labels in (given[:2], given[2:])]
    assert load(given).train.images.shape == (30, 6, 5, 3)
    assert load(given).fingerprint == load(objects).fingerprint


def test_a_picture_is_read_as_one_of_a_file_is_and_stays_as_it_is() -> None:
    """Upright, as its EXIF data say."""
    picture = Image.fromarray(IMAGES[0])
    picture.getexif()[0x0112] = 6  # to be turned clockwise
    lying = Plain((picture, 1))
    turned = load((lying, lying)).train.images[0, ..., 0]
    np.testing.assert_array_equal(turned, np.rot90(IMAGES[0], -1))
    np.testing.assert_array_equal(np.asarray(picture), IMAGES[0])
    assert picture.getexif()[0x0112] == 6


def with_other(array: np.ndarray, index: int, value: int) -> np.ndarray:
    other = array.copy()
    other[index] = value
    return other


def images_and(**changed: Any) -> tuple[Any, ...]:
    names = ("images", "labels", "eval_images", "eval_labels")
    return tuple({**dict(zip(names, ARRAYS, strict=True)), **changed}.values())


class Raising(Torch):
    def __getitem__(self, index: int) -> Any:
        if index == 7:
            raise OSError("a file is gone")
        return super().__getitem__(index)


class Unmeasured(Torch):
    def __len__(self) -> int:
        raise TypeError("how long is a stream?")


GOOD = (IMAGES[0], 1)
WANT_ITEM = "want (image, label), or a mapping with 'image' and 'label'"
FAULTS: dict[str, tuple[Any, str]] = {
    "three": (ARRAYS[:3], "data: want four arrays, (images, labels, eval_images, eval_labels), or"),
    "a mapping": ({"train": 1}, "(train, eval), that have __len__ and __getitem__. Got a dict."),
    "from 0 to 1": (
        images_and(images=IMAGES[:30] / 255),
        "data: images is float64, from 0 to 1: want uint8, from 0 to 255. Give it as it was before",
    ),
    "floats": (
        images_and(eval_images=IMAGES[30:].astype(np.float32)),
        "data: eval_images is float32: want uint8, from 0 to 255.",
    ),
    "integers": (images_and(images=IMAGES[:30].astype(int)), "data: images is int64: want uint8"),
    "ragged": (
        images_and(images=[[[1]], [[1, 2]]]),
        "data: images cannot be made an array: ValueError: setting an array element",
    ),
    "flat": (images_and(images=IMAGES[:30].reshape(30, -1)), "data: images has the shape [30, 30]"),
    "channels first": (
        images_and(images=np.zeros((30, 3, 6, 5), np.uint8)),
        "C = 1 (grey) or 3 (colour). Channels come last: np.moveaxis(x, 1, -1).",
    ),
    "none": (images_and(images=IMAGES[:0], labels=LABELS[:0]), "images has the shape [0, 6, 5]"),
    "lengths": (
        images_and(labels=LABELS[:29]),
        "data: images has 30 images, but labels has 29: want one for each.",
    ),
    "more labels": (
        images_and(images=IMAGES[:29], labels=LABELS[:30]),
        "data: images has 29 images, but labels has 30: want one for each.",
    ),
    "one-hot": (images_and(labels=np.eye(4)[LABELS[:30]]), "data: labels is float64 [30, 4]: want"),
    "float labels": (images_and(eval_labels=LABELS[30:] / 1), "data: eval_labels is float64 [10]"),
    "below 0": (
        images_and(labels=with_other(LABELS[:30], 5, -1)),
        "data: labels[5]: the label is -1; allowed is 0 to 65,535.",
    ),
    "beyond": (
        images_and(eval_labels=with_other(LABELS[30:], 2, 10**9)),
        "data: eval_labels[2]: the label is 1000000000; allowed is 0 to 65,535.",
    ),
    "unlike sizes": (images_and(eval_images=IMAGES[30:, :5]), "handed in, test: pictures of (5, 5"),
    "no length": (
        (iter(()), iter(())),
        "data: train is a tuple_iterator, which has no length or no items by number",
    ),
    "a length that fails": (
        (Unmeasured(IMAGES[:3], LABELS), pair(Torch)[1]),
        "data: the length of train fails: … TypeError: how long is a stream?",
    ),
    "no items": ((pair(Torch)[0], Plain()), "data: eval has no items."),
    "an item that fails": (
        (pair(Torch)[0], Raising(IMAGES[30:], LABELS[30:])),
        "data: eval[7]: fails: … OSError: a file is gone",
    ),
    "other keys": (
        (Plain({"pixels": IMAGES[0], "digit": 3}), Plain(GOOD)),
        "data: train[0]: has the keys 'pixels', 'digit': want 'image' (or 'img') and 'label'.",
    ),
    "three parts": (
        (Plain(GOOD), Plain(GOOD, (*GOOD, 2))),
        f"data: eval[1]: is of the type tuple of 3: {WANT_ITEM}",
    ),
    "pairs of arrays": (
        (ARRAYS[:2], ARRAYS[2:]),
        f"data: train[0]: is of the type ndarray: {WANT_ITEM}. Of arrays give four, (images,",
    ),
    "tensors": (
        (Plain(GOOD, (IMAGES[0] / np.float32(255), 1)), Plain(GOOD)),
        "data: train[1]: its image is float32, from 0 to 1: want uint8",
    ),
    "channels of an item": (
        (Plain((np.zeros((1, 6, 5), np.uint8), 1)), Plain(GOOD)),
        "data: train[0]: its image has the shape [1, 6, 5]: want [H, W], or [H, W, C] with C = 1",
    ),
    "sizes of items": (
        (Plain(GOOD, (IMAGES[0, :5], 1)), Plain(GOOD)),
        "data: train[1]: its image is [5, 5, 1], but that of train[0] is [6, 5, 1]. Make all alike",
    ),
    "transparent": (
        (Plain((Image.new("RGBA", (5, 6)), 1)), Plain(GOOD)),
        "data: train[0]: its image cannot be taken: it is transparent in places",
    ),
    "a label in words": (
        (Plain(GOOD, (IMAGES[0], "seven")), Plain(GOOD)),
        "data: train[1]: its label is 'seven': want a whole number.",
    ),
    "a label below 0": (
        (Plain(GOOD), Plain(GOOD, (IMAGES[0], -1))),
        "data: eval[1]: its label is -1: want a class's number, from 0 on.",
    ),
    "a label beyond the names": (
        (Torch(IMAGES[:30], with_other(LABELS[:30], 9, 4)), pair(Torch)[1]),
        "data: train[9]: the label is 4; allowed is 0 to 3 ('ankle' to 'dress').",
    ),
    "names that are none": (pair(Torch, classes=[1, 2]), "data: train.classes is [1, 2]: want a"),
    "names twice": (
        pair(Face, classes=["a", "a"]),
        "data: train.features['label'].names is ['a', 'a']: want a list of different names",
    ),
    "names that differ": (
        (pair(Torch)[0], pair(Torch, classes=[*NAMES[:3], "shoe"])[1]),
        "data: the classes of train and eval differ: 'dress' there, 'shoe' here.",
    ),
    "more names": (
        (pair(Torch)[0], pair(Torch, classes=[*NAMES, "shoe"])[1]),
        "data: the classes of train and eval differ: '4 classes' there, '5' here.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_in_a_line(fault: str) -> None:
    given, told = FAULTS[fault]
    with pytest.raises(UserError) as error:
        load(given)
    assert all(part in str(error.value) for part in told.split(" … "))
    assert "\n" not in str(error.value)


def test_more_than_memory_is_to_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handed_in, "LARGEST", 899)
    monkeypatch.setattr(items, "LARGEST", 899)
    with pytest.raises(UsageError, match=r"data: images takes 900 bytes, more than 899\."):
        load(ARRAYS)
    with pytest.raises(UsageError, match=r"30 images \[6, 5, 1\] of train take more than 899"):
        load(pair(Torch))


def test_fields_of_files_are_refused_beside_them() -> None:
    with pytest.raises(UsageError) as error:
        load(ARRAYS, data_dir="x", stream=True, fallback="none")
    assert str(error.value) == (
        "config.data.data_dir='x', config.data.stream=True, config.data.fallback='none': of no use "
        "where the data are handed in, train(config, workdir, data=…). Leave this out, or data."
    )
    with pytest.raises(UsageError, match=r"config\.data\.name='mnist_sample': of no use"):
        load(ARRAYS, name="mnist_sample")


def test_arrays_are_neither_copied_nor_changed() -> None:
    given = [array.copy() for array in ARRAYS]
    for array in given:
        array.flags.writeable = False
    assert np.shares_memory(load(given).train.images, given[0])

"""The split language against TFDS's own, the fingerprint, and the checks of a source's data."""

import numpy as np
import pytest

from mnist_flax.data.dataset import (
    CLASS_NAMES,
    Raw,
    Split,
    fingerprint,
    make_dataset,
)
from mnist_flax.data.splits import parse_split, resolve_split
from mnist_flax.errors import UsageError, UserError


def numbered(count: int, first: int = 0) -> Split:
    """Return 2x2 pictures that carry their number, of classes 0, 1, 2, 0, 1, ..."""
    numbers = np.arange(first, first + count)
    images = np.broadcast_to(numbers[:, None, None, None], (count, 2, 2, 1)).astype(np.uint8)
    return Split(images, (numbers % 3).astype(np.int32))


def raw(**splits: Split) -> Raw:
    return Raw(splits or {"train": numbered(10), "test": numbered(4, 100)}, ("a", "b", "c"), "here")


def numbers_of(split: Split) -> list[int]:
    return split.images[:, 0, 0, 0].tolist()


@pytest.mark.parametrize(
    ("expression", "numbers"),
    [
        ("train", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ("train[7:]", [7, 8, 9]),
        ("train[:2]", [0, 1]),
        ("train[-3:-1]", [7, 8]),
        ("train[10%:30%]", [1, 2]),
        ("train[:2]+test[50%:]", [0, 1, 102, 103]),
        ("test + train[9:]", [100, 101, 102, 103, 9]),
        ("all", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 100, 101, 102, 103]),
    ],
)
def test_an_expression_selects_images_with_their_labels(expression, numbers):
    chosen = make_dataset("x", raw(), expression, "test").train
    assert numbers_of(chosen) == numbers
    assert chosen.labels.tolist() == [number % 3 for number in numbers]


SIZES = {"train": 997, "test": 13}
TAKEN = (
    *("train", "test", "all", "all+test", "train[:100]+test[50%:]", "train + test"),
    *("train[5:]", "train[:5]", "train[-5:]", "train[:-5]", "train[3:900]", "train[1_0:2_0]"),
    *("train[:997]", "train[-997:]", "train[0:1]", "train[-0:]"),
    *("train[10%:90%]", "train[:33%]", "train[33%:]", "train[-33%:]", "test[:50%]", "test[50%:]"),
    *("test[2.5%:97.5%]", "test[12%:38%]", "test[-50%:-10%]", "train[:.5%]", "test[:20.%]"),
)
REFUSED = (
    *("train[998:]", "train[:-998]", "test[:14]", "train[:101%]", "train[-100.1%:]", "valid"),
    *("train[5]", "train[5%]", "train[]", "train[:]", "train[1:2:3]", "train[2.5:]", "train[a:b]"),
    *("train[:5", "train]", "train+", "+train", "", " train", "all[:5]", "train[:5__0]"),
    *("train[:1.2.3%]", "train[:.%]"),
)


@pytest.mark.parametrize("expression", TAKEN + REFUSED)
def test_the_language_is_that_of_tfds(expression):
    import tensorflow_datasets as tfds

    def info(name: str) -> tfds.core.SplitInfo:
        return tfds.core.SplitInfo(name=name, shard_lengths=[SIZES[name]], num_bytes=0)

    instruction = tfds.core.ReadInstruction
    infos = {name: info(name) for name in SIZES}
    if expression in REFUSED:
        with pytest.raises(UsageError):
            resolve_split(expression, SIZES)
        with pytest.raises((ValueError, NotImplementedError)):
            instruction.from_spec(expression).to_absolute(infos)
        return
    wanted = [
        (chosen.splitname, chosen.from_ or 0, chosen.to or SIZES[chosen.splitname])
        for chosen in instruction.from_spec(expression).to_absolute(infos)
    ]
    assert resolve_split(expression, SIZES) == wanted


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("train[100:50%]", "mixes a number of images with a percentage"),
        ("train[5:5]", "none at all"),
        ("train[:0]+test", "none at all"),
        ("test[:1%]", "none at all"),
        ("train[9:3]", "none at all"),
        ("train[11:]", "11 is beyond a split of 10"),
        ("train[:2shard]", "not [from:to] in whole numbers or percent"),
        ("valid", "no split 'valid'"),
    ],
)
def test_a_selection_nobody_means_is_refused(expression, why):
    with pytest.raises(UsageError) as error:
        make_dataset("x", raw(), "train", expression)
    assert f"config.data.eval_split={expression!r}" in str(error.value)
    assert why in str(error.value)


def test_a_refusal_names_the_splits_and_an_example():
    with pytest.raises(
        UsageError, match=r"train_split.*train \(10 images\), test \(4 images\).*10%"
    ):
        make_dataset("x", raw(), "train[:11]", "test")


def test_parsing_needs_no_data():
    assert len(parse_split("train[5000:]+anything[10%:]")) == 2
    with pytest.raises(UsageError, match=r"config\.data\.train_split='train\[5'"):
        parse_split("train[5", "config.data.train_split")
    with pytest.raises(UsageError, match="beyond 100%"):
        parse_split("train[:101%]")


def test_overlapping_splits_are_pointed_out():
    assert make_dataset("x", raw(), "train[:8]", "train[5:]+test").notes == (
        "train and eval share 3 images: the accuracy will look too good.",
    )
    assert make_dataset("x", raw(), "train[:5]", "train[5:]+test").notes == ()


def test_what_chooses_is_a_split_of_its_own():
    without = make_dataset("x", raw(), "train[:6]", "test")
    dataset = make_dataset("x", raw(), "train[:6]", "test", select_split="train[6:8]+train[9:]")
    assert (without.chooses, dataset.chooses) == ("eval", "select")
    assert without.choosing is without.eval
    assert numbers_of(dataset.choosing) == [6, 7, 9]
    assert dataset.select.labels.tolist() == [0, 1, 0]
    assert numbers_of(dataset.eval) == [100, 101, 102, 103]
    assert dataset.fingerprint != without.fingerprint
    assert dataset.notes == ()


@pytest.mark.parametrize(
    ("train", "select", "shared"),
    [("train", "train[8:]", 2), ("train[:5]+test", "train[4:6]+test[3:]", 2), ("train", "all", 10)],
)
def test_what_chooses_is_not_trained_on(train, select, shared):
    with pytest.raises(UsageError) as error:
        make_dataset("x", raw(), train, "test", select_split=select)
    assert f"config.data.select_split={select!r}: {shared} of its images" in str(error.value)
    assert f"config.data.train_split={train!r}" in str(error.value)


def test_what_chooses_and_judges_is_pointed_out():
    dataset = make_dataset("x", raw(), "train[:5]", "test", select_split="train[5:]+test[:3]")
    assert dataset.notes == ("eval and select share 3 images: those judge what they chose.",)
    # Mixed with train, part of the images to evaluate is trained on.
    with pytest.raises(
        UsageError, match=r"3 of its images .*eval_split='test', too\. .*resplit mixes"
    ):
        make_dataset("x", raw(), "train[:5]", "test", 0, select_split="train[5:]+test[:3]")
    mixed = make_dataset("x", raw(), "train[:5]", "test", 0, select_split="train[5:]")
    assert numbers_of(mixed.select) == [5, 6, 7, 8, 9]
    assert not set(numbers_of(mixed.train)) & {5, 6, 7, 8, 9}


def test_a_whole_split_is_not_copied():
    source = raw()
    assert make_dataset("x", source, "train[1:]", "test").train.images.base is not None
    assert np.shares_memory(
        make_dataset("x", source, "train[1:]", "test").train.images, source.splits["train"].images
    )


def test_the_fingerprint_stays_what_it_was():
    # Runs on disk carry it: if this changes, none of them can be resumed.
    want = "2007c4a589434a3c11e82288dae7a1afb0ea97031e23bbba7a0a695d8285291a"
    assert make_dataset("x", raw(), "train", "test").fingerprint == want


def test_the_fingerprint_sees_order_values_labels_and_names_but_no_layout():
    train, test, names = numbered(10), numbered(4, 100), ("a", "b", "c")
    backwards = Split(train.images[::-1], train.labels[::-1])
    changed = train.images.copy()
    changed[3, 1, 1, 0] += 1
    relabelled = train.labels.copy()
    relabelled[0] = 1
    prints = {
        fingerprint(train, test, names),
        fingerprint(test, train, names),
        fingerprint(backwards, test, names),
        fingerprint(Split(changed, train.labels), test, names),
        fingerprint(Split(train.images, relabelled), test, names),
        fingerprint(Split(train.images.reshape(10, 4, 1, 1), train.labels), test, names),
        fingerprint(train, test, ("a", "b", "C")),
    }
    assert len(prints) == 7
    fortran = Split(np.asfortranarray(train.images), train.labels.astype(">i4"))
    assert fingerprint(fortran, test, names) == fingerprint(train, test, names)


def faulty(**changes) -> Split:
    good = numbered(10)
    return Split(changes.get("images", good.images), changes.get("labels", good.labels))


@pytest.mark.parametrize(
    ("split", "why"),
    [
        (faulty(images=np.zeros((10, 2, 2, 1), np.float32)), "want uint8"),
        (faulty(images=np.zeros((10, 2, 2), np.uint8)), "want uint8 [N, H, W, C]"),
        (faulty(labels=np.zeros(10, np.int64)), "int32 [N], got"),
        (faulty(labels=np.zeros(9, np.int32)), "10 images, but labels [9]"),
        (faulty(labels=np.zeros((10, 1), np.int32)), "10 images, but labels [10, 1]"),
        (Split(np.zeros((0, 2, 2, 1), np.uint8), np.zeros(0, np.int32)), "no images"),
        (faulty(images=np.zeros((10, 2, 3, 1), np.uint8)), "(2, 3, 1)"),
        (
            faulty(labels=np.array([0] * 9 + [3], np.int32)),
            "image 9 has label 3, allowed is 0 to 2",
        ),
        (faulty(labels=np.array([-1] * 10, np.int32)), "image 0 has label -1"),
    ],
)
def test_faulty_data_is_refused_with_its_place(split, why):
    with pytest.raises(UserError) as error:
        make_dataset("x", raw(train=numbered(10), test=split), "train", "test")
    assert why in str(error.value)
    assert str(error.value).startswith("here, test: ")


def test_resplit_mixes_and_cuts_at_the_same_sizes_with_a_stream_that_numpy_keeps():
    source = raw()
    plain = make_dataset("x", source, "train[:8]", "test")
    mixed = make_dataset("x", source, "train[:8]", "test", resplit=0)
    counts = [len(split.labels) for split in (mixed.train, mixed.eval)]
    assert counts == [len(split.labels) for split in (plain.train, plain.eval)]
    together = np.concatenate([plain.train.images, plain.eval.images])
    order = np.random.RandomState(0).permutation(sum(counts))
    np.testing.assert_array_equal(
        np.concatenate([mixed.train.images, mixed.eval.images]), together[order]
    )
    assert sorted(order.tolist()) == list(range(sum(counts)))  # each image once
    assert mixed.source.endswith(", train and eval mixed and cut again with seed 0")
    assert mixed.fingerprint != plain.fingerprint
    other = make_dataset("x", source, "train[:8]", "test", resplit=1)
    assert other.fingerprint != mixed.fingerprint


def test_resplit_keeps_each_image_with_its_label():
    source = raw()
    pairs = {
        (image.tobytes(), label)
        for split in source.splits.values()
        for image, label in zip(split.images, split.labels.tolist(), strict=True)
    }
    mixed = make_dataset("x", source, "train", "test", resplit=3)
    for split in (mixed.train, mixed.eval):
        for image, label in zip(split.images, split.labels.tolist(), strict=True):
            assert (image.tobytes(), label) in pairs


def test_what_the_labels_are_called() -> None:
    """As they are published: zalandoresearch/fashion-mnist, rois-codh/kmnist."""
    assert dict(enumerate(CLASS_NAMES["fashion_mnist"])) == {
        0: "T-shirt/top",
        1: "Trouser",
        2: "Pullover",
        3: "Dress",
        4: "Coat",
        5: "Sandal",
        6: "Shirt",
        7: "Sneaker",
        8: "Bag",
        9: "Ankle boot",
    }
    assert CLASS_NAMES["kmnist"] == ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
    assert CLASS_NAMES["mnist"] == tuple("0123456789")

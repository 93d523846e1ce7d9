"""What every source of images becomes: its splits, their class names and one fingerprint."""

import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from mnist_flax.data import preparation
from mnist_flax.data.preparation import Preparation
from mnist_flax.data.splits import count_shared, resolve_split
from mnist_flax.data.streamed_images import (
    Images,
    StreamedImages,
    blocks,
    image_digests,
    joined,
    taken,
)
from mnist_flax.errors import UsageError, UserError

# The class names that TFDS gives; a dataset of another name brings its own or is numbered.
CLASS_NAMES: dict[str, tuple[str, ...]] = {
    "mnist": tuple("0123456789"),
    "fashion_mnist": (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    "kmnist": ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
}
LARGEST = 4 * 2**30  # bytes of pictures that one split may take


@dataclass(frozen=True, eq=False)
class Split:
    """Pictures and their classes: images uint8 [N, H, W, C], labels int32 [N].

    Images that are streamed are decoded when parts of them are taken; labels are always there.
    """

    images: Images
    labels: np.ndarray


@dataclass(frozen=True, eq=False)
class Raw:
    """What a source holds, before the config's split expressions cut it."""

    splits: dict[str, Split]  # by name, usually 'train' and 'test', in the order of 'all'
    class_names: tuple[str, ...]
    source: str  # "IDX files in ../shared/mnist"
    notes: tuple[str, ...] = ()
    sideways: bool = False  # rows and columns are exchanged, as in EMNIST's files


@dataclass(frozen=True, eq=False)
class Extra:
    """Images that are evaluated as well, and choose nothing.

    `name` is that of their data, and `source` says which part of them it is.
    """

    split: Split
    name: str
    source: str

    @functools.cached_property
    def fingerprint(self) -> str:
        """The SHA-256 (hex) of the digests of the images and of their labels."""
        digest = hashlib.sha256(f"{self.split.images.shape}\n".encode())
        digest.update(image_digests(self.split.images).astype("<u8").tobytes())
        digest.update(self.split.labels.astype("<i4").tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Dataset:
    """The data of a run: train and eval, images uint8 [N, H, W, C], labels int32 [N].

    `fingerprint` is the SHA-256 of the splits in order and of the class names: equal data has
    an equal fingerprint, wherever it came from. `notes` are lines that the user must see.
    `data_dir` is the folder that it was found in, absolute; None for the sample and for data that
    were `handed_in`. `select` holds the images that choose the best save, None where those of
    `eval` do; `extra` those of config.data.extra_eval_splits, by name. `overlap` is the note on
    images that are both trained and judged on, "" where none are.
    """

    name: str
    source: str
    train: Split
    eval: Split
    class_names: tuple[str, ...]
    fingerprint: str
    notes: tuple[str, ...]
    data_dir: str | None = None
    select: Split | None = None
    handed_in: bool = False
    extra: Mapping[str, Extra] = field(default_factory=dict)
    overlap: str = ""

    @property
    def chooses(self) -> str:
        """Which split is evaluated during training and chooses the best save."""
        return "eval" if self.select is None else "select"

    @property
    def choosing(self) -> Split:
        """The images of this split."""
        return self.eval if self.select is None else self.select

    @property
    def streamed(self) -> bool:
        """Whether images are decoded when they are asked for."""
        return isinstance(self.train.images, StreamedImages)

    @functools.cached_property
    def preparation(self) -> Preparation:
        """How foreign pictures become like those to train on; looked at once."""
        return preparation.derive(self.train.images)


def make_dataset(
    name: str,
    raw: Raw,
    train_split: str,
    eval_split: str,
    resplit: int | None = None,
    select_split: str = "",
) -> Dataset:
    """Checks what a source returned and cuts it into train, eval and, where asked for, select.

    With `resplit`, a seed, train followed by eval is permuted and cut at their sizes again. What is
    streamed has no fingerprint yet: survey.py takes it.

    Raises UserError for faulty data, UsageError for a split expression that does not fit it, or
    for images that would be trained on and choose.
    """
    check_raw(raw)
    sizes = {split: len(data.labels) for split, data in raw.splits.items()}
    train_ranges = resolve_split(train_split, sizes, "config.data.train_split")
    eval_ranges = resolve_split(eval_split, sizes, "config.data.eval_split")
    train, evaluation, select = take(raw, train_ranges), take(raw, eval_ranges), None
    notes, overlap = raw.notes, ""
    if shared := count_shared(train_ranges, eval_ranges):
        overlap = f"train and eval share {shared:,} images: the accuracy will look too good."
        notes += (overlap,)
    if select_split:
        select_ranges = resolve_split(select_split, sizes, "config.data.select_split")
        shared = count_shared(train_ranges, select_ranges)
        _refuse_shared(shared, select_split, "train_split", train_split)
        shared = count_shared(eval_ranges, select_ranges)
        if resplit is not None:  # part of eval is trained on
            _refuse_shared(shared, select_split, "eval_split", eval_split)
        elif shared:
            notes += (f"eval and select share {shared:,} images: those judge what they chose.",)
        select = take(raw, select_ranges)
    source = raw.source
    if resplit is not None:
        train, evaluation = _resplit(train, evaluation, resplit)
        source += f", train and eval mixed and cut again with seed {resplit}"
    names = raw.class_names
    dataset = Dataset(name, source, train, evaluation, names, "", notes, select=select)
    dataset = replace(dataset, overlap=overlap)
    if dataset.streamed:
        return dataset
    return replace(dataset, fingerprint=fingerprint(train, evaluation, names, select))


def _refuse_shared(shared: int, select_split: str, field: str, expression: str) -> None:
    if shared:
        what, apart = "What chooses must not be trained on", "'train[:55000]' and 'train[55000:]'"
        if field == "eval_split":
            what = "config.data.resplit mixes these with what is trained on, which must not choose"
            apart = "'test[:5000]' and 'test[5000:]'"
        raise UsageError(
            f"config.data.select_split={select_split!r}: {shared:,} of its images are those of "
            f"config.data.{field}={expression!r}, too. {what}: cut the two apart, say {apart}."
        )


def _resplit(train: Split, evaluation: Split, seed: int) -> tuple[Split, Split]:
    count = len(train.labels)
    # RandomState and not Generator: NumPy keeps its streams as they are for ever (NEP 19).
    order = np.random.RandomState(seed).permutation(count + len(evaluation.labels))
    images = joined([train.images, evaluation.images])
    labels = np.concatenate([train.labels, evaluation.labels])
    first, second = (
        Split(taken(images, part), labels[part]) for part in (order[:count], order[count:])
    )
    return first, second


def take(raw: Raw, ranges: list[tuple[str, int, int]]) -> Split:
    """Returns the images of a selection, as resolve_split returns it."""
    images = [taken(raw.splits[name].images, slice(start, stop)) for name, start, stop in ranges]
    labels = [raw.splits[name].labels[start:stop] for name, start, stop in ranges]
    if len(ranges) == 1:  # a view: no second copy of 47 MB
        return Split(images[0], labels[0])
    return Split(joined(images), np.concatenate(labels))


def check_raw(raw: Raw) -> None:
    """Raises UserError for what no source may return: other types, lengths, sizes or labels."""
    shape, classes = None, len(raw.class_names)
    for name, split in raw.splits.items():
        where, images, labels = f"{raw.source}, {name}", split.images, split.labels
        if images.dtype != np.uint8 or images.ndim != 4 or labels.dtype != np.int32:
            got = f"{images.dtype} {list(images.shape)} and {labels.dtype} {list(labels.shape)}"
            raise UserError(f"{where}: want uint8 [N, H, W, C] and int32 [N], got {got}.")
        if labels.shape != images.shape[:1]:
            raise UserError(f"{where}: {len(images):,} images, but labels {list(labels.shape)}.")
        if images.size == 0:
            raise UserError(f"{where}: no images, shape {list(images.shape)}.")
        if images.shape[1:] != (shape or images.shape[1:]):
            got = f"pictures of {images.shape[1:]}, before it of {shape}. Make all alike."
            raise UserError(f"{where}: {got}")
        shape = images.shape[1:]
        wrong = np.flatnonzero((labels < 0) | (labels >= classes))
        if len(wrong):
            got = f"image {wrong[0]:,} has label {labels[wrong[0]]}"
            allowed = f"0 to {classes - 1} ({classes} classes)"
            raise UserError(
                f"{where}: {got}, allowed is {allowed}. Give data with other classes "
                "a config.data.name of their own, any word."
            )


def fingerprint(
    train: Split,
    evaluation: Split,
    class_names: tuple[str, ...],
    select: Split | None = None,
    look: Callable[[Images, int, np.ndarray], None] = lambda images, first, block: None,
) -> str:
    """Returns the SHA-256 (hex) of names, shapes and bytes of the splits and the class names.

    Images are gone through in blocks; `look` is shown each: (images, first, uint8 [n, H, W, C]).
    """
    digest = hashlib.sha256(json.dumps(class_names).encode())
    splits = {"train": train, "eval": evaluation} | ({} if select is None else {"select": select})
    for name, split in splits.items():
        digest.update(f"\n{name}.images {split.images.shape}\n".encode())
        for first, block in blocks(split.images):
            digest.update(np.ascontiguousarray(block).data.cast("B"))
            look(split.images, first, block)
        # One byte order and int32 everywhere, so that two machines agree.
        labels = split.labels.astype("<i4", copy=False)
        digest.update(f"\n{name}.labels {labels.shape}\n".encode())
        digest.update(np.ascontiguousarray(labels).data.cast("B"))
    return digest.hexdigest()

"""Data that are streamed are read once as a whole before a run: checked, and their digests taken.

What was found is kept for the next start (kept_findings.py), as long as no file changes.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from mnist_flax.data import kept_findings
from mnist_flax.data.dataset import Dataset, Split, fingerprint
from mnist_flax.data.streamed_images import Images, StreamedImages, blocks, image_digests

_FORM = 1  # of what is kept


def surveyed(dataset: Dataset, report: Callable[[str], None]) -> Dataset:
    """Returns streamed data with their fingerprint, a digest of each image, and notes on them.

    Args:
      dataset: all splits are of the same records, of which they may leave some out.
      report: gets a line before they are read.

    Raises:
      UserError: a picture is damaged, or unlike the others; it is named.
    """
    splits = {"train": dataset.train, "eval": dataset.eval}
    splits |= {} if dataset.select is None else {"select": dataset.select}
    name = f"survey-{_key(dataset, splits)}"
    kept = kept_findings.read(name, report)
    if kept is None:
        count = len(_streamed(dataset.train).records)
        report(
            f"Reading {count:,} pictures once, to check them and take their digest: "
            f"{dataset.source}."
        )
        kept = _read_all(dataset)
        if fault := kept_findings.write(name, kept):
            report(f"{kept_findings.folder()}: {fault}: the next start reads the pictures again.")

    def known(split: Split) -> Split:
        images = _streamed(split)
        return Split(replace(images, digests=kept["digests"][images.numbers]), split.labels)

    notes = [note for note in json.loads(kept["notes"].item()) if note not in dataset.notes]
    return replace(
        dataset,
        train=known(dataset.train),
        eval=known(dataset.eval),
        select=None if dataset.select is None else known(dataset.select),
        extra={name: replace(of, split=known(of.split)) for name, of in dataset.extra.items()},
        fingerprint=kept["fingerprint"].item(),
        notes=(*dataset.notes, *notes),
    )


def _streamed(split: Split) -> StreamedImages:
    assert isinstance(split.images, StreamedImages)
    return split.images


def _key(dataset: Dataset, splits: Mapping[str, Split]) -> str:
    """Returns a digest of all that the findings depend on, without a look at a picture."""
    about = [_FORM, _streamed(dataset.train).records.key, dataset.class_names]
    digest = hashlib.sha256(json.dumps(about).encode())
    for name, split in splits.items():
        numbers = _streamed(split).numbers.astype("<i8")
        digest.update(f"\n{name} {len(numbers)}\n".encode())
        digest.update(numbers.tobytes() + split.labels.astype("<i4").tobytes())
    return digest.hexdigest()


def _read_all(dataset: Dataset) -> dict[str, np.ndarray]:
    """Reads all records, those of the splits in their order, and then those that none has."""
    records = _streamed(dataset.train).records
    digests = np.zeros(len(records), np.uint64)
    unseen = np.ones(len(records), bool)

    def look(images: Images, first: int, block: np.ndarray) -> None:
        assert isinstance(images, StreamedImages)
        numbers = images.numbers[first : first + len(block)]
        digests[numbers], unseen[numbers] = image_digests(block), False

    found = fingerprint(dataset.train, dataset.eval, dataset.class_names, dataset.select, look)
    rest = StreamedImages(records, np.flatnonzero(unseen))
    for first, block in blocks(rest):
        look(rest, first, block)
    return {
        "fingerprint": np.array(found),
        "digests": digests,
        "notes": np.array(json.dumps(records.notes())),
    }

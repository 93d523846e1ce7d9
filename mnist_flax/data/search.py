"""Where data are looked for, in this order; the first place that has some is taken.

The sample, when it is asked for by name; in `data_dir` the four IDX files; folders of pictures; a
prepared TFDS directory; tables of pixels; an .npz file; if it was named, these in a folder of it
(see layouts.py); a download (published.py); and for 'mnist', where no `data_dir` is named, the
fallback that the config names.
"""

import difflib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mnist_flax.data import arrays, entries, layouts, place, published, sample, tfds_source
from mnist_flax.data.dataset import CLASS_NAMES, Raw
from mnist_flax.data.download import Unavailable
from mnist_flax.data.splits import BeyondSplitError, parse_split, resolve_split
from mnist_flax.errors import UsageError, UserError

KNOWN_NAMES = (*CLASS_NAMES, sample.NAME)


class Found(NamedTuple):
    """Data, and how they are to be cut.

    Attributes:
      name: what they are called; another than was asked for where the sample stands in.
      raw: what there is.
      splits: of train, eval and select, as the config has them or as they fit the sample.
      data_dir: where they lie, absolute; None for those that lie in no folder.
    """

    name: str
    raw: Raw
    splits: tuple[str, str, str]
    data_dir: str | None = None


def splits_of(config_data: Any) -> tuple[str, str, str]:
    """Returns the three split expressions of a config."""
    return config_data.train_split, config_data.eval_split, config_data.select_split


def find(config_data: Any, report: Callable[[str], None]) -> Found:
    """Finds what `config.data` names.

    Args:
      config_data: checked. Its name, data_dir, splits, resize (of pictures that are read one by
        one), transpose, stream and fallback are read.
      report: gets a line before a download and a preparation.

    Raises:
      UserError: there are none, or they are faulty.
    """
    name, stream = config_data.name, config_data.stream
    if name == sample.NAME:
        return _sample(config_data)
    data_dir = place.data_dir(config_data.data_dir)
    raw = layouts.read(data_dir, name, config_data.resize, stream=stream)
    notes: tuple[str, ...] = ()
    if raw is None:
        raw, notes = tfds_source.read_prepared(name, data_dir, stream=stream, report=report)
    if raw is None:
        raw = layouts.read_arrays(data_dir, name)
    if raw is None and config_data.data_dir is not None:
        raw = layouts.read_below(data_dir, name, config_data.resize, stream=stream)
    if raw is None and name not in CLASS_NAMES:
        raise UsageError(_unknown(name, data_dir, notes))
    if raw is None:
        if config_data.data_dir is not None and not place.is_for_downloads(data_dir):
            raise UserError(_not_understood(config_data.data_dir, data_dir, "", notes))
        if stream:
            raise _not_streamed(f"what is downloaded to {data_dir}")
        try:
            raw = published.fetch(name, tfds_source.root_of(data_dir), report)
        except Unavailable as reason:
            return _fall_back(config_data, data_dir, str(reason), notes)
    transpose = config_data.transpose
    if raw.sideways if transpose is None else transpose:
        raw = arrays.turned_upright(raw)
    raw = replace(raw, notes=raw.notes + notes)
    return Found(name, raw, splits_of(config_data), str(data_dir.absolute()))


def require_streamed(raw: Raw) -> None:
    """Raises UsageError for data that were found, and that cannot be streamed."""
    if any(isinstance(split.images, np.ndarray) for split in raw.splits.values()):
        raise _not_streamed(raw.source)


def _not_streamed(what: str) -> UsageError:
    return UsageError(
        f"config.data.stream=true: {what} cannot be streamed. Picture folders and TFDS directories "
        "in array_record format can: name one with config.data.data_dir, or leave the field out."
    )


def _not_understood(given: str, data_dir: Path, reason: str, notes: tuple[str, ...]) -> str:
    """Says that a folder which the user named holds no data; `reason` is of a failed download."""
    no_download = f", and {reason}" if reason else ""
    return " ".join(
        (
            f"config.data.data_dir={given!r}: no data that are understood; {entries.told(data_dir)}"
            f"{no_download}. Understood are {layouts.UNDERSTOOD}. Name a folder that holds them.",
            *notes,
        )
    )


def _unknown(name: str, data_dir: Path, notes: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(name, KNOWN_NAMES, 1)
    meant = f" Did you mean {near[0]!r}?" if near else ""
    known = f"Known: {', '.join(KNOWN_NAMES)}.{meant}"
    own = f"Data of your own: point config.data.data_dir at {layouts.UNDERSTOOD}."
    where = f"config.data.name={name!r}: not known, and {data_dir} holds no such data"
    where += f" ({entries.told(data_dir)})."
    return " ".join((where, known, own, *notes))


def _fall_back(config_data: Any, data_dir: Path, reason: str, notes: tuple[str, ...]) -> Found:
    name, missing = config_data.name, f"no {config_data.name} in {data_dir} and {reason}"
    if config_data.data_dir is not None:
        raise UserError(_not_understood(config_data.data_dir, data_dir, reason, notes))
    if name != "mnist" or config_data.fallback == "none":
        todo = f"Point config.data.data_dir at {layouts.UNDERSTOOD}."
        raise UserError(" ".join((f"There is {missing}.", todo, *notes)))
    splits = ("train", "test", "")
    asked = zip(splits_of(config_data), splits, strict=True)
    ignored = [repr(split) for split, default in asked if split != default]
    raw = sample.read_sample()
    counts = [f"{len(split.labels):,}" for split in raw.splits.values()]
    note = f"training on the {sample.NAME}: {counts[0]} digits, evaluating on {counts[1]}"
    if ignored:
        note += f"; split {' and '.join(ignored)} ignored"
    notes += (f"Fallback: {missing}: {note}.",)
    return Found(sample.NAME, replace(raw, notes=notes), splits)


def _sample(config_data: Any) -> Found:
    """The sample, asked for by name: a split cut for the whole MNIST gives way to all there is."""
    if config_data.stream:
        raise _not_streamed(f"the {sample.NAME}")
    raw = sample.read_sample()
    sizes = {name: len(split.labels) for name, split in raw.splits.items()}
    notes: list[str] = []

    def fitting(field: str, whole: str, instead: str, told: str) -> str:
        expression, field = getattr(config_data, field), f"config.data.{field}"
        try:
            resolve_split(expression, sizes, field)
        except BeyondSplitError:
            if {part.split for part in parse_split(expression, field)} != {whole}:
                raise
            notes.append(
                f"{field}={expression!r} is beyond the {sizes[whole]:,} digits that the "
                f"{sample.NAME} has in {whole!r}: {told}."
            )
            return instead
        return expression

    whole, none = "all of them are taken", "none is held out to choose the best save"
    splits = (
        fitting("train_split", "train", "train", whole),
        fitting("eval_split", "test", "test", whole),
        config_data.select_split and fitting("select_split", "train", "", none),
    )
    return Found(sample.NAME, replace(raw, notes=tuple(notes)), splits)

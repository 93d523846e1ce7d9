"""Where images come from: `load(config.data)` finds the data and returns a Dataset.

The order of search: the sample, when it is asked for by name; in `data_dir` the four IDX files;
folders of pictures; a prepared TFDS directory; tables of pixels; an .npz file; if it was named,
these in a folder of it (see layouts.py); a download (published.py); and for 'mnist',
where no `data_dir` is named, the fallback that the config names. NumPy only, and light to import:
what is heavy is imported by the source that needs it.
"""

import difflib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mnist_flax.data import (
    arrays,
    entries,
    grain_reader,
    layouts,
    place,
    published,
    sample,
    scaling,
    survey,
    tfds_source,
)
from mnist_flax.data.dataset import (
    CLASS_NAMES,
    Dataset,
    Raw,
    Split,
    make_dataset,
)
from mnist_flax.data.download import Unavailable
from mnist_flax.data.splits import BeyondSplitError, parse_split, resolve_split
from mnist_flax.errors import UsageError, UserError

__all__ = ["FALLBACKS", "KNOWN_NAMES", "Dataset", "Split", "check", "load"]

KNOWN_NAMES = (*CLASS_NAMES, sample.NAME)
FALLBACKS = (sample.NAME, "none")


def check(config_data: Any) -> None:
    """Raises UsageError, one line for each wrong field of `config.data`, before data is loaded."""
    faults = []
    for field in ("train_split", "eval_split", "select_split"):
        if field == "select_split" and config_data.select_split == "":
            continue
        try:
            parse_split(getattr(config_data, field), f"config.data.{field}")
        except UsageError as error:
            faults.append(str(error))
    if config_data.fallback not in FALLBACKS:
        allowed = " or ".join(repr(name) for name in FALLBACKS)
        faults.append(f"config.data.fallback={config_data.fallback!r}: allowed is {allowed}.")
    if not config_data.name:
        faults.append(f"config.data.name is empty: known are {', '.join(KNOWN_NAMES)}.")
    resplit = config_data.resplit
    if resplit is not None and not 0 <= resplit < 2**32:
        faults.append(f"config.data.resplit={resplit}: a seed, from 0 to 2**32 - 1.")
    if config_data.resize is not None and not 1 <= config_data.resize <= 1024:
        faults.append(
            f"config.data.resize={config_data.resize}: a side in pixels, from 1 to 1,024."
        )
    if config_data.stream and (lacking := grain_reader.fault()):
        faults.append(lacking)
    if config_data.data_dir == "":
        faults.append("config.data.data_dir is empty: give a directory or leave the field out.")
    if faults:
        raise UsageError("\n".join(faults))


def load(config_data: Any, report: Callable[[str], None] = print) -> Dataset:
    """Finds the dataset that `config.data` asks for and cuts it into its splits.

    Reads the fields `name`, `data_dir` (None: $TFDS_DATA_DIR or ~/tensorflow_datasets),
    `train_split`, `eval_split`, `select_split`, `resplit`, `transpose`, `resize`, `stream` and
    `fallback`. `report` gets a line before a download, a preparation and a survey of what is
    streamed, which take their time; what the user must see afterwards is in `Dataset.notes`.

    Raises UsageError for wrong fields and UserError for data that is missing or faulty, or for a
    `data_dir` in which nothing is understood.
    """
    check(config_data)
    splits = config_data.train_split, config_data.eval_split
    name, others = config_data.name, (config_data.resplit, config_data.select_split)
    stream = config_data.stream
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
    if stream and raw is not None:
        _refuse_arrays(raw)
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
    if config_data.resize is not None:
        raw = scaling.scaled(raw, config_data.resize)
    dataset = make_dataset(name, replace(raw, notes=raw.notes + notes), *splits, *others)
    if dataset.streamed:
        dataset = survey.surveyed(dataset, report)
    return replace(dataset, data_dir=str(data_dir.absolute()))


def _refuse_arrays(raw: Raw) -> None:
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


def _fall_back(config_data: Any, data_dir: Path, reason: str, notes: tuple[str, ...]) -> Dataset:
    name, missing = config_data.name, f"no {config_data.name} in {data_dir} and {reason}"
    if config_data.data_dir is not None:
        raise UserError(_not_understood(config_data.data_dir, data_dir, reason, notes))
    if name != "mnist" or config_data.fallback == "none":
        todo = f"Point config.data.data_dir at {layouts.UNDERSTOOD}."
        raise UserError(" ".join((f"There is {missing}.", todo, *notes)))
    asked = (
        (config_data.train_split, "train"),
        (config_data.eval_split, "test"),
        (config_data.select_split, ""),
    )
    ignored = [repr(split) for split, default in asked if split != default]
    raw = sample.read_sample()
    counts = [f"{len(split.labels):,}" for split in raw.splits.values()]
    note = f"training on the {sample.NAME}: {counts[0]} digits, evaluating on {counts[1]}"
    if ignored:
        note += f"; split {' and '.join(ignored)} ignored"
    notes += (f"Fallback: {missing}: {note}.",)
    raw = replace(raw, notes=notes)
    if config_data.resize is not None:
        raw = scaling.scaled(raw, config_data.resize)
    return make_dataset(sample.NAME, raw, "train", "test", config_data.resplit)


def _sample(config_data: Any) -> Dataset:
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
    )
    select = config_data.select_split and fitting("select_split", "train", "", none)
    raw = replace(raw, notes=tuple(notes))
    if config_data.resize is not None:
        raw = scaling.scaled(raw, config_data.resize)
    return make_dataset(sample.NAME, raw, *splits, config_data.resplit, select)

"""config.data.extra_eval_splits: images that are evaluated as well, and choose nothing.

Each has a name, and is a split of the run's own data, 'test[:1000]', or one of other data with the
same image shape and classes: {'data_dir': …, 'name': …, 'split': …}, of which one is enough. What
is left out is the run's own, and the split 'test'; the other fields of config.data hold for both.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ml_collections import ConfigDict

from mnist_flax.data import handed_in, sample, scaling, search, survey
from mnist_flax.data.classes import with_classes_of
from mnist_flax.data.dataset import Dataset, Extra, Raw, check_raw, take
from mnist_flax.data.splits import BeyondSplitError, parse_split, resolve_split
from mnist_flax.errors import UsageError, UserError

_FIELD = "config.data.extra_eval_splits"
_TAKEN = ("all", "epoch", "eval", "select", "test", "train")  # splits of data, and kinds of rows
_PARTS = ("data_dir", "name", "split")
_WANTED = "a split such as 'test[:1000]', or {'data_dir': …, 'name': …, 'split': …} of other data"


def faults(config_data: Any) -> list[str]:
    """Returns a line for each fault of the field, before any data is loaded."""
    section = config_data.extra_eval_splits
    if not isinstance(section, Mapping | ConfigDict):
        return [f"{_FIELD}={section!r}: want {{'NAME': {_WANTED}}}."]
    told = []
    for name, asked in section.items():
        field = f"{_FIELD}.{name}"
        if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII) or name in _TAKEN:
            told.append(
                f"{field}: {name!r} cannot be the name of a split. Take a word of letters, digits "
                f"and _, other than {', '.join(_TAKEN)}."
            )
        parts = dict(asked) if isinstance(asked, Mapping | ConfigDict) else {"split": asked}
        given = {part: value for part, value in parts.items() if value is not None}
        wrong = [value for value in given.values() if not isinstance(value, str) or not value]
        if not given or wrong or not parts.keys() <= {*_PARTS}:
            shown = dict(asked) if isinstance(asked, ConfigDict) else asked
            told.append(f"{field}={shown!r}: want {_WANTED}.")
        elif "split" in given:
            try:
                parse_split(given["split"], field)
            except UsageError as error:
                told.append(str(error))
    return told


def with_own(dataset: Dataset, raw: Raw, section: Mapping[str, Any]) -> Dataset:
    """Returns a dataset with those of the splits that are of its own data.

    Of the sample, which may have to stand in for larger data, those are left out, and reported,
    that lie beyond it.

    Args:
      dataset: that was made of them.
      raw: before anything was cut or mixed.
      section: of the config, checked.

    Raises:
      UsageError: a split does not fit the data.
    """
    sizes = {split: len(data.labels) for split, data in raw.splits.items()}
    extra, notes = dict(dataset.extra), dataset.notes
    for name, asked in section.items():
        if _is_other(asked):
            continue
        expression = asked if isinstance(asked, str) else asked["split"]
        try:
            ranges = resolve_split(expression, sizes, f"{_FIELD}.{name}")
        except BeyondSplitError:
            if dataset.name != sample.NAME:
                raise
            notes += (f"{_FIELD}.{name}={expression!r} is beyond the {sample.NAME}: left out.",)
            continue
        extra[name] = Extra(take(raw, ranges), dataset.name, f"{expression!r} of the same data")
    return replace(dataset, extra=extra, notes=notes)


def with_others(dataset: Dataset, config_data: Any, report: Callable[[str], None]) -> Dataset:
    """Returns a dataset with those of the splits, too, that are of other data.

    Args:
      dataset: the run's.
      config_data: of the run, checked.
      report: as search.find and survey.surveyed take it.

    Raises:
      UserError: there are no such data, they are faulty, or have other classes or another shape.
    """
    for name, asked in config_data.extra_eval_splits.items():
        if not _is_other(asked):
            continue
        field = f"{_FIELD}.{name}"
        try:
            extra, notes = _other(name, dict(asked), dataset, config_data, report)
        except UserError as error:
            kind = UsageError if isinstance(error, UsageError) else UserError
            raise kind(f"{field}: {error}") from error
        notes = tuple(f"{field}: {note}" for note in notes)
        dataset = replace(
            dataset, extra={**dataset.extra, name: extra}, notes=dataset.notes + notes
        )
    # In the order of the config, whichever data they are of.
    ordered = {n: dataset.extra[n] for n in config_data.extra_eval_splits if n in dataset.extra}
    return replace(dataset, extra=ordered)


def _what_helps(shape: Sequence[int], ours: Sequence[int]) -> str:
    """Says what makes images of one shape [H, W, C] those of another."""
    told = []
    if shape[-1] != ours[-1]:
        kinds = {1: ("grey", "L"), 3: ("colour", "RGB")}
        (theirs, _), (wanted, mode) = kinds[shape[-1]], kinds[ours[-1]]
        told.append(
            f"They are {theirs}, and the run's are {wanted}: give {wanted} ones; Pillow's "
            f"image.convert({mode!r}) makes them."
        )
    if shape[:-1] != ours[:-1]:
        told.append("Give such ones, or have all scaled to squares with config.data.resize.")
    return " ".join(told)


def _is_other(asked: Any) -> bool:
    if isinstance(asked, str):
        return False
    return any(asked.get(part) is not None for part in ("data_dir", "name"))


def _other(
    name: str,
    asked: Mapping[str, str | None],
    dataset: Dataset,
    config_data: Any,
    report: Callable[[str], None],
) -> tuple[Extra, tuple[str, ...]]:
    """Returns a split of other data, and notes on it."""
    theirs = config_data.copy_and_resolve_references()
    theirs.update(train_split="train", eval_split="test", select_split="", fallback="none")
    if dataset.name == handed_in.NAME:  # which these are not
        theirs.name = name
    theirs.update({part: asked[part] for part in ("data_dir", "name") if asked.get(part)})
    split = asked.get("split") or "test"
    found = search.find(theirs, report)
    raw = found.raw
    if theirs.resize is not None:
        raw = scaling.scaled(raw, theirs.resize)
    check_raw(raw)
    sizes = {part: len(data.labels) for part, data in raw.splits.items()}
    chosen = take(raw, resolve_split(split, sizes, "split"))
    ours, shape = dataset.train.images.shape[1:], chosen.images.shape[1:]
    if shape != ours:
        raise UserError(
            f"{raw.source}: images {list(shape)}, those of the run are {list(ours)}. "
            f"{_what_helps(shape, ours)}"
        )
    # A dataset of these alone, for what is done to whole ones.
    alone = Dataset(found.name, raw.source, chosen, chosen, raw.class_names, "", raw.notes)
    alone = with_classes_of(alone, dataset.class_names, "its data_dir and name", report)
    if alone.streamed and not alone.fingerprint:
        alone = survey.surveyed(alone, report)
    source = f"{split!r} of {found.name}, {raw.source}"
    return Extra(alone.eval, found.name, source), alone.notes

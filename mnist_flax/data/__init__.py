"""Where images come from: `load(config.data)` finds the data and returns a Dataset.

The order of search is that of search.py; data may also be handed in as arrays or as data sets of
another library (handed_in.py). NumPy only, and light to import: what is heavy is imported by the
source that needs it.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from mnist_flax.data import (
    arrays,
    extra_splits,
    grain_reader,
    handed_in,
    sample,
    scaling,
    search,
    survey,
)
from mnist_flax.data.dataset import Dataset, Split, make_dataset
from mnist_flax.data.search import KNOWN_NAMES, Found
from mnist_flax.data.splits import parse_split
from mnist_flax.errors import UsageError

__all__ = ["FALLBACKS", "KNOWN_NAMES", "Dataset", "Split", "check", "load"]

FALLBACKS = (sample.NAME, "none")


def check(config_data: Any, given: bool = False) -> None:
    """Raises UsageError, one line for each wrong field of `config.data`, before data is loaded.

    Args:
      config_data: the section.
      given: whether the data are handed in; then some fields make no sense.
    """
    faults = []
    for field in ("train_split", "eval_split", "select_split"):
        if field == "select_split" and config_data.select_split == "":
            continue
        try:
            parse_split(getattr(config_data, field), f"config.data.{field}")
        except UsageError as error:
            faults.append(str(error))
    faults += extra_splits.faults(config_data)
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
    if given:
        faults += handed_in.faults(config_data)
    elif config_data.stream and (lacking := grain_reader.fault()):
        faults.append(lacking)
    if config_data.data_dir == "":
        faults.append("config.data.data_dir is empty: give a directory or leave the field out.")
    if faults:
        raise UsageError("\n".join(faults))


def load(config_data: Any, report: Callable[[str], None] = print, given: Any = None) -> Dataset:
    """Finds the dataset that `config.data` asks for and cuts it into its splits.

    Reads the fields `name`, `data_dir` (None: $TFDS_DATA_DIR or ~/tensorflow_datasets),
    `train_split`, `eval_split`, `select_split`, `extra_eval_splits`, `resplit`, `transpose`,
    `resize`, `stream` and `fallback`. `report` gets a line before a download, a preparation, a
    survey of what is streamed and the reading of what is handed in item by item, which take their
    time; what the user must see afterwards is in `Dataset.notes`. Data that are `given` are those
    of handed_in.read, and nothing is searched.

    Raises UsageError for wrong fields and UserError for data that is missing or faulty, or for a
    `data_dir` in which nothing is understood.
    """
    check(config_data, given is not None)
    found = (
        search.find(config_data, report) if given is None else _given(given, config_data, report)
    )
    raw, resize = found.raw, config_data.resize
    if config_data.stream:
        search.require_streamed(raw)
    if resize is not None:
        raw = scaling.scaled(raw, resize)
    train_split, eval_split, select_split = found.splits
    resplit = config_data.resplit
    dataset = make_dataset(found.name, raw, train_split, eval_split, resplit, select_split)
    dataset = replace(dataset, data_dir=found.data_dir, handed_in=given is not None)
    dataset = extra_splits.with_own(dataset, raw, config_data.extra_eval_splits)
    if dataset.streamed:
        dataset = survey.surveyed(dataset, report)
    return extra_splits.with_others(dataset, config_data, report)


def _given(given: Any, config_data: Any, report: Callable[[str], None]) -> Found:
    name = handed_in.name_of(config_data)
    raw = handed_in.read(given, name, config_data.resize, report)
    if config_data.transpose:
        raw = arrays.turned_upright(raw)
    return Found(name, raw, search.splits_of(config_data))

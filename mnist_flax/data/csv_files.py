"""Tables of pixels, as Kaggle has them: `train.csv` and `test.csv`, `mnist_train.csv`, ….

A row is a picture: its label and the grey values of a square, row by row. The label is the column
that the header calls `label`; without a header it is the first.
"""

import math
import re
import warnings
from pathlib import Path

import numpy as np

from mnist_flax.data import entries
from mnist_flax.data.arrays import class_names_of, cut
from mnist_flax.data.dataset import LARGEST, Raw, Split
from mnist_flax.errors import UserError

_NAME = re.compile(r"(?:(?P<prefix>.+)[_-])?(?P<split>train|test)(?: ?\(\d+\))?\.csv")
_LABEL = "label"


def find(directory: Path) -> dict[str, Path]:
    """Returns the tables in a folder by 'train' and 'test'; {} where there is none to train on.

    Raises:
      UserError: there are tables of several datasets.
    """
    found: dict[str, dict[str, Path]] = {}
    for path in entries.visible(directory):
        match = _NAME.fullmatch(path.name)
        if match and path.is_file():
            tables = found.setdefault(match["prefix"] or "", {})
            tables.setdefault(match["split"], path)  # before a browser's copies of it
    found = {prefix: tables for prefix, tables in found.items() if "train" in tables}
    if len(found) > 1:
        names = ", ".join(tables["train"].name for tables in found.values())
        raise UserError(f"{directory} holds {names}: keep those of one dataset in a folder.")
    return next(iter(found.values()), {})


def read_directory(directory: Path, name: str) -> Raw | None:
    """Reads the tables of a folder: images uint8 [N, H, H, 1], labels int32 [N].

    Where there is no test, or one without labels, every fifth picture of each class of train is
    taken for it, which a note says. Returns None without a table to train on.

    Raises:
      UserError: a table is faulty.
    """
    tables = find(directory)
    if not tables:
        return None
    train = read_table(tables["train"])
    if train is None:
        raise UserError(f"{tables['train']} has no labels: its header has no column {_LABEL!r}.")
    splits = {"train": train}
    notes: tuple[str, ...] = ()
    if "test" in tables and (test := read_table(tables["test"])):
        splits["test"] = test
    else:
        why = f"{tables['test']} has no labels" if "test" in tables else "There is no test.csv"
        splits = cut(train)
        notes = (
            f"{why}: every fifth picture of each class of {tables['train'].name} evaluates "
            f"({len(splits['test'].labels):,} of {len(train.labels):,}), the others train.",
        )
    source = f"CSV files in {directory}"
    sideways = tables["train"].name.startswith("emnist-")
    return Raw(splits, class_names_of(name, splits), source, notes, sideways)


def read_table(path: Path) -> Split | None:
    """Reads a table: images uint8 [N, H, H, 1], labels int32 [N]; None for one without labels.

    Raises:
      UserError: a value is none from 0 to 255, or the pixels of a row are no square.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise UserError(f"{path} has more than {LARGEST:,} bytes. Cut it into smaller parts.")
        with path.open(encoding="utf-8-sig") as file:
            cells = [cell.strip().strip("\"'") for cell in file.readline().split(",")]
        header = not all(re.fullmatch(r"[\d.]+", cell) for cell in cells)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an empty table, which is reported below
            table = np.loadtxt(
                path, np.uint8, delimiter=",", skiprows=int(header), ndmin=2, encoding="utf-8-sig"
            )
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}. Check the file.") from None
    except ValueError as error:  # UnicodeDecodeError is one
        reason = " ".join(str(error).split())[:160]
        todo = "Want whole numbers from 0 to 255, with commas between"
        raise UserError(f"{path} cannot be read: {reason}. {todo}.") from None
    except MemoryError:
        raise UserError(f"{path}: memory cannot hold it. Use a larger machine.") from None
    if table.size == 0:
        raise UserError(f"{path} holds no pictures. Copy it again.")
    return _split(table, [cell.lower() for cell in cells] if header else None, path)


def _split(table: np.ndarray, header: list[str] | None, path: Path) -> Split | None:
    columns = table.shape[1]
    labelled = _LABEL in header if header else not _is_square(columns)
    pixels = columns - labelled
    if not _is_square(pixels):
        raise UserError(
            f"{path} has {columns} columns: want a label, first or in a column {_LABEL!r}, and the "
            "pixels of a square picture, such as 784."
        )
    if not labelled:
        return None
    place = header.index(_LABEL) if header else 0
    labels = table[:, place].astype(np.int32)
    side = math.isqrt(pixels)
    return Split(np.delete(table, place, axis=1).reshape(-1, side, side, 1), labels)


def _is_square(number: int) -> bool:
    return number > 0 and math.isqrt(number) ** 2 == number

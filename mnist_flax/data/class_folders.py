"""Which pictures of a folder are of which split and class, by the names of folders and files.

`train/<class>/*` and `test/<class>/*`, also called training/ and testing/, val/ or valid/ where
there is no test/; or `<class>/*` alone, cut into both.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mnist_flax.data import entries
from mnist_flax.data.arrays import tested
from mnist_flax.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp")
_TRAIN = ("train", "training")
_TEST = ("test", "testing")
_VALIDATION = ("val", "valid", "validation")
_ONE_EACH = "Put pictures into one folder for each class"


@dataclass(frozen=True)
class Found:
    """The pictures of each split with their labels, in order, before they are read.

    Attributes:
      splits: (file, label) by 'train' and, where something evaluates, 'test'.
      class_names: of the labels.
      notes: what was assumed.
    """

    splits: dict[str, list[tuple[Path, int]]]
    class_names: tuple[str, ...]
    notes: tuple[str, ...]


def find(directory: Path) -> Found | None:
    """Finds `train/<class>/*` and what evaluates; None without a folder to train on.

    The classes are the folders of train, sorted, as numbers when all are whole numbers; their
    pictures follow class by class, by name, the same on every machine. So a slice such as
    `train[:100]` holds few classes, and training needs `shuffle`.

    Raises:
      UserError: something else lies where class folders or pictures are wanted.
    """
    train, evaluation, notes = _split_folders(directory)
    if train is None:
        return None
    folders = {"train": _class_folders(train)}
    if evaluation is not None:
        folders["test"] = _class_folders(evaluation)
        unknown = sorted(set(folders["test"]) - set(folders["train"]))
        if unknown:
            path = folders["test"][unknown[0]]
            raise UserError(f"{path}: {train.name} has no class {unknown[0]!r}. Add it.")
    class_names = sorted(folders["train"], key=_class_order(list(folders["train"])))
    splits = {
        split: [
            (path, label)
            for label, name in enumerate(class_names)
            if name in classes
            for path in _pictures(classes[name])
        ]
        for split, classes in folders.items()
    }
    return Found(splits, tuple(class_names), (*notes, *entries.litter_note(directory)))


def has_splits(directory: Path) -> bool:
    """Says whether there is a folder to train on."""
    return _first(directory, _TRAIN) is not None


def _split_folders(directory: Path) -> tuple[Path | None, Path | None, list[str]]:
    """Returns the folder to train on, the one that evaluates, and what there is to say of them."""
    train, test, validation = (_first(directory, n) for n in (_TRAIN, _TEST, _VALIDATION))
    unread = [
        directory / name
        for names, taken in ((_TRAIN, train), (_TEST, test))
        for name in names
        if (directory / name).is_dir() and directory / name != taken
    ]
    notes = []
    if train is not None and test is None and validation is not None:
        notes.append(f"{directory} has no test folder: {validation.name}/ is 'test', to evaluate.")
    elif validation is not None:
        unread.append(validation)
    if train is not None:
        notes += [f"{path} is not read." for path in unread]
    return train, test or validation, notes


def _first(directory: Path, names: tuple[str, ...]) -> Path | None:
    return next((directory / name for name in names if (directory / name).is_dir()), None)


def are_classes(directory: Path) -> bool:
    """Says whether a folder holds folders of pictures, two at least, and no other folders."""
    folders = [path for path in entries.visible(directory) if path.is_dir()]
    return len(folders) > 1 and all(
        any(_is_picture(path) for path in entries.visible(folder)) for folder in folders
    )


def find_uncut(directory: Path) -> Found | None:
    """Finds `<class>/*`, and cuts it: of each class every fifth picture, by name, is for testing.

    Returns None where `are_classes` says no; raises UserError as `find` does.
    """
    if not are_classes(directory):
        return None
    folders = _class_folders(directory)
    class_names = sorted(folders, key=_class_order(list(folders)))
    splits: dict[str, list[tuple[Path, int]]] = {"train": [], "test": []}
    for label, name in enumerate(class_names):
        paths = _pictures(folders[name])
        for path, is_tested in zip(paths, tested(len(paths)), strict=True):
            splits["test" if is_tested else "train"].append((path, label))
    count = sum(map(len, splits.values()))
    note = (
        f"{directory} has no train folder: every fifth picture of each class, by name, is 'test' "
        f"({len(splits['test']):,} of {count:,}), the others are 'train'."
    )
    if not splits["test"]:
        del splits["test"]
    return Found(splits, tuple(class_names), (note, *entries.litter_note(directory)))


def _class_order(names: list[str]) -> Callable[[str], tuple[int, str]] | None:
    if all(name.isdecimal() for name in names):
        return lambda name: (int(name), name)
    return None


def _class_folders(folder: Path) -> dict[str, Path]:
    paths = entries.visible(folder)
    for path in paths:
        if not path.is_dir():
            raise UserError(f"{path} is no folder. {_ONE_EACH}.")
    if not paths:
        raise UserError(f"{folder} is empty. {_ONE_EACH} in it.")
    return {path.name: path for path in paths}


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()


def _pictures(folder: Path) -> list[Path]:
    paths = entries.visible(folder)
    for path in paths:
        if not _is_picture(path):
            raise UserError(f"{path} is not a picture: want {', '.join(SUFFIXES)}. Move it away.")
    if not paths:
        raise UserError(f"{folder} holds no pictures ({', '.join(SUFFIXES)}). Add some.")
    return paths

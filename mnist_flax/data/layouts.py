"""Which reader reads a folder: the layouts that are understood, in it and one folder below."""

import re
from dataclasses import replace
from pathlib import Path

from mnist_flax.data import class_folders, csv_files, entries, folder, idx, idx_names, npz
from mnist_flax.data.dataset import CLASS_NAMES, Raw
from mnist_flax.errors import UserError

UNDERSTOOD = (
    "the four IDX files, pictures in train/<class>/ and test/<class>/ or in <class>/, train.csv "
    "with test.csv, or one .npz file"
)


def read(
    directory: Path, name: str, side: int | None = None, *, stream: bool = False
) -> Raw | None:
    """Reads the IDX files of a folder, or its train/<class>/; None where there are neither.

    Pictures in files are scaled to side × side, if that is given, and decoded when they are asked
    for, if they are to be streamed.

    Raises:
      UserError: the files are incomplete or faulty.
    """
    raw = idx.read_directory(directory, name)
    return raw or folder.read_directory(directory, side=side, stream=stream)


def read_arrays(directory: Path, name: str) -> Raw | None:
    """Reads the tables of a folder, or its .npz file; None where there are neither.

    Raises:
      UserError: the files are several datasets', or faulty.
    """
    return csv_files.read_directory(directory, name) or npz.read_directory(directory, name)


def read_below(
    directory: Path, name: str, side: int | None = None, *, stream: bool = False
) -> Raw | None:
    """Reads class folders that lie in a folder, or a layout one folder below it, as `read` does.

    For folders that a user has named: in others it would find what nobody meant. Of several folders
    the one of the dataset's name is taken, as torchvision's `MNIST/raw` next to `FashionMNIST/raw`.

    Raises:
      UserError: there are several, and no name says which; or the files are faulty.
    """
    raw = folder.read_directory(directory, side=side, uncut=True, stream=stream)
    if raw is not None:
        return raw
    folders = [path for path in entries.visible(directory) if path.is_dir()]
    below = {path: inner for path in folders if (inner := _layout_in(path))}
    if not below:
        return None
    chosen = _choose(list(below), directory, name)
    inner = below[chosen]
    raw = read(inner, name, side, stream=stream) or read_arrays(inner, name)
    raw = raw or folder.read_directory(inner, side=side, uncut=True, stream=stream)
    assert raw is not None  # by _layout_in
    note = f"{directory} holds no data itself: those in {inner.relative_to(directory)}/ are read."
    notes = (note, *(entries.litter_note(directory) if inner == chosen else ()))
    return replace(raw, notes=(*notes, *raw.notes))


def _layout_in(path: Path) -> Path | None:
    """Returns the folder, or its raw/ as torchvision has it, if a reader would find its files."""
    for inner in (path, path / "raw"):
        if idx_names.find(inner):
            return inner
    finds = (class_folders.has_splits, csv_files.find, npz.find, class_folders.are_classes)
    return path if any(find(path) for find in finds) else None


def _choose(folders: list[Path], directory: Path, name: str) -> Path:
    wanted = _plain(name)
    for path in folders:
        if _plain(path.name) == wanted or (path.name == "EMNIST" and wanted.startswith("emnist")):
            return path
    names = ", ".join(f"{path.name}/" for path in folders)
    if len(folders) > 1:
        raise UserError(
            f"config.data.data_dir: {directory} holds data in {names}: name one of these folders."
        )
    known = {_plain(other): other for other in CLASS_NAMES}
    if (other := known.get(_plain(folders[0].name))) and name in CLASS_NAMES:
        raise UserError(
            f"config.data.name={name!r}, but {directory} holds {names} alone. For that give "
            f"config.data.name={other}"
        )
    return folders[0]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())

"""`mnist.npz`, as Keras has it: x_train, y_train, x_test and y_test. Objects are refused."""

import math
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

from mnist_flax.data import entries
from mnist_flax.data.arrays import as_pictures, class_names_of
from mnist_flax.data.dataset import LARGEST, Raw, Split
from mnist_flax.errors import UserError

_KEYS = {"train": ("x_train", "y_train"), "test": ("x_test", "y_test")}
_AGAIN = "Copy or download it again."


def find(directory: Path) -> Path | None:
    """Returns the .npz file of a folder, None where there is none.

    Raises:
      UserError: there are several.
    """
    files = [path for path in entries.visible(directory) if path.suffix.lower() == ".npz"]
    if len(files) > 1:
        names = ", ".join(path.name for path in files[:5])
        raise UserError(f"{directory} holds {len(files)} .npz files, {names}: keep one of them.")
    return files[0] if files else None


def read_directory(directory: Path, name: str) -> Raw | None:
    """Reads the .npz file of a folder: images uint8 [N, H, W, C], labels int32 [N].

    Images may be [N, H·W], [N, H, W] or [N, H, W, C], labels [N] or [N, 1]. Returns None without
    such a file.

    Raises:
      UserError: it is damaged, or holds other arrays.
    """
    path = find(directory)
    if path is None:
        return None
    arrays = _arrays(path)
    splits, notes = {}, []
    for split, (x, y) in _KEYS.items():
        images, labels = arrays[x], arrays[y]
        where = f"{path}, {x}"
        if images.dtype != np.uint8:
            raise UserError(f"{where} is {images.dtype}: want uint8, from 0 to 255. Convert it.")
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer) or not labels.size:
            got = f"{labels.dtype} {list(labels.shape)}"
            raise UserError(f"{path}, {y} is {got}: want whole numbers [N].")
        if labels.min() < 0 or labels.max() > 2**31 - 1:
            raise UserError(f"{path}, {y} holds {labels.min()} to {labels.max()}: want from 0 on.")
        pictures, note = as_pictures(images, where)
        splits[split] = Split(pictures, labels.astype(np.int32))
        notes += [note] if note else []
    return Raw(splits, class_names_of(name, splits), f"the NPZ file {path}", tuple(notes))


def _arrays(path: Path) -> dict[str, np.ndarray]:
    keys = [key for pair in _KEYS.values() for key in pair]
    try:
        with zipfile.ZipFile(path) as archive:
            files = archive.namelist()
            names = {name.removesuffix(".npy") for name in files if name.endswith(".npy")}
            if lacking := [key for key in keys if key not in names]:
                there = ", ".join(sorted(names)[:5]) or "nothing"
                raise UserError(
                    f"{path} lacks {', '.join(lacking)} (it holds {there}). Want {', '.join(keys)}."
                )
            for key in keys:
                _check_header(archive, f"{key}.npy", path)
        with np.load(path, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in keys}
    except (
        *(zipfile.BadZipFile, zlib.error, ValueError, EOFError, NotImplementedError),
        tokenize.TokenError,  # from NumPy's reading of a header
    ) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{path} cannot be read: {reason}. {_AGAIN}") from None
    except RuntimeError as error:  # zipfile's for an encrypted one
        raise UserError(f"{path} cannot be read: {error}. {_AGAIN}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}. {_AGAIN}") from None
    except MemoryError:
        raise UserError(f"{path}: memory cannot hold its arrays. Use a larger machine.") from None


def _check_header(archive: zipfile.ZipFile, name: str, path: Path) -> None:
    """Raises UserError for an array that promises more than there is: NumPy makes room for it."""
    with archive.open(name) as file:
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(file)
    size = math.prod(shape) * dtype.itemsize
    if size > min(LARGEST, archive.getinfo(name).file_size):
        raise UserError(
            f"{path}, {name} promises {dtype} {list(shape)}, {size:,} bytes: more than it holds or "
            f"than {LARGEST:,}. {_AGAIN}"
        )

"""IDX files, the format that MNIST is published in: bytes to arrays and back. Never downloads.

The format: two zero bytes, the type (8: unsigned byte), the number of dimensions, each dimension
as four bytes (big endian), then the elements, the last dimension running fastest.
"""

import gzip
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from mnist_flax.data import idx_names
from mnist_flax.data.arrays import as_pictures, class_names_of
from mnist_flax.data.dataset import LARGEST, Raw, Split
from mnist_flax.data.idx_names import STEMS as STEMS
from mnist_flax.errors import UserError

_MOST_DIMENSIONS = 4  # [N, H, W, C]
_CHUNK = 2**20
_AGAIN = "Copy or download it again."


def read_directory(directory: Path, name: str) -> Raw | None:
    """Reads the four usual files, plain or gzipped: images uint8 [N, H, W, C], labels int32 [N].

    See idx_names.py for their names. Returns None where none of the four is there; raises UserError
    for a part of them and for anything wrong inside them.
    """
    found = idx_names.find(directory)
    if not found:
        return None
    part = idx_names.choose(found, directory, name)
    files = found[part]
    if missing := idx_names.missing(files, part):
        raise UserError(f"{directory} holds IDX files, but lacks {', '.join(missing)}. Add them.")
    notes = [f"{path} is read: a copy, by its name." for path in files.values() if "(" in path.name]
    splits = {}
    for split in STEMS:
        splits[split], note = read_pair(files[split, "images"], files[split, "labels"])
        notes += [note] if note else []
    # EMNIST's labels are no digits, whatever config.data.name says, which is mnist by default.
    class_names = class_names_of("emnist" if part else name, splits)
    return Raw(splits, class_names, f"IDX files in {directory}", tuple(notes), bool(part))


def read_pair(images_path: Path, labels_path: Path) -> tuple[Split, str]:
    """Reads images uint8 [N, H, W, C] and their labels int32 [N]; and what was assumed, or ''.

    Images may be [N, H·W] of square pictures, [N, H, W] or [N, H, W, C]. Raises UserError where
    either is faulty or the two do not belong together.
    """
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.ndim == 1 and labels.ndim > 1:
        raise UserError(
            f"{images_path} holds labels, {labels_path.name} holds images: swapped? Rename them."
        )
    if labels.ndim != 1:
        got = f"{labels.ndim} dimensions {list(labels.shape)}"
        raise UserError(f"{labels_path} has {got}, but labels have 1. Put labels there.")
    for path, array, what in ((images_path, images, "images"), (labels_path, labels, "labels")):
        if array.size == 0:
            raise UserError(f"{path} holds no {what}: its shape is {list(array.shape)}. {_AGAIN}")
    pictures, note = as_pictures(images, images_path)
    if len(images) != len(labels):
        counts = f"{len(images):,} images, {labels_path.name} {len(labels):,} labels"
        raise UserError(
            f"{images_path} holds {counts}: they do not belong together. Take both from one place."
        )
    return Split(pictures, labels.astype(np.int32)), note


def read_idx(path: str | Path) -> np.ndarray:
    """Returns the uint8 array in an IDX file, plain or gzipped (known by content, not by name).

    Memory is bounded by what the header promises, at most LARGEST, so that a small file cannot
    unpack into a huge one. Raises UserError, naming the file, for anything that is not exactly
    one whole IDX array of unsigned bytes.
    """
    path = Path(path)
    try:
        with _open(path) as file:
            shape = _read_header(file, path)
            size = math.prod(shape)
            data = bytearray()
            # One byte more than promised: shows trailing bytes, and has gzip check its CRC.
            while chunk := file.read(min(_CHUNK, size + 1 - len(data))):
                data += chunk
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. Check the name.") from None
    except EOFError:
        raise UserError(f"{path} is cut short: its gzip stream has no end. {_AGAIN}") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path} is damaged: {error}. {_AGAIN}") from None
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {error.strerror}. Put a file there that can be."
        ) from None
    except MemoryError:
        promised = f"memory cannot hold the {size:,} bytes its header promises"
        raise UserError(f"{path}: {promised} {list(shape)}. Use a larger machine.") from None
    if len(data) < size:
        got = f"ends after {len(data):,} of the {size:,} bytes its header promises"
        raise UserError(f"{path} is cut short: it {got} {list(shape)}. {_AGAIN}")
    if len(data) > size:
        raise UserError(
            f"{path} goes on after the {size:,} bytes its header promises {list(shape)}. {_AGAIN}"
        )
    return np.frombuffer(data, np.uint8).reshape(shape)


@contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
    with path.open("rb") as file:
        if file.peek(2)[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=file) as unpacked:
                yield cast(BinaryIO, unpacked)
        else:
            yield file


def _read_header(file: BinaryIO, path: Path) -> tuple[int, ...]:
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[3] == 0:
        want = "00 00 08 and the number of dimensions"
        raise UserError(
            f"{path} is not an IDX file: it begins with {magic.hex(' ')!r}, not {want}. {_AGAIN}"
        )
    if magic[2] != 8:
        only = "only 0x08 (unsigned byte) is read"
        raise UserError(f"{path} holds type 0x{magic[2]:02x}; {only}. Convert it to bytes.")
    ndim = magic[3]
    if ndim > _MOST_DIMENSIONS:
        most = f"at most {_MOST_DIMENSIONS} are read"
        raise UserError(f"{path}: its header promises {ndim} dimensions; {most}. {_AGAIN}")
    dimensions = file.read(4 * ndim)
    if len(dimensions) < 4 * ndim:
        raise UserError(f"{path} is cut short, inside its header. {_AGAIN}")
    shape = struct.unpack(f">{ndim}I", dimensions)
    # A 0 promises nothing, whatever stands next to it, but NumPy has no shape [0, 2**32 - 1, ...].
    if math.prod(max(length, 1) for length in shape) > LARGEST:
        promised = f"its header promises {list(shape)}, more than {LARGEST:,} bytes"
        raise UserError(f"{path}: {promised}. {_AGAIN}")
    return shape


def write_idx(path: str | Path, array: np.ndarray) -> None:
    """Writes a uint8 array as an IDX file, gzipped when the name ends in .gz.

    Equal arrays give equal bytes. Raises ValueError for another dtype or no dimension.
    """
    if array.dtype != np.uint8 or array.ndim == 0:
        raise ValueError(f"an IDX file takes uint8 [N, ...], got {array.dtype} {array.shape}")
    header = struct.pack(f">2xBB{array.ndim}I", 8, array.ndim, *array.shape)
    data = header + array.tobytes()
    path = Path(path)
    # mtime=0: a time stamp would give the same array another checksum each time.
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)

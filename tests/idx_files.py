"""Arrays as IDX files, for data of the tests' own. Not a test itself."""

import gzip
import struct
from pathlib import Path

import numpy as np


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

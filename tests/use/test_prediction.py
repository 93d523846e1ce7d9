"""What a network answers to pictures, and in which words."""

from pathlib import Path

import numpy as np
from asked import untrained
from PIL import Image

from mnist_flax.data.dataset import Split
from mnist_flax.data.preparation import AS_IS, DIGIT
from mnist_flax.errors import UserError
from mnist_flax.use.prediction import Prediction, predict_files, predict_split

NAMES = ("3", "7", "ein Haus")


def picture(path: Path) -> str:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)
    Image.fromarray(pixels).save(path)
    return str(path)


def test_an_answer_tells_the_class_by_the_name_of_its_folder(tmp_path: Path) -> None:
    restored = untrained((8, 8, 1), NAMES)
    (made,) = predict_files(restored, [picture(tmp_path / "a.png")], AS_IS)
    assert isinstance(made, Prediction)
    row = made.row()
    assert row["class"] == row["classes"] == int(np.argmax(row["probabilities"]))
    assert row["class_name"] == NAMES[row["classes"]]
    assert row["class_names"] == list(NAMES)


def test_a_saved_split_names_its_classes_and_is_read_without_pickle(tmp_path: Path) -> None:
    split = Split(np.zeros((5, 8, 8, 1), np.uint8), np.array([0, 1, 2, 1, 0], np.int32))
    predict_split(untrained((8, 8, 1), NAMES), split, tmp_path / "split.npz")
    with np.load(tmp_path / "split.npz", allow_pickle=False) as saved:
        assert sorted(saved) == ["class_names", "classes", "labels", "probabilities"]
        assert saved["class_names"].tolist() == list(NAMES)


def test_a_damaged_picture_costs_itself_alone(tmp_path: Path) -> None:
    restored = untrained((8, 8, 1), NAMES)
    good = picture(tmp_path / "good.png")
    broken = tmp_path / "broken.png"
    broken.write_bytes(Path(good).read_bytes()[:60])
    missing = str(tmp_path / "missing.png")
    asked = [missing, good, str(broken), good]
    answers = predict_files(restored, asked, AS_IS)
    assert [isinstance(answer, Prediction) for answer in answers] == [False, True, False, True]
    (alone,) = predict_files(restored, [good], AS_IS)
    assert isinstance(alone, Prediction)
    for answer in answers[1::2]:
        assert isinstance(answer, Prediction)
        assert answer.row()["class"] == alone.row()["class"]
    for file, answer in zip(asked[::2], answers[::2], strict=True):
        assert isinstance(answer, UserError)
        assert str(answer).startswith(f"{file}: ")


def test_faulty_pictures_alone_are_told_one_by_one(tmp_path: Path) -> None:
    asked = [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    answers = predict_files(untrained((8, 8, 1), NAMES), asked, AS_IS)
    assert [str(answer).partition(":")[0] for answer in answers] == asked


def test_a_doubt_stands_beside_the_answer(tmp_path: Path) -> None:
    restored = untrained((28, 28, 1), NAMES)
    one = np.zeros((60, 90), np.uint8)
    one[15:45, 20:26] = 255
    two = np.maximum(one, np.roll(one, 30, axis=1))
    for name, pixels in (("one.png", one), ("two.png", two)):
        Image.fromarray(pixels).save(tmp_path / name)
    files = [str(tmp_path / name) for name in ("one.png", "two.png")]
    single, pair = (made.row() for made in predict_files(restored, files, DIGIT))
    assert "warning" not in single
    assert pair["warning"].startswith("several drawings stand side by side")

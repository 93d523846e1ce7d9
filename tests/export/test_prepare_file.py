"""prepare.py, beside an exported network, makes of a picture what --mode=predict makes of it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from drawings import LOOKS, drawings
from exported_files import BLOCKER, card_examples
from PIL import Image
from sample_run import train_on_sample

from mnist_flax.data.pictures import read_picture
from mnist_flax.data.preparation import DIGIT, Preparation
from mnist_flax.export.how_to_run import example
from mnist_flax.export.prepare_file import prepare_file

Launch = Callable[..., subprocess.CompletedProcess[str]]
PREPARE = """
import numpy, sys
from prepare import prepare
numpy.savez("out.npz", *[prepare(name) for name in sys.argv[1:]])
"""


def python(code: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs Python that cannot import this package."""
    command = [sys.executable, "-c", BLOCKER + code, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, int]:
    """Drawn digits in every look, as files, and what they are."""
    folder, chosen = tmp_path_factory.mktemp("pictures"), {}
    looks = list(LOOKS)
    for number, drawn in enumerate(drawings()):  # a look follows the other, shape after shape
        shape, look = divmod(number, len(looks))
        if look == shape % len(looks):
            path = folder / drawn.name
            drawn.picture.save(path)
            chosen[path] = drawn.digit
    return chosen


@pytest.mark.parametrize(
    ("preparation", "shape"),
    [
        (DIGIT, (28, 28, 1)),
        (Preparation("size", "dark"), (28, 28, 1)),
        (Preparation("size", "light"), (20, 30, 3)),
        (Preparation("size", "any"), (9, 9, 1)),
    ],
)
def test_it_gives_the_same_pixels_without_this_package(
    tmp_path: Path, pictures: dict[Path, int], preparation: Preparation, shape: tuple
) -> None:
    (tmp_path / "prepare.py").write_text(prepare_file(preparation, shape))
    done = python(PREPARE, tmp_path, *map(str, pictures))
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "out.npz") as saved:
        for path, made in zip(pictures, saved.values(), strict=True):
            wanted = read_picture(path, preparation, shape).image
            np.testing.assert_array_equal(made, wanted[None])


def test_a_picture_that_is_not_fit_is_a_value_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "prepare.py").write_text(prepare_file(DIGIT, (28, 28, 1)))
    Image.new("L", (40, 40), 200).save(tmp_path / "blank.png")
    code = """
from prepare import prepare
try:
    prepare("blank.png")
except ValueError as error:
    print(error)
"""
    done = python(code, tmp_path)
    assert done.stdout == ("the picture is empty: all pixels are alike; give one with ink\n"), (
        done.stderr
    )


@pytest.mark.slow
def test_exported_files_answer_to_pictures_as_predict_does(
    launch: Launch, tmp_path: Path, pictures: dict[Path, int]
) -> None:
    train_on_sample(tmp_path / "run")
    done = launch("--workdir=run", "--mode=predict", *map(str, pictures))
    assert done.returncode == 0, done.stderr
    wanted = [json.loads(line) for line in done.stdout.splitlines()]
    right = [row["class"] == digit for row, digit in zip(wanted, pictures.values(), strict=True)]
    assert sum(right) >= 0.8 * len(pictures)  # the network is worth asking
    done = launch("--workdir=run", "--mode=export", "--format=all")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "run/export"
    examples = card_examples((folder / "MODEL_CARD.md").read_text())
    assert examples == [example(name, (28, 28, 1)) for name in ("model.stablehlo", "model.onnx")]
    for code in examples:
        before, asked = code.split('images = prepare("picture.png")\n')
        inside = "".join(f"    {line}\n" for line in asked.splitlines())
        loop = f"import sys\nfor name in sys.argv[1:]:\n    images = prepare(name)\n{inside}"
        done = python(before + loop, folder, *map(str, pictures))
        assert done.returncode == 0, done.stderr
        for line, row in zip(done.stdout.splitlines(), wanted, strict=True):
            best, probability = line.split()
            assert int(best) == row["class"]
            assert float(probability) == pytest.approx(max(row["probabilities"]), abs=1e-4)


def test_a_network_that_takes_no_pictures_has_an_example_all_the_same() -> None:
    for name in ("model.stablehlo", "model.onnx"):
        code = example(name, (9, 8, 2))
        assert "np.zeros((1, 9, 8, 2), np.uint8)" in code
        assert "prepare" not in code

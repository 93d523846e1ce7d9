"""A run that is asked from Python says what the commands say, and nothing besides."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import TESTS, launch_environment
from conftest import rows as rows_of
from PIL import Image
from tiny import get_config

from mnist_flax import data, restore, train
from mnist_flax.data.preparation import AS_IS
from mnist_flax.errors import UsageError, UserError
from mnist_flax.use.run import RestoredRun

Launch = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def folder(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = get_config()
    config.data.data_dir = str(digits)
    workdir = tmp_path_factory.mktemp("asked") / "run"
    train(config, workdir)
    return workdir


@pytest.fixture
def run(folder: Path) -> RestoredRun:
    return restore(folder)


@pytest.fixture
def images(run: RestoredRun) -> np.ndarray:
    return np.asarray(data.load(run.config.data).eval.images)


@pytest.fixture
def files(images: np.ndarray, tmp_path: Path) -> list[str]:
    """One of the run's own images; a light picture of another size; one in colour."""
    light = 255 - images[1, ..., 0].repeat(4, 0).repeat(4, 1)
    colour = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    found = []
    for name, pixels in (("own", images[0, ..., 0]), ("light", light), ("colour", colour)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        found.append(str(tmp_path / f"{name}.png"))
    return found


def printed(done: subprocess.CompletedProcess[str]) -> list[dict]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("center", [None, "false"])
def test_files_are_answered_as_the_command_answers(
    run: RestoredRun, files: list[str], launch: Launch, center: str | None
) -> None:
    flags = [f"--workdir={run.workdir}", "--mode=predict"]
    if center:  # of the network's own size alone
        flags, files = [*flags, "--center=false"], files[:1]
    answers = run.predict(files, preparation=AS_IS if center else None)
    assert [answer.row() for answer in answers] == printed(launch(*flags, *files))
    assert len(answers) == len(files)
    assert answers.classes.tolist() == [answer.class_index for answer in answers]
    assert answers.probabilities.shape == (len(files), 10)


def test_one_file_is_one_answer(run: RestoredRun, files: list[str]) -> None:
    answer = run.predict(Path(files[0]))
    assert answer.class_name == run.class_names[answer.class_index]
    assert answer.class_index == int(answer.probabilities.argmax())
    assert answer.probability == float(answer.probabilities.max())
    assert repr(answer).startswith(f"Prediction({files[0]!r}, {answer.class_name!r} at ")
    assert len(run.predict(files)[1:]) == 2


def test_arrays_of_its_own_size_are_taken_as_they_are(
    run: RestoredRun, images: np.ndarray, files: list[str]
) -> None:
    whole = run.predict(images)
    np.testing.assert_array_equal([answer.image for answer in whole], images)
    for given in (images[..., 0], list(images), list(images[..., 0])):
        assert [answer.row() for answer in run.predict(given)] == [a.row() for a in whole]
    one = run.predict(images[0])
    assert one.row() == run.predict(images[0, ..., 0]).row()
    assert one.file == ""
    assert "file" not in one.row()
    np.testing.assert_array_equal(one.image, images[0])
    # As it is: a light one is not turned, which a file would be; that is said.
    assert run.preparation.ground == "any"  # of noise
    assert not run.predict(255 - images[0]).warning


def test_other_arrays_are_prepared_as_files_are(run: RestoredRun, files: list[str]) -> None:
    pixels = [np.asarray(Image.open(file)) for file in files]
    answers, of_files = run.predict(pixels[1:]), run.predict(files[1:])
    for mine, theirs in zip(answers, of_files, strict=True):
        assert mine.row() | {"file": theirs.file} == theirs.row()
    assert answers[1].picture.done == ("made grey", "scaled from 7x9 to 8x8")
    stack = run.predict(np.stack([pixels[1], pixels[1]]))
    np.testing.assert_array_equal(stack[0].image, stack[1].image)
    assert run.predict(pixels[2]).image.shape == (8, 8, 1)  # [H, W, 3] is one picture
    assert run.predict([files[0], pixels[1]])[0].file == files[0]


def test_what_is_no_picture_is_refused_in_a_line(
    run: RestoredRun, images: np.ndarray, files: list[str], tmp_path: Path
) -> None:
    for given, message in (
        (images / 255, r"predict: an array is float64 \[37, 8, 8, 1\]; give uint8 .* 0 to 255\.$"),
        (images[0, 0, :, 0], r"an array is uint8 \[8\]; give uint8 "),
        (3, "int is no picture"),
        ([], "no pictures are given"),
        (tmp_path.glob("*.gif"), "no pictures are given"),
        ([images], r"pictures\[0\] is no picture, but uint8 \[37, 8, 8, 1\]"),
        ([None], r"pictures\[0\] is no picture, but NoneType"),
        (
            np.zeros((2, 9, 9, 4), np.uint8),
            r"uint8 \[9, 9, 4\]; this network takes uint8 \[8, 8, 1",
        ),
    ):
        with pytest.raises(UsageError, match=message) as caught:
            run.predict(given)  # type: ignore[call-overload]
        assert "\n" not in str(caught.value)
    missing = [str(tmp_path / "a.png"), files[0], str(tmp_path / "b.png")]
    with pytest.raises(UserError, match=r"a\.png: No such file.*\. \(1 more cannot be used"):
        run.predict(missing)


def test_an_array_on_the_other_ground_is_doubted(run: RestoredRun, images: np.ndarray) -> None:
    trained_on = run.trained_on | {"preparation": {"layout": "size", "ground": "dark"}}
    dark = RestoredRun(**{**vars(run), "trained_on": trained_on})
    black = np.zeros((8, 8, 1), np.uint8)
    doubts = [answer.warning for answer in dark.predict([255 - black, black, images[0]])]
    assert doubts[0] == (
        "it is taken as it is, on a light ground; the training data are on a dark one"
    )
    assert doubts[1:] == ["", ""]
    np.testing.assert_array_equal(dark.predict(255 - black).image, 255 - black)
    turned = dark.predict(255 - black, preparation=dark.preparation)
    np.testing.assert_array_equal(turned.image, black)


def test_it_is_judged_as_the_command_judges(
    run: RestoredRun, launch: Launch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = (f"--config={TESTS / 'tiny.py'}", f"--workdir={run.workdir}", "--mode=eval")
    own, part = run.evaluate(), run.evaluate(split="train[:20]")
    assert capsys.readouterr().err.splitlines() == [
        "20 of these 20 images were trained on: the figures look better than the network is.",
    ]
    assert [own.row()] == printed(launch(*flags))
    assert [part.row()] == printed(launch(*flags, "--config.data.eval_split=train[:20]"))
    assert own["accuracy"] == rows_of(run.workdir)[-1]["accuracy"] == own.means["accuracy"]
    assert part.known.trained_on == 20
    assert "examples_trained_on=20" in repr(part)
    assert run.evaluate(split="test").row() == own.row()


def test_it_is_judged_on_arrays(run: RestoredRun) -> None:
    split, own = data.load(run.config.data).eval, run.evaluate()
    given = run.evaluate(split.images[..., 0], split.labels.astype(np.uint8))
    assert given.means == own.means
    assert "dataset" not in given.row()
    images = np.asarray(split.images)
    for arguments, message in (
        ((images[:, :7], split.labels), r"images are uint8 \[37, 7, 8, 1\]; .* uint8 \[N, 8, 8, 1"),
        ((images / 255, split.labels), "images are float64"),
        ((images, split.labels[:5]), r"labels are int32 \[5\]; 37 images need"),
        ((images, split.labels / 1), "labels are float64"),
        ((images, split.labels + 1), r"labels\[\d+\] is 10; this network knows 10 classes"),
        ((images,), "takes a split, or images and labels, or nothing"),
    ):
        with pytest.raises(UsageError, match=message):
            run.evaluate(*arguments)
    with pytest.raises(UsageError, match="there is no split 'trian'"):
        run.evaluate(split="trian")


def test_its_rows_are_columns(run: RestoredRun) -> None:
    pandas = pytest.importorskip("pandas")
    for split, steps in (("train", [1, 10, 20, 30, 40]), ("eval", [16, 32, 40])):
        table, kept = run.rows(split), rows_of(run.workdir, timed=True)
        kept = [row for row in kept if row["split"] == split]
        assert table["step"].dtype == np.int64
        assert table["step"].tolist() == steps
        assert table["accuracy"].tolist() == [row["accuracy"] for row in kept]
        frame = pandas.DataFrame(table)
        assert frame.shape == (len(steps), len(kept[0]))
        assert frame["loss"].dtype == np.float64
    assert run.rows("epoch")["epoch"].tolist() == [1, 2]
    with pytest.raises(UsageError, match=r"rows\('select'\): no such rows\. There are: .*eval"):
        run.rows("select")


def test_what_a_run_cannot_do_is_said(folder: Path, run: RestoredRun, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"sample: makes no sense for the task 'classification'"):
        run.sample(3)
    with pytest.raises(UserError, match="no run was started"):
        restore(tmp_path)
    with pytest.raises(UsageError, match="Saved steps: "):
        restore(folder, 7)
    assert int(restore(str(folder), 40).state.step) == 40
    assert repr(run) == f"RestoredRun({str(folder)!r}, step 40, classification)"
    # In a notebook an error is its message.
    assert UsageError("a: b.")._render_traceback_() == ["UsageError: a: b."]


ASK = """
import sys
import numpy as np
from mnist_flax import restore
run = restore(sys.argv[1])
assert run.predict(sys.argv[2]).class_name in run.class_names
assert run.predict(np.zeros((3, 8, 8), np.uint8)).classes.shape == (3,)
assert run.evaluate().examples == 37
assert run.rows("eval")["accuracy"].shape == (3,)
"""


def test_no_library_warns_or_logs(folder: Path, files: list[str]) -> None:
    # Compiled anew: of programs that it reads back XLA says what is not so (jax issue 38445).
    environment = launch_environment(compiles=True)
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    environment["PYTHONPATH"] = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    command = [sys.executable, "-W", "error", "-c", ASK, str(folder), files[0]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

"""Images that a run was trained on are counted wherever it is judged on them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from conftest import TESTS

from mnist_flax import restore, train
from mnist_flax.data.idx import read_idx, write_idx
from mnist_flax.errors import UserError
from mnist_flax.export import export_network
from mnist_flax.report import write_report
from mnist_flax.use.restore import load_data
from mnist_flax.workdir.trained_on import (
    TRAINED_ON_FILE,
    count_trained_on,
    keep_trained_on,
    tell_trained_on,
)

Launch = Callable[..., CompletedProcess[str]]
TOLD = "9 of these 9 images were trained on"


def images(*seeds: int) -> np.ndarray:
    made = [np.random.default_rng(seed).integers(0, 256, (8, 8, 1), np.uint8) for seed in seeds]
    return np.stack(made)


def test_images_are_counted_by_what_they_show(tmp_path: Path) -> None:
    keep_trained_on(tmp_path, images(1, 2, 3))
    assert count_trained_on(tmp_path, images(3, 4, 3, 1)) == 3  # each of them was taught
    assert count_trained_on(tmp_path, images(4, 5)) == 0
    assert tell_trained_on(0, images(4, 5)) == ""


def test_of_a_run_that_kept_no_digests_nothing_is_said(tmp_path: Path) -> None:
    assert count_trained_on(tmp_path, images(1)) == 0


@pytest.mark.parametrize("content", [b"", b"no array", b"\x93NUMPY\x01\x00"])
def test_a_damaged_file_is_told_in_a_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / TRAINED_ON_FILE).write_bytes(content)
    with pytest.raises(UserError, match=r"trained_on\.npy: cannot be read .*remove it") as error:
        count_trained_on(tmp_path, images(1))
    assert "\n" not in str(error.value)


def test_what_a_run_is_fine_tuned_from_counts_too(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    keep_trained_on(tmp_path / "old", images(1, 2))
    keep_trained_on(tmp_path / "new", images(3), before=tmp_path / "old")
    assert count_trained_on(tmp_path / "new", images(1, 2, 3, 4)) == 3


@pytest.fixture(scope="module")
def trained(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny import get_config

    config, workdir = get_config(), tmp_path_factory.mktemp("trained")
    config.data.data_dir, config.num_steps = str(digits), 4
    train(config, workdir)
    return workdir


def test_an_evaluation_on_other_data_counts_them(
    trained: Path, digits: Path, tmp_path: Path, launch: Launch
) -> None:
    # Another place, in which nine of the training images are the test images.
    other = shutil.copytree(digits, tmp_path / "other")
    for kind in ("images-idx3", "labels-idx1"):
        some = read_idx(digits / f"train-{kind}-ubyte.gz")[:9]
        write_idx(other / f"t10k-{kind}-ubyte.gz", some)
    flags = (f"--workdir={trained}", "--mode=eval", f"--config.data.data_dir={other}")
    done = launch(f"--config={TESTS / 'tiny.py'}", *flags)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["examples_trained_on"] == 9
    assert TOLD in done.stderr


def test_a_run_that_is_compared_with_is_no_exception(trained: Path, tmp_path: Path) -> None:
    workdir = shutil.copytree(trained, tmp_path / "run")
    keep_trained_on(workdir, images(1))  # as if this one were taught other images
    restored = restore(workdir, "latest", {"data.eval_split": "train[:9]"})
    dataset = load_data(restored, print)
    others = [(trained, restore(trained, "latest", {}), dataset.eval)]
    page = write_report(workdir, restored, dataset, others=others).read_text()
    assert page.count(TOLD) == 1
    assert f"{trained}: {TOLD}" in page


def test_the_report_and_the_card_count_them(trained: Path, tmp_path: Path) -> None:
    workdir = shutil.copytree(trained, tmp_path / "run")
    for split, told in (("train[:9]", True), ("test[:9]", False)):
        restored = restore(workdir, "latest", {"data.eval_split": split})
        dataset = load_data(restored, print)
        page = write_report(workdir, restored, dataset).read_text()
        export_network(workdir, restored, dataset, ["stablehlo"], print)
        card = (workdir / "export/MODEL_CARD.md").read_text()
        assert (TOLD in page) is told
        assert (TOLD in card) is told

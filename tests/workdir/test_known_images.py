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
from mnist_flax.use.run_data import load_data
from mnist_flax.workdir.known_images import (
    CHOSEN_ON_FILE,
    TRAINED_ON_FILE,
    Known,
    count_known,
    keep_chosen,
    keep_known,
)

Launch = Callable[..., CompletedProcess[str]]
TOLD = "9 of these 9 images were trained on"
CHOSE = "37 of these 37 images were used to choose this save"


def images(*seeds: int) -> np.ndarray:
    made = [np.random.default_rng(seed).integers(0, 256, (8, 8, 1), np.uint8) for seed in seeds]
    return np.stack(made)


def test_images_are_counted_by_what_they_show(tmp_path: Path) -> None:
    keep_known(tmp_path, images(1, 2, 3))
    keep_chosen(tmp_path, images(4, 6))
    shown = images(3, 4, 3, 1)
    assert count_known(tmp_path, shown, chosen=False) == (3, 0, 4)  # each of them was taught
    assert count_known(tmp_path, shown, chosen=True) == (3, 1, 4)
    assert count_known(tmp_path, images(7, 5), chosen=True) == (0, 0, 2)


def test_what_is_said_of_them() -> None:
    assert Known(0, 0, 2).told() == []
    assert Known(0, 0, 2).row() == {}
    taught, chose = Known(1_000, 2, 3_000).told()
    assert taught.startswith("1,000 of these 3,000 images were trained on")
    assert chose.startswith("2 of these 3,000 images were used to choose this save")
    assert Known(1, 2, 3).row() == {"examples_trained_on": 1, "examples_chosen_on": 2}


def test_of_a_run_that_kept_no_digests_nothing_is_said(tmp_path: Path) -> None:
    assert count_known(tmp_path, images(1), chosen=True) == (0, 0, 1)


@pytest.mark.parametrize("name", [TRAINED_ON_FILE, CHOSEN_ON_FILE])
@pytest.mark.parametrize("content", [b"", b"no array", b"\x93NUMPY\x01\x00"])
def test_a_damaged_file_is_told_in_a_line(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}: cannot be read .*remove it") as error:
        count_known(tmp_path, images(1), chosen=True)
    assert "\n" not in str(error.value)


def test_what_a_run_is_fine_tuned_from_counts_too(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    keep_known(tmp_path / "old", images(1, 2))
    keep_known(tmp_path / "new", images(3), tmp_path / "old")
    assert count_known(tmp_path / "new", images(1, 2, 3, 4), chosen=True) == (3, 0, 4)


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


@pytest.mark.slow
@pytest.mark.promise
def test_a_run_that_is_compared_with_is_no_exception(trained: Path, tmp_path: Path) -> None:
    workdir = shutil.copytree(trained, tmp_path / "run")
    keep_known(workdir, images(1))  # as if this one were taught other images
    restored = restore(workdir, "latest", {"data.eval_split": "train[:9]"})
    dataset = load_data(restored, print)
    others = [(trained, restore(trained, "latest", {}), dataset.eval)]
    page = write_report(workdir, restored, dataset, others=others).read_text()
    assert page.count(TOLD) == 1
    assert f"{trained}: {TOLD}" in page


@pytest.mark.slow
@pytest.mark.promise
def test_the_report_and_the_card_count_them(trained: Path, tmp_path: Path) -> None:
    workdir = shutil.copytree(trained, tmp_path / "run")
    chose = CHOSE.replace("37", "9")
    for split, which, told in (
        ("train[:9]", "latest", [TOLD]),
        ("test[:9]", "latest", []),
        ("test[:9]", "best", [chose]),
    ):
        restored = restore(workdir, which, {"data.eval_split": split})
        dataset = load_data(restored, print)
        page = write_report(workdir, restored, dataset).read_text()
        export_network(workdir, restored, dataset, ["stablehlo"], print)
        card = (workdir / "export/MODEL_CARD.md").read_text()
        assert [line for line in (TOLD, chose) if line in page] == told
        assert [line for line in (TOLD, chose) if line in card] == told


@pytest.mark.parametrize("which", ["best", "latest"])
def test_the_best_save_is_not_judged_unsaid_on_what_chose_it(
    trained: Path, launch: Launch, which: str
) -> None:
    flags = (f"--workdir={trained}", f"--checkpoint={which}")
    done = launch(f"--config={TESTS / 'tiny.py'}", *flags, "--mode=eval")
    assert done.returncode == 0, done.stderr
    chosen = which == "best"
    assert json.loads(done.stdout).get("examples_chosen_on") == (37 if chosen else None)
    assert (CHOSE in done.stderr) is chosen

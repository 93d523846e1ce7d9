"""--mode=report: the page, parsed, against the saved predictions and the rows of the run."""

import base64
import dataclasses
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, rows
from report_page import Page, write_and_read
from sklearn import metrics
from tiny import get_config

from mnist_flax.errors import UserError
from mnist_flax.report import write_report
from mnist_flax.report.history import points, read_history
from mnist_flax.training import train
from mnist_flax.use.restore import restore
from mnist_flax.use.run_data import load_data

Launch = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def resumed(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a run of 40 steps that was stopped twice, at steps 8 and 24, and its report.

    With augmentation and the extended set.
    """
    config = get_config()
    config.data.data_dir = str(digits)
    config.augment.order = ("random_rotation", "random_shift")
    config.data.extended = True
    config.batch_size = 60  # 10 steps an epoch
    workdir = tmp_path_factory.mktemp("resumed") / "run"
    for step in (4, 20):
        train(config, workdir, should_stop=(workdir / f"checkpoints/latest/{step}").exists)
    train(config, workdir)
    write_and_read(workdir)
    return workdir


@pytest.mark.slow
@pytest.mark.promise
def test_the_figures_are_scikit_learns_of_the_saved_predictions(resumed: Path) -> None:
    page = Page(resumed / "report/index.html")
    with np.load(resumed / "report/predictions.npz") as saved:
        labels, classes, probabilities = (
            saved[name] for name in ("labels", "classes", "probabilities")
        )
    assert len(labels) == 37
    form = lambda value: "–" if np.isnan(value) else f"{value:.4f}"  # noqa: E731
    each = metrics.precision_recall_fscore_support(
        labels, classes, labels=range(10), zero_division=np.nan
    )
    told = page.tables["scores"][1:]
    expected = [
        [str(k), *(form(column[k]) for column in each[:3]), str(each[3][k])] for k in range(10)
    ]
    assert told[:10] == expected
    macro = metrics.precision_recall_fscore_support(
        labels, classes, labels=range(10), average="macro", zero_division=np.nan
    )
    assert told[10] == ["mean", *map(form, macro[:3]), "37"]
    accuracy = metrics.accuracy_score(labels, classes)
    assert page.texts["accuracy"] == f"{100 * accuracy:.2f}\N{NO-BREAK SPACE}%"
    assert page.texts["right"] == f"{(labels == classes).sum()} of 37"
    matrix = metrics.confusion_matrix(labels, classes, labels=range(10))
    for label, predicted, count in page.tables["confusions"][1:]:
        assert matrix[int(label), int(predicted)] == int(count) > 0
        assert label != predicted
    wrong = np.sort(probabilities.max(-1)[labels != classes])[::-1][:24]
    shown = re.findall(r"\d → \d\s+([\d.]+)\s%", page.text)
    assert shown == [f"{100 * value:.2f}" for value in wrong]
    assert rows(resumed)[-1]["accuracy"] == pytest.approx(np.mean(labels == classes))
    confident = f"{100 * probabilities.max(-1).mean():.2f}\N{NO-BREAK SPACE}%"
    assert f"gives its answers {confident}, and {100 * accuracy:.2f}" in page.text


def test_the_page_says_nothing_of_the_folders_of_this_machine(resumed: Path) -> None:
    page = (resumed / "report/index.html").read_text()
    assert str(resumed.parent) not in page
    assert not re.search(r"[ >&;'=](/[\w.-]+){2,}", re.sub(r"data:[^\"]*", "", page))


def test_the_page_needs_nothing_but_itself(resumed: Path) -> None:
    page = Page(resumed / "report/index.html")
    embedded = [source for source in page.sources if not source.startswith("#")]
    embedded.remove("predictions.npz")  # a link for the reader
    prefix = "data:image/png;base64,"
    assert all(source.startswith(prefix) for source in embedded)
    pictures = {base64.b64decode(source.removeprefix(prefix)) for source in embedded}
    files = {path.read_bytes() for path in (resumed / "report").glob("*.png")}
    assert pictures == files
    assert len(page.images) > 20
    assert all(image["alt"] for image in page.images)
    html = (resumed / "report/index.html").read_text()
    assert "url(" not in html
    assert "<script" not in html
    anchors = [source[1:] for source in page.sources if source.startswith("#")]
    assert len(anchors) == 7
    assert all(f'<section id="{anchor}">' in html for anchor in anchors)


@pytest.mark.slow
@pytest.mark.promise
def test_the_curves_are_whole_after_two_resumes(resumed: Path, tmp_path: Path) -> None:
    config = json.loads((resumed / "config.json").read_text())["config"]
    straight = get_config()
    straight.data.data_dir = config["data"]["data_dir"]
    straight.augment.order = ("random_rotation", "random_shift")
    straight.data.extended = True
    straight.batch_size = 60
    train(straight, tmp_path)
    cut, whole = read_history(resumed), read_history(tmp_path)
    for field in ("loss", "accuracy", "learning_rate"):
        assert points(cut.train, field) == points(whole.train, field)
    assert points(cut.train, "loss")[0] == [1, 10, 20, 30, 40]
    assert points(cut.eval, "loss") == points(whole.eval, "loss")
    assert points(cut.eval, "loss")[0] == [16, 32, 40]
    assert (cut.resumes, whole.resumes) == ([8, 24], [])
    page = Page(resumed / "report/index.html")
    assert "resumed at step 8, 24." in page.text
    events = [row[:2] for row in page.tables["events"][1:]]
    assert ["8", "resumed"] in events
    assert ["40", "finished"] in events


def test_layers_samples_and_conditions(resumed: Path) -> None:
    page = Page(resumed / "report/index.html")
    written = json.loads((resumed / "config.json").read_text())
    assert "conv: 4 filters of 3×3 pixels." in page.text
    assert "conv: 4 maps of 8×8" in page.text
    assert "norm: 4 maps of 8×8" in page.text
    assert "do not give one map for each image: logits" in page.text
    assert "five draws of random_rotation, random_shift" in page.text
    assert "the other parts of the extended set" in page.text
    conditions = dict(page.tables["conditions"])
    assert conditions["pictures of one's own"].startswith("scaled to 8×8 pixels in grey")
    assert conditions["fingerprint of the data (SHA-256)"] == written["dataset"]["fingerprint"]
    assert conditions["jax"] == written["environment"]["jax"]
    assert conditions["checkpoint"].endswith("/40")
    config = dict(page.tables["config"])
    assert config["batch_size"] == "60"
    assert config["augment.order"] == "['random_rotation', 'random_shift']"
    from PIL import Image

    # Five images, five parts, five draws: tiles of 56 pixels and gaps of 4.
    with Image.open(resumed / "report/sample-3.png") as sample:
        assert sample.size == (296, 176)


@pytest.mark.slow
@pytest.mark.promise
@pytest.mark.parametrize("at", ["no evaluation", "no row"])
def test_a_run_that_has_just_begun(tiny_config, tmp_path: Path, at: str) -> None:
    begun = (tmp_path / "checkpoints/latest/4").exists if at == "no evaluation" else lambda: True
    train(tiny_config, tmp_path, should_stop=begun)
    page = write_and_read(tmp_path)
    if at == "no evaluation":
        assert "It has not been evaluated yet." in page.text
        assert (tmp_path / "report/loss-dark.png").exists()
    else:
        assert "holds no rows of training yet" in page.text
        assert not (tmp_path / "report/loss.png").exists()
    assert len(page.tables["scores"]) == 12


@pytest.mark.slow
@pytest.mark.promise
def test_a_network_without_convolution_and_names_that_are_markup(
    tiny_config, tmp_path: Path
) -> None:
    tiny_config.model = {"name": "tiny:DeadNet"}
    tiny_config.num_steps = 1
    train(tiny_config, tmp_path)
    restored = restore(tmp_path, "latest", {})
    names = ("<b>0</b>", "$1$", *restored.class_names[2:])
    dataset = dataclasses.replace(load_data(restored, print), class_names=names)
    restored = dataclasses.replace(restored, class_names=names)
    path = write_report(tmp_path, restored, dataset)
    page = Page(path)
    assert [row[0] for row in page.tables["scores"][1:3]] == ["<b>0</b>", "$1$"]
    assert "<b>" not in path.read_text()
    assert "there are no filters to show" in page.text
    assert "do not give one map for each image: Dense_0" in page.text
    assert not (tmp_path / "report/filters.png").exists()


@pytest.mark.slow
@pytest.mark.promise
def test_an_earlier_report_is_replaced_and_a_damaged_row_leaves_it(
    resumed: Path, tmp_path: Path
) -> None:
    workdir = tmp_path / "run"
    shutil.copytree(resumed, workdir)
    (workdir / "report/mistake-99.png").write_bytes(b"of an earlier report")
    (workdir / "report/mine.png").write_bytes(b"the user's own")
    before = write_and_read(workdir).text
    assert not (workdir / "report/mistake-99.png").exists()
    assert (workdir / "report/mine.png").exists()
    metrics_file = workdir / "metrics.jsonl"
    lines = metrics_file.read_text().replace('"learning_rate": 0.0', '"rate": 0.0', 1)
    metrics_file.write_text(lines)
    with pytest.raises(UserError, match="a row of step 1 has no learning_rate"):
        write_and_read(workdir)
    assert Page(workdir / "report/index.html").text == before


@pytest.mark.slow
@pytest.mark.promise
def test_other_runs_on_the_same_images_and_on_others(
    resumed: Path, tiny_config, launch: Launch, tmp_path: Path
) -> None:
    tiny_config.num_steps = 4
    train(tiny_config, tmp_path / "short")
    workdir = tmp_path / "run"
    shutil.copytree(resumed, workdir)
    compared = f"--compare={tmp_path / 'short'},{resumed}"
    done = launch(f"--workdir={workdir}", "--mode=report", compared)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(workdir / "report/index.html")
    ours, short, same = Page(workdir / "report/index.html").tables["compared"][1:]
    assert short[:3] == [
        str(tmp_path / "short"),
        "4",
        f"{rows(tmp_path / 'short')[-1]['accuracy']:.4f}",
    ]
    difference = (int(short[3]) - int(short[4])) / 37
    assert float(ours[2]) - float(short[2]) == pytest.approx(difference, abs=2e-4)
    assert same[2:] == [ours[2], "0", "0", "1"]

    tiny_config.data.eval_split = "test[:30]"
    train(tiny_config, tmp_path / "others")
    restored = restore(tmp_path / "others", "latest", {})
    other = (tmp_path / "others", restored, load_data(restored, print).eval)
    with pytest.raises(
        UserError, match=r"The run \S+others to compare with: .* other images .*; 30 images\)"
    ):
        write_and_read(workdir, others=[other])
    assert len(Page(workdir / "report/index.html").tables["compared"]) == 4  # the earlier report


def test_the_page_is_shipped_with_the_package() -> None:
    import tomllib

    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"][
        "package-data"
    ]
    templates = {path.name for path in (ROOT / "mnist_flax/report").glob("*.html")}
    assert templates <= set(data["mnist_flax.report"])

"""The page of a task that predicts no classes, and of classes that no known module predicts."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_degrees
from conftest import rows
from report_page import Page, write_and_read
from tiny import get_config

from mnist_flax.core.task import Metric
from mnist_flax.errors import UsageError, UserError
from mnist_flax.report import metrics, plots, write_report
from mnist_flax.training import train
from mnist_flax.use.evaluation import evaluate_restored
from mnist_flax.use.prediction import is_classification
from mnist_flax.use.restore import restore
from mnist_flax.use.run_data import load_data

Launch = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def turned(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a run that learns degrees, and its report."""
    config = tiny_degrees.get_config()
    config.data.data_dir = str(digits)
    config.augment.order = ("random_shift",)
    workdir = tmp_path_factory.mktemp("degrees") / "turned"
    train(config, workdir)
    write_and_read(workdir)
    return workdir


@pytest.fixture(scope="module")
def classified(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a run that learns classes."""
    config = get_config()
    config.data.data_dir = str(digits)
    config.num_steps = 4
    workdir = tmp_path_factory.mktemp("classes") / "classified"
    train(config, workdir)
    return workdir


def test_the_metrics_of_a_task_stand_at_the_top_the_best_one_first(turned: Path) -> None:
    restored = restore(turned, "latest", {})
    means = evaluate_restored(restored, load_data(restored, print).eval).means
    with np.load(turned / "report/predictions.npz") as saved:
        degrees, labels = saved["degrees"], saved["labels"]
        assert sorted(saved) == ["degrees", "labels"]
    assert means["squared_error"] == pytest.approx(np.mean((degrees / 360 - labels / 10) ** 2))
    page = Page(turned / "report/index.html")
    assert list(page.texts)[:3] == ["within-45", "squared-error", "spread"]
    assert page.texts["within-45"] == f"{means['within_45']:.3f}"
    assert page.texts["squared-error"] == f"{means['squared_error']:.5f}"
    assert page.texts["spread"] == f"{means['spread']:.2f}"
    assert f"turned: {means['within_45']:.3f}" in page.text  # the title
    assert rows(turned)[-1]["spread"] == pytest.approx(means["spread"])


def test_metrics_and_rates_of_a_task_have_curves(
    turned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = {}

    def curves(lines, ylabel, *, resumes, yscale):  # type: ignore[no-untyped-def]
        drawn[ylabel] = {split: steps for split, (steps, _) in lines.items()}, yscale
        return made(lines, ylabel, resumes=resumes, yscale=yscale)

    made = plots.curves
    monkeypatch.setattr(plots, "curves", curves)
    shutil.copytree(turned, tmp_path / "run")
    page = write_and_read(tmp_path / "run")
    at = {"train": [1, 10, 20], "eval": [16, 20]}
    assert list(drawn) == [
        *("squared error", "spread", "within 45", "learning rate", "step share"),
        "steps per second",
    ]
    assert drawn["squared error"][0] == at
    assert drawn["spread"][0] == {"eval": at["eval"]}  # training does not sum it
    assert drawn["within 45"] == (at, "linear")
    assert drawn["step share"] == ({"train": at["train"]}, "linear")
    alts = [image["alt"] for image in page.images]
    alt = next(alt for alt in alts if alt.startswith("Squared error over the steps of the run: "))
    assert re.search(r"train from [\d.]+ at step 1 to [\d.]+ at step 20; eval from", alt)
    assert (tmp_path / "run/report/step-share-dark.png").exists()
    assert "The step share is that of a point's last update." in page.text
    assert "stretched" not in page.text


def test_nothing_of_classes_is_left_and_everything_else_is_there(turned: Path) -> None:
    page = Page(turned / "report/index.html")
    html = (turned / "report/index.html").read_text()
    assert not {"right", "macro-f1", "ece"} & set(page.texts)
    assert set(page.tables) == {"conditions", "events", "config"}
    anchors = [source[1:] for source in page.sources if source.startswith("#")]
    assert anchors == ["curves", "layers", "data", "run"]
    assert html.count("<section") == 4
    assert all(f'<section id="{anchor}">' in html for anchor in anchors)
    for word in ("class ", "classes", "onfusion", "alibration", "istake", "accuracy"):
        assert word not in page.text.partition("Curves")[2].partition("What happened")[0], word
    names = {path.stem.removesuffix("-dark") for path in (turned / "report").glob("*.png")}
    assert names == {
        *("squared-error", "spread", "within-45", "learning-rate", "step-share", "speed"),
        *("filters", "features-01", "features-02", "features-03", "sample-0"),
    }
    assert "conv: 4 filters of 3×3 pixels." in page.text
    assert "conv: 4 maps of 8×8" in page.text
    assert "The first 10 training images, as they are; in the last row five draws of" in page.text
    assert "the images to evaluate and what the network says of them: degrees." in page.text
    assert dict(page.tables["config"])["task.name"] == "tiny_degrees:degrees"
    assert ["20", "finished"] in [row[:2] for row in page.tables["events"][1:]]
    from PIL import Image

    # Ten images and five draws: tiles of 56 pixels and gaps of 4.
    with Image.open(turned / "report/sample-0.png") as sample:
        assert sample.size == (296, 176)


def test_a_rate_of_a_tasks_own_is_that_of_the_update_just_made(turned: Path) -> None:
    told = [row for row in rows(turned) if row["split"] == "train"]
    assert len(told) > 1
    assert [row["step_share"] for row in told] == [(row["step"] - 1) / 20 for row in told]


@pytest.mark.parametrize(
    ("split", "field"),
    [("train", "squared_error"), ("train", "step_share"), ("eval", "spread")],
)
def test_a_row_that_lacks_what_the_task_measures(
    turned: Path, tmp_path: Path, split: str, field: str
) -> None:
    shutil.copytree(turned, tmp_path / "run")
    file = tmp_path / "run/metrics.jsonl"
    told = [json.loads(line) for line in file.read_text().splitlines()]
    last = [row for row in told if row.get("split") == split][-1]
    del last[field]
    file.write_text("".join(json.dumps(row) + "\n" for row in told))
    with pytest.raises(UserError, match=rf"metrics\.jsonl: a row of step 20 has no {field}\. Mend"):
        write_and_read(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.promise
def test_a_comparison_needs_classes_on_both_sides(
    turned: Path, classified: Path, launch: Launch
) -> None:
    assert is_classification(restore(classified, "latest", {}))
    assert not is_classification(restore(turned, "latest", {}))
    before = (turned / "report/index.html").read_bytes()
    done = launch(f"--workdir={turned}", "--mode=report", f"--compare={classified}")
    assert done.returncode == 2
    told = "tells on which images two runs name the right class; the task 'tiny_degrees:degrees' "
    told += "predicts no classes. Leave it out."
    assert (
        done.stderr.splitlines()[-1] == f"Error: The run {classified} to compare with: this {told}"
    )
    assert (turned / "report/index.html").read_bytes() == before
    other = restore(turned, "latest", {})
    others = [(turned, other, load_data(other, print).eval)]
    with pytest.raises(UsageError) as error:
        write_and_read(classified, others=others)
    assert str(error.value) == f"The run {turned} to compare with: this {told}"


@pytest.mark.slow
@pytest.mark.promise
def test_classes_without_a_module_and_with_metrics_of_their_own(
    classified: Path, tmp_path: Path
) -> None:
    shutil.copytree(classified, tmp_path / "run")
    restored = restore(tmp_path / "run", "latest", {})
    task = restored.task._replace(model=None, metrics={"loss": Metric(".1f")}, best="", rates={})
    path = write_report(tmp_path / "run", replace(restored, task=task), load_data(restored, print))
    page = Page(path)
    assert "accuracy" not in page.texts
    assert page.texts["loss"] == f"{rows(tmp_path / 'run')[-1]['loss']:.1f}"
    assert "<title>run</title>" in path.read_text()
    assert len(page.tables["scores"]) == 12
    assert "Most confident mistakes" in page.text
    assert "saliency" not in path.read_text()
    assert 'id="layers"' not in path.read_text()
    assert not (tmp_path / "run/report/filters.png").exists()


def test_the_axis_of_a_metric_is_chosen_by_its_values() -> None:
    less, more = Metric(), Metric(larger_is_better=True)
    assert metrics.scale("accuracy", more, [0.0, 0.5, 1.0]) == "accuracy"
    assert metrics.scale("accuracy", more, [12.0, 97.0]) == "linear"  # per cent
    assert metrics.scale("loss", less, [2.3, 2.2, 0.0]) == "log"
    assert metrics.scale("loss", less, [2.3, -0.1]) == "linear"
    assert metrics.scale("squared_error", less, [1.0, 0.5]) == "linear"
    assert metrics.scale("squared_error", less, [1.0, 0.1]) == "log"
    assert metrics.scale("psnr", more, [1.0, 30.0]) == "linear"
    assert metrics.scale("gap", less, [0.0, 0.0]) == "linear"


def test_an_axis_begins_at_zero_unless_there_is_less() -> None:
    for values, least in (([3.0, 2.0], 0), ([-3.0, 2.0], -3)):
        axes = plots.curves({"train": ([1, 2], values)}, "elbo").axes[0]
        low = axes.get_ylim()[0]
        assert low < least if least else low == 0


def test_evaluations_alone_have_their_colour_and_say_so() -> None:
    figure = plots.curves({"eval": ([1, 2], [3.0, 2.0])}, "spread")
    (line,) = figure.axes[0].lines
    assert line.get_color() == "C1"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["eval"]


def test_names_that_the_page_has_itself() -> None:
    places = [
        metrics.place(name) for name in ("squared_error", "a/b c", "filters", "%", "точность")
    ]
    assert places == ["squared-error", "a-b-c", "metric-filters", "metric-", "точность"]

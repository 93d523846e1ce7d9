"""A run's report: write_report() makes workdir/report/index.html, which needs nothing but itself.

Each part of the page has its module:

    metrics.py     what the task measures: names, numbers, axes
    history.py     rows -> what curves and events show; figures.py draws the curves
    pictures.py    images -> pictures of samples, filters, feature maps
    about.py       warnings, conditions, config; repeat.py has the command that repeats the run
    classes.py     what there is only where classes are predicted:
    scores.py        saved predictions -> figures, by scikit-learn and SciPy
    mistakes.py      the most confident ones, as pictures
    saliency.py      pure JAX: the pixels that an answer hangs on
    comparison.py    this run next to others
    plots.py       arrays -> matplotlib figures
    pixels.py      images and values -> pixels, many in one picture
    page.py        all of it -> page.html, filled in; parts.html is what pages share

Many runs of a recipe have a page of their own, which write_sweep() of sweep_page.py makes:

    sweep_statistics.py  numbers by seed -> intervals and tests, by SciPy
    sweep_table.py       runs -> points, the best one first
    sweep_plots.py       points and curves -> figures
    sweep_page.py        all of it -> sweep.md, sweep.json, sweep.png, and sweep.html, filled in
"""

import itertools
from collections.abc import Iterable
from pathlib import Path

from mnist_flax.data.augment import check_augment
from mnist_flax.data.dataset import Dataset, Split
from mnist_flax.errors import UserError
from mnist_flax.report import metrics, pictures
from mnist_flax.report.about import about
from mnist_flax.report.classes import Classes, look_at_classes
from mnist_flax.report.comparison import compare, refuse_without_classes
from mnist_flax.report.drawn import drawn_pictures
from mnist_flax.report.figures import curves
from mnist_flax.report.history import read_history
from mnist_flax.report.page import Picture, render
from mnist_flax.report.repeat import Recipe
from mnist_flax.report.scores import read_predictions
from mnist_flax.use.evaluation import evaluate_restored, find_measure
from mnist_flax.use.prediction import is_classification, predict_split
from mnist_flax.use.restore import Restored
from mnist_flax.workdir.files import write_atomic

PREDICTIONS = "predictions.npz"
Other = tuple[Path, Restored, Split]


def write_report(
    workdir: Path,
    restored: Restored,
    dataset: Dataset,
    *,
    others: Iterable[Other] = (),
    recipe: Recipe | None = None,
) -> Path:
    """Writes workdir/report/: index.html, its pictures as files, and predictions.npz.

    Args:
      workdir: the run's.
      restored: its network.
      dataset: evaluated is its `eval`; samples are of its `train`.
      others: workdirs to compare with, each with its network and the split that it is evaluated
        on. Taken one at a time.
      recipe: what --config named, for the command that repeats the run.

    Returns:
      The path of index.html.

    Raises:
      UserError: metrics.jsonl is damaged, another run was evaluated on other images, there is one
        and a network predicts no classes, or the folder cannot be written. An index.html that was
        there stays as it was.
    """
    check_augment(restored.config.augment, restored.image_shape)
    measure = find_measure(restored.task, restored.config, dataset, dataset.eval.images)
    evaluation = evaluate_restored(restored, dataset.eval, measure)
    columns = metrics.columns(restored, evaluation)
    history = read_history(workdir, columns, restored.task.measured)
    folder = _folder(workdir)
    outputs = predict_split(restored, dataset.eval, folder / PREDICTIONS)
    classes = _classes(restored, dataset.eval, folder / PREDICTIONS, others)
    shown = curves(history, restored, columns)
    layers, drawn = pictures.layers(restored, dataset.eval), drawn_pictures(workdir, restored)
    samples, samples_text = pictures.samples(restored, dataset.train, by_class=classes is not None)
    described = about(workdir, restored, dataset, history, recipe)
    described["notes"] += [
        f"{other.workdir}: {line}"
        for other in (classes.compared if classes else ())
        for line in other.known.told()
    ]
    page = render(
        "page.html",
        **described,
        images=len(dataset.eval.labels),
        metrics=metrics.values(restored.task, evaluation.means),
        has_best=restored.task.best in columns["eval"],
        outputs=list(outputs),
        class_names=restored.class_names,
        curves=shown,
        classes=classes,
        layers=layers,
        drawn=drawn,
        samples=samples,
        samples_text=samples_text,
    )
    made = [*shown.pictures, *(picture for _, picture in (*samples, *drawn))]
    parts = (part.pictures() for part in (classes, layers) if part is not None)
    _write(folder, page, [*made, *itertools.chain(*parts)])
    return folder / "index.html"


def _classes(
    restored: Restored, split: Split, saved: Path, others: Iterable[Other]
) -> Classes | None:
    """Returns what there is to show of classes, from the saved predictions; None of other tasks."""
    if not is_classification(restored):
        for workdir, *_ in others:
            refuse_without_classes(workdir, restored)
        return None
    predictions = read_predictions(saved)
    compared = [compare(predictions.right, split, *other) for other in others]
    return look_at_classes(restored, split, predictions, compared)


def _folder(workdir: Path) -> Path:
    folder = workdir / "report"
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written ({error.strerror}). Make it a folder of yours."
        ) from error
    return folder


def _write(folder: Path, page: str, made: list[Picture]) -> None:
    """Writes the pictures, then the page; removes what an earlier report had more of."""
    files = {name: png for picture in made for name, png in picture.files().items()}
    for name, png in files.items():
        write_atomic(folder / name, png)
    write_atomic(folder / "index.html", page)
    for family in ("mistake-*.png", "sample-*.png", "features-*.png", "drawn-*", "filters.png"):
        for path in folder.glob(family):
            if path.name not in files:
                path.unlink()

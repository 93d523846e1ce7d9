"""A run's report: write_report() makes workdir/report/index.html, which needs nothing but itself.

Each part of the page has its module:

    history.py     rows -> curves and events
    scores.py      saved predictions -> figures, by scikit-learn and SciPy
    comparison.py  this run beside others
    saliency.py    pure JAX: the pixels that an answer hangs on
    plots.py       arrays -> matplotlib figures
    pictures.py    images -> pictures of mistakes, samples, filters, feature maps
    about.py       warnings, conditions, config; repeat.py has the command that repeats the run
    page.py        all of it -> page.html, filled in
"""

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mnist_flax.data.augment import check_augment
from mnist_flax.data.dataset import Dataset, Split
from mnist_flax.errors import UserError
from mnist_flax.models import summary
from mnist_flax.report import pictures, plots
from mnist_flax.report.about import about
from mnist_flax.report.comparison import compare
from mnist_flax.report.history import History, points, read_history
from mnist_flax.report.page import Picture, render
from mnist_flax.report.repeat import Recipe
from mnist_flax.report.scores import Predictions, read_predictions, score
from mnist_flax.use.calibration import calibration
from mnist_flax.use.prediction import predict_split
from mnist_flax.use.restore import Restored
from mnist_flax.workdir.files import write_atomic

PREDICTIONS = "predictions.npz"
_CONFUSIONS = 8  # that are listed


def write_report(
    workdir: Path,
    restored: Restored,
    dataset: Dataset,
    *,
    others: Iterable[tuple[Path, Restored, Split]] = (),
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
      UserError: metrics.jsonl is damaged, another run was evaluated on other images, or the folder
        cannot be written. An index.html that was there stays as it was.
    """
    history = read_history(workdir)
    check_augment(restored.config.augment, restored.image_shape)
    folder = _folder(workdir)
    predict_split(restored, dataset.eval, folder / PREDICTIONS)
    predictions = read_predictions(folder / PREDICTIONS)
    right = predictions.classes == predictions.labels
    compared = [compare(right, dataset.eval, *other) for other in others]
    figures = _figures(predictions, history, restored.class_names)
    mistakes = pictures.mistakes(restored, dataset.eval, predictions)
    filters = pictures.filters(restored)
    features, feature_notes = pictures.features(restored, dataset.eval)
    samples, samples_text = pictures.samples(restored, dataset.train)
    page = render(
        **about(workdir, restored, dataset, history, recipe),
        **figures,
        right=int(right.sum()),
        images=len(right),
        class_names=restored.class_names,
        compared=compared,
        mistakes=mistakes,
        filters=filters,
        features=features,
        feature_notes=feature_notes,
        samples=samples,
        samples_text=samples_text,
        summary=summary(restored.model, restored.image_shape),
    )
    shown = [*figures["curves"], figures["confusion"], figures["reliability"]]
    shown += [mistake.picture for mistake in mistakes]
    shown += [picture for _, picture in (filters, *features, *samples) if picture is not None]
    _write(folder, page, shown)
    return folder / "index.html"


def _folder(workdir: Path) -> Path:
    folder = workdir / "report"
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written ({error.strerror}). Make it a folder of yours."
        ) from error
    return folder


def _figures(predictions: Predictions, history: History, names: tuple[str, ...]) -> dict[str, Any]:
    """Returns the figures that are computed from the predictions and rows, drawn and as numbers."""
    scores = score(predictions)
    measured = calibration(predictions.probabilities, predictions.labels)
    return {
        "scores": scores,
        "calibration": measured,
        "confusions": _confusions(scores.confusion, names),
        "curves": _curves(history),
        "confusion": _drawn(
            "confusion",
            lambda: plots.confusion(scores.confusion, names),
            "Confusion matrix: how many images of each label were taken for each class",
        ),
        "reliability": _drawn(
            "reliability",
            lambda: plots.reliability(measured),
            "Reliability diagram: the share of right predictions over their confidence",
        ),
    }


def _confusions(matrix: np.ndarray, names: tuple[str, ...]) -> list[tuple[str, str, int]]:
    """Returns label, predicted class and count of the most frequent confusions."""
    wrong = matrix * (1 - np.eye(len(matrix), dtype=int))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_CONFUSIONS]
    pairs = np.transpose(np.unravel_index(order, wrong.shape))
    return [(names[i], names[j], int(wrong[i, j])) for i, j in pairs if wrong[i, j]]


def _curves(history: History) -> list[Picture]:
    if not history.train:
        return []
    train = {"train": history.train}
    # 0 says that all steps up to a row were an earlier process's.
    timed = {"train": [row for row in history.train if row["steps_per_second"]]}
    both = train | ({"eval": history.eval} if history.eval else {})
    made = []
    for name, field, ylabel, yscale, split in (
        ("loss", "loss", "loss, nats", "log", both),
        ("accuracy", "accuracy", "accuracy", "accuracy", both),
        ("learning-rate", "learning_rate", "learning rate", "linear", train),
        ("speed", "steps_per_second", "steps per second", "linear", timed),
    ):
        lines = {kind: points(rows, field) for kind, rows in split.items()}
        draw = functools.partial(
            plots.curves, lines, ylabel, resumes=history.resumes, yscale=yscale
        )
        made.append(_drawn(name, draw, f"{ylabel.capitalize()} over the steps of the run"))
    return made


def _drawn(name: str, draw: Callable[[], plots.Figure], alt: str) -> Picture:
    """Draws a figure for a light and for a dark page."""
    drawn = {}
    for theme in ("light", "dark"):
        with plots.theme(theme):
            drawn[theme] = plots.png(draw())
    return Picture(name, drawn["light"], alt, drawn["dark"])


def _write(folder: Path, page: str, shown: list[Picture]) -> None:
    """Writes the pictures, then the page; removes what an earlier report had more of."""
    files = {name: png for picture in shown for name, png in picture.files().items()}
    for name, png in files.items():
        write_atomic(folder / name, png)
    write_atomic(folder / "index.html", page)
    for family in ("mistake-*.png", "sample-*.png", "features-*.png", "filters.png"):
        for path in folder.glob(family):
            if path.name not in files:
                path.unlink()

"""What a report computes, with values that can be checked by hand."""

from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import pytest
from flax import linen as nn
from ml_collections import ConfigDict

from mnist_flax.config import default_config
from mnist_flax.data.dataset import Split
from mnist_flax.report import plots
from mnist_flax.report.mistakes import mistakes
from mnist_flax.report.repeat import Recipe, repeat_command
from mnist_flax.report.saliency import saliency
from mnist_flax.report.scores import McNemar, Predictions, mcnemar, score
from mnist_flax.use.calibration import calibration


def test_calibration_by_hand() -> None:
    """Two bins: 0.4 (wrong) and 0.5 (right) lie in the first, 0.8 (right) and 1.0 (wrong) above."""
    probabilities = np.array(
        [[0.4, 0.3, 0.3], [0.5, 0.25, 0.25], [0.8, 0.1, 0.1], [1, 0, 0]], np.float32
    )
    measured = calibration(probabilities, np.array([1, 0, 0, 2]), bins=2)
    assert measured.counts.tolist() == [2, 2]
    np.testing.assert_allclose(measured.confidence, [0.45, 0.9], rtol=1e-6)
    np.testing.assert_allclose(measured.accuracy, [0.5, 0.5])
    assert measured.error == pytest.approx(0.5 * 0.05 + 0.5 * 0.4)


def test_a_users_own_matplotlibrc_is_for_figures_of_theirs() -> None:
    with mpl.rc_context({"text.usetex": True, "axes.facecolor": "red"}), plots.theme("light"):
        assert mpl.rcParams["text.usetex"] is False
        assert mpl.rcParams["axes.facecolor"] == mpl.rcParamsDefault["axes.facecolor"]
        assert mpl.rcParams["figure.facecolor"] == "#ffffff"  # the theme's own


def test_the_bars_are_of_accuracy_at_the_confidence_that_the_dots_mark() -> None:
    probabilities = np.array(
        [[0.4, 0.3, 0.3], [0.3, 0.35, 0.35], [0.8, 0.1, 0.1], [1, 0, 0]], np.float32
    )
    measured = calibration(probabilities, np.array([1, 0, 0, 0]), bins=2)
    with plots.theme("light"):
        upper, lower = plots.reliability(measured).axes
    assert [bar.get_height() for bar in upper.patches] == [0, 1]
    assert [bar.get_x() for bar in upper.patches] == [0, 0.5]
    np.testing.assert_allclose(upper.lines[1].get_xdata(), [0.375, 0.9], rtol=1e-6)
    np.testing.assert_allclose(upper.lines[1].get_ydata(), [0, 1])
    assert [bar.get_height() for bar in lower.patches] == [2, 2]


def test_an_empty_bin_counts_nothing() -> None:
    measured = calibration(np.array([[0.0, 1.0], [0.1, 0.9]], np.float32), np.array([1, 1]))
    assert measured.counts.tolist() == [0] * 13 + [1, 1]
    assert np.isnan(measured.accuracy[:13]).all()
    assert measured.error == pytest.approx(0.05)  # half of 0.1


def test_mcnemar_by_hand() -> None:
    """1 against 5 of 6: 2 · (1 + 6) / 2⁶."""
    first = np.array([True] * 4 + [True] + [False] * 5 + [False] * 3)
    second = np.array([True] * 4 + [False] + [True] * 5 + [False] * 3)
    assert mcnemar(first, second) == McNemar(1, 5, pytest.approx(14 / 64))
    assert mcnemar(first, first) == McNemar(0, 0, 1.0)


def test_a_class_that_is_never_predicted_has_no_precision() -> None:
    labels, classes = np.array([0, 0, 1]), np.array([0, 0, 0])
    scores = score(Predictions(labels, classes, np.zeros((3, 3), np.float32)))
    assert scores.confusion.tolist() == [[2, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert scores.precision[0] == pytest.approx(2 / 3)
    assert np.isnan(scores.precision[1])  # nothing was taken for it
    assert np.isnan(scores.recall[2])  # nothing is of it
    assert scores.macro[1] == pytest.approx((1 + 0) / 2)


class _Linear(nn.Module):
    @nn.compact
    def __call__(self, images: jnp.ndarray, *, train: bool = False) -> jnp.ndarray:
        del train
        return nn.Dense(2, use_bias=False, name="logits")(images.reshape(len(images), -1))


def test_the_saliency_of_a_linear_network_is_its_weights() -> None:
    weights = jnp.array([[1.0, -2.0], [3.0, 4.0], [-5.0, 0.0], [0.5, 6.0]])  # 2 pixels, 2 channels
    variables = {"params": {"logits": {"kernel": weights}}, "batch_stats": {}}
    images = np.array([[[[0, 255], [9, 1]]], [[[7, 7], [7, 7]]]], np.uint8)
    maps = saliency(_Linear(), variables, images, jnp.array([0, 1]))
    np.testing.assert_allclose(maps, [[[3, 5]], [[4, 6]]])  # the larger of a pixel's two channels


def test_a_mistake_is_named_and_explained_by_what_was_predicted(monkeypatch) -> None:
    """Three images: the first is right, the last is the more confident mistake of two."""
    weights = jnp.array([[1.0, -2.0], [3.0, 4.0], [-5.0, 0.0], [0.5, 6.0]])
    task = SimpleNamespace(model=_Linear())
    restored = SimpleNamespace(
        task=task,
        model=task.model,
        variables={"params": {"logits": {"kernel": weights}}, "batch_stats": {}},
        image_shape=(1, 2, 2),
        class_names=("cat", "dog"),
        compiler_options={},
    )
    predictions = Predictions(
        probabilities=np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]], np.float32),
        classes=np.array([0, 0, 1]),
        labels=np.array([0, 1, 0]),
    )
    split = Split(np.zeros((3, 1, 2, 2), np.uint8), predictions.labels)
    drawn: list[np.ndarray] = []
    monkeypatch.setattr(plots, "photo", lambda image: np.zeros((2, 2, 4), np.uint8))
    monkeypatch.setattr(
        plots, "heat", lambda values: drawn.append(values) or np.zeros((2, 2, 4), np.uint8)
    )
    found = [(m.index, m.label, m.predicted) for m in mistakes(restored, split, predictions)]
    assert found == [(2, "cat", "dog"), (1, "dog", "cat")]
    np.testing.assert_allclose(drawn, [[[4, 6]], [[3, 5]]])  # of a dog's logit, of a cat's


def test_the_matrix_shows_its_numbers_and_names_that_are_no_formulas() -> None:
    matrix = np.array([[3, 0], [1200, 7]])
    with plots.theme("dark"):
        figure = plots.confusion(matrix, (r"$\frac$", "小"))
        png = plots.png(figure)
    assert png.startswith(b"\x89PNG")
    axes = figure.axes[0]
    # (column, row): a label has a row, a prediction a column; the number and its cell lie together.
    places = {text.get_text(): text.get_position() for text in axes.texts}
    assert places == {"3": (0, 0), "1,200": (0, 1), "7": (1, 1)}
    strength = np.asarray(axes.images[0].get_array())[..., 3]
    assert strength[1, 0] == 1
    assert strength[0, 1] == 0 < strength[0, 0] < strength[1, 1] < 1
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "label")
    assert [label.get_text() for label in axes.get_xticklabels()] == [r"$\frac$", "1"]


def test_curves_mark_each_resume() -> None:
    lines = {"train": ([1, 10, 20], [2.0, 1.0, 0.5]), "eval": ([20], [0.75])}
    axes = plots.curves(lines, "loss, nats", resumes=[8, 16, 16], yscale="log").axes[0]
    vertical = [line.get_xdata()[0] for line in axes.lines if len(set(line.get_xdata())) == 1]
    assert vertical == [20, 8, 16]  # the one evaluation, and the two steps
    assert axes.lines[0].get_ydata().tolist() == [2.0, 1.0, 0.5]
    assert axes.get_ylabel() == "loss, nats"


def test_the_accuracy_axis_reaches_one_and_takes_every_value() -> None:
    figure = plots.curves({"train": ([1, 2, 3], [0.0, 0.99, 1.0])}, "accuracy", yscale="accuracy")
    plots.png(figure)  # a value without a place on the axis would warn, which is an error here
    transform = figure.axes[0].yaxis.get_transform()
    places = transform.transform(np.array([0.0, 0.9, 0.99, 1.0]))
    assert np.isfinite(places).all()
    assert (np.diff(places) > 0).all()
    np.testing.assert_allclose(transform.inverted().transform(places), [0, 0.9, 0.99, 1], atol=1e-9)


def test_a_mosaic_lays_tiles_in_rows_and_scales_them() -> None:
    tiles = [np.full((1, 1, 4), value, np.uint8) for value in (10, 20, 30)]
    sheet = plots.mosaic(tiles, columns=2, side=3)
    assert sheet.shape == (10, 10, 4)  # two of 3 and a gap of 4
    assert (sheet[:3, :3] == 10).all()
    assert (sheet[:3, 7:] == 20).all()
    assert (sheet[7:, :3] == 30).all()
    assert (sheet[3:7] == 0).all()


def test_the_command_has_a_flag_for_each_field_that_differs() -> None:
    config = default_config()
    config.num_steps = 7
    config.augment.order = ("random_shift",)
    recipe = default_config()
    recipe.num_epochs = 3
    recipe.clip_by_global_norm = 1.0
    command, beyond = repeat_command(
        Recipe("a.py:b", recipe, "mnist-flax"), config.to_dict(), Path("runs/x")
    )
    assert command.split(" \\\n    ") == [
        "mnist-flax",
        "--config=a.py:b",
        "--workdir=runs/x-again",
        """'--config.augment.order=('"'"'random_shift'"'"',)'""",
        "--config.num_steps=7",
    ]
    assert beyond == ["clip_by_global_norm"]  # no flag says None


def test_the_command_leaves_out_what_belongs_to_another_model() -> None:
    recipe = default_config()
    recipe.num_steps = 1
    recipe.model = ConfigDict({"name": "tutorial", "dropout_rate": 0.4})
    config = recipe.copy_and_resolve_references()
    config.model = ConfigDict({"name": "mine:Net"})
    command, beyond = repeat_command(
        Recipe("a.py", recipe, "mnist-flax"), config.to_dict(), Path("x")
    )
    assert command.endswith("--config.model.name=mine:Net")
    assert beyond == []
    config.model = ConfigDict({"name": "mine:Net", "width": 3})
    command, beyond = repeat_command(
        Recipe("a.py", recipe, "mnist-flax"), config.to_dict(), Path("x")
    )
    assert command.endswith("--config.model.width=3")
    assert beyond == []

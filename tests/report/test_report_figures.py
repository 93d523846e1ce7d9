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
from mnist_flax.report import pixels, plots
from mnist_flax.report.classes import tell_confidence
from mnist_flax.report.mistakes import mistakes
from mnist_flax.report.repeat import Recipe, repeat_command
from mnist_flax.report.saliency import saliency
from mnist_flax.report.scores import McNemar, Predictions, mcnemar, score
from mnist_flax.use.calibration import Calibration, calibration


def test_calibration_by_hand() -> None:
    """Two bins: 0.4 (wrong) and 0.5 (right) in one, 0.8, 0.9 (right) and 1.0 (wrong) above."""
    probabilities = np.array(
        [[0.4, 0.3, 0.3], [0.5, 0.25, 0.25], [0.8, 0.1, 0.1], [0.9, 0.1, 0], [1, 0, 0]], np.float32
    )
    measured = calibration(probabilities, np.array([1, 0, 0, 0, 2]), bins=2)
    assert measured.counts.tolist() == [2, 3]
    np.testing.assert_allclose(measured.confidence, [0.45, 0.9], rtol=1e-6)
    np.testing.assert_allclose(measured.accuracy, [1 / 2, 2 / 3])
    assert measured.error == pytest.approx(2 / 5 * 0.05 + 3 / 5 * (0.9 - 2 / 3))


def test_a_users_own_matplotlibrc_is_for_figures_of_theirs() -> None:
    with mpl.rc_context({"text.usetex": True, "axes.facecolor": "red"}), plots.theme("light"):
        assert mpl.rcParams["text.usetex"] is False
        assert mpl.rcParams["axes.facecolor"] == mpl.rcParamsDefault["axes.facecolor"]
        assert mpl.rcParams["figure.facecolor"] == "#ffffff"  # the theme's own


def test_the_bars_are_of_accuracy_and_the_strokes_of_confidence() -> None:
    probabilities = np.array(
        [[0.4, 0.3, 0.3], [0.3, 0.35, 0.35], [0.8, 0.1, 0.1], [1, 0, 0]], np.float32
    )
    measured = calibration(probabilities, np.array([1, 0, 0, 0]), bins=2)
    with plots.theme("light"):
        figure = plots.reliability(measured)
    upper, lower = figure.axes
    bars, gaps = upper.containers
    assert [bar.get_height() for bar in bars] == [0, 1]
    assert [bar.get_x() for bar in bars] == [0, 0.5]
    (strokes,) = upper.collections
    np.testing.assert_allclose(
        strokes.get_segments(), [[[0, 0.375], [0.5, 0.375]], [[0.5, 0.9], [1, 0.9]]], rtol=1e-6
    )
    # From each bar's end to its stroke: up where it is over-confident, else down.
    np.testing.assert_allclose([gap.get_y() for gap in gaps], [0, 1])
    np.testing.assert_allclose([gap.get_height() for gap in gaps], [0.375, -0.1], rtol=1e-6)
    assert [bar.get_height() for bar in lower.patches] == [2, 2]
    named = {text.get_text().partition(":")[0] for text in figure.legends[0].get_texts()}
    assert named == {"accuracy", "confidence", "the gap between the two"}
    assert tuple(bars[0].get_facecolor()[:3]) != tuple(strokes.get_color()[0][:3])


def _all_at(confidence: float, right: int, count: int) -> Calibration:
    """Of a network that says 0 each time, with one confidence."""
    probabilities = np.tile(np.array([confidence, 1 - confidence], np.float32), (count, 1))
    return calibration(probabilities, np.array([0] * right + [1] * (count - right)))


def test_a_network_is_over_or_under_confident_or_too_close_to_say() -> None:
    """400 answers with 90 %: of a sure 360 chance makes 1.96 · √(400 · 0.9 · 0.1) = 11.76."""
    over, close, also, under = (_all_at(0.9, right, 400) for right in (348, 349, 371, 372))
    assert over.chance == pytest.approx(11.76 / 400)
    said = tell_confidence(over).replace("\N{NO-BREAK SPACE}", " ")
    assert said == (
        "The network is over-confident: on average it gives its answers 90.00 %, and 87.00 % of "
        "them are right. That is 3.00 percentage points too sure; up to 2.94 points of difference "
        "can be chance (95 %)."
    )
    said = tell_confidence(under)
    assert said.startswith("The network is under-confident: ")
    assert "That is 3.00 percentage points not sure enough" in said
    for measured in (close, also):
        said = tell_confidence(measured)
        assert said.startswith(
            "Whether the network is over- or under-confident is too close to say"
        )
        assert said.endswith("these are 2.75.")


def test_few_answers_say_little_and_a_certain_one_that_is_wrong_says_much() -> None:
    assert "too close to say" in tell_confidence(_all_at(0.9, 2, 2))
    assert "too close to say" in tell_confidence(_all_at(1.0, 5, 5))
    assert "is over-confident" in tell_confidence(_all_at(1.0, 4, 5))


def test_a_sign_is_seen_in_the_hue_and_in_the_lightness() -> None:
    negative, zero, positive = pixels.signed(np.array([[-2.0, 0.0, 2.0]]), 2.0)[0, :, :3].astype(
        int
    )
    assert positive[0] > positive[2]  # red
    assert negative[2] > negative[0]  # blue
    assert np.ptp(zero) <= 2
    assert negative.mean() + 40 < zero.mean() < positive.mean() - 40


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
    monkeypatch.setattr(pixels, "photo", lambda image: np.zeros((2, 2, 4), np.uint8))
    monkeypatch.setattr(
        pixels, "heat", lambda values: drawn.append(values) or np.zeros((2, 2, 4), np.uint8)
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
    sheet = pixels.mosaic(tiles, columns=2, side=3)
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

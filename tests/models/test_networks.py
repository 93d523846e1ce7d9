"""The five tutorials' networks, each as its recipe builds it: sizes, numbers, starts, oddities."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import recipe
from flax import linen as nn

from mnist_flax.errors import UsageError
from mnist_flax.models import create_model
from mnist_flax.models.compact import Compact

IMAGES = jax.random.uniform(jax.random.key(1), (2, 28, 28, 1))

# name: (output without the batch, parameters), worked out by hand.
TUTORIAL = {
    "conv1": ((28, 28, 32), 5 * 5 * 1 * 32 + 32),  # 832
    "conv2": ((14, 14, 64), 5 * 5 * 32 * 64 + 64),  # 51,264
    "dense1": ((1024,), 7 * 7 * 64 * 1024 + 1024),  # 3,212,288
    "dropout": ((1024,), 0),
    "logits": ((10,), 1024 * 10 + 10),  # 10,250
}
LENET = {
    "conv1": ((28, 28, 12), 3 * 3 * 1 * 12 + 12),  # 120
    "conv2": ((13, 13, 16), 3 * 3 * 12 * 16 + 16),  # 1,744
    "dropout2": ((6, 6, 16), 0),
    "dense1": ((256,), 6 * 6 * 16 * 256 + 256),  # 147,712
    "dense2": ((100,), 256 * 100 + 100),  # 25,700
    "logits": ((10,), 100 * 10 + 10),  # 1,010
}
LENET_AUGMENTED = LENET | {"norm1": ((13, 13, 12), 2 * 12), "norm2": ((6, 6, 16), 2 * 16)}
RMSPROP = {
    "conv1": ((28, 28, 32), 3 * 3 * 1 * 32),  # 288
    "dropout1": ((14, 14, 32), 0),
    "conv2": ((14, 14, 64), 3 * 3 * 32 * 64),  # 18,432
    "dropout2": ((7, 7, 64), 0),
    "conv3": ((7, 7, 128), 3 * 3 * 64 * 128),  # 73,728
    "dropout3": ((4, 4, 128), 0),
    "dense1": ((625,), 4 * 4 * 128 * 625),  # 1,280,000
    "dropout4": ((625,), 0),
    "logits": ((10,), 625 * 10),  # 6,250
}
COMPACT = {
    "conv1": ((14, 14, 16), 5 * 5 * 16),  # 400
    "norm1": ((14, 14, 16), 2 * 16),
    "conv2": ((14, 14, 32), 3 * 3 * 16 * 32),  # 4,608
    "norm2": ((7, 7, 32), 2 * 32),
    "conv3": ((7, 7, 64), 3 * 3 * 32 * 64),  # 18,432
    "norm3": ((4, 4, 64), 2 * 64),
    "dropout": ((1024,), 0),
    "logits": ((10,), 1024 * 10 + 10),  # 10,250
}
RECIPES = {
    "tutorial": (TUTORIAL, 3_274_634),
    "adam": (TUTORIAL, 3_274_634),
    "lenet": (LENET, 176_286),
    "lenet_augmented": (LENET_AUGMENTED, 176_342),
    "rmsprop": (RMSPROP, 1_378_698),
    "speedrun": (COMPACT, 33_914),
}


def network(name: str, **changes: Any) -> nn.Module:
    config = recipe(name).model
    with config.unlocked():
        config.update(changes)
    return create_model(config, 10)


def start(model: nn.Module) -> Any:
    return jax.jit(model.init)(jax.random.key(0), IMAGES)


@pytest.mark.parametrize("name", RECIPES)
def test_outputs_and_parameters_are_those_worked_out_by_hand(name: str) -> None:
    model, (layers, total) = network(name), RECIPES[name]
    shapes = jax.eval_shape(model.init, jax.random.key(0), IMAGES)
    _, seen = jax.eval_shape(
        lambda variables: model.apply(variables, IMAGES, capture_intermediates=True), shapes
    )
    outputs = {
        layer: tuple(values["__call__"][0].shape[1:])
        for layer, values in seen["intermediates"].items()
        if layer != "__call__"
    }
    assert outputs == {layer: shape for layer, (shape, _) in layers.items()}
    counts = {
        layer: sum(leaf.size for leaf in jax.tree.leaves(params))
        for layer, params in shapes["params"].items()
    }
    assert counts == {layer: count for layer, (_, count) in layers.items() if count}
    assert sum(counts.values()) == total


@pytest.mark.parametrize(("name", "stddev"), [("adam", 1.0), ("rmsprop", 0.01)])
def test_normal_starts_have_their_spread_and_no_bounds(name: str, stddev: float) -> None:
    params = start(network(name))["params"]
    values = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params["dense1"])])
    assert abs(values.mean()) < 5 * stddev / math.sqrt(len(values))
    assert values.std() == pytest.approx(stddev, rel=0.01)
    assert abs(values).max() > 4 * stddev  # a truncated normal would end at two
    # 68.3 % lie within one standard deviation: a uniform of this spread would have 57.7 %.
    assert (abs(values) < stddev).mean() == pytest.approx(0.683, abs=0.005)


def test_the_adam_recipe_draws_its_biases_and_the_rmsprop_recipe_has_none() -> None:
    for layer in start(network("adam"))["params"].values():
        assert 0.3 < np.std(layer["bias"]) < 2
    assert all(list(layer) == ["kernel"] for layer in start(network("rmsprop"))["params"].values())


@pytest.mark.parametrize("name", ["lenet", "lenet_augmented"])
def test_glorot_starts_have_their_bounds(name: str) -> None:
    params = start(network(name))["params"]
    for layer, fans in (("conv2", 9 * 12 + 9 * 16), ("dense1", 576 + 256), ("dense2", 256 + 100)):
        kernel, bound = np.asarray(params[layer]["kernel"]), math.sqrt(6 / fans)
        assert 0.98 * bound < kernel.max() <= bound * 1.0001
        assert 0.98 * bound < -kernel.min() <= bound * 1.0001
        assert kernel.std() == pytest.approx(bound / math.sqrt(3), rel=0.05)
        assert not params[layer]["bias"].any()


def pooled(x: np.ndarray, window: int) -> np.ndarray:
    """Max-pooling with stride 2 and padding VALID."""
    windows = np.lib.stride_tricks.sliding_window_view(x, (window, window), (1, 2))
    return windows[:, ::2, ::2].max((-1, -2))


def halved(x: np.ndarray) -> np.ndarray:
    """Max-pooling of 2×2 with stride 2 and padding SAME."""
    edges = ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0))
    return pooled(np.pad(x, edges, constant_values=-np.inf), 2)


def convolved(x: np.ndarray, kernel: np.ndarray, stride: int = 1) -> np.ndarray:
    """Convolution with padding SAME, of an image whose sides the stride divides."""
    size = len(kernel)
    before, after = (size - stride) // 2, (size - stride + 1) // 2
    x = np.pad(x, ((0, 0), (before, after), (before, after), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), (1, 2))
    windows = windows[:, ::stride, ::stride]
    return np.einsum("bhwcij,ijcd->bhwd", windows, kernel, optimize=True)


@pytest.mark.parametrize("relu_logits", [True, False])
def test_lenet_by_hand(relu_logits: bool) -> None:
    model = network("lenet_augmented", relu_logits=relu_logits)
    variables = start(model)
    variables["batch_stats"]["norm2"]["var"] += 3.0  # no batch has been seen: ones otherwise
    params = jax.tree.map(lambda leaf: np.asarray(leaf) + 0.01, variables["params"])

    def normed(x: np.ndarray, layer: str, variance: float) -> np.ndarray:
        return x / np.sqrt(variance + 1e-3) * params[layer]["scale"] + params[layer]["bias"]

    x = pooled(convolved(IMAGES, params["conv1"]["kernel"]) + params["conv1"]["bias"], 3)
    x = normed(x, "norm1", 1.0)
    assert (x < 0).any()  # no activation has passed over it
    x = pooled(convolved(x, params["conv2"]["kernel"]) + params["conv2"]["bias"], 3)
    x = normed(x, "norm2", 4.0).reshape(2, 576)
    for layer in ("dense1", "dense2"):
        x = np.maximum(x @ params[layer]["kernel"] + params[layer]["bias"], 0)
    expected = x @ params["logits"]["kernel"] + params["logits"]["bias"]
    assert (expected < 0).any()
    expected = np.maximum(expected, 0) if relu_logits else expected

    variables = {"params": params, "batch_stats": variables["batch_stats"]}
    np.testing.assert_allclose(jax.jit(model.apply)(variables, IMAGES), expected, atol=1e-4)


def test_threeconv_by_hand() -> None:
    model = network("rmsprop", init_stddev=0.1)
    variables = start(model)
    params = jax.tree.map(np.asarray, variables["params"])
    x = np.asarray(IMAGES)
    for layer in ("conv1", "conv2", "conv3"):
        x = halved(np.maximum(convolved(x, params[layer]["kernel"]), 0))
    x = np.maximum(x.reshape(2, 2048) @ params["dense1"]["kernel"], 0)
    logits = jax.jit(model.apply)(variables, IMAGES)
    np.testing.assert_allclose(logits, x @ params["logits"]["kernel"], rtol=1e-3, atol=1e-4)


def compact_as_if_trained(model: nn.Module) -> Any:
    """Variables in which everything counts: no scale is one, no bias and no mean is zero.

    Half of the scales are negative, so that it matters whether the maximum or the norm comes first.
    The smallest variances are a thousandth, so that it matters what is added to them.
    """
    random = np.random.default_rng(0)
    variables = jax.tree.map(np.asarray, start(model))
    for layer, moments in list(variables["batch_stats"].items()):
        number, features = layer.removeprefix("norm"), len(moments["mean"])
        signs = np.resize([1, -1], features)
        variables["params"][f"norm{number}"] = {
            "scale": np.float32(signs * random.uniform(0.5, 1.5, features)),
            "bias": np.float32(random.uniform(-0.5, 0.5, features)),
        }
        variables["batch_stats"][f"norm{number}"] = {
            "mean": np.float32(random.uniform(-0.5, 0.5, features)),
            "var": np.float32(10 ** random.uniform(-3, 0, features)),
        }
    variables["params"]["logits"]["bias"] = np.float32(random.uniform(-1, 1, 10))
    return variables


def compact_by_hand(
    variables: Any, images: Any, strided_stem: bool, train: bool, whole: tuple[int, ...] = ()
) -> tuple:
    """The logits, and the mean and variance of what enters each batch-norm.

    `whole` are the numbers of convolutions, from 1, that nothing is pooled after.
    """
    params, entering = variables["params"], {}
    x = np.asarray(images, np.float64)
    for number in range(1, len(variables["batch_stats"]) + 1):
        kernel, name = params[f"conv{number}"]["kernel"], f"norm{number}"
        if number == 1 and strided_stem:
            x = convolved(x, kernel, stride=2)
        else:
            x = convolved(x, kernel)
            x = x if number in whole else halved(x)
        entering[name] = {"mean": x.mean((0, 1, 2)), "var": x.var((0, 1, 2))}
        by = entering[name] if train else variables["batch_stats"][name]
        x = (x - by["mean"]) / np.sqrt(by["var"] + 1e-5)
        x = np.maximum(x * params[name]["scale"] + params[name]["bias"], 0)
    flat = x.reshape(len(x), -1)
    return flat @ params["logits"]["kernel"] + params["logits"]["bias"], entering


# speedrun has the strided first layer, fast995 has not and answers with the mean of five views.
@pytest.mark.parametrize("name", ["speedrun", "fast995"])
def test_compact_at_rest_by_hand(name: str) -> None:
    model = network(name)
    variables = compact_as_if_trained(model)
    views = [np.asarray(IMAGES)]
    if name == "fast995":
        wide = np.pad(IMAGES, ((0, 0), (1, 1), (1, 1), (0, 0)))
        corners = [(0, 1), (2, 1), (1, 0), (1, 2)]  # what comes in is black
        views += [wide[:, row : row + 28, column : column + 28] for row, column in corners]
    each = [compact_by_hand(variables, view, name == "speedrun", train=False)[0] for view in views]
    logits = jax.jit(model.apply)(variables, IMAGES)
    expected = np.mean(each, axis=0)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4 * abs(expected).max())


@pytest.mark.parametrize("name", ["speedrun", "fast995"])
def test_compact_in_training_by_hand(name: str) -> None:
    model = network(name)
    variables = compact_as_if_trained(model)
    logits, moved = jax.jit(partial(model.apply, train=True, mutable=["batch_stats"]))(
        variables, IMAGES
    )
    expected, entering = compact_by_hand(variables, IMAGES, name == "speedrun", train=True)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4 * abs(expected).max())
    assert moved["batch_stats"].keys() == {"norm1", "norm2", "norm3"}
    for layer, stats in moved["batch_stats"].items():
        for which in ("mean", "var"):
            before = variables["batch_stats"][layer][which]
            np.testing.assert_allclose(
                stats[which], 0.9 * before + 0.1 * entering[layer][which], rtol=1e-4, atol=1e-5
            )


@pytest.mark.parametrize(
    ("strided_stem", "convolutions", "whole", "entering"),
    [
        (False, (1, 2), (2,), 7 * 7 * 6),
        (False, (2, 1), (1,), 7 * 7 * 6),
        (True, (3, 2), (2, 3, 4), 7 * 7 * 6),
        (True, (1, 1), (), 7 * 7 * 6),
    ],
)
def test_several_convolutions_a_stage_by_hand(
    strided_stem: bool, convolutions: tuple[int, ...], whole: tuple[int, ...], entering: int
) -> None:
    model = Compact(features=(4, 6), convolutions=convolutions, strided_stem=strided_stem)
    variables = compact_as_if_trained(model)
    first, second = convolutions
    shapes = [
        variables["params"][f"conv{n}"]["kernel"].shape for n in range(1, sum(convolutions) + 1)
    ]
    stem = (5, 5, 1, 4) if strided_stem else (3, 3, 1, 4)
    assert shapes == [
        stem,
        *[(3, 3, 4, 4)] * (first - 1),
        (3, 3, 4, 6),
        *[(3, 3, 6, 6)] * (second - 1),
    ]
    assert variables["params"]["logits"]["kernel"].shape == (entering, 10)
    expected = compact_by_hand(variables, IMAGES, strided_stem, train=False, whole=whole)[0]
    logits = jax.jit(model.apply)(variables, IMAGES)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4 * abs(expected).max())


@pytest.mark.parametrize("wrong", [(1,), (1, 0, 1), (1, 2, 2.0), "122", 2])
def test_convolutions_that_no_network_can_have(wrong: Any) -> None:
    with pytest.raises(UsageError, match=r"config\.model\.convolutions=.*for each of the 3"):
        Compact(convolutions=wrong)


def test_batch_statistics_move_in_training_by_a_tenth_and_serve_at_rest() -> None:
    model = network("lenet_augmented", dropout_rate=0.0)
    variables = start(model)
    assert jax.tree.map(jnp.shape, variables["batch_stats"]) == {
        "norm1": {"mean": (12,), "var": (12,)},
        "norm2": {"mean": (16,), "var": (16,)},
    }
    kernel, bias = (np.asarray(variables["params"]["conv1"][name]) for name in ("kernel", "bias"))
    entering = pooled(convolved(IMAGES, kernel) + bias, 3)
    _, moved = model.apply(variables, IMAGES, train=True, mutable=["batch_stats"])
    moved = moved["batch_stats"]["norm1"]
    np.testing.assert_allclose(moved["mean"], 0.1 * entering.mean((0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(moved["var"], 0.9 + 0.1 * entering.var((0, 1, 2)), atol=1e-5)
    _, rest = model.apply(variables, IMAGES, mutable=["batch_stats"])
    jax.tree.map(np.testing.assert_array_equal, rest["batch_stats"], variables["batch_stats"])


def test_the_first_dropout_is_there_only_when_asked_for() -> None:
    def masks(**fields: Any) -> dict[str, float]:
        model = network("lenet_augmented", **fields)
        _, seen = model.apply(
            start(model),
            jnp.tile(IMAGES, (32, 1, 1, 1)),
            train=True,
            rngs={"dropout": jax.random.key(0)},
            mutable=["batch_stats", "intermediates"],
            capture_intermediates=True,
        )
        layers = seen["intermediates"].items()
        dropped = {name: layer["__call__"][0] for name, layer in layers if "dropout" in name}
        return {name: float((values == 0).mean()) for name, values in dropped.items()}

    assert masks() == {"dropout2": pytest.approx(0.5, abs=0.01)}
    assert masks(first_dropout=True).keys() == {"dropout1", "dropout2"}


def test_rmsprop_drops_a_fifth_after_each_pooling_and_half_of_the_units() -> None:
    model = network("rmsprop")
    _, seen = model.apply(
        start(model),
        jnp.tile(IMAGES, (16, 1, 1, 1)),
        train=True,
        rngs={"dropout": jax.random.key(0)},
        capture_intermediates=True,
    )
    outputs = {
        name: np.asarray(v["__call__"][0])
        for name, v in seen["intermediates"].items()
        if name[0] != "_"
    }
    for number in (1, 2, 3):
        before, after = halved(np.maximum(outputs[f"conv{number}"], 0)), outputs[f"dropout{number}"]
        assert (after[before > 0] == 0).mean() == pytest.approx(0.2, abs=0.02)
    alive = outputs["dense1"] > 0
    assert (outputs["dropout4"][alive] == 0).mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("name", ["tutorial", "lenet", "speedrun"])
def test_dropout_is_of_training_alone(name: str) -> None:
    """Two thirds are dropped: two keys give two answers in training, and at rest none is asked."""
    model = network(name, dropout_rate=2 / 3)
    variables = start(model)

    def logits(train: bool, key: int) -> np.ndarray:
        answer = model.apply(
            variables,
            IMAGES,
            train=train,
            rngs={"dropout": jax.random.key(key)},
            mutable=["batch_stats"],
        )
        return np.asarray(answer[0])

    assert (logits(True, 0) != logits(True, 1)).any()
    np.testing.assert_array_equal(logits(False, 0), logits(False, 1))


def test_the_views_of_an_image_are_it_and_its_four_shifts() -> None:
    plain, viewing = (network("fast995", shifted_views=shifted) for shifted in (False, True))
    variables = start(plain)
    # The ink never reaches the border, so that rolling is shifting.
    images = jnp.zeros((2, 28, 28, 1)).at[:, 5:20, 8:21].set(IMAGES[:, 5:20, 8:21])
    rolls = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]
    each = [plain.apply(variables, jnp.roll(images, by, axis=(1, 2))) for by in rolls]
    np.testing.assert_allclose(viewing.apply(variables, images), np.mean(each, axis=0), atol=1e-6)
    assert np.ptp(each, axis=0).max() > 1e-3  # the views do differ
    # What reaches the border falls off: nothing comes in on the other side.
    edge = jnp.zeros((1, 28, 28, 1)).at[:, 0, 14].set(1.0)
    up = plain.apply(variables, jnp.zeros_like(edge))
    rest = [plain.apply(variables, jnp.roll(edge, by, axis=(1, 2))) for by in rolls if by[0] != -1]
    np.testing.assert_allclose(
        viewing.apply(variables, edge), np.mean([up, *rest], axis=0), atol=1e-6
    )
    assert_trains_on_the_image_alone(plain, viewing, variables)


def assert_trains_on_the_image_alone(plain: nn.Module, viewing: nn.Module, variables: Any) -> None:
    logits = [
        model.apply(variables, IMAGES, train=True, mutable=["batch_stats"])[0]
        for model in (plain, viewing)
    ]
    np.testing.assert_array_equal(*logits)


def test_a_logit_that_is_negative_for_every_image_learns_nothing() -> None:
    """What the ReLU on the logits costs: no gradient reaches a class that is never above zero."""
    model = network("lenet")
    variables = start(model)
    variables["params"]["logits"]["bias"] = jnp.full(10, 5.0).at[3].set(-1000.0)

    def loss(params: Any) -> jax.Array:
        return -nn.log_softmax(model.apply({"params": params}, IMAGES))[:, 3].mean()

    gradient = jax.grad(loss)(variables["params"])["logits"]
    assert not gradient["bias"][3]
    assert not gradient["kernel"][:, 3].any()
    assert gradient["bias"][4] != 0

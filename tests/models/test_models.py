"""Models by name, and the tutorial's network: its shapes, its numbers, its start."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from made import spec_of, task_of
from ml_collections import ConfigDict

from mnist_flax.core.state import try_task
from mnist_flax.errors import UsageError
from mnist_flax.models import create_model, summary
from mnist_flax.models.blocks import INITIALIZERS, initializer
from mnist_flax.models.tutorial import Tutorial

IMAGES = jax.random.uniform(jax.random.key(1), (2, 28, 28, 1))


class Own(nn.Module):
    """No num_classes: the user knows how many."""

    width: int

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        return nn.Dense(self.width)(images.reshape(len(images), -1))


class OwnClasses(nn.Module):
    """With num_classes and a field that has a default."""

    num_classes: int
    width: int = 3

    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        return jnp.zeros((len(images), self.num_classes))


class OtherAtRest(nn.Module):
    """Five logits where it is evaluated."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        logits = nn.Dense(10)(images.reshape(len(images), -1))
        return logits if train else logits[:, :5]


class NoisyInTraining(nn.Module):
    """Draws from an rng that a run does not give."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        logits = nn.Dense(10)(images.reshape(len(images), -1))
        if train:
            logits += jax.random.normal(self.make_rng("noise"), logits.shape)
        return logits


class HalfStatistics(nn.Module):
    """Batch statistics that change their type."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        seen = self.variable("batch_stats", "seen", lambda: jnp.zeros((), jnp.int32))
        if train:
            seen.value = seen.value + 0.5
        return nn.Dense(10)(images.reshape(len(images), -1))


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (OtherAtRest(), " with train=False gives logits [2, 5] for 2 images of 10 classes; needed"),
        (NoisyInTraining(), " fails on images [2, 28, 28, 1]: "),
        (HalfStatistics(), ": a step makes float32 [] of ['batch_stats']['seen'], which was int32"),
    ],
)
def test_a_model_is_tried_in_training_and_at_rest(model: nn.Module, told: str) -> None:
    with pytest.raises(UsageError) as error:
        try_task(task_of(model, optax.sgd(0.1), (28, 28, 1)), spec_of((28, 28, 1)), "a")
    start = f"config.model.name='test_models:{type(model).__name__}'{told}"
    assert str(error.value).startswith(start)
    if isinstance(model, NoisyInTraining):
        assert __file__ in str(error.value)
        assert "noise" in str(error.value)


def section(name: str, **fields: Any) -> ConfigDict:
    return ConfigDict({"name": name, **fields})


@pytest.fixture(scope="module")
def variables() -> Any:
    return jax.jit(Tutorial().init)(jax.random.key(0), IMAGES)


def test_parameters_are_those_of_the_tutorial(variables: Any) -> None:
    assert list(variables) == ["params"]
    shapes = jax.tree.map(jnp.shape, variables["params"], is_leaf=lambda x: hasattr(x, "shape"))
    assert shapes == {
        "conv1": {"kernel": (5, 5, 1, 32), "bias": (32,)},  # 832
        "conv2": {"kernel": (5, 5, 32, 64), "bias": (64,)},  # 51,264
        "dense1": {"kernel": (7 * 7 * 64, 1024), "bias": (1024,)},  # 3,212,288
        "logits": {"kernel": (1024, 10), "bias": (10,)},  # 10,250
    }
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == 3_274_634


@pytest.mark.parametrize(
    ("layer", "fan_in"), [("conv1", 25), ("conv2", 800), ("dense1", 3136), ("logits", 1024)]
)
def test_kernels_start_uniform_in_fan_in_and_biases_at_zero(
    variables: Any, layer: str, fan_in: int
) -> None:
    kernel = np.asarray(variables["params"][layer]["kernel"])
    bound = math.sqrt(3 / fan_in)
    assert 0.98 * bound < kernel.max() <= bound * 1.0001
    assert 0.98 * bound < -kernel.min() <= bound * 1.0001
    assert kernel.std() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert not variables["params"][layer]["bias"].any()


def test_a_kernel_init_by_name() -> None:
    def kernel(key: jax.Array) -> jax.Array:
        model = Tutorial(kernel_init="glorot_uniform")
        return model.init(key, IMAGES)["params"]["logits"]["kernel"]

    bound = math.sqrt(6 / (1024 + 10))
    assert 0.98 * bound < jax.jit(kernel)(jax.random.key(0)).max() <= bound * 1.0001


def test_layers_and_their_shapes(variables: Any) -> None:
    def layers(variables: Any) -> Any:
        return Tutorial().apply(variables, IMAGES, capture_intermediates=True)[1]

    outputs = jax.eval_shape(layers, variables)["intermediates"]
    shapes = {name: layer["__call__"][0].shape for name, layer in outputs.items() if name[0] != "_"}
    assert shapes == {
        "conv1": (2, 28, 28, 32),
        "conv2": (2, 14, 14, 64),
        "dense1": (2, 1024),
        "dropout": (2, 1024),
        "logits": (2, 10),
    }


def test_the_network_by_hand(variables: Any) -> None:
    def pooled(x: np.ndarray) -> np.ndarray:
        batch, height, width, channels = x.shape
        return x.reshape(batch, height // 2, 2, width // 2, 2, channels).max((2, 4))

    def convolved(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
        x = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(x, (5, 5), (1, 2))
        return np.einsum("bhwcij,ijcd->bhwd", windows, kernel, optimize=True) + bias

    params = jax.tree.map(np.asarray, variables["params"])
    params = {name: (layer["kernel"], layer["bias"] + 0.01) for name, layer in params.items()}
    x = np.asarray(IMAGES)
    x = pooled(np.maximum(convolved(x, *params["conv1"]), 0))
    x = pooled(np.maximum(convolved(x, *params["conv2"]), 0))
    x = np.maximum(x.reshape(2, -1) @ params["dense1"][0] + params["dense1"][1], 0)
    expected = x @ params["logits"][0] + params["logits"][1]

    tree = {name: {"kernel": kernel, "bias": bias} for name, (kernel, bias) in params.items()}
    logits = jax.jit(Tutorial().apply)({"params": tree}, IMAGES)
    assert (logits.shape, logits.dtype) == ((2, 10), jnp.float32)
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_dropout_is_asked_for_and_drops_its_share(variables: Any) -> None:
    def unit_values(train: bool, key: int) -> tuple[np.ndarray, np.ndarray]:
        _, seen = Tutorial(dropout_rate=0.25).apply(
            variables,
            IMAGES,
            train=train,
            rngs={"dropout": jax.random.key(key)},
            capture_intermediates=True,
        )
        seen = seen["intermediates"]
        before = np.maximum(seen["dense1"]["__call__"][0], 0)
        return before, np.asarray(seen["dropout"]["__call__"][0])

    np.testing.assert_array_equal(*unit_values(train=False, key=0))
    before, after = unit_values(train=True, key=0)
    kept = after[before > 0] > 0
    assert kept.mean() == pytest.approx(0.75, abs=0.05)
    np.testing.assert_allclose(after[after > 0], before[after > 0] / 0.75, rtol=1e-5)
    assert not np.array_equal(after, unit_values(train=True, key=1)[1])


def test_without_train_no_randomness_is_needed(variables: Any) -> None:
    Tutorial().apply(variables, IMAGES)
    with pytest.raises(Exception, match="dropout"):
        Tutorial().apply(variables, IMAGES, train=True)


def test_train_is_keyword_only(variables: Any) -> None:
    with pytest.raises(TypeError, match="positional"):
        Tutorial().apply(variables, IMAGES, True)


def test_other_classes_and_other_images() -> None:
    model = create_model(section("tutorial"), num_classes=3)
    logits, variables = jax.eval_shape(
        lambda: model.init_with_output(jax.random.key(0), jnp.zeros((4, 8, 8, 3)))
    )
    assert logits.shape == (4, 3)
    assert variables["params"]["conv1"]["kernel"].shape == (5, 5, 3, 32)


@pytest.mark.parametrize("name", INITIALIZERS)
def test_every_initializer_is_found_and_draws(name: str) -> None:
    assert Tutorial(kernel_init=name).kernel_init == name
    weights = initializer(name, 0.5, "config.model.kernel_init")(jax.random.key(0), (3, 3, 4, 5))
    assert weights.shape == (3, 3, 4, 5)
    assert bool(weights.any()) == (name != "zeros")


def test_fields_of_the_section_are_the_modules_own() -> None:
    model = create_model(section("tutorial", dropout_rate=0.1, kernel_init="he_normal"), 5)
    assert model == Tutorial(num_classes=5, dropout_rate=0.1, kernel_init="he_normal")


def test_a_users_own_model() -> None:
    assert create_model(section(f"{__name__}:Own", width=4), 10) == Own(width=4)
    assert create_model(section(f"{__name__}:OwnClasses"), 10) == OwnClasses(num_classes=10)
    config = section(f"{__name__}:OwnClasses", num_classes=2, width=7)
    assert create_model(config, 10) == OwnClasses(num_classes=2, width=7)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (section("tutorail"), "config.model.name='tutorail': unknown. Did you mean 'tutorial'?"),
        (
            section("tutorial", dropout=0.1),
            "config.model.dropout: 'tutorial' has no such field. Did you mean 'dropout_rate'? "
            "It has: bias_init, dropout_rate, dtype, init_stddev, kernel_init, num_classes.",
        ),
        (section("tutorial", parent=1), "config.model.parent: 'tutorial' has no such field."),
        (section("fractions:Fraction"), "config.model.name='fractions:Fraction': <class 'fracti"),
        (section("math:pi"), "config.model.name='math:pi': 3.14159"),
        (section(f"{__name__}:Own"), "config.model.name='test_models:Own': "),
        (section("tutorial", dropout_rate=1.0), "config.model.dropout_rate=1.0: the share that is"),
        (section("tutorial", dropout_rate=-0.1), "config.model.dropout_rate=-0.1: "),
        (section("tutorial", dropout_rate=math.nan), "config.model.dropout_rate=nan: "),
        (
            section("tutorial", kernel_init="glorot"),
            "config.model.kernel_init='glorot': unknown. Did you mean 'glorot_",
        ),
    ],
)
def test_what_is_told_of_a_wrong_model(config: ConfigDict, told: str) -> None:
    with pytest.raises(UsageError) as error:
        create_model(config, 10)
    assert str(error.value).startswith(told)


def test_the_field_that_is_lacking_is_named() -> None:
    with pytest.raises(UsageError, match="'width'"):
        create_model(section(f"{__name__}:Own"), 10)


def test_the_summary_has_every_layer_and_the_total() -> None:
    table = summary(Tutorial(), (28, 28, 1))
    rows = {line.split()[0]: line for line in table.splitlines()}
    for layer, shape, parameters in (
        ("conv1", "float32[1,28,28,32]", "832"),
        ("conv2", "float32[1,14,14,64]", "51,264"),
        ("dense1", "float32[1,1024]", "3,212,288"),
        ("dropout", "float32[1,1024]", ""),
        ("logits", "float32[1,10]", "10,250"),
    ):
        assert shape in rows[layer]
        assert parameters in table
    assert "Total Parameters: 3,274,634" in table


@pytest.mark.parametrize("width", [60, 100])
def test_the_summary_keeps_to_its_width_and_cuts_nothing(width: int) -> None:
    table = summary(Tutorial(), (28, 28, 1), width)
    assert max(map(len, table.splitlines())) <= width
    assert "…" not in table
    assert "\x1b" not in table

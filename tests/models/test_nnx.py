"""A flax.nnx module of a user's own trains like a linen one."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import TESTS, events, rows
from flax import linen as nn
from flax import nnx
from made import spec_of, task_of
from ml_collections import ConfigDict

from mnist_flax import restore, train
from mnist_flax.core.state import traced_once, try_task
from mnist_flax.errors import UsageError
from mnist_flax.models import create_model, summary
from mnist_flax.use.features import feature_maps

NAME = "tiny_nnx:Net"


class Twin(nn.Module):
    """The same in linen, under the same names."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        x = nn.Conv(4, (3, 3), name="conv")(images)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="norm")(x)
        x = nn.max_pool(nn.relu(x), (3, 3), strides=(2, 2))
        return nn.Dense(10, name="heads")(x.reshape(len(x), -1))


class Cached(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs):
        self.linear = nnx.Linear(64, 10, rngs=rngs)
        self.seen = nnx.Cache(jnp.zeros(3))


class WithoutRngs(nnx.Module):
    def __init__(self, num_classes: int = 10):
        self.scale = nnx.Param(jnp.ones(num_classes))


class Told(nnx.Module):
    """Is told whether it trains, by a parameter as in linen."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.linear = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        return self.linear(images.reshape(len(images), -1)) + (100 if train else 0)


def made(**fields: Any) -> nn.Module:
    return create_model(ConfigDict({"name": NAME, **fields}), 10)


def test_its_values_and_gradients_are_those_of_the_same_network_in_linen() -> None:
    ours, theirs = made(), Twin()
    images = jax.random.uniform(jax.random.key(0), (5, 8, 8, 1))
    variables = ours.init(jax.random.key(1), images)
    assert variables["params"]["heads"].keys() == {"0"}
    twin = {**variables, "params": {**variables["params"]}}
    twin["params"]["heads"] = twin["params"]["heads"]["0"]
    np.testing.assert_allclose(
        ours.apply(variables, images), theirs.apply(twin, images), rtol=1e-5, atol=1e-6
    )

    def stats(model: nn.Module, given: Any) -> Any:
        keys = {"dropout": jax.random.key(2)}
        return model.apply(given, images, train=True, rngs=keys, mutable=["batch_stats"])[1]

    ours_after, theirs_after = stats(ours, variables), stats(theirs, twin)
    for name in ("mean", "var"):
        np.testing.assert_allclose(
            ours_after["batch_stats"]["norm"][name],
            theirs_after["batch_stats"]["norm"][name],
            rtol=1e-5,
            atol=1e-6,
        )


def test_its_dropout_is_a_function_of_the_steps_key() -> None:
    model, images = made(), jnp.ones((40, 8, 8, 1))
    variables = model.init(jax.random.key(1), images)

    def trained(seed: int) -> np.ndarray:
        keys = {"dropout": jax.random.key(seed)}
        out = model.apply(variables, images, train=True, rngs=keys, mutable=["batch_stats"])[0]
        return np.asarray(out)

    np.testing.assert_array_equal(trained(1), trained(1))
    assert not np.array_equal(trained(1), trained(2))
    assert len(np.unique(trained(1), axis=0)) > 30  # each of these equal images on its own
    at_rest = np.asarray(model.apply(variables, images))
    assert len(np.unique(at_rest, axis=0)) == 1


def test_its_convolutions_are_fast_in_a_loop_on_a_cpu() -> None:
    task = traced_once(task_of(made(), optax.sgd(0.1)))
    assert try_task(task, spec_of(), "classification", batch_size=6).slow_layers == ()


def test_its_table_and_its_fields() -> None:
    table = summary(made(features=6), (8, 8, 1))
    assert "conv" in table
    assert re.search(r"conv +Conv +float32", table)
    assert "float32[1,8,8,6" in table  # what follows may be folded
    assert made(dtype="bfloat16").fields["dtype"] == "bfloat16"
    half = create_model(ConfigDict({"name": NAME}), 10, compute_dtype="bfloat16")
    variables = half.init(jax.random.key(0), jnp.ones((1, 8, 8, 1)))
    assert half.apply(variables, jnp.ones((1, 8, 8, 1))).dtype == jnp.bfloat16
    assert feature_maps(made(), variables, jnp.ones((1, 8, 8, 1), jnp.uint8)) == {}


def test_one_that_is_told_whether_it_trains() -> None:
    model = create_model(ConfigDict({"name": f"{__name__}:Told"}), 10)
    images = jnp.ones((2, 8, 8, 1))
    variables = model.init(jax.random.key(0), images)
    apart = model.apply(variables, images, train=True) - model.apply(variables, images)
    np.testing.assert_allclose(apart, 100, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "fields", "told"),
    [
        (
            f"{__name__}:Cached",
            {},
            "config.model.name: Cached keeps Cache; of an nnx module a run carries",
        ),
        (
            f"{__name__}:WithoutRngs",
            {},
            f"config.model.name='{__name__}:WithoutRngs': its constructor takes no rngs",
        ),
        (NAME, {"feature": 3}, f"config.model.feature: '{NAME}' has no such field. Did you mean "),
        (NAME, {"features": "x"}, "config.model.features='x': must be a number"),
        (f"{__name__}:Told", {}, None),
    ],
)
def test_what_cannot_be_carried_is_told(name: str, fields: dict, told: str | None) -> None:
    def tried() -> None:
        model = create_model(ConfigDict({"name": name, **fields}), 10)
        try_task(task_of(model, optax.sgd(0.1)), spec_of(), "classification")

    if told is None:
        tried()
        return
    with pytest.raises(UsageError) as error:
        tried()
    assert str(error.value).startswith(told)


@pytest.mark.slow
@pytest.mark.promise
def test_a_run_resumes_to_the_bit(tiny_config: ConfigDict, tmp_path: Path) -> None:
    tiny_config.model = ConfigDict({"name": NAME})
    tiny_config.num_steps = 24
    state = train(tiny_config, tmp_path / "one")
    calls = iter(range(1000))
    train(tiny_config, tmp_path / "two", should_stop=lambda: next(calls) >= 3)
    again = train(tiny_config, tmp_path / "two")
    assert events(tmp_path / "two", "resumed")
    assert rows(tmp_path / "two") == rows(tmp_path / "one")
    for ours, theirs in zip(jax.tree.leaves(state), jax.tree.leaves(again), strict=True):
        assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()
    assert restore(tmp_path / "two", "latest", {}).variables["batch_stats"].keys() == {"norm"}


def test_the_network_of_the_guide() -> None:
    guide = Path(__file__).parents[2] / "docs/guide/models.md"
    (text,) = re.findall(r"```python\n(# net.py.*?)```", guide.read_text(), re.DOTALL)
    scope: dict[str, Any] = {"__name__": "guide"}
    exec(text, scope)
    module = scope["Net"](rngs=nnx.Rngs(0))
    assert module(jnp.ones((2, 28, 28, 1))).shape == (2, 10)


@pytest.mark.slow
@pytest.mark.promise
def test_it_is_evaluated_reported_and_exported(
    launch: Callable[..., Any], digits: Path, tmp_path: Path
) -> None:
    recipe = TESTS / "tiny_nnx.py"
    done = launch(f"--config={recipe}", f"--config.data.data_dir={digits}", "--workdir=run")
    assert done.returncode == 0, done.stderr
    for mode in (["eval"], ["report"], ["export", "--format=all"]):
        done = launch(f"--config={recipe}", "--workdir=run", f"--mode={mode[0]}", *mode[1:])
        assert done.returncode == 0, done.stderr
    named = [Path(json.loads(line)["file"]).name for line in done.stdout.splitlines()]
    assert {"model.stablehlo", "model.onnx", "weights.safetensors"} <= set(named)

"""A network that computes in bfloat16 is trained, judged, shown and exported in float32."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TESTS, rows
from tiny import HalfNet, TinyNet

from mnist_flax import restore, train
from mnist_flax.core.task import Variables
from mnist_flax.export import export_network
from mnist_flax.report.saliency import saliency
from mnist_flax.tasks.networks import apply_eval, apply_train, init_variables
from mnist_flax.use.features import feature_maps
from mnist_flax.use.prediction import predict
from mnist_flax.use.run_data import load_data

Launch = Callable[..., CompletedProcess[str]]
IMAGES = np.arange(3 * 8 * 8, dtype=np.uint8).reshape(3, 8, 8, 1)


def variables_of(model: TinyNet) -> Variables:
    return init_variables(model, (8, 8, 1), jax.random.key(0))


@pytest.mark.slow
@pytest.mark.promise
def test_its_logits_are_float32_in_training_and_at_rest() -> None:
    variables = variables_of(HalfNet())
    assert apply_eval(HalfNet(), variables, IMAGES).dtype == jnp.float32
    assert apply_train(HalfNet(), variables, IMAGES, jax.random.key(1))[0].dtype == jnp.float32


def test_the_program_of_a_float32_network_has_no_cast_of_its_logits() -> None:
    model, variables = TinyNet(), variables_of(TinyNet())

    def plain(variables: Variables, images: jax.Array) -> jax.Array:
        return model.apply(variables, images.astype(jnp.float32) / 255)

    ours = jax.make_jaxpr(lambda v, x: apply_eval(model, v, x))(variables, IMAGES)
    assert len(ours.eqns) == len(jax.make_jaxpr(plain)(variables, IMAGES).eqns)


@pytest.mark.slow
@pytest.mark.promise
def test_what_is_looked_into_is_float32() -> None:
    variables, classes = variables_of(HalfNet()), jnp.array([0, 1, 2])
    assert saliency(HalfNet(), variables, jnp.asarray(IMAGES), classes).dtype == jnp.float32
    maps = feature_maps(HalfNet(), variables, jnp.asarray(IMAGES))
    assert {values.dtype.name for values in maps.values()} == {"float32"}


def test_answers_that_numpy_has_no_type_for_are_float32(tiny_config, tmp_path) -> None:
    tiny_config.num_steps = 1
    train(tiny_config, tmp_path)
    restored = restore(tmp_path, "latest", {})
    half = restored.task._replace(
        predict=lambda variables, images: {"mean": images.mean((1, 2, 3)).astype(jnp.bfloat16)}
    )
    answers = predict(dataclasses.replace(restored, task=half), IMAGES)
    assert answers["mean"].dtype == np.float32


@pytest.mark.slow
def test_it_is_trained_predicted_and_reported(launch: Launch, digits: Path, tmp_path: Path) -> None:
    flags = (f"--config={TESTS / 'tiny.py'}", "--workdir=run")
    more = (f"--config.data.data_dir={digits}", "--config.num_steps=8")
    done = launch(*flags, *more, "--config.model.name=tiny:HalfNet", "--report")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/report/index.html").exists()
    assert rows(tmp_path / "run")[0]["loss"] > 0
    done = launch(*flags, "--mode=predict", "--split=test", "--output=test.npz")
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "test.npz") as saved:
        assert saved["probabilities"].dtype == np.float32
        np.testing.assert_allclose(saved["probabilities"].sum(1), 1, atol=1e-6)
    done = launch(*flags, "--mode=eval")
    told = json.loads(done.stdout)
    assert told["loss"] == pytest.approx(rows(tmp_path / "run")[-1]["loss"], rel=1e-6)


@pytest.mark.slow
@pytest.mark.promise
def test_it_is_exported(tiny_config, tmp_path) -> None:
    tiny_config.model.name = "tiny:HalfNet"
    tiny_config.num_steps = 8
    train(tiny_config, tmp_path)
    restored = restore(tmp_path, "best", {})
    dataset = load_data(restored, print)
    first, *_ = export_network(tmp_path, restored, dataset, ["stablehlo"], print)
    assert first["max_abs_difference"] <= 1e-6

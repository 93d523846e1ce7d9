"""The learning rate of a row is the one that the optimizer used, or none."""

from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import optax
import pytest
from conftest import events, rows
from ml_collections import ConfigDict

from mnist_flax import restore, train
from mnist_flax.core.optimizers import OPTIMIZERS, optimizer_of
from mnist_flax.core.rates import used_rate
from mnist_flax.report import write_report
from mnist_flax.use.run_data import load_data

Build = Callable[[optax.Schedule], optax.GradientTransformation]
FALLING = optax.linear_schedule(1.0, 0.0, 40)
PARAMS = {"first": jnp.array([1.0]), "second": jnp.array([2.0])}
LABELS = {"first": "a", "second": "b"}


def multi_steps(learning_rate: optax.Schedule) -> optax.GradientTransformation:
    return optax.MultiSteps(optax.sgd(learning_rate), 4).gradient_transformation()


def two_rates(learning_rate: optax.Schedule) -> optax.GradientTransformation:
    """The second in steps of its own."""
    parts = {"a": optax.sgd(learning_rate), "b": multi_steps(learning_rate)}
    return optax.multi_transform(parts, LABELS)


def a_second_schedule(learning_rate: optax.Schedule) -> optax.GradientTransformation:
    return optax.chain(optax.sgd(learning_rate), optax.scale_by_schedule(FALLING))


def deaf(learning_rate: optax.Schedule) -> optax.GradientTransformation:
    del learning_rate
    return optax.sgd(0.125)


def injected_beside(learning_rate: optax.Schedule) -> optax.GradientTransformation:
    own = optax.inject_hyperparams(optax.sgd)(learning_rate=0.125)
    return optax.multi_transform({"a": optax.sgd(learning_rate), "b": own}, LABELS)


TOLD: dict[str, Build] = {
    "sgd": optax.sgd,
    "a chain": lambda rate: optax.chain(optax.clip(10.0), optax.sgd(rate)),
    "MultiSteps": multi_steps,
    "MultiSteps in a chain": lambda rate: optax.chain(optax.identity(), multi_steps(rate)),
    "apply_if_finite": lambda rate: optax.apply_if_finite(optax.sgd(rate), 3),
    "inject_hyperparams": lambda rate: optax.inject_hyperparams(optax.sgd)(learning_rate=rate),
    "inject_hyperparams in MultiSteps": lambda rate: optax.MultiSteps(
        optax.inject_hyperparams(optax.sgd)(learning_rate=rate), 4
    ).gradient_transformation(),
    "a rate of its own, injected": lambda rate: optax.inject_hyperparams(optax.sgd)(
        learning_rate=0.125
    ),
    "both groups alike": lambda rate: optax.multi_transform(
        {"a": optax.sgd(rate), "b": optax.sgd(rate)}, LABELS
    ),
    "one group is frozen": lambda rate: optax.multi_transform(
        {"a": optax.sgd(rate), "b": optax.set_to_zero()}, LABELS
    ),
}


@pytest.mark.parametrize("name", TOLD)
def test_it_is_the_rate_of_the_last_update(name: str) -> None:
    optimizer, rate = TOLD[name](FALLING), used_rate(TOLD[name], FALLING)
    opt_state, last = optimizer.init(PARAMS), None
    for step in range(10):
        gradient = {"first": jnp.array([1.0]), "second": jnp.array([1.0])}
        if name == "apply_if_finite" and step in (3, 7):
            gradient["first"] = jnp.array([jnp.nan])
        updates, opt_state = optimizer.update(gradient, opt_state, PARAMS)
        moved = -float(updates["first"][0])
        last = moved if moved > 0 else last  # the gradient is 1: the update is the rate
        if last is not None:
            assert rate({"params": PARAMS}, opt_state, step) == pytest.approx(last, rel=1e-6)


def test_before_the_first_update_it_is_that_of_the_first() -> None:
    opt_state = multi_steps(FALLING).init(PARAMS)
    assert used_rate(multi_steps, FALLING)({"params": PARAMS}, opt_state, 0) == 1.0


@pytest.mark.parametrize("build", [two_rates, a_second_schedule, deaf, injected_beside])
def test_it_is_none_where_it_cannot_be_told(build: Build) -> None:
    optimizer, opt_state = build(FALLING), build(FALLING).init(PARAMS)
    for _ in range(3):
        _, opt_state = optimizer.update(PARAMS, opt_state, PARAMS)
    assert used_rate(build, FALLING)({"params": PARAMS}, opt_state, 2) is None


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_of_optax_that_is_known_tells_its_own(name: str) -> None:
    config = ConfigDict({"optimizer": {"name": name, "learning_rate": 1.0}})
    config.schedule = {"name": "linear_schedule", "end_value": 0.0}
    config.clip_by_global_norm = 1.0
    optimizer, rates = optimizer_of(config, 40)
    opt_state = optimizer.init(PARAMS)
    for step in range(2):
        _, opt_state = optimizer.update(PARAMS, opt_state, PARAMS)
        told = rates["learning_rate"]({"params": PARAMS}, opt_state, step)
        assert told == float(FALLING(step))


def test_rows_show_where_the_optimizer_stands(tiny_config, tmp_path: Path) -> None:
    tiny_config.optimizer = ConfigDict({"name": f"{__name__}:multi_steps", "learning_rate": 1.0})
    tiny_config.schedule = ConfigDict({"name": "linear_schedule", "end_value": 0.0})
    train(tiny_config, tmp_path)
    told = {row["step"]: row["learning_rate"] for row in rows(tmp_path) if row["split"] == "train"}
    # An update in every fourth step: two are made by step 10.
    assert told == pytest.approx({1: 1.0, 10: 1 - 1 / 40, 20: 0.9, 30: 1 - 6 / 40, 40: 0.775})


@pytest.mark.slow
@pytest.mark.promise
def test_rows_without_a_rate_say_so_once(tiny_config, tmp_path: Path, capsys) -> None:
    tiny_config.optimizer = ConfigDict({"name": f"{__name__}:deaf", "learning_rate": 0.5})
    train(tiny_config, tmp_path, should_stop=(tmp_path / "checkpoints/latest/12").exists)
    train(tiny_config, tmp_path)
    assert not any("learning_rate" in row for row in rows(tmp_path))
    (told,) = events(tmp_path, "no_rate")
    assert told["message"].startswith("Rows have no learning rate: what config.optimizer.name=")
    assert told["step"] == 1
    assert told["message"] in capsys.readouterr().err
    restored = restore(tmp_path, "latest", {})
    page = write_report(tmp_path, restored, load_data(restored, print)).read_text()
    assert "Learning rate over the steps" not in page

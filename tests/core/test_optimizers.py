"""optax by name: three steps of two weights against the textbook, schedules, messages."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from mnist_flax.core.optimizers import (
    OPTIMIZERS,
    SCHEDULES,
    create_optimizer,
    create_schedule,
)
from mnist_flax.errors import UsageError

RATE = 0.1
START = np.array([1.0, -2.0])
CURVATURE = np.array([1.0, 3.0])  # of the loss: w·(c*w)/2, whose gradient is c*w


def sgd() -> np.ndarray:
    w = START
    for _ in range(3):
        w = w - RATE * CURVATURE * w
    return w


def sgd_with_momentum() -> np.ndarray:
    w, velocity = START, np.zeros(2)
    for _ in range(3):
        velocity = 0.9 * velocity + CURVATURE * w
        w = w - RATE * velocity
    return w


def adam() -> np.ndarray:
    w, mean, square = START, np.zeros(2), np.zeros(2)
    for step in (1, 2, 3):
        gradient = CURVATURE * w
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        unbiased_mean, unbiased_square = mean / (1 - 0.9**step), square / (1 - 0.999**step)
        w = w - RATE * unbiased_mean / (np.sqrt(unbiased_square) + 1e-8)
    return w


def rmsprop_of_tensorflow_1() -> np.ndarray:
    w, square = START, np.ones(2)  # starts at one, and epsilon is inside the root
    for _ in range(3):
        gradient = CURVATURE * w
        square = 0.9 * square + 0.1 * gradient**2
        w = w - RATE * gradient / np.sqrt(square + 1e-10)
    return w


def adam_of_tensorflow_1() -> np.ndarray:
    w, mean, square = START, np.zeros(2), np.zeros(2)  # "epsilon hat": before the correction
    for step in (1, 2, 3):
        gradient = CURVATURE * w
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        rate = RATE * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        w = w - rate * mean / (np.sqrt(square) + 1e-8)
    return w


def section(name: str, **fields: Any) -> ConfigDict:
    return ConfigDict({"name": name, **fields})


def three_steps(optimizer: optax.GradientTransformation) -> np.ndarray:
    w = jnp.asarray(START, jnp.float32)
    opt_state = optimizer.init(w)
    for _ in range(3):
        updates, opt_state = optimizer.update(CURVATURE * w, opt_state, w)
        w = optax.apply_updates(w, updates)
    return np.asarray(w)


@pytest.mark.parametrize(
    ("config", "by_hand"),
    [
        (section("sgd"), sgd),
        (section("sgd", momentum=0.9), sgd_with_momentum),
        (section("adam"), adam),
        (section("adam"), adam_of_tensorflow_1),
        (
            section("rmsprop", decay=0.9, eps=1e-10, initial_scale=1.0, eps_in_sqrt=True),
            rmsprop_of_tensorflow_1,
        ),
    ],
    ids=["sgd", "momentum", "adam", "adam of TensorFlow", "rmsprop"],
)
def test_three_steps_as_the_textbook_says(
    config: ConfigDict, by_hand: Callable[[], np.ndarray]
) -> None:
    config.learning_rate = 99.0  # the schedule holds it already
    optimizer = create_optimizer(config, optax.constant_schedule(RATE))
    np.testing.assert_allclose(three_steps(optimizer), by_hand(), rtol=1e-5)


def test_the_first_update_uses_the_schedule_at_zero() -> None:
    halving = create_schedule(section("exponential_decay", decay_rate=0.5), 0.4, 1)
    w = START
    for rate in (0.4, 0.2, 0.1):
        w = w - rate * CURVATURE * w
    np.testing.assert_allclose(three_steps(create_optimizer(section("sgd"), halving)), w, rtol=1e-6)


@pytest.mark.parametrize(
    ("config", "values"),
    [
        (section("constant_schedule"), {0: 0.4, 50: 0.4, 100: 0.4}),
        (section("constant_schedule", value=0.3), {0: 0.3, 100: 0.3}),
        (section("cosine_decay_schedule"), {0: 0.4, 50: 0.2, 100: 0.0, 200: 0.0}),
        (section("cosine_decay_schedule", alpha=0.5), {0: 0.4, 50: 0.3, 100: 0.2}),
        (section("cosine_decay_schedule", decay_steps=50), {0: 0.4, 25: 0.2, 50: 0.0}),
        (section("linear_schedule", end_value=0.2), {0: 0.4, 50: 0.3, 100: 0.2}),
        (section("exponential_decay", decay_rate=0.25), {0: 0.4, 50: 0.2, 100: 0.1}),
        (
            section("warmup_cosine_decay_schedule", init_value=0.0, warmup_steps=20),
            {0: 0.0, 10: 0.2, 20: 0.4, 60: 0.2, 100: 0.0},
        ),
        (section("cosine_onecycle_schedule", pct_start=0.5), {0: 0.4 / 25, 50: 0.4}),
    ],
    ids=lambda value: " ".join(map(str, value.values())) if isinstance(value, ConfigDict) else "",
)
def test_schedules_of_100_steps(config: ConfigDict, values: dict[int, float]) -> None:
    schedule = create_schedule(config, 0.4, 100)
    got = {step: float(schedule(jnp.int32(step))) for step in values}
    assert got == pytest.approx(values, abs=1e-7)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_every_optimizer_updates_with_a_schedule_and_defaults(name: str) -> None:
    optimizer = create_optimizer(section(name), optax.constant_schedule(RATE))
    w = jnp.array([[1.0, -2.0]])

    def update(w: jax.Array) -> jax.Array:
        return optimizer.update(w, optimizer.init(w), w)[0]

    assert jax.eval_shape(update, w).shape == (1, 2)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_every_schedule_says_what_it_lacks_or_is_built(name: str) -> None:
    lacks = {
        "exponential_decay": {"decay_rate": 0.5},
        "linear_schedule": {"end_value": 0.0},
        "polynomial_schedule": {"end_value": 0.0, "power": 2},
        "warmup_constant_schedule": {"init_value": 0.0, "warmup_steps": 5},
        "warmup_cosine_decay_schedule": {"init_value": 0.0, "warmup_steps": 5},
    }.get(name, {})
    schedule = create_schedule(section(name, **lacks), 0.4, 100)
    assert max(float(schedule(step)) for step in range(0, 101, 5)) == pytest.approx(0.4)
    if lacks:
        with pytest.raises(UsageError) as error:
            create_schedule(section(name), 0.4, 100)
        assert str(error.value).startswith(f"config.schedule.name={name!r}: ")
        assert all(field in str(error.value) for field in lacks if field != "init_value")


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (section("sdg"), "config.optimizer.name='sdg': unknown. Did you mean 'sgd'?"),
        (
            section("sgd", momentun=0.9),
            "config.optimizer.momentun: 'sgd' takes no such argument. Did you mean 'momentum'? "
            "It takes: learning_rate, momentum, nesterov, accumulator_dtype.",
        ),
        (section("optax:sgdd"), "config.optimizer.name='optax:sgdd': optax has no 'sgdd'."),
        (section("math:pi"), "config.optimizer.name: 3.14159"),
        (
            section(f"{__name__}:without_learning_rate"),
            "config.optimizer.learning_rate: 'test_optimizers:without_learning_rate' takes no such",
        ),
        (
            section("adamw", mask="kernel"),
            "config.optimizer.mask='kernel': unknown. Did you mean 'kernels'? Known: kernels; or",
        ),
        (
            section(f"{__name__}:picky"),
            f"config.optimizer.name='test_optimizers:picky': {__file__}, line",
        ),
    ],
)
def test_what_is_told_of_a_wrong_optimizer(config: ConfigDict, told: str) -> None:
    with pytest.raises(UsageError) as error:
        create_optimizer(config, optax.constant_schedule(RATE))
    assert str(error.value).startswith(told)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (section("linear_schedul"), "config.schedule.name='linear_schedul': unknown. Did"),
        (section("constant_schedule", rate=1.0), "config.schedule.rate: 'constant_schedule' takes"),
        (section("cosine_decay_schedule", decay_steps=0), "config.schedule.name='cosine_decay_"),
        (section("math:pi"), "config.schedule.name: 3.14159"),
    ],
)
def test_what_is_told_of_a_wrong_schedule(config: ConfigDict, told: str) -> None:
    with pytest.raises(UsageError) as error:
        create_schedule(config, 0.4, 100)
    assert str(error.value).startswith(told)


PARAMS = {
    "dense": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)},
    "norm": {"scale": jnp.ones(3)},
}


@pytest.mark.parametrize(
    ("name", "argument"), [("adamw", "mask"), ("lamb", "mask"), ("lars", "weight_decay_mask")]
)
def test_weight_decay_of_kernels_alone(name: str, argument: str) -> None:
    config = section(name, weight_decay=0.1, **{argument: "kernels"})
    optimizer = create_optimizer(config, optax.constant_schedule(1.0))
    none = jax.tree.map(jnp.zeros_like, PARAMS)
    updates, _ = optimizer.update(none, optimizer.init(PARAMS), PARAMS)
    assert (updates["dense"]["kernel"] < 0).all()  # there is no gradient: this is decay alone
    assert not updates["dense"]["bias"].any()
    assert not updates["norm"]["scale"].any()


def only_norm(params: Any) -> Any:
    return {name: name == "norm" for name in params}


def test_a_mask_of_ones_own() -> None:
    config = section("adamw", weight_decay=0.5, mask=f"{__name__}:only_norm")
    optimizer = create_optimizer(config, optax.constant_schedule(1.0))
    none = jax.tree.map(jnp.zeros_like, PARAMS)
    updates, _ = optimizer.update(none, optimizer.init(PARAMS), PARAMS)
    assert updates["norm"]["scale"].tolist() == [-0.5] * 3
    assert not updates["dense"]["kernel"].any()


def test_clipping_comes_before_the_optimizer() -> None:
    optimizer = create_optimizer(section("sgd"), optax.constant_schedule(2.0), 0.5)
    gradients = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}  # of norm 5 together
    updates, _ = optimizer.update(gradients, optimizer.init(gradients), gradients)
    assert float(updates["a"][0]) == pytest.approx(-2 * 0.5 * 3 / 5)
    assert float(updates["b"][0]) == pytest.approx(-2 * 0.5 * 4 / 5)


def fails_later(learning_rate: optax.Schedule) -> optax.GradientTransformation:
    def update(updates: Any, opt_state: Any, params: Any = None) -> Any:
        raise IndexError("no such weight")

    return optax.GradientTransformation(lambda params: (), update)


def grows(learning_rate: optax.Schedule) -> optax.GradientTransformation:
    return optax.stateless(lambda updates, _: jax.tree.map(lambda u: jnp.stack([u, u]), updates))


def changes_its_state(learning_rate: optax.Schedule) -> optax.GradientTransformation:
    return optax.GradientTransformation(
        lambda params: jnp.zeros((), jnp.int32), lambda u, s, params=None: (u, s + 1.5)
    )


@pytest.mark.parametrize("function", [fails_later, grows, changes_its_state])
def test_an_update_that_fails_is_told_before_the_run(function: Any) -> None:
    name = f"{__name__}:{function.__name__}"
    optimizer = create_optimizer(section(name), optax.constant_schedule(1.0))
    with pytest.raises(UsageError) as error:
        jax.eval_shape(lambda p: optimizer.update(p, optimizer.init(p), p), PARAMS)
    told = str(error.value)
    assert told.startswith(f"config.optimizer.name='{name}'")
    if function is grows:
        assert "float32 [2, 3] of ['params']['dense']['bias'], which was float32 [3]" in told
    if function is changes_its_state:
        assert "an update makes float32 [] of ['opt_state'], which was int32 []" in told
    if function is fails_later:
        line = fails_later.__code__.co_firstlineno + 2
        assert f"{__file__}, line {line}: IndexError: no such weight" in told


def own_sgd(learning_rate: optax.Schedule, factor: float = 1.0) -> optax.GradientTransformation:
    return optax.sgd(lambda step: factor * learning_rate(step))


def own_schedule(init_value: float, transition_steps: int) -> optax.Schedule:
    return lambda step: init_value + transition_steps


def without_learning_rate() -> optax.GradientTransformation:
    return optax.sgd(0.1)


def picky(learning_rate: optax.Schedule) -> optax.GradientTransformation:
    raise ValueError("no, thank you")


def test_a_users_own_functions() -> None:
    schedule = create_schedule(section(f"{__name__}:own_schedule"), 0.4, 100)
    assert schedule(0) == 100.4
    optimizer = create_optimizer(
        section(f"{__name__}:own_sgd", factor=0.5), optax.constant_schedule(2 * RATE)
    )
    np.testing.assert_allclose(three_steps(optimizer), sgd(), rtol=1e-6)

"""Optimizers and schedules: optax's own, by optax's own names, from a config. No zoo of ours."""

import inspect
from collections.abc import Callable
from typing import Any, cast

import optax
from ml_collections import ConfigDict

from mnist_flax import registry
from mnist_flax.errors import UsageError

# Those of optax that take a schedule for their learning rate; rprop and sm3 do not.
OPTIMIZERS = {
    name: f"optax:{name}"
    for name in (
        *("adabelief", "adadelta", "adafactor", "adagrad", "adam", "adamax", "adamaxw", "adamw"),
        *("adan", "fromage", "lamb", "lars", "lion", "nadam", "nadamw", "novograd"),
        *("optimistic_gradient_descent", "radam", "rmsprop", "sgd", "sign_sgd", "yogi"),
    )
}
SCHEDULES = {
    name: f"optax:{name}"
    for name in (
        *("constant_schedule", "cosine_decay_schedule", "cosine_onecycle_schedule"),
        *("exponential_decay", "linear_onecycle_schedule", "linear_schedule"),
        *("polynomial_schedule", "warmup_constant_schedule", "warmup_cosine_decay_schedule"),
    )
}


def create_schedule(config: ConfigDict, learning_rate: float, total_steps: int) -> optax.Schedule:
    """Builds the schedule that config.schedule names: step -> learning rate.

    Args:
      config: the schedule section: `name`, and arguments of that function.
      learning_rate: stands for `value`, `peak_value` or else `init_value`, unless config has it.
      total_steps: stands for `decay_steps` or `transition_steps`, unless config has it.

    Raises:
      UsageError: an unknown name, or arguments that the function does not take or still lacks.
    """
    function = registry.resolve(config.name, SCHEDULES, "config.schedule.name")
    names = _parameters(function, "config.schedule.name")
    rate_name = next((n for n in ("value", "peak_value", "init_value") if n in names), None)
    given = {rate_name: learning_rate, "decay_steps": total_steps, "transition_steps": total_steps}
    defaults = {name: value for name, value in given.items() if name in names}
    schedule = _call(function, config, "config.schedule", defaults)
    if not callable(schedule):
        raise UsageError(f"config.schedule.name={config.name!r} gave {schedule!r}, no schedule.")
    return cast(optax.Schedule, schedule)


def create_optimizer(config: ConfigDict, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Builds the optimizer that config.optimizer names, with the schedule as its learning rate.

    Args:
      config: the optimizer section: `name`, `learning_rate` (which the schedule already holds),
        and further arguments of that function, e.g. `momentum`.
      schedule: step -> learning rate.

    Raises:
      UsageError: an unknown name, or arguments that the function does not take or still lacks.
    """
    function = registry.resolve(config.name, OPTIMIZERS, "config.optimizer.name")
    _parameters(function, "config.optimizer.name")
    optimizer = _call(function, config, "config.optimizer", {}, learning_rate=schedule)
    if not isinstance(optimizer, optax.GradientTransformation):
        raise UsageError(f"config.optimizer.name={config.name!r} gave {optimizer!r}, no optimizer.")
    return optimizer


def _parameters(function: Any, field: str) -> list[str]:
    if not callable(function):
        raise UsageError(f"{field}: {function!r} is not a function.")
    return list(inspect.signature(function).parameters)


def _call(
    function: Callable[..., Any],
    config: ConfigDict,
    section: str,
    defaults: dict[str, Any],
    **fixed: Any,
) -> Any:
    arguments = defaults | {k: v for k, v in config.items() if k != "name"} | fixed
    known = _parameters(function, f"{section}.name")
    if unknown := sorted(arguments.keys() - set(known)):
        raise UsageError(
            f"{section}.{unknown[0]}: {config.name!r} takes no such argument."
            f"{registry.nearest(unknown[0], known)} It takes: {', '.join(known)}."
        )
    try:
        return function(**arguments)
    except (TypeError, ValueError) as error:  # a missing argument, a value that optax refuses
        raise UsageError(
            f"{section}.name={config.name!r}: {error}. What it needs besides stands in {section} "
            "of a recipe; copy one and add it."
        ) from error

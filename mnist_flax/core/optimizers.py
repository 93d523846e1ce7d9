"""Optimizers and schedules: optax's own, by optax's own names, from a config. No zoo of ours."""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from mnist_flax.config import registry
from mnist_flax.core.packing import packed
from mnist_flax.core.rates import used_rate
from mnist_flax.core.rates_by_path import check_rates, with_rates
from mnist_flax.core.task import Rate
from mnist_flax.core.trees import first_change
from mnist_flax.errors import UsageError, together, where_it_failed

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


# Those of them that treat each number of a parameter by itself; of sgd there is little to save.
_ELEMENTWISE = {
    *("adabelief", "adadelta", "adagrad", "adam", "adamax", "adamaxw", "adamw", "adan", "lion"),
    *("nadam", "nadamw", "optimistic_gradient_descent", "radam", "rmsprop", "yogi"),
}
# What an argument called `mask` may name: which parameters a weight decay touches.
MASKS = {"kernels": "mnist_flax.core.optimizers:kernels"}
_LENGTHS = ("decay_steps", "transition_steps")  # what schedules call the number of steps
_MASK_ARGUMENTS = ("mask", "weight_decay_mask", "trust_ratio_mask")


def kernels(params: Any) -> Any:
    """Says True of kernels and False of biases, scales and other vectors: a pytree of bools."""
    return jax.tree.map(lambda leaf: jnp.ndim(leaf) > 1, params)


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
    given: dict[str | None, float] = {rate_name: learning_rate}
    given |= dict.fromkeys(_LENGTHS, total_steps)
    defaults = {name: value for name, value in given.items() if name in names}
    schedule = _call(function, config, "config.schedule", defaults)
    if not callable(schedule):
        raise UsageError(f"config.schedule.name={config.name!r} gave {schedule!r}, no schedule.")
    return cast(optax.Schedule, schedule)


def length_matters(config: ConfigDict) -> bool:
    """Says whether create_schedule() would tell the schedule how many steps the run has.

    Args:
      config: the schedule section.

    Raises:
      UsageError: an unknown name.
    """
    function = registry.resolve(config.name, SCHEDULES, "config.schedule.name")
    names = _parameters(function, "config.schedule.name")
    return any(name in names and name not in config for name in _LENGTHS)


def create_optimizer(
    config: ConfigDict, schedule: optax.Schedule, clip_by_global_norm: float | None = None
) -> optax.GradientTransformation:
    """Builds the optimizer that config.optimizer names, with the schedule as its learning rate.

    Args:
      config: the optimizer section: `name`, `learning_rate` (which the schedule already holds),
        and further arguments of that function, e.g. `momentum`. A mask is a name of MASKS or
        'package.module:function', params -> pytree of bools. `rates`: see rates_by_path.py.
      schedule: step -> learning rate.
      clip_by_global_norm: the largest norm that the gradient of all parameters together keeps.

    Raises:
      UsageError: an unknown name, or arguments that the function does not take or still lacks; when
        it is traced: it fails, with the line where it does, or does not keep its form.
    """
    function = registry.resolve(config.name, OPTIMIZERS, "config.optimizer.name")
    _parameters(function, "config.optimizer.name")
    masks = {
        name: registry.resolve(config[name], MASKS, f"config.optimizer.{name}")
        for name in _MASK_ARGUMENTS
        if isinstance(config.get(name), str)
    }
    for name, mask in masks.items():
        if not callable(mask):
            raise UsageError(f"config.optimizer.{name}={config[name]!r}: {mask!r} is no function.")
    _check_arguments(config)
    rates = check_rates(config.get("rates", ()))
    optimizer = _call(function, config, "config.optimizer", {}, **masks, learning_rate=schedule)
    if not isinstance(optimizer, optax.GradientTransformation):
        raise UsageError(f"config.optimizer.name={config.name!r} gave {optimizer!r}, no optimizer.")
    if clip_by_global_norm is not None:
        optimizer = optax.chain(optax.clip_by_global_norm(clip_by_global_norm), optimizer)
    if config.name in _ELEMENTWISE and not masks:
        optimizer = packed(optimizer)
    if rates:
        optimizer = with_rates(optimizer, rates)
    return _checked(optimizer, config.name)


def optimizer_of(
    config: ConfigDict, num_steps: int
) -> tuple[optax.GradientTransformation, dict[str, Rate]]:
    """Builds what a config's optimizer, schedule and clip_by_global_norm name.

    Args:
      config: of a run.
      num_steps: of the whole run.

    Returns:
      The optimizer, and {'learning_rate': what it used of the schedule}, for Task.rates.

    Raises:
      UsageError: every fault of the three at once.
    """
    schedule, _ = together(
        lambda: create_schedule(config.schedule, config.optimizer.learning_rate, num_steps),
        lambda: create_optimizer(config.optimizer, optax.constant_schedule(0.0)),
    )

    def build(schedule: optax.Schedule) -> optax.GradientTransformation:
        return create_optimizer(config.optimizer, schedule, config.clip_by_global_norm)

    return build(schedule), {"learning_rate": used_rate(build, schedule)}


def _checked(optimizer: optax.GradientTransformation, name: str) -> optax.GradientTransformation:
    """The same optimizer; where it fails, or does not keep its form, it says so when traced."""

    def init(params: Any) -> Any:
        with _told(name):
            return optimizer.init(params)

    def update(grads: Any, opt_state: Any, params: Any = None) -> tuple[Any, Any]:
        with _told(name):
            updates, new_opt_state = optimizer.update(grads, opt_state, params)
            updated = optax.apply_updates(params, updates)
        before = {"params": params, "opt_state": opt_state}
        if change := first_change(before, {"params": updated, "opt_state": new_opt_state}):
            raise UsageError(
                f"config.optimizer.name={name!r}: an update makes {change}; parameters and state "
                "must keep their form."
            )
        return updates, new_opt_state

    return optax.GradientTransformation(init, update)


@contextlib.contextmanager
def _told(name: str) -> Iterator[None]:
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(
            f"config.optimizer.name={name!r} fails on the model's parameters: "
            f"{where_it_failed(error, __file__)}"
        ) from error


# What optax takes without a word and no run survives.
_SHARES = ("b1", "b2", "b3", "decay", "momentum")
_NOT_NEGATIVE = ("eps", "eps_root", "initial_scale", "weight_decay")


def _check_arguments(config: ConfigDict) -> None:
    if config.name not in OPTIMIZERS:
        return  # in a function of the user's own these names may mean anything
    for name, value in config.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        told = f"config.optimizer.{name}={value!r}: must be a number"
        if name in _SHARES and value is not None and not (number and 0 <= value < 1):
            raise UsageError(f"{told}, at least 0 and below 1.")
        if name in _NOT_NEGATIVE and value is not None and not (number and value >= 0):
            raise UsageError(f"{told}, at least 0.")


def _parameters(function: Any, field: str) -> list[str]:
    if not callable(function):
        raise UsageError(f"{field}: {function!r} is not a function.")
    try:
        return list(inspect.signature(function).parameters)
    except ValueError as error:  # written in C, as max is
        raise UsageError(f"{field}: {function!r} does not tell its arguments.") from error


def _call(
    function: Callable[..., Any],
    config: ConfigDict,
    section: str,
    defaults: dict[str, Any],
    **fixed: Any,
) -> Any:
    ours = ("name", "rates") if section == "config.optimizer" else ("name",)
    arguments = defaults | {k: v for k, v in config.items() if k not in ours} | fixed
    known = _parameters(function, f"{section}.name")
    if unknown := sorted(arguments.keys() - set(known)):
        raise UsageError(
            f"{section}.{unknown[0]}: {config.name!r} takes no such argument."
            f"{registry.nearest(unknown[0], known)} It takes: {', '.join(known)}."
        )
    try:
        return function(**arguments)
    except UsageError:
        raise
    except Exception as error:  # a missing argument, a value that optax refuses, the user's fault
        raise UsageError(
            f"{section}.name={config.name!r}: {where_it_failed(error, __file__)}. What it needs "
            f"besides stands in {section} of a recipe; copy one and add it."
        ) from error

"""Every fault of a config at once. What the other modules know of their own fields, they check."""

import functools
from collections.abc import Callable, Iterable, Sequence

from ml_collections import ConfigDict

from mnist_flax.config.changes import as_json, can_be_written, flatten
from mnist_flax.config.fields import default_config
from mnist_flax.config.section import TYPES, near_fields
from mnist_flax.errors import UsageError

_LOOKED_UP = ("task.name", "model.name", "optimizer.name", "schedule.name")


def validate(
    config: ConfigDict,
    others: Iterable[Callable[[ConfigDict], object]] = (),
    *,
    no_steps: bool = False,
) -> None:
    """Checks every field's value; names every fault at once.

    Args:
      config: a whole config, after overrides or as it was read from a file.
      others: further checks, each raising UsageError: those of modules that this one may not
        import (tasks, augmentations, data). They are given the config with defaults in place of
        values of a wrong type, which are reported already.
      no_steps: whether num_steps may be 0: what knows tasks checks whether there is anything to
        train.

    Raises:
      UsageError: one line a fault.
    """
    require_fields(config)
    unwritable = _unwritable(config)
    config, faults = _typed(config)
    faults += _faults(config, no_steps)
    told = {fault.partition("=")[0] for fault in faults}
    faults += [line for field, line in unwritable.items() if field not in told]
    for check in others:
        try:
            check(config)
        except UsageError as error:
            faults.append(str(error))
    if faults:
        raise UsageError("\n".join(faults))


def require_fields(config: object, whose: str = "") -> None:
    """Raises UsageError if a recipe lacks what default_config() would have given it.

    Args:
      config: what get_config() returned.
      whose: begins the message.
    """
    if config is None:
        raise UsageError(f"{whose}get_config() returns nothing: end it with `return config`.")
    if not isinstance(config, ConfigDict):
        raise UsageError(
            f"{whose}get_config() returns {type(config).__name__} {config!r:.40}: return what "
            "default_config() gives."
        )
    if missing := missing_fields(config):
        raise UsageError(
            f"{whose}The recipe has no {first_of([f'config.{name}' for name in missing])}: start "
            "from default_config() and set fields of it."
        )


def refuse_unknown(config: ConfigDict) -> None:
    """Raises UsageError for what default_config() has no place for: nothing would read it.

    A config refuses it when it is set, unless somebody has unlocked it.
    """
    known = default_config()
    names = [name for name in config if name not in known]
    names += [f"data.{name}" for name in config.data if name not in known.data]
    if names:
        raise UsageError(
            "\n".join(f"config.{name}: no such field.{near_fields(name, known)}" for name in names)
        )


def first_of(names: Sequence[str]) -> str:
    """Returns a list for a message: the first three of the names, and how many more there are."""
    more = f" and {len(names) - 3} more fields" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more}"


def missing_fields(config: ConfigDict) -> list[str]:
    """Returns what a config lacks of default_config(), parameters of augmentations aside."""
    needed = {name for name in flatten(default_config()) if not name.startswith("augment.random_")}
    return sorted(needed - flatten(config).keys())


def _typed(config: ConfigDict) -> tuple[ConfigDict, list[str]]:
    """Returns the config with defaults for values of a wrong type, and a line for each of them.

    A ConfigDict checks types where it is set, but not those of a config.json that was edited. The
    names of models, optimizers and schedules are left to those who look them up; None to _faults.
    """
    typed, values, faults = config.copy_and_resolve_references(), flatten(config), []
    for field, default in flatten(default_config()).items():
        section, _, leaf = field.rpartition(".")
        value = values.get(field)
        if value is None or field in _LOOKED_UP:
            continue
        known = _section(default_config(), section)
        want = known.get_type(leaf)
        fits = (int, float) if want is float else list if want is tuple else want
        if isinstance(value, fits) and isinstance(value, bool) <= (want is bool):
            continue
        faults.append(f"config.{field}={value!r}: must be {TYPES.get(want, 'a list of names')}.")
        with typed.ignore_type():
            _section(typed, section)[leaf] = tuple(default) if want is tuple else default
    return typed, faults


def _unwritable(config: ConfigDict) -> dict[str, str]:
    """Returns a line for each field, by its name, that config.json and a save cannot hold."""
    faults = {
        f"config.{field}": f"config.{field}={value!r}: cannot be written to config.json. Give a "
        "number, true or false, text (such as a name that your function looks up), or a list."
        for field, value in flatten(config).items()
        if not can_be_written(value)
    }
    if not faults:
        try:
            as_json(config.to_dict())
        except (TypeError, ValueError, RecursionError) as error:  # a section's key
            faults["config"] = f"config: cannot be written to config.json ({error})."
    return faults


def _section(config: ConfigDict, path: str) -> ConfigDict:
    return functools.reduce(
        lambda section, name: section[name], path.split(".") if path else [], config
    )


def _faults(config: ConfigDict, no_steps: bool) -> list[str]:
    faults = [
        f"config.{field}={config[field]}: must be at least {least}."
        for field, least in (
            ("seed", 0),
            ("batch_size", 1),
            ("num_steps", 1),
            ("num_epochs", 1),
            ("log_every_steps", 0),
            ("eval_every_steps", 0),
            ("checkpoint_every_steps", 0),
            ("keep_checkpoints", 1),
            ("accumulate_steps", 1),
            ("early_stopping_patience", 0),
            ("plateau_patience", 0),
        )
        if config[field] is not None and config[field] < least
        if not (no_steps and field == "num_steps" and config[field] == 0)
    ]
    faults += [
        f"config.{field}=None: must be set."
        for field, value in config.items()
        if value is None and field not in ("num_steps", "num_epochs", "clip_by_global_norm")
    ]
    if config.seed is not None and config.seed >= 2**32:
        faults.append(f"config.seed={config.seed}: must be below 2**32, a key's width.")
    if config.num_steps is None and config.num_epochs is None:
        faults.append("config.num_steps and config.num_epochs: one of the two must be set.")
    if config.num_steps is not None and config.num_epochs is not None:
        faults.append(
            f"config.num_steps={config.num_steps} and config.num_epochs={config.num_epochs}: "
            "only one of the two may be set."
        )
    rate = config.optimizer.learning_rate
    if rate is None or not 0 < rate < 3e38:  # float32 ends there
        faults.append(f"config.optimizer.learning_rate={rate}: must be positive and finite.")
    smoothing = config.label_smoothing
    if smoothing is not None and not 0 <= smoothing < 1:
        faults.append(f"config.label_smoothing={smoothing}: a share, at least 0 and below 1.")
    decay = config.ema_decay
    if decay is not None and not 0 <= decay < 1:
        faults.append(f"config.ema_decay={decay}: at least 0, which is none, and below 1.")
    clip = config.clip_by_global_norm
    if clip is not None and not 0 < clip < 3e38:
        faults.append(f"config.clip_by_global_norm={clip}: must be positive and finite.")
    return faults + _faults_of_steps(config)


_ONE_OF = {
    "on_damaged_checkpoint": ("stop", "previous"),
    "on_bad_step": ("stop", "skip"),
    "on_writer_fault": ("drop", "stop"),
    "compute_dtype": ("float32", "bfloat16"),
}


def _faults_of_steps(config: ConfigDict) -> list[str]:
    faults = [
        f"config.{field}={config[field]!r}: must be {' or '.join(map(repr, known))}."
        for field, known in _ONE_OF.items()
        if config[field] is not None and config[field] not in known
    ]
    size, parts = config.batch_size, config.accumulate_steps
    if size and parts and size >= 1 <= parts and size % parts:
        near = [n for n in range(1, size + 1) if size % n == 0]
        near = sorted(near, key=lambda n: abs(n - parts))[:2]
        faults.append(
            f"config.accumulate_steps={parts}: does not divide config.batch_size={size}; "
            f"{' or '.join(map(str, sorted(near)))} does."
        )
    factor = config.plateau_factor
    if factor is not None and not 0 < factor < 1:
        faults.append(f"config.plateau_factor={factor}: must be above 0 and below 1.")
    weights = config.class_weights
    if weights is not None and not all(_is_weight(weight) for weight in weights):
        faults.append(f"config.class_weights={weights}: must be numbers, none below 0.")
    return faults


def _is_weight(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 3e38

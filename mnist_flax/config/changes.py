"""What a command line changes of a recipe, and what a run may take of it when it goes on."""

import json
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from mnist_flax.errors import UsageError

# These may change between two starts of one run, because no bit of its state depends on them.
# What the data are called and cut from is among them: their fingerprint says whether they are the
# same images in the same order.
_HARMLESS = (
    "log_every_steps",
    "eval_every_steps",
    "checkpoint_every_steps",
    "keep_checkpoints",
    "on_damaged_checkpoint",
    "observers",
    "log_probabilities",
    "tensorboard",
    "writers",
    "on_writer_fault",
    "compilation_cache",
    "task.judge",
    "data.name",
    "data.data_dir",
    "data.transpose",
    "data.resize",
    "data.train_split",
    "data.eval_split",
    "data.select_split",
    "data.resplit",
    "data.stream",
    "data.fallback",
)
# Likewise every field of this section: what is evaluated as well never chooses and never counts.
OF_EXTRA_SPLITS = "data.extra_eval_splits."


# Among them: what evaluations say and when, which matters to a run that may end or slow down by it.
WHAT_IS_EVALUATED = ("eval_every_steps", "task.judge", "data.eval_split", "data.select_split")


# What a run writes into its own config: the networks that it has taken in.
OF_TAKEN = ("model.members.", "task.network.", "task.taken.")


def overridden(config: ConfigDict, overrides: Mapping[str, Any]) -> tuple[ConfigDict, list[str]]:
    """Returns a config with the command line's values, and what that left out, a line each.

    num_steps and num_epochs replace each other. A new name for the task, the model, the optimizer
    or the schedule leaves out what the recipe says about the old one, except the learning rate and
    the rates by path.

    Args:
      config: of a recipe; is not changed.
      overrides: {'optimizer.learning_rate': 0.01, …}, of the fields' own types.

    Raises:
      UsageError: both num_steps and num_epochs.
    """
    if "num_steps" in overrides and "num_epochs" in overrides:
        raise UsageError(
            f"config.num_steps={overrides['num_steps']} and "
            f"config.num_epochs={overrides['num_epochs']}: give one of the two."
        )
    new, notes = config.copy_and_resolve_references(), []
    for section in ("task", "model", "optimizer", "schedule"):
        if overrides.get(f"{section}.name", config[section].name) == config[section].name:
            continue
        ours = {"name", "learning_rate"} | ({"rates"} if section == "optimizer" else set())
        for field in sorted(set(config[section]) - ours):
            if f"{section}.{field}" not in overrides:
                notes.append(
                    f"config.{section}.{field}={config[section][field]} is left out: it belongs "
                    f"to {config[section].name!r}."
                )
                with new.unlocked():
                    del new[section][field]
    for field, other in (("num_steps", "num_epochs"), ("num_epochs", "num_steps")):
        if field in overrides:
            new[other] = None
    with new.unlocked():  # fields may be added, and a section of an augmentation
        for name, value in overrides.items():
            _set(new, name, value)
    return new, notes


def _set(config: ConfigDict, name: str, value: Any) -> None:
    *path, last = name.split(".")
    for place, part in enumerate(path):
        if part not in config:
            config[part] = ConfigDict()
        if not isinstance(config[part], ConfigDict):
            before = ".".join(path[: place + 1])
            raise UsageError(
                f"config.{name}={value}: config.{before} is {config[part]!r} here, no section."
            )
        config = config[part]
    if isinstance(config.get(last), ConfigDict) and not isinstance(value, ConfigDict | dict):
        raise UsageError(f"config.{name}={value}: config.{name} is a section here.")
    config[last] = value


def may_be_added(field: str) -> bool:
    """Says whether a field that a recipe lacks may be set: its section passes its fields on."""
    parts = field.split(".")
    if parts[0] == "augment":  # .function.parameter
        return len(parts) == 3 and parts[1] != "order"
    if field.startswith(OF_EXTRA_SPLITS):  # .name, or .name.data_dir
        return len(parts) in (3, 4)
    return parts[0] in ("task", "model", "optimizer", "schedule") and len(parts) == 2


def as_flag(field: str, value: Any) -> str:
    """Returns what a command line says to give a field this value: '--config.batch_size=50'."""
    text = repr(tuple(value)) if isinstance(value, list | tuple) else str(value)
    return f"--config.{field}={text}"


def flatten(config: ConfigDict | dict) -> dict[str, Any]:
    """Returns {'optimizer.learning_rate': 0.001, …}, each value as JSON gives it back.

    So a config is compared with what was written of one: a tuple, at any depth, is a list. A value
    that JSON cannot hold stays as it is; validation.py reports it.
    """
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict | dict):
            flat |= {f"{key}.{inner}": leaf for inner, leaf in flatten(value).items()}
        else:
            flat[key] = as_json(value) if can_be_written(value) else value
    return flat


def as_json(value: Any) -> Any:
    """Returns what JSON gives back of a value.

    Raises:
      TypeError, ValueError, RecursionError: JSON cannot hold it, or it is NaN, which differs from
        itself: a run with it could not be recognised. Infinity is Python's own addition to JSON.
    """
    return json.loads(json.dumps(value), parse_constant=_constant)


def can_be_written(value: Any) -> bool:
    """Says whether config.json can hold a value."""
    try:
        as_json(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _constant(name: str) -> float:
    if name == "NaN":
        raise ValueError("NaN differs from itself")
    return float(name)


def diff(old: ConfigDict | dict, new: ConfigDict | dict) -> dict[str, tuple[Any, Any]]:
    """Returns {field: (old value, new value)} for every field that differs."""
    before, after = flatten(old), flatten(new)
    fields = sorted(before.keys() | after.keys())
    return {
        name: (before.get(name), after.get(name))
        for name in fields
        if before.get(name) != after.get(name)
    }


def is_harmless(field: str, *, length_matters: bool) -> bool:
    """Says whether a run may be resumed although this field changed.

    Args:
      field: 'num_steps', 'data.name', …
      length_matters: whether a learning rate depends on the number of steps; what knows schedules
        says so (core/optimizers.py). If not, more (or fewer) steps are harmless.
    """
    if field in ("num_steps", "num_epochs"):
        return not length_matters
    return field in _HARMLESS or field.startswith(OF_EXTRA_SPLITS)

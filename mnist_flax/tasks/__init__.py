"""What is learnt: tasks by name.

A task is a bundle of pure functions (core/task.py); a builder makes it of a config and of what the
data are: (config, spec, **fields of config.task) -> Task. networks.py has what builders share.
"""

import inspect
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from mnist_flax.config import default_config, flatten, registry
from mnist_flax.core.average import with_average
from mnist_flax.core.bad_steps import with_skipped_steps
from mnist_flax.core.patience import with_patience
from mnist_flax.core.task import Metric, Spec, Task
from mnist_flax.core.update import NORMS, gradient_update
from mnist_flax.errors import UsageError, UserError, where_it_failed

__all__ = ["TASKS", "Metric", "Spec", "Task", "create_task", "gradient_update"]

TASKS = {
    "autoencoder": "mnist_flax.tasks.autoencoder:autoencoder",
    "gan": "mnist_flax.tasks.gan:gan",
    "classification": "mnist_flax.tasks.classification:classification",
    "distillation": "mnist_flax.tasks.distillation:distillation",
    "ensemble": "mnist_flax.tasks.ensemble:ensemble",
}
# Whether these mean anything is the task's affair; the others are the run's or the data's.
_OF_THE_TASK = (
    *("model", "compute_dtype", "optimizer", "schedule", "clip_by_global_norm", "accumulate_steps"),
    *("label_smoothing", "class_weights", "log_norms", "log_probabilities"),
)
# What makes no sense where nothing is trained.
_OF_STEPS = (
    *("ema_decay", "on_bad_step", "early_stopping_patience", "plateau_patience", "augment.order"),
)


def create_task(config: ConfigDict, spec: Spec) -> Task:
    """Builds the task that config.task names; its other fields are passed on by name.

    Args:
      config: of the run.
      spec: of its data.

    Raises:
      UsageError: an unknown name, a fault that the builder finds, something that is no Task; or a
        field of the config that is set and that this task does not read.
    """
    name = config.task.name
    builder = registry.resolve(name, TASKS, "config.task.name")
    fields = {key: value for key, value in config.task.items() if key != "name"}
    noted = _Noted(config)
    _check_fields(name, builder, fields)
    try:
        task = builder(noted, spec, **fields)
    except UserError:
        raise
    except Exception as error:  # a field that it lacks or does not take, a fault of the user's own
        raise UsageError(
            f"config.task.name={name!r}: {where_it_failed(error, __file__)}"
        ) from error
    if not isinstance(task, Task):
        kind = type(task).__name__
        raise UsageError(f"config.task.name={name!r} gave a {kind}, no mnist_flax.tasks.Task.")
    # By value: a config that was read from a file is unlocked, which ConfigDict's == looks at, too.
    given, default = flatten(config), flatten(default_config())
    ignored = [
        f"config.{field}={value}: the task {name!r} does not use it; leave it out."
        for field, value in given.items()
        if (
            field.partition(".")[0] in set(_OF_THE_TASK) - noted.read
            and value != default.get(field)
        )
        or (field in _OF_STEPS and not task.trains and value != default[field])
    ]
    if ignored:
        raise UsageError("\n".join(ignored))
    return _wrapped(task, config)


def _wrapped(task: Task, config: ConfigDict) -> Task:
    """Returns the task with what any task can be asked for, the outermost last."""
    if config.log_norms:
        task = task._replace(metrics={**task.metrics, **NORMS})
    if config.early_stopping_patience or config.plateau_patience:
        task = with_patience(
            task, config.early_stopping_patience, config.plateau_patience, config.plateau_factor
        )
    if config.ema_decay:
        task = with_average(task, config.ema_decay)
    if config.on_bad_step == "skip":
        task = with_skipped_steps(task)
    return task


def _check_fields(name: str, builder: Any, fields: Mapping[str, Any]) -> None:
    """Raises UsageError for a field that the builder does not take."""
    try:
        known = inspect.signature(builder).parameters
    except (TypeError, ValueError):  # no function; what it is instead is reported when it is called
        return
    takes_all = any(each.kind is each.VAR_KEYWORD for each in known.values())
    if unknown := sorted(fields.keys() - known.keys()):
        if takes_all:
            return
        taken = list(known)[2:]  # after the config and the spec
        raise UsageError(
            f"config.task.{unknown[0]}: the task {name!r} has no such field."
            f"{registry.nearest(unknown[0], taken)} It has: {', '.join(taken) or 'none'}."
        )


class _Noted:
    """A config that notes which of its fields are read."""

    def __init__(self, config: ConfigDict):
        self._config = config
        self.read: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        # items(), to_dict() and the like may read any.
        self.read |= {name} if name in self._config else set(self._config)
        return getattr(self._config, name)

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)

    def __contains__(self, name: str) -> bool:
        return name in self._config

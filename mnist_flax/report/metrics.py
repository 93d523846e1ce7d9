"""What a task measures, as the page shows it: names, numbers, axes."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mnist_flax.core.evaluation import Evaluation
from mnist_flax.core.task import Metric, Task
from mnist_flax.use.restore import Restored

# By config.task.name and metric.
_UNITS = {
    ("classification", "loss"): "nats",
    **{("autoencoder", name): "nats" for name in ("negative_elbo", "reconstruction", "kl")},
}
_NAMES = {"negative_elbo": "negative ELBO", "kl": "KL divergence"}  # not as they are written
# Ids of page.html and names of other figures' files.
_TAKEN = frozenset(
    (
        *("classes", "command", "compared", "comparison", "conditions", "config", "confusion"),
        *("confusions", "curves", "data", "ece", "events", "filters", "layers", "macro-f1"),
        *("mistakes", "reliability", "right", "run", "scores", "speed"),
    )
)


class Value(NamedTuple):
    """An evaluated metric.

    Attributes:
      label: what it is.
      text: the number.
      place: the id of its element.
    """

    label: str
    text: str
    place: str


def values(task: Task, means: Mapping[str, float]) -> list[Value]:
    """Returns the evaluated metrics in the task's order, the one that chooses the best save first.

    Args:
      task: what was learnt.
      means: of an evaluation; what it does not sum is left out.
    """
    names = [name for name in task.metrics if name in means]
    names.sort(key=lambda name: name != task.best)
    return [
        Value(label(name), _text(name, task.metrics[name], means[name]), place(name))
        for name in names
    ]


def columns(restored: Restored, evaluation: Evaluation) -> dict[str, tuple[str, ...]]:
    """Returns what each row of 'train', 'eval' and 'select' holds for the curves.

    A metric may be summed in training alone or in evaluations alone.
    """
    task = restored.task
    evaluated = tuple(name for name in task.metrics if name in evaluation.means)
    in_training = [name for name in task.metrics if name in restored.state.window]
    return {
        "train": (*in_training, *task.rates, "steps_per_second"),
        "eval": evaluated,
        "select": evaluated,
    }


def label(name: str, task_name: str = "") -> str:
    """Returns a column's name as words, with its unit where the task has one: 'loss, nats'."""
    unit = _UNITS.get((task_name, name))
    return _NAMES.get(name, name.replace("_", " ")) + (f", {unit}" if unit else "")


def place(name: str) -> str:
    """Returns a column's name as a file and an id bear it: 'learning-rate'."""
    plain = re.sub(r"[\W_]+", "-", name).strip("-")
    return f"metric-{plain}" if plain in _TAKEN or not plain else plain


def scale(name: str, metric: Metric, measured: Sequence[float]) -> str:
    """Returns the axis of a metric's curves, as plots.curves takes it.

    Args:
      name: 'accuracy' is stretched towards 1; 'loss' is logarithmic, as is whatever falls to a
        tenth or further.
      metric: whether more of it is better.
      measured: all that is drawn.
    """
    if name == "accuracy" and all(0 <= value <= 1 for value in measured):
        return "accuracy"
    positive = [value for value in measured if value > 0]
    if metric.larger_is_better or not positive or min(measured) < 0:
        return "linear"
    return "log" if name == "loss" or max(positive) >= 10 * min(positive) else "linear"


def _text(name: str, metric: Metric, value: float) -> str:
    if name == "accuracy" and 0 <= value <= 1:
        return f"{100 * value:.2f}\N{NO-BREAK SPACE}%"
    return format(value, metric.format)

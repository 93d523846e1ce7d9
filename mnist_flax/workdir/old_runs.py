"""What version 0.1.0 wrote otherwise, in one place: runs of that version stay readable.

It knew one task, so its config has no field for that, its metadata one number of an evaluation, and
its state the parts of the variables side by side and the sums under names of their own.
"""

from typing import Any

import flax.struct
import jax

from mnist_flax.core.state import TrainState

VERSION = "0.1.0"  # which did not write its own
_FIELDS: dict[str, Any] = {
    "task": {"name": "classification"},
    "observers": [],
    "tensorboard": False,
}
_SUMS = {"loss": "loss_sum", "accuracy": "correct", "count": "count"}  # today's name: theirs
SUMS = {
    "loss": jax.ShapeDtypeStruct((), "float32"),
    "accuracy": jax.ShapeDtypeStruct((), "int32"),
    "count": jax.ShapeDtypeStruct((), "int32"),
}


class _Sums(flax.struct.PyTreeNode):
    loss_sum: Any
    correct: Any
    count: Any


class _State(flax.struct.PyTreeNode):
    """In this order: the digest of a save goes through the leaves as they come."""

    step: Any
    params: Any
    batch_stats: Any
    opt_state: Any
    window: _Sums
    epoch: _Sums


def today_config(config: dict[str, Any]) -> dict[str, Any]:
    """Returns a run's config with the fields that its version did not have."""
    return {**_FIELDS, **config}


def today_metadata(metadata: dict[str, Any]) -> dict[str, Any]:
    """Returns a save's metadata in today's form."""
    new = dict(metadata)
    if isinstance(new.get("config"), dict):
        new["config"] = today_config(new["config"])
    if isinstance(new.get("environment"), dict):
        new["environment"] = {"mnist_flax": VERSION, **new["environment"]}
    if "accuracy" in new:
        accuracy = new.pop("accuracy")
        new["evaluation"] = None if accuracy is None else {"accuracy": accuracy}
    return new


def is_old(leaves: dict[str, str]) -> bool:
    """Says whether a save with these leaves has the old form."""
    return f"window.{_SUMS['loss']}" in leaves


def old_form(state: TrainState) -> Any:
    """Returns a state, or the form of one, as 0.1.0 had it; the sums must be those of its task."""
    window, epoch = (
        _Sums(**{old: sums.get(new) for new, old in _SUMS.items()})
        for sums in (state.window, state.epoch)
    )
    return _State(state.step, state.params, state.batch_stats, state.opt_state, window, epoch)


def today_state(old: Any) -> TrainState:
    """Returns what 0.1.0 saved as a state of today; the same arrays."""
    window, epoch = (
        {new: getattr(sums, name) for new, name in _SUMS.items()}
        for sums in (old.window, old.epoch)
    )
    variables = {"params": old.params, "batch_stats": old.batch_stats}
    return TrainState(old.step, variables, old.opt_state, window, epoch)

"""What version 0.1.0 wrote otherwise, in one place: runs of that version stay readable.

It knew one task, so its config has no field for that, its metadata one number of an evaluation, and
its state the parts of the variables side by side and the sums under names of their own.
"""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax

from mnist_flax.core.state import TrainState

VERSION = "0.1.0"  # it did not record its version
_FIELDS: dict[str, Any] = {
    "task": {"name": "classification"},
    "observers": [],
    "tensorboard": False,
}
# As it was before there were these fields; those of config.data apart.
_LATER = {
    "accumulate_steps": 1,
    "class_weights": [],
    "compilation_cache": True,
    "compute_dtype": "float32",
    "early_stopping_patience": 0,
    "ema_decay": 0.0,
    "log_norms": False,
    "on_bad_step": "stop",
    "on_writer_fault": "drop",
    "plateau_factor": 0.5,
    "plateau_patience": 0,
    "writers": [],
}
_LATER_DATA = {
    "balance": False,
    "extra_eval_splits": {},
    "resize": None,
    "select_split": "",
    "stream": False,
    "transpose": None,
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


def today_config(content: dict[str, Any]) -> dict[str, Any]:
    """Returns what a config.json holds, with the fields that its version did not have."""
    config = _with_later(content["config"])
    if "mnist_flax" not in content.get("environment", {}):
        config = {**_FIELDS, **config}
    return content | {"config": config}


def today_metadata(metadata: dict[str, Any]) -> dict[str, Any]:
    """Returns a save's metadata in today's form."""
    metadata = metadata | {"config": _with_later(metadata["config"])}
    if "accuracy" not in metadata:
        return metadata
    accuracy = metadata["accuracy"]
    return {name: value for name, value in metadata.items() if name != "accuracy"} | {
        "config": {**_FIELDS, **metadata["config"]},
        "environment": {"mnist_flax": VERSION, **metadata["environment"]},
        "evaluation": None if accuracy is None else {"accuracy": accuracy},
    }


def _with_later(config: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(config.get("data"), dict):
        return config
    return {**_LATER, **config, "data": {**_LATER_DATA, **config["data"]}}


def is_old(leaves: Mapping[str, str]) -> bool:
    """Says whether a save with these leaves has the old form."""
    return f"window.{_SUMS['loss']}" in leaves


def old_form(state: TrainState) -> Any:
    """Returns a state, or the form of one, as 0.1.0 had it; its sums those of a classification."""
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

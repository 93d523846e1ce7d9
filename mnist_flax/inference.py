"""A trained network out of a workdir, for whatever uses it without training it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import optax
from flax import linen as nn
from ml_collections import ConfigDict

from mnist_flax import data
from mnist_flax.checkpoint import Checkpoints
from mnist_flax.config import overridden, validate
from mnist_flax.data.dataset import Dataset
from mnist_flax.errors import UsageError, UserError
from mnist_flax.models import create_model
from mnist_flax.optim import create_optimizer
from mnist_flax.state import TrainState, create_state
from mnist_flax.workdir import read_config

_OTHER_DATA = {"data.name", "data.data_dir"}


@dataclass(frozen=True)
class Restored:
    """A network as it was saved.

    Attributes:
      config: the run's own, with the overrides that inference allows.
      model: its module.
      state: to the bit; state.step says when.
      checkpoint: the folder it was read from.
      class_names: of the data it was trained on, one per logit.
      image_shape: (H, W, C) that it takes.
    """

    config: ConfigDict
    model: nn.Module
    state: TrainState
    checkpoint: Path
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]


def restore(workdir: Path, which: str, overrides: Mapping[str, Any]) -> Restored:
    """Restores a checkpoint with the model and seed of the workdir's config.json.

    Args:
      workdir: of a run; nothing in it is changed, and it may be training meanwhile.
      which: 'latest', 'best' or a step.
      overrides: of `data.*` and `batch_size`, from the command line.

    Raises:
      UsageError: another field is overridden; there is no such checkpoint; a wrong value.
      UserError: the workdir holds no run, or the checkpoint is damaged.
    """
    if refused := [n for n in overrides if not n.startswith("data.") and n != "batch_size"]:
        raise UsageError(
            f"config.{refused[0]}: comes from {workdir}/config.json in this mode; only "
            "config.data.* and config.batch_size may be overridden."
        )
    config = ConfigDict(read_config(workdir)["config"])
    if not (workdir / "checkpoints").is_dir():
        raise UserError(f"--workdir={workdir}: nothing is saved in it yet. Train first.")
    checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
    try:
        step = checkpoints.find(which)
        metadata = checkpoints.metadata(step)
        trained_on = metadata["dataset"]
        if trained_on["name"] != config.data.name and not _OTHER_DATA & overrides.keys():
            # A run that fell back to the sample is judged on the sample, without another search,
            # and cut as this command asks, not as the recipe did.
            config.data.update(name=trained_on["name"], train_split="train", eval_split="test")
        _refuse_other_splits(config, overrides)
        config, _ = overridden(config, overrides)
        validate(config, others=(lambda: data.check(config.data),))
        model = create_model(config.model, len(trained_on["class_names"]))
        optimizer = create_optimizer(
            config.optimizer, optax.constant_schedule(0.0), config.clip_by_global_norm
        )
        image_shape = tuple(trained_on["image_shape"])
        like = jax.eval_shape(lambda: create_state(model, optimizer, image_shape, config.seed))
        state = checkpoints.restore(step, like)
        path = checkpoints.path(step)
    finally:
        checkpoints.close()
    return Restored(config, model, state, path, tuple(trained_on["class_names"]), image_shape)


def _refuse_other_splits(config: ConfigDict, overrides: Mapping[str, Any]) -> None:
    """Raises UsageError for splits cut from data that the run has mixed: they would hold others."""
    other = [n for n in ("data.train_split", "data.eval_split") if n in overrides]
    if config.data.resplit is None or all(overrides[n] == config.data[n[5:]] for n in other):
        return
    raise UsageError(
        f"config.{other[-1]}={overrides[other[-1]]!r}: this run has mixed its splits "
        f"(config.data.resplit={config.data.resplit}), and knows only its own: "
        f"{config.data.eval_split!r} are the images that it was not trained on."
    )


def load_data(restored: Restored, report: Any) -> Dataset:
    """Loads what config.data names.

    Raises:
      UserError: pictures of another size, or another number of classes than the network's.
    """
    dataset = data.load(restored.config.data, report=report)
    shape, classes = dataset.eval.images.shape[1:], len(dataset.class_names)
    if shape != restored.image_shape or classes != len(restored.class_names):
        raise UserError(
            f"{dataset.source}: images {list(shape)} of {classes} classes; the network in "
            f"{restored.checkpoint} takes {list(restored.image_shape)} and knows "
            f"{len(restored.class_names)}. Choose other data with --config.data.…"
        )
    return dataset

"""A trained network out of a workdir, for whatever uses it without training it."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from flax import linen as nn
from ml_collections import ConfigDict

from mnist_flax import data
from mnist_flax.config import OF_EXTRA_SPLITS, flatten, overridden
from mnist_flax.config.validation import first_of, missing_fields, validate
from mnist_flax.core.settings import require_jax
from mnist_flax.core.state import TrainState, create_state
from mnist_flax.core.task import Spec, Task, Variables
from mnist_flax.cpu import half_precision
from mnist_flax.data import place, preparation
from mnist_flax.data.preparation import Preparation
from mnist_flax.errors import UsageError, UserError
from mnist_flax.tasks import create_task
from mnist_flax.workdir.checkpoints import Checkpoints
from mnist_flax.workdir.files import read_config

_OTHERS = {"batch_size", "task.judge"}  # that may be overridden, apart from the data
_OTHER_DATA = {"data.name", "data.data_dir"}


@dataclass(frozen=True)
class Restored:
    """What a run has learnt, as it was saved.

    Attributes:
      config: the run's own, with the overrides that inference allows.
      task: what was learnt; its functions take state.variables.
      state: bit for bit; state.step says when.
      checkpoint: the folder it was read from.
      trained_on: its data, as workdir/metadata.py describes them.
      class_names: of these data.
      image_shape: (H, W, C) that it takes.
      own_data: whether no override names data, or splits other than the run's own.
      chosen: whether an evaluation chose this save, as the best one.
    """

    config: ConfigDict
    task: Task
    state: TrainState
    checkpoint: Path
    trained_on: dict[str, Any]
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    own_data: bool = False
    chosen: bool = False

    @property
    def variables(self) -> Variables:
        """Those that `model` answers with: of a run that keeps an average, the average."""
        return self.task.answering(self.state.variables)

    @property
    def model(self) -> nn.Module:
        """The linen module of the task, for those that look into its layers.

        Raises:
          UsageError: the task names none.
        """
        if self.task.model is None:
            raise UsageError(
                f"config.task.name={self.config.task.name!r}: names no linen module to look into "
                "(Task.model)."
            )
        return self.task.model

    @property
    def compiler_options(self) -> dict[str, bool]:
        """What its programs are compiled with, as the run's own were; see cpu/half_precision.py."""
        return half_precision.options(self.config.compute_dtype)

    @property
    def preparation(self) -> Preparation:
        """How a picture becomes like those that it was trained on.

        Raises:
          UserError: what the save says of it is not known here.
        """
        return preparation.of_run(self.trained_on)


def restore(workdir: Path, which: str, overrides: Mapping[str, Any]) -> Restored:
    """Restores a checkpoint with the model and seed of the workdir's config.json.

    Args:
      workdir: of a run; nothing in it is changed, and it may be training meanwhile.
      which: 'latest', 'best' or a step.
      overrides: of `data.*`, `batch_size` and `task.judge`, from the command line.

    Raises:
      UsageError: another field is overridden; there is no such checkpoint; a wrong value.
      UserError: the workdir holds no run, or the checkpoint is damaged.
    """
    require_jax()
    config = _config(workdir, overrides)
    if not (workdir / "checkpoints").is_dir():
        raise UserError(f"workdir={workdir}: nothing is saved in it yet. Train first.")
    checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
    try:
        step = checkpoints.find(which)
        metadata = checkpoints.metadata(step)
        trained_on = metadata["dataset"]
        if trained_on["name"] != config.data.name and not _OTHER_DATA & overrides.keys():
            # A run that fell back to the sample is judged on the sample, without another search,
            # and cut as this command asks, not as the recipe did.
            config.data.update(name=trained_on["name"], train_split="train", eval_split="test")
            config.data.select_split = ""
        if not _OTHER_DATA & overrides.keys():
            named, found = config.data.data_dir, trained_on.get("data_dir")
            if named is None or isinstance(named, str):  # else it is reported below
                config.data.data_dir = place.of_a_run(named, found)
        refuse_other_splits(config, overrides)
        own, (config, _) = config.data, overridden(config, overrides)
        own.stream = config.data.stream  # how they are read makes them no others
        if _OTHER_DATA & overrides.keys() and "data.select_split" not in overrides:
            config.data.select_split = ""  # cut from the run's own; these choose nothing
        validate(config, others=(lambda c: data.check(c.data),), no_steps=True)
        image_shape = tuple(trained_on["image_shape"])
        class_names = tuple(trained_on["class_names"])
        # No schedule is asked here: a million steps stand for a number of epochs.
        spec = Spec(image_shape, class_names, config.num_steps or 10**6)
        task = create_task(config, spec)
        sums = checkpoints.open_sums(step)
        like = jax.eval_shape(lambda sums: create_state(task, sums, config.seed), sums)
        state = checkpoints.restore(step, like)
        path = checkpoints.path(step)
        chosen = which != "latest" and path.parent.name == "best"
    finally:
        checkpoints.close()
    own_data = config.data == own and not _OTHER_DATA & overrides.keys()
    return Restored(
        config, task, state, path, trained_on, class_names, image_shape, own_data, chosen
    )


def _config(workdir: Path, overrides: Mapping[str, Any]) -> ConfigDict:
    """Reads the run's config; refuses overrides of what the checkpoint depends on."""
    try:
        config = ConfigDict(read_config(workdir)["config"])
    except ValueError as error:  # a field's name with a dot in it
        raise UserError(f"{workdir}/config.json: {error}. Name another workdir.") from error
    if lacking := missing_fields(config):
        raise UserError(
            f"workdir={workdir}: its config.json lacks {first_of(lacking)}; another "
            "version of this package wrote it, and its checkpoints do not fit. Train afresh."
        )
    _refuse_modules_inside(workdir, config)
    ours = flatten(config)
    for name, value in flatten(dict(overrides)).items():
        allowed = (name.startswith("data.") or name in _OTHERS) and name != "data.resplit"
        allowed = allowed and not name.startswith(OF_EXTRA_SPLITS)  # of training alone
        # What the run has is no other: the command that trained it, with --mode=eval behind it.
        if not allowed and (name not in ours or ours[name] != value):
            raise UsageError(
                f"config.{name}={value!r}: the run in {workdir} was trained with "
                f"{ours.get(name)!r}, and only training can change that. {_what_may_change(name)}"
            )
    return config


def _what_may_change(name: str) -> str:
    if name.startswith(OF_EXTRA_SPLITS):
        return "Leave it out; other images are named by config.data.eval_split, data_dir and name."
    return (
        "Leave it out. A trained run takes other values of config.batch_size, config.task.judge "
        "and config.data.* alone, without resplit and extra_eval_splits."
    )


def _refuse_modules_inside(workdir: Path, config: ConfigDict) -> None:
    """Raises UserError if the config names Python in the workdir: opening a run executes nothing.

    A network of the user's own lies where the user works, or next to the recipe.
    """
    for field, value in flatten(config).items():
        if field.startswith("data."):  # folders and splits
            continue
        for name in value if isinstance(value, list) else [value]:
            module, colon, _ = str(name).partition(":")
            inside = (Path(entry, *module.split(".")).resolve() for entry in sys.path)
            if colon and any(path.is_relative_to(workdir.resolve()) for path in inside):
                raise UserError(
                    f"{workdir}/config.json: {field}={value!r} is Python in the workdir, which is "
                    "not executed. Move it to the folder that you work in."
                )


def refuse_other_splits(config: ConfigDict, overrides: Mapping[str, Any]) -> None:
    """Raises UsageError for splits cut from data that the run has mixed: they would hold others."""
    if config.data.resplit is None or _OTHER_DATA & overrides.keys():
        return
    for field in ("train_split", "eval_split", "select_split"):
        asked = overrides.get(f"data.{field}", config.data[field])
        if asked != config.data[field]:
            raise UsageError(
                f"config.data.{field}={asked!r}: this run has mixed its splits "
                f"(config.data.resplit={config.data.resplit}), and knows only its own: "
                f"{config.data.eval_split!r} are the images that it was not trained on."
            )

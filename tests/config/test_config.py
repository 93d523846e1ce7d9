"""The fields of a run: their types, overrides, differences, and every fault at once."""

from typing import Any

import pytest
from ml_collections import ConfigDict

from mnist_flax.config import default_config, diff, flatten, is_harmless, overridden
from mnist_flax.config.validation import validate
from mnist_flax.errors import UsageError


def recipe(**fields: Any) -> ConfigDict:
    config = default_config()
    config.num_steps = 1000
    config.model = ConfigDict({"name": "tutorial", "dropout_rate": 0.4})
    config.optimizer = ConfigDict({"name": "sgd", "learning_rate": 0.5, "momentum": 0.9})
    config.schedule = ConfigDict({"name": "cosine_decay_schedule", "alpha": 0.1})
    config.update_from_flattened_dict(fields)
    return config


def faults(config: ConfigDict, others: tuple = ()) -> list[str]:
    with pytest.raises(UsageError) as error:
        validate(config, others)
    return str(error.value).splitlines()


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("batch_size", 1.5, TypeError),
        ("batch_size", "100", TypeError),
        ("num_steps", 1.5, TypeError),  # unset, and yet of a type
        ("data.shuffle", 1, TypeError),
        ("data.data_dir", 1, TypeError),
        ("optimizer.learning_rate", "0.1", TypeError),
        ("batchsize", 100, KeyError),
        ("data.directory", "here", KeyError),
    ],
)
def test_types_and_names_are_locked(field: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        default_config().update_from_flattened_dict({field: value})


def test_a_whole_number_is_a_learning_rate() -> None:
    config = default_config()
    config.optimizer.learning_rate = 1
    assert config.optimizer.learning_rate == 1.0
    assert type(config.optimizer.learning_rate) is float


@pytest.mark.parametrize(
    ("field", "other"), [("num_steps", "num_epochs"), ("num_epochs", "num_steps")]
)
def test_steps_and_epochs_replace_each_other(field: str, other: str) -> None:
    config = default_config()
    config[other] = 5
    new, notes = overridden(config, {field: 7})
    assert (new[field], new[other], notes) == (7, None, [])
    assert (config[field], config[other]) == (None, 5)


def test_steps_and_epochs_cannot_both_be_given() -> None:
    with pytest.raises(UsageError, match=r"num_steps=7 and config\.num_epochs=2: give one"):
        overridden(recipe(), {"num_steps": 7, "num_epochs": 2})


def test_no_override_changes_nothing() -> None:
    new, notes = overridden(recipe(), {})
    assert (diff(recipe(), new), notes) == ({}, [])


@pytest.mark.parametrize(
    ("overrides", "section", "left", "notes"),
    [
        (
            {"model.name": "mine:Net"},
            "model",
            {"name": "mine:Net"},
            ["config.model.dropout_rate=0.4 is left out: it belongs to 'tutorial'."],
        ),
        (
            {"optimizer.name": "adam"},
            "optimizer",
            {"name": "adam", "learning_rate": 0.5},
            ["config.optimizer.momentum=0.9 is left out: it belongs to 'sgd'."],
        ),
        (
            {"schedule.name": "constant_schedule"},
            "schedule",
            {"name": "constant_schedule"},
            ["config.schedule.alpha=0.1 is left out: it belongs to 'cosine_decay_schedule'."],
        ),
        (
            {"optimizer.name": "rmsprop", "optimizer.momentum": 0.5},
            "optimizer",
            {"name": "rmsprop", "learning_rate": 0.5, "momentum": 0.5},
            [],
        ),
        (
            {"optimizer.name": "sgd", "optimizer.learning_rate": 0.1},
            "optimizer",
            {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9},
            [],
        ),
    ],
    ids=["model", "optimizer", "schedule", "given too", "same name"],
)
def test_a_new_name_leaves_out_the_old_ones_fields(
    overrides: dict, section: str, left: dict, notes: list[str]
) -> None:
    config = recipe()
    new, said = overridden(config, overrides)
    assert new[section].to_dict() == left
    assert said == notes
    assert set(diff(config, new)) <= {f"{section}.{field}" for field in recipe()[section]}
    assert diff(config, recipe()) == {}


def test_flatten() -> None:
    nested = {"seed": 0, "model": ConfigDict({"name": "x", "inner": {"sizes": (1, 2)}})}
    assert flatten(nested) == {"seed": 0, "model.name": "x", "model.inner.sizes": [1, 2]}


def test_a_config_equals_itself_after_json() -> None:
    old = ConfigDict({"model": {"name": "x", "sizes": (3, 4)}})
    assert diff({"model": {"name": "x", "sizes": [3, 4]}}, old) == {}


def test_diff_names_changed_new_and_gone_fields() -> None:
    old = {"seed": 0, "model": {"name": "x", "dropout_rate": 0.4}}
    new = {"seed": 1, "model": {"name": "x", "width": 8}}
    assert diff(old, new) == {
        "model.dropout_rate": (0.4, None),
        "model.width": (None, 8),
        "seed": (0, 1),
    }


@pytest.mark.parametrize(
    ("field", "length_matters", "harmless"),
    [
        ("num_steps", False, True),
        ("num_epochs", False, True),
        ("num_steps", True, False),
        ("num_epochs", True, False),
        ("log_every_steps", True, True),
        ("eval_every_steps", True, True),
        ("checkpoint_every_steps", True, True),
        ("keep_checkpoints", True, True),
        ("data.data_dir", True, True),
        ("data.fallback", True, True),
        ("seed", False, False),
        ("batch_size", False, False),
        ("optimizer.learning_rate", False, False),
        ("model.name", False, False),
        ("data.train_split", True, True),  # the fingerprint tells whether it matters
        ("data.stream", True, True),
        ("data.shuffle", False, False),
    ],
)
def test_which_fields_may_change_on_resume(
    field: str, length_matters: bool, harmless: bool
) -> None:
    assert is_harmless(field, length_matters=length_matters) is harmless


def test_the_defaults_lack_only_a_length() -> None:
    message = "config.num_steps and config.num_epochs: one of the two must be set."
    assert faults(default_config()) == [message]
    config = default_config()
    config.num_epochs = 1
    validate(config)


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("seed", -1, "at least 0"),
        ("seed", 2**32, "below 2**32"),
        ("seed", None, "must be set"),
        ("batch_size", 0, "at least 1"),
        ("batch_size", None, "must be set"),
        ("num_steps", 0, "at least 1"),
        ("log_every_steps", -1, "at least 0"),
        ("eval_every_steps", -1, "at least 0"),
        ("checkpoint_every_steps", -1, "at least 0"),
        ("keep_checkpoints", 0, "at least 1"),
        ("optimizer.learning_rate", 0.0, "positive and finite"),
        ("optimizer.learning_rate", -0.1, "positive and finite"),
        ("optimizer.learning_rate", float("nan"), "positive and finite"),
        ("optimizer.learning_rate", float("inf"), "positive and finite"),
        ("optimizer.learning_rate", None, "positive and finite"),
    ],
)
def test_a_wrong_value_is_one_line(field: str, value: Any, allowed: str) -> None:
    (line,) = faults(recipe(**{field: value}))
    assert line.startswith(f"config.{field}={value}: ")
    assert allowed in line


@pytest.mark.parametrize(("field", "value"), [("seed", 2**32 - 1), ("batch_size", 1)])
def test_the_last_allowed_value(field: str, value: int) -> None:
    validate(recipe(**{field: value}))


def test_every_fault_at_once() -> None:
    def refuse(_config: ConfigDict) -> None:
        raise UsageError("config.model.name='x': unknown.")

    def accept(_config: ConfigDict) -> None:
        pass

    config = recipe(seed=-1, batch_size=0, num_epochs=0, **{"optimizer.learning_rate": -1.0})
    lines = faults(config, (refuse, accept, refuse))
    starts = ["seed=-1", "batch_size=0", "num_epochs=0", "num_steps=1000 and", "optimizer"]
    assert len(lines) == len(starts) + 2
    for line, start in zip(lines, starts, strict=False):
        assert line.startswith(f"config.{start}")
    assert lines[-2:] == ["config.model.name='x': unknown."] * 2


def test_a_mistake_of_ours_in_a_check_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        validate(recipe(), others=[lambda config: 1 // 0])


def test_a_recipe_adds_fields_to_the_sections_that_pass_them_on_and_to_no_other() -> None:
    config = default_config()
    config.optimizer.momentum, config.model.hidden = 0.9, 64
    config.augment.mixup = ConfigDict({"alpha": 0.4})
    with pytest.raises(AttributeError):
        config.batchsize = 3
    with pytest.raises(AttributeError):
        config.data.nmae = "mnist"
    with pytest.raises(TypeError):
        config.optimizer.learning_rate = "fast"

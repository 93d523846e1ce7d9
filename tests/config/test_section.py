"""What a config refuses where it is set: one line, with the field, the value and nearest names."""

import copy
import functools
import pickle
import textwrap
from collections.abc import Callable
from typing import Any

import pytest
from ml_collections import ConfigDict

from mnist_flax.cli.recipe import load_recipe
from mnist_flax.config import default_config
from mnist_flax.errors import UsageError


def set_rate(config: ConfigDict) -> None:
    config.lerning_rate = 0.1


def set_in_section(config: ConfigDict) -> None:
    config.data.nmae = "x"


def set_in_wrong_section(config: ConfigDict) -> None:
    config.optimiser.name = "sgd"


def set_by_key(config: ConfigDict) -> None:
    config["batchsize"] = 3


def set_by_update(config: ConfigDict) -> None:
    config.update({"data": {"nmae": 3}})


WRONG_NAMES = [
    (set_rate, "config.lerning_rate=0.1: no such field. Did you mean 'optimizer.learning_rate'?"),
    (set_in_section, "config.data.nmae='x': no such field. Did you mean 'data.name'?"),
    (set_in_wrong_section, "config.optimiser: no such field. Did you mean 'optimizer'?"),
    (set_by_key, "config.batchsize=3: no such field. Did you mean 'batch_size'?"),
    (set_by_update, "config.data.nmae=3: no such field. Did you mean 'data.name'?"),
]
COPIES: dict[str, Callable[[ConfigDict], ConfigDict]] = {
    "itself": lambda config: config,
    "copied": copy.deepcopy,
    "resolved": lambda config: config.copy_and_resolve_references(),
    "pickled": lambda config: pickle.loads(pickle.dumps(config)),
}


@pytest.mark.parametrize("copied", COPIES)
@pytest.mark.parametrize(("sets", "told"), WRONG_NAMES)
def test_a_wrong_name(sets: Callable[[ConfigDict], None], told: str, copied: str) -> None:
    with pytest.raises(UsageError) as caught:
        sets(COPIES[copied](default_config()))
    assert str(caught.value) == told
    assert isinstance(caught.value, AttributeError)
    assert isinstance(caught.value, KeyError)


def test_whether_there_is_a_field_may_be_asked() -> None:
    config = default_config()
    assert not hasattr(config, "lerning_rate")
    assert config.get("lerning_rate", 3) == 3
    assert "lerning_rate" not in config


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("batch_size", "x", "config.batch_size='x': must be a whole number."),
        ("data.shuffle", 1, "config.data.shuffle=1: must be true or false."),
        ("data.data_dir", 1, "config.data.data_dir=1: must be text."),
        ("writers", 3, "config.writers=3: must be a list of names."),
        ("model", 3, "config.model=3: must be a section."),
    ],
)
def test_a_value_of_a_wrong_type(field: str, value: Any, told: str) -> None:
    config = default_config()
    section, _, leaf = field.rpartition(".")
    with pytest.raises(UsageError) as caught:
        setattr(config[section] if section else config, leaf, value)
    assert str(caught.value) == told
    assert isinstance(caught.value, TypeError)


def test_a_section_may_be_put_in_the_place_of_another() -> None:
    config = default_config()
    config.model = ConfigDict({"name": "lenet"})
    config.optimizer = {"name": "adam", "learning_rate": 0.1}
    assert (config.model.name, config.optimizer.name) == ("lenet", "adam")
    assert default_config() == default_config().copy_and_resolve_references()


def test_a_function_is_kept_by_its_name() -> None:
    config = default_config()
    config.writers = [textwrap.dedent, "wandb"]
    config.observers = (textwrap.dedent,)
    config.model.name = textwrap.TextWrapper
    config.augment.order = (textwrap.dedent,)
    assert config.writers == ("textwrap:dedent", "wandb")
    assert config.observers == config.augment.order == ("textwrap:dedent",)
    assert config.model.name == "textwrap:TextWrapper"


def of_script() -> None:
    """Stands in what is run."""


of_script.__module__ = "__main__"


class Holder:
    def method(self) -> None: ...


def local() -> Callable[[], None]:
    def inside() -> None: ...

    return inside


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda: None, "a lambda has none"),
        (local(), "it stands inside another function or class"),
        (Holder.method, "it stands inside another function or class"),
        (of_script, "it stands in the script that runs"),
        (functools.partial(textwrap.dedent, ""), "this one has none"),
        (functools.wraps(textwrap.dedent)(local()), "textwrap has something else under it"),
    ],
)
@pytest.mark.parametrize("field", ["writers", "observers"])
def test_a_function_that_no_name_finds_again(field: str, function: Any, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        setattr(default_config(), field, (function,))
    told = str(caught.value)
    assert told.startswith(f"config.{field}=")
    assert "a run that goes on must find it again by its name" in told
    assert why in told
    assert "Put it in a file of its own" in told


RECIPE = """from mnist_flax.config import default_config


def mine(event, step, row, context): ...


def get_config():
    config = default_config()
    {}
    return config
"""


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # of ml_collections
@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("config.lerning_rate = 0.1", WRONG_NAMES[0][1]),
        ("config.data.nmae = 'x'", WRONG_NAMES[1][1]),
        ("config.seed = 'x'", "config.seed='x': must be a whole number."),
        ("config.writers = (mine,)", "config.writers=mine: a run that goes on must find it again "),
    ],
)
def test_a_recipe_is_told_with_its_line(line: str, told: str, tmp_path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(RECIPE.format(line))
    with pytest.raises(UsageError) as caught:
        load_recipe([f"--config={path}"])
    assert str(caught.value).startswith(f"--config={path}: line 9: {told}")
    assert "\n" not in str(caught.value)

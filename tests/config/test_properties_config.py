"""Configs with any value in any field: accepted, or UsageError with every fault at once.

More examples: see properties.py.
"""

from typing import Any

import pytest
from conftest import recipe
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict
from properties import assert_line

from mnist_flax.config import default_config, flatten
from mnist_flax.errors import UsageError
from mnist_flax.training import check

FIELDS = sorted(flatten(default_config()))
SECTIONS = ("model", "optimizer", "schedule", "data", "augment", "augment.random_shift")
VALUES: tuple[Any, ...] = (
    *(None, "", " ", "x", "a:b", "os:getcwd", "\n", b"x", -1, 0, 1, 2**70, True, 1j, 0.5),
    *(1e-320, 1e400, -1e400, float("nan"), (), (1,), ("a", 2), [1], {}, {"a": 1}),
)


def put(config: ConfigDict, name: str, value: Any) -> bool:
    """Sets a field as a recipe does; False where the ConfigDict itself refuses."""
    section, _, leaf = name.rpartition(".")
    try:
        (config[section] if section else config)[leaf] = value
    except (TypeError, ValueError, KeyError):  # KeyError: a section that this replaced
        return False
    return True


def faults(config: ConfigDict) -> set[str]:
    try:
        check(config)
    except UsageError as error:
        lines = str(error).split("\n")
        for line in lines:
            assert_line(line)
        return set(lines)
    return set()


@pytest.mark.parametrize("name", [*FIELDS, *SECTIONS])
def test_any_value_that_a_config_takes(name: str) -> None:
    told = []
    for value in VALUES:
        config = recipe("tutorial")
        if put(config, name, value):
            told += [line for line in faults(config) if "config." not in line]
    assert told == []


@pytest.mark.parametrize("name", FIELDS)
def test_any_value_in_an_edited_config_json(name: str) -> None:
    for value in VALUES:
        config = recipe("tutorial")
        with config.ignore_type():
            put(config, name, value)
        faults(config)


@given(
    wrong=st.dictionaries(
        st.sampled_from(FIELDS),
        st.sampled_from(VALUES),
        min_size=2,
        max_size=6,
    )
)
def test_all_faults_at_once(wrong: dict[str, Any]) -> None:
    together, one_by_one = recipe("tutorial"), set()
    for name, value in wrong.items():
        if put(together, name, value):
            alone = recipe("tutorial")
            put(alone, name, value)
            one_by_one |= {line for line in faults(alone) if not _depends(line)}
    assert one_by_one <= faults(together)


def _depends(line: str) -> bool:
    """Whether a fault is of two fields together, which another wrong value may undo."""
    return "num_steps" in line or "schedule" in line

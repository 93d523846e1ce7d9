"""What is compared on resume is what was written; what cannot be written is a config's fault."""

import math
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from mnist_flax.config import diff, flatten
from mnist_flax.errors import UsageError
from mnist_flax.training import check, train
from mnist_flax.use.restore import restore


def shaped(config: ConfigDict, kernels: Any) -> ConfigDict:
    config.model = ConfigDict({"name": "tiny:ShapedNet", "kernels": kernels})
    return config


@pytest.mark.slow
@pytest.mark.promise
def test_a_run_with_nested_tuples_goes_on(
    tiny_config: ConfigDict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = shaped(tiny_config, ((3, 3), (2, 2)))
    for steps in (2, 4):
        config.num_steps = steps
        train(config, tmp_path)
    told = capsys.readouterr().err
    assert "Resumed at step 2" in told
    assert "config.num_steps was 2, is 4." in told
    assert "config.model" not in told
    assert int(restore(tmp_path, "latest", {}).state.step) == 4


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (((3, (1, 2)), [(4,)]), [[3, [1, 2]], [[4]]]),
        ([{"a": (1,)}], [{"a": [1]}]),
        ([{1: 2}], [{"1": 2}]),
        (math.inf, math.inf),
        (-math.inf, -math.inf),
        (np.float64(0.1), 0.1),
        (None, None),
        ("é\udce9", "é\udce9"),
    ],
    ids=repr,
)
def test_values_are_compared_as_they_are_written(value: Any, written: Any) -> None:
    config = ConfigDict({"model": {"kernels": value}})
    assert flatten(config) == {"model.kernels": written}
    assert diff({"model": {"kernels": written}}, config.to_dict()) == {}


UNWRITABLE = [
    *(jnp.bfloat16, len, math.nan, (1, (math.nan,)), np.float32(0.1), {1, 2}, b"3", 1j),
    *((3, (jnp.bfloat16,)), Path("x"), np.zeros(2), [{(1, 2): 3}]),
]


@pytest.mark.parametrize("value", UNWRITABLE, ids=repr)
def test_what_cannot_be_written_is_a_fault_beside_the_others(
    tiny_config: ConfigDict, tmp_path: Path, value: Any
) -> None:
    config = shaped(tiny_config, value)
    config.batch_size = 0
    with pytest.raises(UsageError) as error:
        train(config, tmp_path / "run")
    lines = [line for line in str(error.value).splitlines() if line.startswith("config.")]
    assert "config.batch_size=0: must be at least 1." in lines
    assert any(
        line.startswith("config.model.kernels=") and "cannot be written to config.json" in line
        for line in lines
    )
    assert list(tmp_path.iterdir()) == []


def test_a_key_that_cannot_be_written_is_a_fault(tiny_config: ConfigDict) -> None:
    tiny_config.model = ConfigDict({"name": "tiny:ShapedNet"})
    with tiny_config.unlocked():
        tiny_config.mine = ConfigDict({(1, 2): 3})
    with pytest.raises(UsageError, match=r"config: cannot be written to config\.json \(keys must"):
        check(tiny_config)


def test_a_fault_is_told_once(tiny_config: ConfigDict) -> None:
    tiny_config.optimizer.learning_rate = math.nan
    with pytest.raises(UsageError) as error:
        check(tiny_config)
    assert str(error.value).count("learning_rate") == 1

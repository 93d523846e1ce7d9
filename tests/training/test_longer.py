"""More steps for a finished run: allowed where no learning rate depends on their number."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import optax
import pytest
from conftest import TESTS, rows
from ml_collections import ConfigDict

from mnist_flax.core.optimizers import create_schedule, length_matters
from mnist_flax.errors import UserError
from mnist_flax.training import train

Launch = Callable[..., CompletedProcess[str]]


def halving(init_value: float, every: int = 5) -> optax.Schedule:
    return lambda step: init_value * 0.5 ** (step // every)


def falling(init_value: float, decay_steps: int = 30) -> optax.Schedule:
    return optax.linear_schedule(init_value, 0.0, decay_steps)


def section(name: str, **fields: Any) -> ConfigDict:
    return ConfigDict({"name": name, **fields})


INDEPENDENT = {
    "constant": section("constant_schedule"),
    "exponential, its steps given": section(
        "exponential_decay", decay_rate=0.5, transition_steps=7
    ),
    "warm-up to a constant": section("warmup_constant_schedule", init_value=0.0, warmup_steps=5),
    "cosine, its steps given": section("cosine_decay_schedule", decay_steps=12),
    "of one's own, without a length": section(f"{__name__}:halving"),
    "of one's own, its length given": section(f"{__name__}:falling", decay_steps=12),
}
DEPENDENT = {
    "cosine": section("cosine_decay_schedule"),
    "exponential": section("exponential_decay", decay_rate=0.5),
    "one cycle": section("cosine_onecycle_schedule"),
    "of one's own, with a length": section(f"{__name__}:falling"),
}


@pytest.mark.parametrize("name", INDEPENDENT)
def test_a_schedule_that_is_not_told_the_length_is_the_same_for_every_length(name: str) -> None:
    assert not length_matters(INDEPENDENT[name])
    short, long = (create_schedule(INDEPENDENT[name], 0.1, steps) for steps in (12, 20))
    assert [float(short(step)) for step in range(20)] == [float(long(step)) for step in range(20)]


@pytest.mark.parametrize("name", DEPENDENT)
def test_one_that_is_told_it_is_another_for_another(name: str) -> None:
    assert length_matters(DEPENDENT[name])
    short, long = (create_schedule(DEPENDENT[name], 0.1, steps) for steps in (12, 20))
    assert [float(short(step)) for step in range(20)] != [float(long(step)) for step in range(20)]


@pytest.mark.slow
@pytest.mark.promise
def test_a_run_trained_on_has_the_rows_of_one_that_was_longer(tiny_config, tmp_path: Path) -> None:
    tiny_config.schedule = INDEPENDENT["exponential, its steps given"]
    tiny_config.log_every_steps, tiny_config.eval_every_steps = 3, 12
    for steps in (12, 20):
        tiny_config.num_steps = steps
        train(tiny_config, tmp_path / "longer")
    train(tiny_config, tmp_path / "whole")
    assert rows(tmp_path / "longer") == rows(tmp_path / "whole")
    rates = [row["learning_rate"] for row in rows(tmp_path / "whole") if row["split"] == "train"]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < rates[0]


def test_a_run_whose_rates_would_change_is_refused(tiny_config, tmp_path: Path) -> None:
    tiny_config.schedule = DEPENDENT["exponential"]
    tiny_config.num_steps = 8
    train(tiny_config, tmp_path)
    tiny_config.num_steps = 9
    with pytest.raises(UserError, match="num_steps: was 8, now 9"):
        train(tiny_config, tmp_path)


@pytest.mark.slow
@pytest.mark.promise
@pytest.mark.parametrize(
    ("schedule", "longer"), [("halving", True), ("falling", False)], ids=["allowed", "refused"]
)
def test_training_longer_is_proposed_where_it_is_allowed(
    launch: Launch, digits: Path, schedule: str, longer: bool
) -> None:
    done = launch(
        f"--config={TESTS / 'tiny.py'}",
        "--workdir=run",
        f"--config.data.data_dir={digits}",
        "--config.num_steps=2",
        f"--config.schedule.name=training.test_longer:{schedule}",
    )
    assert done.returncode == 0, done.stderr
    assert ("Train it longer" in done.stderr) is longer

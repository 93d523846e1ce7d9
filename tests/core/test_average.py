"""The average of the last steps' variables: what it is, what uses it, and what it leaves alone."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import rows
from made import task_of
from ml_collections import ConfigDict
from tiny import TinyNet

import mnist_flax
from mnist_flax.core.average import AVERAGE, learnt, with_average
from mnist_flax.core.task import Task
from mnist_flax.data.batch import Batch
from mnist_flax.keys import rng_key
from mnist_flax.report import write_report
from mnist_flax.training import train
from mnist_flax.training.finetune import InitFrom
from mnist_flax.use.run_data import load_data


class Counter:
    """A task whose only parameter is 1 after the first step, 2 after the second, and so on."""

    @staticmethod
    def task() -> Task:
        def update(variables: Any, opt_state: Any, batch: Any, step: Any, key: Any) -> Any:
            assert variables.keys() == {"params"}
            return {"params": {"x": variables["params"]["x"] + 1.0}}, opt_state, {}

        def told(variables: Any, *_: Any) -> Any:
            return variables["params"]["x"]

        return Task(
            init=lambda key: {"params": {"x": jnp.float32(0)}},
            init_opt=lambda variables: {"seen": tuple(variables)},
            update=update,
            evaluate=lambda *given: ({"x": told(*given), "count": jnp.int32(1)}, {}),
            predict=told,
            metrics={},
            sample=told,
            in_training=told,
        )


@pytest.mark.parametrize("decay", [0.5, 0.9])
def test_it_is_a_mean_whose_weights_fall(decay: float) -> None:
    task = with_average(Counter.task(), decay)
    variables = task.init(jax.random.key(0))
    assert task.init_opt(variables) == {"seen": ("params",)}
    for step in range(4):
        variables, _, _ = task.update(variables, {}, None, jnp.int32(step), None)
        weights = decay ** np.arange(step, -1, -1)
        wanted = (weights * np.arange(1, step + 2)).sum() / weights.sum()
        assert float(variables[AVERAGE]["params"]["x"]) == pytest.approx(wanted, rel=1e-6)
    assert float(learnt(variables)["params"]["x"]) == 4
    sums, _ = task.evaluate(variables, None)
    assert sums.keys() == {"x", "learnt_x", "count"}
    assert float(sums["learnt_x"]) == 4
    for told in (
        sums["x"],
        task.predict(variables, None),
        task.sample(variables, None),
        task.answering(variables)["params"]["x"],
    ):
        assert float(told) == pytest.approx(wanted, rel=1e-6)
    assert float(task.in_training(variables, None, None)) == 4  # what is learnt, as it is


def test_of_many_steps_it_has_the_last_few() -> None:
    # By the plain formula in float32, 1 - decay ** step has no digit left at the first step.
    task = with_average(Counter.task(), 1 - 1e-6)
    variables = task.init(jax.random.key(0))
    variables, _, _ = task.update(variables, {}, None, jnp.int32(0), None)
    assert float(variables[AVERAGE]["params"]["x"]) == 1


def test_nothing_that_is_learnt_depends_on_it() -> None:
    optimizer = mnist_flax.core.optimizers.optax.adam(0.01)
    plain = task_of(TinyNet(), optimizer, (28, 28, 1))
    averaged = with_average(plain, 0.9)
    images = np.random.default_rng(0).integers(0, 256, (6, 28, 28, 1), np.uint8)
    batch = Batch(jnp.asarray(images), jnp.arange(6) % 10, jnp.arange(6))
    after = []
    for task in (plain, averaged):
        variables = task.init(rng_key(0, "params", 0))
        state = task.init_opt(variables)
        update = jax.jit(task.update)
        for step in range(3):
            key = rng_key(0, "dropout", step)
            variables, state, _ = update(variables, state, batch, jnp.int32(step), key)
        after.append((learnt(variables), state))
    jax.tree.map(np.testing.assert_array_equal, *after)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for name, decay in (("plain", 0.0), ("averaged", 0.8)):
        made[name] = tmp_path_factory.mktemp("average") / name
        train(_config(decay), made[name])
    return made


def _config(decay: float) -> ConfigDict:
    from tiny import get_config

    config = get_config()
    config.data.name = "mnist_sample"
    config.data.train_split, config.data.eval_split = "train[:60]", "test[:30]"
    config.batch_size, config.num_steps = 6, 8
    config.log_every_steps, config.eval_every_steps, config.checkpoint_every_steps = 4, 4, 2
    config.ema_decay = decay
    return config


def test_a_run_is_judged_by_it_and_trains_as_without(runs: dict[str, Path]) -> None:
    plain, averaged = (rows(runs[name]) for name in ("plain", "averaged"))

    def of(told: list[dict[str, Any]], split: str) -> list[float]:
        return [row["loss"] for row in told if row["split"] == split]

    assert of(plain, "train") == of(averaged, "train")
    assert of(plain, "eval")[-1] != of(averaged, "eval")[-1]
    beside = [row["learnt_loss"] for row in averaged if row["split"] == "eval"]
    assert beside == of(plain, "eval")  # what is learnt is evaluated, too
    restored = mnist_flax.restore(runs["averaged"], "latest", {})
    average = restored.state.variables[AVERAGE]
    jax.tree.map(np.testing.assert_array_equal, restored.variables, average)
    # Between the first step's parameters and the last one's.
    assert not np.array_equal(
        average["params"]["logits"]["kernel"], restored.state.params["logits"]["kernel"]
    )


def test_it_goes_on_to_the_bit(runs: dict[str, Path], tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    train(_config(0.8), cut, should_stop=lambda: any(row["step"] == 4 for row in rows(cut)))
    train(_config(0.8), cut)
    states = (mnist_flax.restore(w, "latest", {}).state for w in (cut, runs["averaged"]))
    jax.tree.map(np.testing.assert_array_equal, *states)
    assert rows(cut) == rows(runs["averaged"])


@pytest.mark.slow
@pytest.mark.promise
def test_a_run_may_start_from_it(runs: dict[str, Path], tmp_path: Path) -> None:
    average = mnist_flax.restore(runs["averaged"], "latest", {}).variables
    for name, decay in (("plain", 0.0), ("averaged", 0.8)):
        config, workdir = _config(decay), tmp_path / name
        config.num_steps = 1
        config.optimizer.learning_rate = 1e-30
        train(config, workdir, init_from=InitFrom(runs["averaged"]))
        found = mnist_flax.restore(workdir, "latest", {}).variables
        jax.tree.map(np.testing.assert_array_equal, found["params"], average["params"])


def test_a_report_says_whose_figures_they_are(runs: dict[str, Path]) -> None:
    for name, told in (("averaged", True), ("plain", False)):
        restored = mnist_flax.restore(runs[name], "latest", {})
        page = write_report(runs[name], restored, load_data(restored, print)).read_text()
        assert ("figures called learnt are of those of the step itself" in page) is told
        assert ("learnt accuracy" in page) is told

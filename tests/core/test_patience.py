"""Early stopping and plateaus: counted by hand, resumed to the bit."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import events, recipe, rows
from ml_collections import ConfigDict

from mnist_flax import train
from mnist_flax.core.patience import with_patience
from mnist_flax.core.sums import Metric
from mnist_flax.core.task import Task
from mnist_flax.errors import UsageError, UserError
from mnist_flax.training import check


def walker(best: str = "score", larger: bool = True) -> Task:
    """A number that grows by 1 in every step, at a learning rate of 8."""

    def update(variables: Any, opt_state: Any, batch: Any, step: Any, key: Any) -> Any:
        return {"params": {"x": variables["params"]["x"] + 1}}, opt_state + 1, {}

    nothing: Any = lambda *_: ({}, {})  # noqa: E731
    return Task(
        init=lambda key: {"params": {"x": jnp.float32(0)}},
        init_opt=lambda variables: jnp.int32(0),
        update=update,
        evaluate=nothing,
        predict=nothing,
        metrics={"score": Metric(larger_is_better=larger)},
        best=best,
        rates={"learning_rate": lambda variables, opt_state, step: 8.0, "other": lambda *_: 3.0},
    )


def test_it_counts_evaluations_that_were_no_better() -> None:
    task = with_patience(walker(), stop_after=3, slow_after=0, slow_factor=0.5)
    state, ended = task.init_opt({}), []
    for score in (0.5, 0.4, 0.5, 0.6, 0.6, 0.2, 0.1):  # the same again is no better
        said = task.after_evaluation(state, {"score": score})
        state, ended = said.opt_state, [*ended, said.ends]
    assert ended == [False] * 6 + [True]
    assert said.told == {
        "early_stop": "No better than score 0.6000 for 3 evaluations: the run ends here, by "
        "config.early_stopping_patience=3."
    }
    assert (int(state["optimizer"]), int(state["patience"].waited)) == (0, 3)


def test_a_loss_is_better_where_it_is_smaller() -> None:
    task = with_patience(walker(larger=False), stop_after=2, slow_after=0, slow_factor=0.5)
    state = task.init_opt({})
    for score, waited in ((0.5, 0), (0.4, 0), (0.45, 1), (0.3, 0), (0.3, 1)):
        state = task.after_evaluation(state, {"score": score}).opt_state
        assert int(state["patience"].waited) == waited


def test_on_a_plateau_steps_become_smaller_and_the_rows_say_so() -> None:
    task = with_patience(walker(), stop_after=0, slow_after=2, slow_factor=0.25)
    variables = task.init(jax.random.key(0))
    state, update = task.init_opt(variables), jax.jit(task.update)
    places, rates = [], []
    for score in (0.5, 0.1, 0.1, 0.1, 0.1, 0.6):
        variables, state, _ = update(variables, state, None, None, None)
        rates.append(task.rates["learning_rate"](variables, state, 0))
        said = task.after_evaluation(state, {"score": score})
        state = said.opt_state
        places.append(float(variables["params"]["x"]))
    np.testing.assert_allclose(np.diff([0, *places]), [1, 1, 1, 0.25, 0.25, 0.0625])
    assert rates == [8, 8, 8, 2, 2, 0.5]
    assert task.rates["other"](variables, state, 0) == 3
    assert int(state["optimizer"]) == 6


def test_the_norm_in_the_rows_is_that_of_the_smaller_step() -> None:
    def normed(variables: Any, opt_state: Any, *_: Any) -> Any:
        return variables, opt_state, {"update_norm": jnp.float32(6), "count": jnp.int32(2)}

    task = with_patience(walker()._replace(update=normed), 0, slow_after=1, slow_factor=0.5)
    state = task.init_opt({})
    for score in (0.5, 0.4):
        state = task.after_evaluation(state, {"score": score}).opt_state
    _, _, sums = task.update({"params": {"x": jnp.float32(0)}}, state, None, None, None)
    assert (float(sums["update_norm"]), int(sums["count"])) == (3, 2)


def test_with_a_factor_of_one_no_bit_is_another() -> None:
    def tenth(variables: Any, opt_state: Any, *_: Any) -> Any:
        return {"params": {"x": variables["params"]["x"] + jnp.float32(0.1)}}, opt_state, {}

    plain = walker()._replace(update=tenth)
    patient = with_patience(plain, stop_after=0, slow_after=2, slow_factor=0.25)
    ends = []
    for task in (plain, patient):
        variables = {"params": {"x": jnp.float32(7.3)}}
        state, update = task.init_opt(variables), jax.jit(task.update)
        for _ in range(50):
            variables, state, _ = update(variables, state, None, None, None)
        ends.append(np.asarray(variables["params"]["x"]).tobytes())
    assert ends[0] == ends[1]


def test_a_task_without_a_choice_is_refused() -> None:
    config = recipe("dcgan_fast")
    config.task.judge = ""
    config.plateau_patience = 2
    with pytest.raises(UsageError, match=r"config.plateau_patience=2: no metric says which eval"):
        check(config)


def patient(config: ConfigDict) -> ConfigDict:
    """The accuracy rises at first and then not any more: a large learning rate on few images."""
    config.optimizer.learning_rate, config.num_steps = 0.02, 400
    config.eval_every_steps, config.checkpoint_every_steps = 8, 20
    config.plateau_patience, config.early_stopping_patience = 2, 5
    config.ema_decay = 0.5
    return config


def test_a_run_ends_early_and_an_interrupted_one_at_the_same_bits(
    tiny_config: ConfigDict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = patient(tiny_config)
    state = train(config, tmp_path / "one")
    end = int(state.step)
    assert end < 400
    (told,) = events(tmp_path / "one", "early_stop")
    assert told["step"] == end
    assert events(tmp_path / "one", "plateau")
    last = [row for row in rows(tmp_path / "one") if row["split"] == "train"][-1]
    assert last["step"] == end
    assert last["learning_rate"] < 0.02
    # Each process gets through some evaluations, in two parts each, and the chunks between them.
    again, launches = None, 0
    while again is None or int(again.step) < end:
        calls = iter(range(10**6))
        again = train(config, tmp_path / "many", should_stop=lambda: next(calls) > 20)  # noqa: B023
        launches += 1
    assert launches > 2
    assert rows(tmp_path / "many") == rows(tmp_path / "one")
    left, right = (jax.tree.leaves_with_path(each) for each in (state, again))
    for (path, ours), (_, theirs) in zip(left, right, strict=True):
        assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes(), path
    capsys.readouterr()
    assert int(train(config, tmp_path / "many").step) == end
    told = capsys.readouterr().err
    assert f"is finished: it stands at step {end}. It ended early, by config.early_s" in told
    config.eval_every_steps = 4
    with pytest.raises(UserError, match=r"eval_every_steps: was 8, now 4"):
        train(config, tmp_path / "many")
    config.eval_every_steps, config.early_stopping_patience = 8, 6
    assert int(train(config, tmp_path / "many").step) > end

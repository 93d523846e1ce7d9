"""A step that makes something NaN is left out, and counted."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import events, rows
from ml_collections import ConfigDict

from mnist_flax import train
from mnist_flax.core.bad_steps import with_skipped_steps
from mnist_flax.core.sums import means, merge
from mnist_flax.core.task import Task
from mnist_flax.errors import UserError


def fragile(spoiled: str) -> Task:
    """Adds 1 to a number in every step; in step 2 something of it becomes NaN."""

    def update(variables: Any, opt_state: Any, batch: Any, step: Any, key: Any) -> Any:
        del batch, key
        bad = jnp.where(step == 2, jnp.nan, 0.0)
        after = {
            "params": {"x": variables["params"]["x"] + 1 + bad * (spoiled == "params")},
            "batch_stats": {"seen": variables["batch_stats"]["seen"] + 1},
        }
        moments = opt_state["moments"] + 1 + bad * (spoiled == "opt_state")
        loss = jnp.float32(3) + bad * (spoiled == "sums")
        return after, {"moments": moments}, {"loss": loss, "count": jnp.int32(4)}

    nothing: Any = lambda *_: ({}, {})  # noqa: E731
    return Task(
        init=lambda key: {"params": {"x": jnp.zeros(2)}, "batch_stats": {"seen": jnp.int32(0)}},
        init_opt=lambda variables: {"moments": jnp.zeros(2)},
        update=update,
        evaluate=nothing,
        predict=nothing,
        metrics={},
    )


@pytest.mark.parametrize("spoiled", ["params", "opt_state", "sums"])
def test_a_bad_step_changes_nothing_but_its_count(spoiled: str) -> None:
    task = with_skipped_steps(fragile(spoiled))
    variables = task.init(jax.random.key(0))
    opt_state, total, update = task.init_opt(variables), None, jax.jit(task.update)
    for step in range(4):
        variables, opt_state, sums = update(variables, opt_state, None, jnp.int32(step), None)
        total = sums if total is None else merge(total, sums)
    np.testing.assert_array_equal(variables["params"]["x"], [3, 3])
    np.testing.assert_array_equal(opt_state["moments"], [3, 3])
    assert int(variables["batch_stats"]["seen"]) == 3
    assert int(total["count"]) == 12
    assert means(total, task.metrics) == {"loss": 3 * 3 / 12, "skipped_steps": 1}


def test_a_run_in_which_all_steps_become_bad_ends(tiny_config: ConfigDict, tmp_path: Path) -> None:
    # An optimizer whose count stays, for its update is left out, gives NaN in every step from then.
    tiny_config.optimizer = ConfigDict({"name": "tiny:spoil_late", "learning_rate": 0.1})
    tiny_config.on_bad_step = "skip"
    with pytest.raises(UserError, match=r"diverged: NaN or infinity within steps 21 to 30"):
        train(tiny_config, tmp_path)
    written = [row for row in rows(tmp_path) if row["split"] == "train"]
    assert [(row["step"], row["skipped_steps"]) for row in written] == [(1, 0), (10, 0), (20, 7)]
    (told,) = events(tmp_path, "diverged")
    assert (told["first_step"], told["last_step"]) == (21, 30)

"""What several devices compute differs by rounding alone: in float64 nothing else is left."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from simulated import COUNTS, RECIPES, after, narrow, placed, plan_of  # noqa: F401

from mnist_flax.core.state import traced_once, try_task
from mnist_flax.tasks import adversaries, autoencoder, create_task, networks
from mnist_flax.training.gather import Plan

pytestmark = [pytest.mark.distributed, pytest.mark.usefixtures("narrow")]


@pytest.mark.parametrize("name", RECIPES)
def test_fifty_steps_are_those_of_one_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with jax.enable_x64(True):
        # What is drawn is the same to the bit (test_devices.py), and need not be drawn here.
        plan = plan_of(name, 1, augment={"order": ()})
        for module in (adversaries, autoencoder, networks):
            monkeypatch.setattr(module, "single_precision", lambda outputs: outputs)
        plan = doubled(plan)
        told = {devices: after(placed(plan, devices), 50) for devices in COUNTS}
    for devices in COUNTS[1:]:
        for ours, theirs in zip(told[devices], told[1], strict=True):
            assert ours == pytest.approx(theirs, rel=1e-9)


def doubled(plan: Plan) -> Plan:
    """The same plan, whose parameters are float64: so is all that is computed with them."""
    task = create_task(plan.config, plan.spec)

    def init(key: jax.Array) -> Any:
        return jax.tree.map(lambda leaf: leaf.astype(jnp.float64), task.init(key))

    wide = traced_once(task._replace(init=init, sample=None))  # which is float32 by contract
    tried = try_task(wide, plan.spec, plan.config.task.name, plan.config.batch_size)
    return replace(plan, task=wide, tried=tried)

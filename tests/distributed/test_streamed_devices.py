"""A stream is cut among devices as images in memory are: the same batches, a part on each."""

import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import picture_folder
import pytest
from conftest import TESTS, launch_command, launch_environment, rows
from ml_collections import ConfigDict
from pair import Pair

from mnist_flax import restore
from mnist_flax.core.sums import means
from mnist_flax.data import streams
from mnist_flax.data.placement import Placement
from mnist_flax.errors import UsageError
from mnist_flax.training.compilation import Compiler, init_state
from mnist_flax.training.gather import Plan, gather
from mnist_flax.workdir.digests import state_digest

pytestmark = pytest.mark.distributed


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(streams, "BLOCK_BYTES", 2 * 8 * 64)  # two steps of five an epoch
    return picture_folder.made(tmp_path / "data")


def plan_of(pictures: Path, *, stream: bool, batch_size: int = 8) -> Plan:
    config = picture_folder.config_of(pictures, stream=stream)
    config.model = ConfigDict({"name": "tiny:TinyNet"})
    config.augment.order = ("random_shift",)
    config.batch_size, config.num_steps = batch_size, 11
    return gather(config, lambda line: None, Placement.over(jax.devices()))


def test_batches_of_eight_devices(pictures: Path) -> None:
    memory, streamed = (plan_of(pictures, stream=stream) for stream in (False, True))
    for name in ("source", "eval_source"):
        one, other = getattr(memory, name), getattr(streamed, name)
        draws = jax.jit(one.draw), jax.jit(other.draw)
        for step in range(one.steps_per_epoch):
            left = draws[0](one.feed(step, 1), jnp.int32(step))
            right = draws[1](other.feed(step, 1), jnp.int32(step))
            for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
                np.testing.assert_array_equal(a, b)
            assert {shard.data.shape[0] for shard in right.images.addressable_shards} == {1}
    block = streamed.source.feed(0, 1)
    assert {shard.data.shape for shard in block.images.addressable_shards} == {(2, 1, 8, 8, 1)}


def test_steps_of_eight_devices(pictures: Path) -> None:
    told = []
    for stream in (False, True):
        plan = plan_of(pictures, stream=stream)
        compiler = Compiler(plan)
        compiler.start(0)
        programs, state = compiler.programs(), plan.placement.replicate(init_state(plan))
        for step in range(11):
            state, _ = programs.train_chunk(state, plan.source.feed(step, 1), jnp.int32(1))
        told.append(means(state.window))
    assert told[1] == pytest.approx(told[0], rel=1e-5)


def test_a_batch_that_eight_devices_cannot_share(pictures: Path) -> None:
    assert plan_of(pictures, stream=False, batch_size=12).source.steps_per_epoch == 3
    with pytest.raises(UsageError, match=r"^config\.batch_size=12: .* Take 8 or 16\.$"):
        plan_of(pictures, stream=True, batch_size=12)


def test_two_processes_stream_what_two_devices_have_in_memory(pictures: Path) -> None:
    recipe = (f"--config={TESTS / 'tiny.py'}", "--config.data.name=abc", "--config.num_steps=16")
    place = pictures.parent

    def command(workdir: str, *more: str) -> list[str]:
        data = f"--config.data.data_dir={pictures}"
        return launch_command(*recipe, data, f"--workdir={place / workdir}", *more)

    environment = launch_environment() | {"JAX_NUM_CPU_DEVICES": "2"}
    assert subprocess.run(command("memory"), env=environment, timeout=300).returncode == 0
    stream = "--config.data.stream=true"
    commands = {0: command("streamed", stream), 1: command("second", stream)}
    statuses, said = Pair(commands, environment).end()
    assert statuses == [0, 0], said
    states = [restore(place / name, "latest", {}).state for name in ("memory", "streamed")]
    assert state_digest(jax.device_get(states[0])) == state_digest(jax.device_get(states[1]))
    assert rows(place / "memory") == rows(place / "streamed") != []

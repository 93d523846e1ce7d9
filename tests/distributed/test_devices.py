"""One batch, several devices: what is drawn is the same to the bit, what is computed to rounding.

The devices are simulated: JAX_NUM_CPU_DEVICES=8, which conftest.py sets for `-m distributed`.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from simulated import COUNTS, RECIPES, after, config_of, narrow, plan_of  # noqa: F401

from mnist_flax.core.chunk import make_eval_chunk
from mnist_flax.core.evaluation import evaluate
from mnist_flax.data.augment import normalize
from mnist_flax.data.placement import Placement
from mnist_flax.errors import UsageError
from mnist_flax.keys import rng_key
from mnist_flax.training.compilation import Compiler, init_state
from mnist_flax.training.gather import gather

pytestmark = [pytest.mark.distributed, pytest.mark.usefixtures("narrow")]


@pytest.mark.parametrize("name", RECIPES)
def test_losses_are_those_of_one_device(name: str) -> None:
    one, eight = (after(plan_of(name, devices), 10) for devices in (1, 8))
    for ours, theirs in zip(eight, one, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


@pytest.mark.parametrize("name", RECIPES)
def test_every_image_is_evaluated_once(name: str) -> None:
    seen = []
    for devices in COUNTS:
        plan = plan_of(name, devices)
        chunk = jax.jit(
            make_eval_chunk(plan.task, plan.eval_source.draw),
            donate_argnames="so_far",
            out_shardings=plan.placement.everywhere,
        )
        variables = plan.placement.replicate(init_state(plan)).variables
        with plan.placement.around():
            result = evaluate(chunk, variables, plan.eval_source, plan.task)
        assert result is not None
        assert result.examples == len(plan.dataset.eval.labels)
        assert all(len(each) == result.examples for each in result.outputs.values())
        seen.append(result)
    for other in seen[1:]:
        assert other.means == pytest.approx(seen[0].means, rel=1e-5)
        for key, values in seen[0].outputs.items():
            if values.dtype == np.uint8:  # pictures: what is rounded may fall to either side
                assert np.abs(values.astype(int) - other.outputs[key]).max() <= 1
            elif np.issubdtype(values.dtype, np.floating):
                np.testing.assert_allclose(other.outputs[key], values, rtol=1e-3, atol=1e-4)


@functools.cache
def drawn(name: str, devices: int) -> dict[str, np.ndarray]:
    """All that the first steps draw out of keys, and the state that they start from."""
    plan = plan_of(name, devices)
    state = plan.placement.replicate(init_state(plan))
    arrays = {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }

    def look(feed: Any, step: jax.Array) -> dict[str, jax.Array]:
        batch = plan.source.draw(feed, step)
        key = rng_key(plan.config.seed, "dropout", step)
        size = plan.task.latent_size or 1
        noise = jax.random.normal(key, (len(batch.images), size))
        found = {"images": batch.images, "labels": batch.labels, "index": batch.index}
        found["noise"] = plan.placement.shard(noise)
        if plan.task.model is not None and name in ("tutorial", "lenet_augmented"):
            _, seen = plan.task.model.apply(
                state.variables,
                normalize(batch.images),
                train=True,
                rngs={"dropout": key},
                mutable=["batch_stats", "intermediates"],
                capture_intermediates=lambda module, _: isinstance(module, nn.Dropout),
            )
            masks = jax.tree.leaves(seen["intermediates"])
            found |= {f"mask {number}": leaf == 0 for number, leaf in enumerate(masks)}
        return found

    for step in (0, 7):
        seen = jax.jit(look, out_shardings=plan.placement.everywhere)(
            plan.source.feed(step, 1), jnp.int32(step)
        )
        arrays |= {f"{key} of step {step}": np.asarray(value) for key, value in seen.items()}
    return arrays


@pytest.mark.parametrize("devices", COUNTS[1:])
@pytest.mark.parametrize("name", RECIPES)
def test_what_is_drawn_does_not_depend_on_the_devices(name: str, devices: int) -> None:
    one, many = drawn(name, 1), drawn(name, devices)
    assert one.keys() == many.keys()
    assert [key for key in one if one[key].tobytes() != many[key].tobytes()] == []
    masked = [key for key in one if key.startswith("mask")]
    assert bool(masked) == (name in ("tutorial", "lenet_augmented"))
    assert all(0.1 < one[key].mean() < 0.9 for key in masked)


def test_a_batch_need_not_be_a_multiple_of_the_devices() -> None:
    one, many = (after(plan_of("tutorial", n, batch_size=10), 3) for n in (1, 8))
    for ours, theirs in zip(many, one, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


def test_in_float64_it_must_be() -> None:
    """XLA's partitioner ends the process for a scatter on unequal parts there."""
    with (
        jax.enable_x64(True),
        pytest.raises(UsageError, match=r"^config\.batch_size=12: .* 8 or 16"),
    ):
        gather(config_of("tutorial", batch_size=12), print, Placement.over(jax.devices()))


def test_each_device_has_a_part_of_the_batch_and_all_of_the_variables() -> None:
    plan = plan_of("tutorial", 8)
    state = plan.placement.replicate(init_state(plan))
    for leaf in jax.tree.leaves(state):
        assert leaf.sharding.is_fully_replicated
        assert len(leaf.sharding.device_set) == 8
    batch = jax.jit(plan.source.draw)(plan.source.feed(0, 1), jnp.int32(0))
    assert {shard.data.shape[0] for shard in batch.images.addressable_shards} == {2}


def test_one_step_reduces_what_it_must_and_nothing_else() -> None:
    """Gradients and sums: no image, no activation goes from one device to another."""
    plan = plan_of("tutorial", 4)
    compiler = Compiler(plan)
    compiler.start(0)
    text = compiler.programs().train_chunk.as_text()
    assert " all-reduce(" in text
    for other in ("all-gather(", "all-to-all(", "collective-permute("):
        assert f" {other}" not in text

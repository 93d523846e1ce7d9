"""One update by hand: of a batch in parts, and the norms of what it does."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from made import spec_of
from tiny import TinyNet

from mnist_flax import cpu
from mnist_flax.core.state import traced_once, try_task
from mnist_flax.core.update import gradient_update
from mnist_flax.data.batch import Batch, batch_like
from mnist_flax.keys import rng_key
from mnist_flax.models.tutorial import Tutorial
from mnist_flax.tasks.classification import classifier

KEY = jax.random.key(0)
STEP = jnp.int32(0)


def batch_of(numbers: list[float]) -> Batch:
    """Images of one pixel, whose number stands in `index`."""
    count = len(numbers)
    images = jnp.zeros((count, 1, 1, 1), jnp.uint8)
    return Batch(images, jnp.zeros(count, jnp.int32), jnp.asarray(numbers))


def squares(variables: Any, batch: Batch, key: jax.Array) -> Any:
    """The mean of (w·x)² / 2; a collection that counts the calls, and the key's bits."""
    del key
    each = jnp.square(variables["params"]["w"] * batch.index) / 2
    changed = {"calls": variables["calls"] + 1}
    return each.mean(), (changed, {"loss": each.sum(), "count": jnp.int32(len(each))})


def test_a_batch_in_parts_gives_its_gradient_and_its_sums() -> None:
    variables = {"params": {"w": jnp.float32(2)}, "calls": jnp.int32(0)}
    optimizer = optax.sgd(0.5)
    batch = batch_of([1.0, 2.0, 3.0, 4.0])
    for parts in (1, 2, 4):
        update = jax.jit(gradient_update(squares, optimizer, accumulate_steps=parts))
        after, _, sums = update(variables, optimizer.init(variables["params"]), batch, STEP, KEY)
        # d/dw of the mean of (w·x)² / 2 is w · mean x² = 2 · 7.5.
        assert float(after["params"]["w"]) == 2 - 0.5 * 15
        assert int(after["calls"]) == parts
        assert float(sums["loss"]) == 4 / 2 * 30
        assert (int(sums["count"]), sums["count"].dtype) == (4, jnp.int32)


def test_norms_are_those_of_all_parameters_before_clipping_and_after_the_optimizer() -> None:
    def loss(variables: Any, batch: Batch, key: jax.Array) -> Any:
        del key
        params = variables["params"]  # whose gradient is (3, 4)
        return 3 * params["a"] + 4 * params["b"], ({}, {"count": jnp.int32(len(batch.index))})

    params = {"a": jnp.float32(0), "b": jnp.float32(0)}
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.5))
    update = gradient_update(loss, optimizer, log_norms=True)
    _, _, sums = update({"params": params}, optimizer.init(params), batch_of([0.0] * 8), STEP, KEY)
    # Times the eight images that a row's mean divides by.
    assert float(sums["gradient_norm"]) == pytest.approx(8 * 5)
    assert float(sums["update_norm"]) == pytest.approx(8 * 0.5)


def test_a_network_in_parts_learns_as_from_the_whole_batch() -> None:
    spec = spec_of((12, 12, 1))
    model, optimizer = Tutorial(dropout_rate=0.0), optax.sgd(0.5)
    images = np.random.default_rng(0).integers(0, 256, (6, 12, 12, 1), np.uint8)
    batch = Batch(jnp.asarray(images), jnp.arange(6), jnp.arange(6))
    ends = []
    for parts in (1, 3):
        task = classifier(model, optimizer, spec, accumulate_steps=parts)
        variables = task.init(rng_key(0, "params", 0))
        ends.append(jax.jit(task.update)(variables, task.init_opt(variables), batch, STEP, KEY))
    (whole, _, sums), (in_parts, _, same_sums) = ends
    for left, right in zip(
        jax.tree.leaves(whole["params"]), jax.tree.leaves(in_parts["params"]), strict=True
    ):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)
    assert float(sums["loss"]) == pytest.approx(float(same_sums["loss"]), rel=1e-6)


def test_batch_norm_sees_each_part_and_moves_once_a_part() -> None:
    task = classifier(TinyNet(), optax.sgd(0.0), spec_of(), accumulate_steps=2)
    variables = task.init(rng_key(0, "params", 0))
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1), np.uint8)
    batch = Batch(jnp.asarray(images), jnp.arange(6), jnp.arange(6))
    after, _, _ = jax.jit(task.update)(variables, task.init_opt(variables), batch, STEP, KEY)
    kernel, bias = (variables["params"]["conv"][name] for name in ("kernel", "bias"))
    maps = jax.lax.conv_general_dilated(
        images / np.float32(255), kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    first, second = np.asarray(maps + bias).reshape(2, -1, 4).mean(1)
    wanted = 0.9 * (0.1 * first) + 0.1 * second
    np.testing.assert_allclose(after["batch_stats"]["norm"]["mean"], wanted, rtol=1e-4, atol=1e-6)


def test_no_part_is_slow_in_a_loop_and_each_has_dropout_of_its_own() -> None:
    task = traced_once(classifier(TinyNet(), optax.sgd(0.1), spec_of(), accumulate_steps=2))
    assert try_task(task, spec_of(), "classification", batch_size=6).slow_layers == ()
    dropped = []

    def loss(variables: Any, batch: Batch, key: jax.Array) -> Any:
        jax.debug.callback(lambda bits: dropped.append(int(bits)), jax.random.bits(key))
        return squares(variables, batch, key)

    variables = {"params": {"w": jnp.float32(2)}, "calls": jnp.int32(0)}
    update = gradient_update(loss, optax.sgd(0.5), accumulate_steps=2)
    state = optax.sgd(0.5).init(variables["params"])
    jax.block_until_ready(update(variables, state, batch_of([1.0, 2.0]), STEP, KEY))
    jax.effects_barrier()
    assert len(set(dropped)) == 2


def test_cpu_knows_a_slow_layer_inside_the_parts() -> None:
    from tiny import SlowNet

    task = classifier(SlowNet(), optax.sgd(0.1), spec_of(), accumulate_steps=2)
    given = (jnp.int32(0), KEY)
    variables = jax.eval_shape(task.init, KEY)
    state = jax.eval_shape(task.init_opt, variables)
    assert cpu.slow_in_loop(task.update, variables, state, batch_like(4, (8, 8, 1)), *given)

import logging
import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import TinyNet, get_config

from mnist_flax.core.metrics import Metrics
from mnist_flax.core.state import TrainState, create_state
from mnist_flax.data.augment import create_augment
from mnist_flax.data.pipeline import Batch, epoch_order, take_batch, take_eval_batch
from mnist_flax.keys import rng_key
from mnist_flax.tasks.classification import (
    apply_train,
    eval_step,
    loss_fn,
    predict_step,
    train_step,
)
from mnist_flax.tasks.programs import make_draw_batch, make_train_chunk

MODEL = TinyNet()
OPTIMIZER = optax.adam(0.01)
CONFIG = get_config()
CONFIG.seed = CONFIG.batch_size = 3


@pytest.fixture(scope="module")
def data() -> tuple[jax.Array, jax.Array]:
    random = np.random.default_rng(1)
    images = random.integers(0, 256, (40, 8, 8, 1), np.uint8)
    return jnp.asarray(images), jnp.asarray(np.arange(40) % 10, jnp.int32)


@pytest.fixture(scope="module")
def state() -> TrainState:
    return jax.jit(lambda: create_state(MODEL, OPTIMIZER, (8, 8, 1), seed=0))()


@pytest.fixture(scope="module")
def chunk() -> Callable[..., TrainState]:
    return jax.jit(make_train_chunk(MODEL, OPTIMIZER, 3, make_draw_batch(CONFIG)))


def _same(left: object, right: object) -> bool:
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def test_train_step_is_one_update_with_the_gradient_of_the_mean_loss(state, data) -> None:
    batch = Batch(data[0][:8], data[1][:8])
    key = rng_key(0, "dropout", 0)
    optimizer = optax.sgd(0.5)
    state = state.replace(opt_state=optimizer.init(state.params))
    new, metrics = jax.jit(partial(train_step, model=MODEL, optimizer=optimizer))(state, batch, key)
    grads, _ = jax.jit(jax.grad(partial(loss_fn, MODEL), has_aux=True))(
        state.params, state.batch_stats, batch, key
    )
    expected = jax.tree.map(lambda p, g: p - 0.5 * g, state.params, grads)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), new.params, expected)
    assert int(new.step) == 1
    assert int(metrics.count) == int(new.window.count) == 8


def test_label_smoothing_spreads_the_labels_of_the_loss_alone(state, data) -> None:
    batch = Batch(data[0][:8], data[1][:8])
    args = (state.params, state.batch_stats, batch, rng_key(0, "dropout", 0))
    plain, (_, metrics) = jax.jit(partial(loss_fn, MODEL))(*args)
    smooth, (_, same) = jax.jit(partial(loss_fn, MODEL, label_smoothing=0.2))(*args)
    assert _same(metrics, same)
    logits, _ = apply_train(MODEL, *args[:2], batch.images, args[-1])
    # 0.8 of the loss of the label and a tenth of 0.2 of that of every class.
    expected = 0.8 * plain - 0.02 * jax.nn.log_softmax(logits).sum(-1).mean()
    np.testing.assert_allclose(smooth, expected, rtol=1e-5)


def test_batch_statistics_move_in_training_only(state, data) -> None:
    batch = Batch(data[0][:8], data[1][:8], jnp.ones(8, bool))
    step = jax.jit(partial(train_step, model=MODEL, optimizer=OPTIMIZER))
    new, _ = step(state, batch, rng_key(0, "dropout", 0))
    moved = new.batch_stats["norm"]["mean"]
    # Running mean = 0.9 × 0 + 0.1 × the batch's own mean.
    kernel, bias = state.params["conv"]["kernel"], state.params["conv"]["bias"]
    images = batch.images / jnp.float32(255)
    conv = jax.lax.conv_general_dilated(
        images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(moved, 0.1 * (conv + bias).mean((0, 1, 2)), rtol=1e-4)
    jax.eval_shape(partial(eval_step, model=MODEL), state, batch)  # raises if it changes them


def test_dropout_masks_differ_between_steps_and_not_between_runs(state, data) -> None:
    batch = Batch(data[0][:8], data[1][:8])

    loss_of = jax.jit(partial(loss_fn, MODEL))

    def loss(step: int) -> float:
        key = rng_key(0, "dropout", step)
        return float(loss_of(state.params, state.batch_stats, batch, key)[0])

    assert loss(0) == loss(0)
    assert len({loss(step) for step in range(5)}) == 5


@pytest.mark.parametrize("lengths", [(1,) * 12, (12,), (5, 7), (1, 2, 9)])
def test_a_chunk_gives_the_same_bits_however_it_is_cut(state, data, chunk, lengths) -> None:
    order = epoch_order(rng_key(3, "shuffle", 0), 40, shuffle=True)
    whole = chunk(state, *data, order, jnp.int32(12))
    for length in lengths:
        state = chunk(state, *data, order, jnp.int32(length))
    assert _same(state, whole)
    assert int(state.step) == 12
    assert int(state.window.count) == 36


def test_one_program_serves_every_length(state, data, caplog) -> None:
    chunk = jax.jit(make_train_chunk(MODEL, OPTIMIZER, 3, make_draw_batch(CONFIG)))
    order = epoch_order(rng_key(3, "shuffle", 0), 40, shuffle=True)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        for length in (1, 3, 2):
            state = chunk(state, *data, order, jnp.int32(length))
    compiled = [r for r in caplog.messages if "Finished XLA compilation of jit(train_chunk)" in r]
    assert len(compiled) == 1


def test_the_state_is_donated_and_its_types_do_not_change(state, data) -> None:
    chunk = jax.jit(
        make_train_chunk(MODEL, OPTIMIZER, 3, make_draw_batch(CONFIG)),
        donate_argnames="state",
    )
    order = jnp.arange(40, dtype=jnp.int32)
    state = jax.tree.map(jnp.copy, state)
    before = jax.tree.map(lambda leaf: (leaf.dtype, leaf.weak_type), state)
    new = chunk(state, *data, order, jnp.int32(1))
    assert jax.tree.map(lambda leaf: (leaf.dtype, leaf.weak_type), new) == before
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))


def test_epoch_order_visits_every_image_once_and_differs_between_epochs() -> None:
    first, second = (epoch_order(rng_key(0, "shuffle", e), 50, shuffle=True) for e in (0, 1))
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(50))
    assert first.tolist() != second.tolist()
    assert epoch_order(rng_key(0, "shuffle", 0), 3, shuffle=False).tolist() == [0, 1, 2]


def test_take_batch_follows_the_order(data) -> None:
    order = jnp.asarray([5, 3, 8, 1, 0, 2], jnp.int32)
    batch = take_batch(*data, order, jnp.int32(1), batch_size=2)
    np.testing.assert_array_equal(batch.images, data[0][np.array([8, 1])])
    assert batch.labels.tolist() == [8, 1]


def test_a_step_draws_from_the_extended_set_and_augments_with_its_own_key(data) -> None:
    config = get_config()
    config.seed, config.batch_size, config.data.extended = 5, 12, True  # 240 / 12 = 20 steps
    config.augment.order = ("random_shift",)
    augment = create_augment(config.augment)
    order = epoch_order(rng_key(5, "shuffle", 0), 240, shuffle=True)
    draw_batch = jax.jit(make_draw_batch(config))
    seen = []
    for step, index in ((3, 3), (23, 3)):  # the same place in two epochs
        batch = draw_batch(*data, order, jnp.int32(step))
        plain = take_batch(*data, order, jnp.int32(index), 12, extended=True)
        expected = augment(rng_key(5, "augment", step), plain.images)
        np.testing.assert_array_equal(batch.images, expected)
        np.testing.assert_array_equal(batch.labels, plain.labels)
        seen.append(np.asarray(batch.images))
    assert not np.array_equal(*seen)


@pytest.mark.parametrize("batch_size", [1, 7, 16, 40, 64])
def test_evaluation_counts_every_image_once(state, data, batch_size) -> None:
    step = jax.jit(partial(eval_step, model=MODEL))
    total = Metrics.empty()
    for index in range(math.ceil(40 / batch_size)):
        batch = take_eval_batch(*data, jnp.int32(index), batch_size)
        metrics, classes = step(state, batch)
        total = total.merge(metrics)
        assert (classes.shape, classes.dtype) == ((batch_size,), jnp.int32)
    whole, classes = step(state, Batch(*data, jnp.ones(40, bool)))
    assert int((classes == data[1]).sum()) == int(whole.correct)
    assert int(total.count) == 40
    assert int(total.correct) == int(whole.correct)
    np.testing.assert_allclose(total.loss_sum, whole.loss_sum, rtol=1e-5)


def test_predict_step_gives_classes_and_probabilities(state, data) -> None:
    result = jax.jit(partial(predict_step, model=MODEL))(state, data[0][:5])
    np.testing.assert_allclose(result["probabilities"].sum(-1), np.ones(5), rtol=1e-5)
    assert result["classes"].tolist() == result["probabilities"].argmax(-1).tolist()


@pytest.mark.parametrize("count", [32_769, 60_000])
def test_a_reduction_over_many_rows_under_jit_equals_numpy(count: int) -> None:
    """jaxlib 0.10.2 gets the last of 32,769 rows wrong on CPU (jax issue 39103)."""
    first = (np.arange(count) % 1000).astype(np.float32)
    rows = np.stack([first, 0 * first, 0 * first], axis=1)
    matrix = jnp.asarray(np.eye(3, dtype=np.float32))

    def lengths(rows: jax.Array) -> jax.Array:
        return jax.vmap(lambda row: jnp.sum((matrix @ row) ** 2))(rows)

    np.testing.assert_array_equal(jax.jit(lengths)(rows), first**2)

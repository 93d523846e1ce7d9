import logging
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from made import sums, task_of
from tiny import TinyNet, get_config

from mnist_flax.core.chunk import make_eval_chunk, make_train_chunk, nothing_evaluated
from mnist_flax.core.state import TrainState, create_state
from mnist_flax.core.update import train_step
from mnist_flax.data.augment import create_augment
from mnist_flax.data.batch import Batch
from mnist_flax.data.dataset import Dataset, Split
from mnist_flax.data.sources import (
    Feed,
    Source,
    eval_source,
    order_of,
    take_batch,
    train_source,
)
from mnist_flax.keys import rng_key
from mnist_flax.tasks.classification import loss_fn
from mnist_flax.tasks.networks import apply_train

pytestmark = pytest.mark.compiles

MODEL = TinyNet()
KEY = jax.random.key(0)
OPTIMIZER = optax.adam(0.01)
TASK = task_of(MODEL, OPTIMIZER)
CONFIG = get_config()
CONFIG.seed = CONFIG.batch_size = 3
IMAGES = np.random.default_rng(1).integers(0, 256, (40, 8, 8, 1), np.uint8)
LABELS = (np.arange(40) % 10).astype(np.int32)
DATA = Dataset("mnist", "nowhere", Split(IMAGES, LABELS), Split(IMAGES, LABELS), (), "", ())
SOURCE = train_source(CONFIG, DATA)


@pytest.fixture(scope="module")
def state() -> TrainState:
    return jax.jit(lambda: create_state(TASK, sums(), seed=0))()


@pytest.fixture(scope="module")
def chunk() -> Callable[..., TrainState]:
    compiled = jax.jit(make_train_chunk(TASK, SOURCE.draw, 3))
    return lambda *chunk: compiled(*chunk)[0]


def batch_of(count: int, mask: jax.Array | None = None) -> Batch:
    places = jnp.arange(count)
    return Batch(jnp.asarray(IMAGES[:count]), jnp.asarray(LABELS[:count]), places, mask)


def loss_of(state: TrainState, key: jax.Array, label_smoothing: float = 0.0) -> tuple:
    """The loss of the first eight images, and the sums beside it."""
    loss = partial(loss_fn, MODEL, 10, label_smoothing, ())
    value, (_, metrics) = jax.jit(loss)(state.variables, batch_of(8), key)
    return value, metrics


def _same(left: object, right: object) -> bool:
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def test_train_step_is_one_update_with_the_gradient_of_the_mean_loss(state) -> None:
    batch = batch_of(8)
    key = rng_key(0, "dropout", 0)
    optimizer = optax.sgd(0.5)
    task = task_of(MODEL, optimizer)
    state = state.replace(opt_state=optimizer.init(state.params))
    new, metrics = jax.jit(partial(train_step, task=task))(state, batch, key)

    def mean_loss(params: dict) -> jax.Array:
        return loss_fn(MODEL, 10, 0.0, (), {**state.variables, "params": params}, batch, key)[0]

    grads = jax.jit(jax.grad(mean_loss))(state.params)
    expected = jax.tree.map(lambda p, g: p - 0.5 * g, state.params, grads)
    # 1e-6: the true gradient of a bias before a batch-norm is zero, and what is left is rounding.
    close = partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6)
    jax.tree.map(close, new.params, expected)
    assert int(new.step) == 1
    assert int(metrics["count"]) == int(new.window["count"]) == 8


def test_a_loss_by_hand_of_weights_and_of_mixed_labels() -> None:
    class Given(nn.Module):
        """Gives the same logits for every image."""

        @nn.compact
        def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
            self.param("nothing", nn.initializers.zeros, (1,))
            return jnp.broadcast_to(jnp.log(jnp.array([0.5, 0.25, 0.25])), (len(images), 3))

    variables = {"params": {"nothing": jnp.zeros(1)}, "batch_stats": {}}
    batch = Batch(jnp.zeros((2, 4, 4, 1), jnp.uint8), jnp.array([0, 2]), jnp.arange(2))
    one, two = np.log(2), np.log(4)  # what a label of class 0, and one of class 1 or 2, costs

    def loss(smoothing: float, weights: tuple, batch: Batch) -> float:
        value, (_, told) = loss_fn(Given(), 3, smoothing, weights, variables, batch, KEY)
        assert float(told["loss"]) == pytest.approx(one + two)  # of the labels as they are
        return float(value)

    assert loss(0.0, (), batch) == pytest.approx((one + two) / 2)
    assert loss(0.0, (3.0, 1.0, 0.5), batch) == pytest.approx((3 * one + 0.5 * two) / 2)
    soft = batch.replace(soft_labels=jnp.array([[0.75, 0.25, 0.0], [0.0, 0.5, 0.5]]))
    mixed = (0.75 * one + 0.25 * two + two) / 2
    assert loss(0.0, (), soft) == pytest.approx(mixed)
    assert loss(0.3, (), soft) == pytest.approx(0.7 * mixed + 0.3 * (one + 2 * two) / 3)
    weighed = (3 * 0.75 * one + 0.25 * two + 0.5 * two + 0.5 * 0.5 * two) / 2
    assert loss(0.0, (3.0, 1.0, 0.5), soft) == pytest.approx(weighed)


def test_label_smoothing_spreads_the_labels_of_the_loss_alone(state) -> None:
    key = rng_key(0, "dropout", 0)
    plain, metrics = loss_of(state, key)
    smooth, same = loss_of(state, key, label_smoothing=0.2)
    assert _same(metrics, same)
    logits, _ = apply_train(MODEL, state.variables, batch_of(8).images, key)
    # 0.8 of the loss of the label and a tenth of 0.2 of that of every class.
    expected = 0.8 * plain - 0.02 * jax.nn.log_softmax(logits).sum(-1).mean()
    np.testing.assert_allclose(smooth, expected, rtol=1e-5)


def test_batch_statistics_move_in_training_only(state) -> None:
    batch = batch_of(8, jnp.ones(8, bool))
    new, _ = jax.jit(partial(train_step, task=TASK))(state, batch, rng_key(0, "dropout", 0))
    moved = new.batch_stats["norm"]["mean"]
    # Running mean = 0.9 × 0 + 0.1 × the batch's own mean.
    kernel, bias = state.params["conv"]["kernel"], state.params["conv"]["bias"]
    images = batch.images / jnp.float32(255)
    conv = jax.lax.conv_general_dilated(
        images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(moved, 0.1 * (conv + bias).mean((0, 1, 2)), rtol=1e-4)
    jax.eval_shape(TASK.evaluate, state.variables, batch)  # raises if it changes them


def test_dropout_masks_differ_between_steps_and_not_between_runs(state) -> None:
    def loss(step: int) -> float:
        return float(loss_of(state, rng_key(0, "dropout", step))[0])

    assert loss(0) == loss(0)
    assert len({loss(step) for step in range(5)}) == 5


@pytest.mark.parametrize("lengths", [(1,) * 12, (12,), (5, 7), (1, 2, 9)])
def test_a_chunk_gives_the_same_bits_however_it_is_cut(state, chunk, lengths) -> None:
    feed = SOURCE.feed(0, 12)
    whole = chunk(state, feed, jnp.int32(12))
    for length in lengths:
        state = chunk(state, feed, jnp.int32(length))
    assert _same(state, whole)
    assert int(state.step) == 12
    assert int(state.window["count"]) == 36


def _chunk_by_chunk(longest: int) -> Source:
    """The same batches, brought to the device a few steps at a time, in a feed of one form."""

    def feed(step: int, count: int) -> Feed:
        assert count <= longest
        assert step // SOURCE.steps_per_epoch == (step + count - 1) // SOURCE.steps_per_epoch
        order = np.asarray(SOURCE.feed(step, 1)[2])
        places = np.zeros((longest, 3), np.int32)
        for row in range(count):
            start = (step + row) % SOURCE.steps_per_epoch * 3
            places[row] = order[start : start + 3]
        return jax.device_put((IMAGES[places], LABELS[places], places, np.int32(step)))

    def draw(feed: Feed, step: jax.Array) -> Batch:
        *batches, start = feed
        return Batch(*(array[step - start] for array in batches))

    return Source(SOURCE.steps_per_epoch, longest, feed, draw)


def test_a_source_that_brings_its_batches_chunk_by_chunk_gives_the_same_bits(state, chunk) -> None:
    whole, other = state, _chunk_by_chunk(5)
    chunk_of_other = jax.jit(make_train_chunk(TASK, other.draw, 3))
    step = 0
    for length in (1, 5, 5, 2, 3, 4, 5):  # 13 steps an epoch
        whole = chunk(whole, SOURCE.feed(step, length), jnp.int32(length))
        state, _ = chunk_of_other(state, other.feed(step, length), jnp.int32(length))
        step += length
    assert _same(state, whole)
    assert chunk_of_other._cache_size() == 1


def test_one_program_serves_every_length(state, caplog) -> None:
    chunk = jax.jit(make_train_chunk(TASK, SOURCE.draw, 3))
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        for length in (1, 3, 2):
            state, _ = chunk(state, SOURCE.feed(0, length), jnp.int32(length))
    compiled = [r for r in caplog.messages if "Finished XLA compilation of jit(train_chunk)" in r]
    assert len(compiled) == 1


def test_the_state_is_donated_and_its_types_do_not_change(state) -> None:
    chunk = jax.jit(make_train_chunk(TASK, SOURCE.draw, 3), donate_argnames="state")
    state = jax.tree.map(jnp.copy, state)
    before = jax.tree.map(lambda leaf: (leaf.dtype, leaf.weak_type), state)
    new, _ = chunk(state, SOURCE.feed(0, 1), jnp.int32(1))
    assert jax.tree.map(lambda leaf: (leaf.dtype, leaf.weak_type), new) == before
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_chunk_says_whether_its_state_is_finite(state, value) -> None:
    chunk = jax.jit(make_train_chunk(TASK, SOURCE.draw, 3))
    feed, count = SOURCE.feed(0, 2), jnp.int32(2)
    assert bool(chunk(state, feed, count)[1])
    params = jax.tree.map(jnp.copy, state.params)
    params["logits"]["bias"] = params["logits"]["bias"].at[3].set(value)
    broken = state.replace(variables={**state.variables, "params": params})
    assert not bool(chunk(broken, feed, count)[1])


def test_an_order_visits_every_image_once_and_differs_between_epochs() -> None:
    first, second = (order_of(rng_key(0, "shuffle", e), 50, shuffle=True) for e in (0, 1))
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(50))
    assert first.tolist() != second.tolist()
    assert order_of(rng_key(0, "shuffle", 0), 3, shuffle=False).tolist() == [0, 1, 2]


def test_a_feed_has_the_order_of_its_epoch() -> None:
    for step, epoch in ((0, 0), (12, 0), (13, 1), (25, 1)):
        expected = order_of(rng_key(3, "shuffle", epoch), 40, shuffle=True)
        np.testing.assert_array_equal(SOURCE.feed(step, 1)[2], expected)


def test_take_batch_follows_the_order() -> None:
    order = jnp.asarray([5, 3, 8, 1, 0, 2], jnp.int32)
    batch = take_batch(IMAGES, LABELS, order, jnp.int32(1), batch_size=2)
    np.testing.assert_array_equal(batch.images, IMAGES[np.array([8, 1])])
    assert batch.labels.tolist() == [8, 1]
    assert batch.index.tolist() == [8, 1]


def test_a_step_draws_from_the_extended_set_and_augments_with_its_own_key() -> None:
    config = get_config()
    config.seed, config.batch_size, config.data.extended = 5, 12, True  # 240 / 12 = 20 steps
    config.augment.order = ("random_shift",)
    augment = create_augment(config.augment)
    source = train_source(config, DATA)
    assert source.steps_per_epoch == 20
    draw = jax.jit(source.draw)
    seen = []
    for step, epoch in ((3, 0), (23, 1)):  # the same place in two epochs
        order = order_of(rng_key(5, "shuffle", epoch), 240, shuffle=True)
        batch = draw(source.feed(step, 1), jnp.int32(step))
        plain = take_batch(IMAGES, LABELS, order, jnp.int32(3), 12, extended=True)
        expected = augment(rng_key(5, "augment", step), plain.images)
        np.testing.assert_array_equal(batch.images, expected)
        np.testing.assert_array_equal(batch.labels, plain.labels)
        seen.append(np.asarray(batch.images))
    assert not np.array_equal(*seen)


@pytest.mark.parametrize("batch_size", [1, 7, 16, 40, 64])
def test_evaluation_counts_every_image_once(state, batch_size) -> None:
    source = eval_source(DATA.eval, batch_size)
    chunk = jax.jit(make_eval_chunk(TASK, source.draw), donate_argnames="so_far")
    so_far, places = nothing_evaluated(TASK, state.variables, source), []
    for first, count in ((0, 1), (1, source.steps_per_epoch - 1)):  # as a run cuts it
        feed = source.feed(first, count)
        so_far = chunk(so_far, state.variables, feed, jnp.int32(first), jnp.int32(count))
        for index in range(first, first + count):
            batch = source.draw(feed, jnp.int32(index))
            places += batch.index[batch.mask].tolist()
    assert places == list(range(40))
    assert chunk._cache_size() == 1
    whole, outputs = TASK.evaluate(state.variables, batch_of(40, jnp.ones(40, bool)))
    for name, values in outputs.items():
        assert so_far.outputs[name].dtype == values.dtype
        np.testing.assert_array_equal(so_far.outputs[name][:40], values)
    total = so_far.sums
    assert int((outputs["classes"] == LABELS).sum()) == int(whole["accuracy"])
    assert int(total["count"]) == 40
    assert int(total["accuracy"]) == int(whole["accuracy"])
    np.testing.assert_allclose(total["loss"], whole["loss"], rtol=1e-5)


def test_predict_gives_classes_and_probabilities(state) -> None:
    result = jax.jit(TASK.predict)(state.variables, IMAGES[:5])
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

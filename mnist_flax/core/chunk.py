"""Steps and evaluations in their loops, on batches that a source draws: what is compiled."""

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from mnist_flax import cpu
from mnist_flax.core.state import TrainState
from mnist_flax.core.sums import Sums, merge
from mnist_flax.core.task import Task, Variables
from mnist_flax.core.trees import finite
from mnist_flax.core.update import train_step
from mnist_flax.data.batch import Batch
from mnist_flax.data.sources import Feed, Source
from mnist_flax.keys import rng_key

Draw = Callable[[Feed, jax.Array], Batch]


class LastBatch(flax.struct.PyTreeNode):
    """A step's batch, seen once more after its update, in training mode.

    Attributes:
      batch: as it was drawn.
      sums: over it.
      outputs: what task.in_training gives of it; {} where the task has no such function.
    """

    batch: Batch
    sums: Sums
    outputs: dict[str, jax.Array]


def make_train_one(task: Task, draw: Draw, seed: int) -> Callable[..., TrainState]:
    """Returns train_one(state, feed) -> state, a step later."""

    def train_one(state: TrainState, feed: Feed) -> TrainState:
        batch = draw(feed, state.step)
        return train_step(state, batch, rng_key(seed, "dropout", state.step), task=task)[0]

    return train_one


def make_train_chunk(
    task: Task, draw: Draw, seed: int
) -> Callable[..., tuple[TrainState, jax.Array]]:
    """Returns train_chunk(state, feed, count) -> the state `count` steps later, and its all_finite.

    `count` may be traced, so that ONE program serves chunks of every length, with the same bits
    however an epoch is cut.
    """
    train_one = make_train_one(task, draw, seed)

    def train_chunk(
        state: TrainState, feed: Feed, count: jax.Array
    ) -> tuple[TrainState, jax.Array]:
        state = jax.lax.fori_loop(0, count, lambda _, state: train_one(state, feed), state)
        return state, all_finite(state)

    return train_chunk


def make_last_batch(task: Task, draw: Draw, seed: int) -> Callable[..., LastBatch]:
    """Returns last_batch(state, feed) -> LastBatch of the step before `state`."""

    def last_batch(state: TrainState, feed: Feed) -> LastBatch:
        step = state.step - 1
        batch, key = draw(feed, step), rng_key(seed, "dropout", step)
        # What else an update gives is not used, and so not computed.
        sums = task.update(state.variables, state.opt_state, batch, step, key)[2]
        look = task.in_training
        return LastBatch(batch, sums, look(state.variables, batch, key) if look else {})

    return last_batch


class Evaluated(flax.struct.PyTreeNode):
    """What is known of a split, part of which may still be to come.

    Attributes:
      sums: over the batches so far.
      outputs: of task.evaluate by name, [batches · B, …]: zeros where a batch is to come.
    """

    sums: Sums
    outputs: dict[str, jax.Array]


def nothing_evaluated(task: Task, variables: Variables, source: Source) -> Evaluated:
    """Returns what an evaluation starts from; the shapes are those of the source's first batch."""
    batch = jax.eval_shape(source.draw, source.feed(0, 1), jnp.int32(0))
    sums, outputs = jax.eval_shape(task.evaluate, variables, batch)
    batches = source.steps_per_epoch

    def zeros(leaf: jax.ShapeDtypeStruct, *shape: int) -> jax.Array:
        # By NumPy: each jnp.zeros of another shape would be a program to compile.
        return jax.device_put(np.zeros(shape, leaf.dtype))

    return Evaluated(
        {name: zeros(leaf, *leaf.shape) for name, leaf in sums.items()},
        {
            name: zeros(leaf, batches * leaf.shape[0], *leaf.shape[1:])
            for name, leaf in outputs.items()
        },
    )


def make_eval_one(task: Task, draw: Draw) -> Callable[..., Evaluated]:
    """Returns eval_one(so_far, variables, feed, index) -> Evaluated, with that batch added."""
    # In a loop a forward pass of another order of axes would be slow on a CPU, too.
    evaluate = cpu.for_backend(task.evaluate)

    def eval_one(
        so_far: Evaluated, variables: Variables, feed: Feed, index: jax.Array
    ) -> Evaluated:
        sums, outputs = evaluate(variables, draw(feed, index))
        kept = {
            name: jax.lax.dynamic_update_slice_in_dim(
                so_far.outputs[name], values, index * len(values), axis=0
            )
            for name, values in outputs.items()
        }
        return Evaluated(merge(so_far.sums, sums), kept)

    return eval_one


def make_eval_chunk(task: Task, draw: Draw) -> Callable[..., Evaluated]:
    """Returns eval_chunk(so_far, variables, feed, first, count) -> Evaluated, with these added."""
    eval_one = make_eval_one(task, draw)

    def eval_chunk(
        so_far: Evaluated, variables: Variables, feed: Feed, first: jax.Array, count: jax.Array
    ) -> Evaluated:
        def add(index: jax.Array, so_far: Evaluated) -> Evaluated:
            return eval_one(so_far, variables, feed, index)

        return jax.lax.fori_loop(first, first + count, add, so_far)

    return eval_chunk


def all_finite(state: TrainState) -> jax.Array:
    """Says whether a run may go on from this state: bool []; see trees.finite."""
    return finite((state.variables, state.window, state.epoch), state.opt_state)

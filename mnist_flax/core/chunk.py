"""Steps in their loop, on batches that a source draws: what training/compilation.py compiles."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax

from mnist_flax.core.state import TrainState
from mnist_flax.core.sums import Sums
from mnist_flax.core.task import Task, Variables
from mnist_flax.core.trees import finite
from mnist_flax.core.update import train_step
from mnist_flax.data.batch import Batch
from mnist_flax.data.sources import Feed
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


def make_train_chunk(task: Task, draw: Draw, seed: int) -> Callable[..., TrainState]:
    """Returns train_chunk(state, feed, count) -> state, `count` steps later.

    `count` may be traced, so that ONE program serves chunks of every length, with the same bits
    however an epoch is cut.
    """
    train_one = make_train_one(task, draw, seed)

    def train_chunk(state: TrainState, feed: Feed, count: jax.Array) -> TrainState:
        return jax.lax.fori_loop(0, count, lambda _, state: train_one(state, feed), state)

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


def make_eval_batch(task: Task, draw: Draw) -> Callable[..., tuple[Sums, dict[str, Any]]]:
    """Returns eval_batch(variables, feed, index) -> sums and outputs of the index-th batch."""

    def eval_batch(
        variables: Variables, feed: Feed, index: jax.Array
    ) -> tuple[Sums, dict[str, Any]]:
        return task.evaluate(variables, draw(feed, index))

    return eval_batch


def all_finite(state: TrainState) -> jax.Array:
    """Says whether a run may go on from this state: bool []; see trees.finite."""
    return finite((state.variables, state.window, state.epoch), state.opt_state)

"""One update: of variables by the gradient of a loss, and of a run's state by its task."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mnist_flax.core.state import TrainState
from mnist_flax.core.sums import Sums, merge
from mnist_flax.core.task import Metric, OptState, Task, Variables
from mnist_flax.data.batch import Batch

Loss = Callable[[Variables, Batch, jax.Array], tuple[jax.Array, tuple[dict[str, Any], Sums]]]


UPDATE_NORM = "update_norm"
NORMS = {"gradient_norm": Metric(".3g"), UPDATE_NORM: Metric(".3g")}


def gradient_update(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    accumulate_steps: int = 1,
    log_norms: bool = False,
) -> Callable[..., Any]:
    """Returns the `update` of a task whose 'params' follow the gradient of one loss.

    Args:
      loss: (variables, batch, key) -> (what is minimised, (changed, Sums)): `changed` replaces
        other collections of the variables, {'batch_stats': …} for one.
      optimizer: of variables['params']; its state is optimizer.init(variables['params']).
      accumulate_steps: in how many parts a batch is passed through the loss. It must divide the
        batch size; the loss is a mean over images.
      log_norms: whether the Sums have those of NORMS: over all parameters together, of the gradient
        before it is clipped, and of what the optimizer makes of it.
    """
    gradient = jax.grad(loss_of_params(loss), has_aux=True)

    def update(
        variables: Variables, opt_state: OptState, batch: Batch, step: jax.Array, key: jax.Array
    ) -> tuple[Variables, OptState, Sums]:
        del step
        params = variables["params"]
        if accumulate_steps == 1:
            grads, (changed, sums) = gradient(params, variables, batch, key)
        else:
            grads, (changed, sums) = in_parts(gradient, accumulate_steps, variables, batch, key)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        if log_norms:  # a mean over images is one over steps, for each step has as many
            norms = (optax.tree.norm(grads), optax.tree.norm(updates))
            sums = sums | {
                name: norm * sums["count"] for name, norm in zip(NORMS, norms, strict=True)
            }
        params = optax.apply_updates(params, updates)
        return {**variables, **changed, "params": params}, opt_state, sums

    return update


def loss_of_params(loss: Loss) -> Callable[..., Any]:
    """Returns the same loss with the parameters alone for its first argument."""

    def of_params(
        params: Any, variables: Variables, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, tuple[dict[str, Any], Sums]]:
        return loss({**variables, "params": params}, batch, key)

    return of_params


def in_parts(
    gradient: Callable[..., Any], parts: int, variables: Variables, batch: Batch, key: jax.Array
) -> tuple[Any, tuple[dict[str, Any], Sums]]:
    """Returns the gradient, what changed and the Sums of a batch that is seen in parts.

    The gradient is that of the whole batch, up to rounding, where the loss of an image depends on
    no other image. Batch-norm's does: its statistics are each part's own, and the running ones move
    once a part. Each part has a key of its own, so its dropout is not the whole batch's.
    """
    size = len(batch.images) // parts
    pieces = jax.tree.map(lambda leaf: leaf.reshape(parts, size, *leaf.shape[1:]), batch)
    others = {name: value for name, value in variables.items() if name != "params"}

    def one(carried: tuple[Any, Any], part: tuple[Batch, jax.Array]) -> tuple[Any, Sums]:
        (total, others), (piece, number) = carried, part
        grads, (changed, sums) = gradient(
            variables["params"], others, piece, jax.random.fold_in(key, number)
        )
        return (jax.tree.map(jnp.add, total, grads), {**others, **changed}), sums

    start = (jax.tree.map(jnp.zeros_like, variables["params"]), others)
    (total, others), sums = jax.lax.scan(one, start, (pieces, jnp.arange(parts)))
    grads = jax.tree.map(lambda leaf: leaf / parts, total)
    return grads, (others, {name: leaf.sum(0, dtype=leaf.dtype) for name, leaf in sums.items()})


def train_step(
    state: TrainState, batch: Batch, key: jax.Array, *, task: Task
) -> tuple[TrainState, Sums]:
    """One step of a run. The sums are those of the batch before its update, with dropout on."""
    variables, opt_state, sums = task.update(
        state.variables, state.opt_state, batch, state.step, key
    )
    state = state.replace(
        step=state.step + 1,
        variables=variables,
        opt_state=opt_state,
        window=merge(state.window, sums),
        epoch=merge(state.epoch, sums),
    )
    return state, sums

"""One update: of variables by the gradient of a loss, and of a run's state by its task."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from mnist_flax.core.state import TrainState
from mnist_flax.core.sums import Sums, merge
from mnist_flax.core.task import OptState, Task, Variables
from mnist_flax.data.sources import Batch

Loss = Callable[[Variables, Batch, jax.Array], tuple[jax.Array, tuple[dict[str, Any], Sums]]]


def gradient_update(loss: Loss, optimizer: optax.GradientTransformation) -> Callable[..., Any]:
    """Returns the `update` of a task whose 'params' follow the gradient of one loss.

    Args:
      loss: (variables, batch, key) -> (what is minimised, (changed, Sums)): `changed` replaces
        other collections of the variables, {'batch_stats': …} for one.
      optimizer: of variables['params']; its state is optimizer.init(variables['params']).
    """

    def update(
        variables: Variables, opt_state: OptState, batch: Batch, step: jax.Array, key: jax.Array
    ) -> tuple[Variables, OptState, Sums]:
        del step

        def of_params(params: Any) -> tuple[jax.Array, tuple[dict[str, Any], Sums]]:
            return loss({**variables, "params": params}, batch, key)

        grads, (changed, sums) = jax.grad(of_params, has_aux=True)(variables["params"])
        updates, opt_state = optimizer.update(grads, opt_state, variables["params"])
        params = optax.apply_updates(variables["params"], updates)
        return {**variables, **changed, "params": params}, opt_state, sums

    return update


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

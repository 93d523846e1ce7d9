"""A task that predicts no classes: how far is an image turned? Not a test itself.

The turn is made up of the label: 36° for each. The network learns it in turns, 0 to 1.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import tiny
from flax import linen as nn
from ml_collections import ConfigDict

from mnist_flax.core.optimizers import optimizer_of
from mnist_flax.core.sums import Sums
from mnist_flax.data.batch import Batch
from mnist_flax.models import create_model
from mnist_flax.tasks import Metric, Spec, Task, gradient_update
from mnist_flax.tasks.networks import apply_eval, apply_train, init_variables


def get_config() -> ConfigDict:
    config = tiny.get_config()
    config.task.name = "tiny_degrees:degrees"
    config.num_steps = 20
    return config


def degrees(config: ConfigDict, spec: Spec) -> Task:
    model = create_model(config.model, 1)
    optimizer, rates = optimizer_of(config, spec.num_steps)
    return Task(
        init=functools.partial(init_variables, model, spec.image_shape),
        init_opt=lambda variables: optimizer.init(variables["params"]),
        update=gradient_update(functools.partial(_loss, model), optimizer),
        evaluate=functools.partial(_evaluate, model),
        predict=lambda variables, images: {
            "degrees": 360 * apply_eval(model, variables, images)[:, 0]
        },
        metrics={
            "squared_error": Metric(".5f"),
            "spread": Metric(".2f"),
            "within_45": Metric(".3f", larger_is_better=True),
        },
        best="within_45",
        rates={**rates, "step_share": lambda variables, opt_state, step: step / spec.num_steps},
        model=model,
    )


def _sums(turns: jax.Array, batch: Batch) -> Sums:
    """Sums over turns [B], 0 to 1."""
    mask = jnp.ones(turns.shape, bool) if batch.mask is None else batch.mask
    error = turns - batch.labels / 10
    return {
        "squared_error": jnp.where(mask, error**2, 0.0).sum(),
        "within_45": jnp.sum(mask & (jnp.abs(error) < 1 / 8), dtype=jnp.int32),
        "count": jnp.sum(mask, dtype=jnp.int32),
    }


def _loss(
    model: nn.Module, variables: dict[str, Any], batch: Batch, key: jax.Array
) -> tuple[jax.Array, tuple[dict[str, Any], Sums]]:
    turns, changed = apply_train(model, variables, batch.images, key)
    sums = _sums(turns[:, 0], batch)
    return sums["squared_error"] / sums["count"], (changed, sums)


def _evaluate(
    model: nn.Module, variables: dict[str, Any], batch: Batch
) -> tuple[Sums, dict[str, jax.Array]]:
    turns = apply_eval(model, variables, batch.images)[:, 0]
    # What training does not sum: how far the answers are from a quarter turn.
    spread = jnp.where(batch.mask, jnp.abs(360 * turns - 90), 0.0).sum()
    return {**_sums(turns, batch), "spread": spread}, {"degrees": 360 * turns}

"""Plans over some of eight simulated devices, and what their first steps give. Not a test."""

import ast
import functools
import types
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from conftest import recipe
from flax import linen as nn
from ml_collections import ConfigDict

from mnist_flax.core.chunk import make_train_chunk
from mnist_flax.core.sums import means
from mnist_flax.data.feeding import eval_source, train_source
from mnist_flax.data.placement import Placement
from mnist_flax.models import dcgan, lenet, tutorial
from mnist_flax.training.compilation import init_state
from mnist_flax.training.gather import Plan, gather

RECIPES = ("tutorial", "lenet_augmented", "vae", "dcgan")
COUNTS = (1, 2, 4, 8)
SIDE, DCGAN_SIDE = 8, 12  # of the images, but for the VAE's
# Of layers, and what they are here.
WIDTHS = {25: 4, 32: 4, 50: 4, 64: 8, 100: 16, 256: 32, 1024: 64}


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives networks fewer channels, and has the DCGAN draw smaller pictures."""

    def narrow(layer: Any) -> Any:
        return lambda features, *args, **fields: layer(
            WIDTHS.get(features, features), *args, **fields
        )

    layers = {"Conv": narrow(nn.Conv), "Dense": narrow(nn.Dense)}
    monkeypatch.setattr(dcgan, "_SIDE", DCGAN_SIDE)
    monkeypatch.setattr(dcgan, "ResizedConv", narrow(dcgan.ResizedConv))
    for module in (dcgan, lenet, tutorial):
        monkeypatch.setattr(module, "nn", types.SimpleNamespace(**{**vars(nn), **layers}))


def config_of(name: str, **changes: Any) -> ConfigDict:
    """A recipe on the sample, with batches of 16, and smaller than it is."""
    config = recipe(name)
    config.batch_size, config.num_steps, config.num_epochs = 16, 50, None
    config.data.name = "mnist_sample"
    if name == "dcgan":
        config.task.first_steps, config.task.judge = 3, ""
    if name == "vae":
        config.model.hidden, config.model.latent_size = 64, 8
    else:
        config.data.resize = DCGAN_SIDE if name == "dcgan" else SIDE
    if name == "lenet_augmented":
        config.augment.order = ("random_rotation", "random_shift", "random_erasing")
    config.update(changes)
    return config


def plan_of(name: str, devices: int, **changes: Any) -> Plan:
    """Its plan over the first so many devices."""
    return placed(_gathered(name, repr(changes), jax.config.jax_enable_x64), devices)


def placed(plan: Plan, devices: int) -> Plan:
    """The same plan over the first so many devices."""
    assert jax.device_count() == 8, "run with -m distributed"
    config, placement = plan.config, Placement.over(jax.devices()[:devices])
    return replace(
        plan,
        placement=placement,
        source=train_source(config, plan.dataset, placement),
        eval_source=eval_source(plan.dataset.choosing, config.batch_size, placement),
    )


@functools.cache
def _gathered(name: str, changes: str, x64: bool) -> Plan:
    """Its plan, traced once for all numbers of devices; `changes` is the text of a dict."""
    return gather(config_of(name, **ast.literal_eval(changes)), lambda line: None)


def after(plan: Plan, steps: int) -> list[dict[str, float]]:
    """The means over the first so many steps: for each number up to ten, then for each tenth."""
    # As training/compilation.py makes it, without the evaluation.
    chunk = jax.jit(
        make_train_chunk(plan.task, plan.source.draw, plan.config.seed),
        donate_argnames="state",
        out_shardings=plan.placement.everywhere,
    )
    state, told, step = plan.placement.replicate(init_state(plan)), [], 0
    while step < steps:
        count = 1 if step < 10 else 10
        with plan.placement.around():
            state, finite = chunk(state, plan.source.feed(step, count), jnp.int32(count))
        assert finite
        step += count
        told.append(means(state.window))
    return told

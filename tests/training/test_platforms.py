"""Every recipe is lowered for CUDA and for TPU, on a machine that needs neither.

Nothing is computed: what a run compiles is exported with abstract arguments. The platform that it
is lowered for decides whether cpu/ rewrites it, not the one at hand.
"""

import functools
import re
from collections import Counter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest
from conftest import ROOT, TAKING
from jax import export
from test_golden import golden_recipe

from mnist_flax import cpu
from mnist_flax.core.chunk import make_eval_chunk, make_train_chunk, nothing_evaluated
from mnist_flax.training.gather import gather


class Layers(NamedTuple):
    """How many max-pools and convolutions a recipe's step takes gradients through."""

    pools: int
    convolutions: int


RECIPES = {
    "tutorial": Layers(2, 2),
    "adam": Layers(2, 2),
    "lenet": Layers(2, 2),
    "lenet_augmented": Layers(2, 2),
    "rmsprop": Layers(3, 3),
    "speedrun": Layers(2, 3),
    "speedrun:bfloat16": Layers(2, 3),
    "fast995": Layers(3, 3),
    "fast995:bfloat16": Layers(3, 3),
    "best": Layers(3, 5),
    "vae": Layers(0, 0),
    # The discriminator's on images and on drawings, and the generator's.
    "dcgan": Layers(0, 2 + 2 + 3),
    "dcgan_fast": Layers(0, 2 + 2 + 2),
}

# How StableHLO writes convolutions: images and a kernel in canonical order, and what autodiff makes
# of the gradient of that kernel.
CANONICAL = "[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"
OF_KERNEL = "[f, 0, 1, b]x[i, 0, 1, o]->[0, 1, b, f]"

ORDINARY = {("lenet", "cuda"), ("dcgan_fast", "cuda")}
PROMISE = [pytest.mark.slow, pytest.mark.promise]
CASES = [
    pytest.param(name, platform, marks=[] if (name, platform) in ORDINARY else PROMISE)
    for name in RECIPES
    for platform in ("cuda", "tpu")
]


def test_every_recipe_is_here() -> None:
    stems = {path.stem for path in (ROOT / "configs").glob("*.py")}
    assert {name.partition(":")[0] for name in RECIPES} | {*TAKING} == stems


@pytest.mark.parametrize(("name", "platform"), CASES)
def test_the_platform_that_is_lowered_for_decides(name: str, platform: str) -> None:
    pools, convolutions = RECIPES[name]
    (ours, our_eval), (theirs, their_eval) = lowered(name, "cpu"), lowered(name, platform)
    assert ours["select_and_scatter"] == 0
    assert theirs["select_and_scatter"] == pools
    assert orders(ours) <= {CANONICAL}
    assert theirs[OF_KERNEL] == convolutions
    # Barriers are in the gradients of cpu/ alone.
    assert (ours["optimization_barrier"] > 0) == (convolutions > 0)
    assert theirs["optimization_barrier"] == 0
    # Average pools are windows on a CPU, too.
    assert their_eval["reduce_window"] - our_eval["reduce_window"] == pools


@functools.cache
def lowered(name: str, platform: str) -> tuple[Counter[str], Counter[str]]:
    """How often each operation is in what trains and in what evaluates; a convolution by order."""
    train, evaluate = programs(name)
    with cpu.lowered_for(platform):
        return operations(train, platform), operations(evaluate, platform)


@functools.cache
def programs(name: str) -> list[tuple[Any, tuple[Any, ...]]]:
    """The two functions of a run, jitted, each with the form of its arguments.

    As a run has them on this machine: the task is traced for it, and they are made, before anything
    is said of a platform.
    """
    config = golden_recipe(name)
    config.data.name = "mnist_sample"
    plan = gather(config, print)
    task, source, batches, state = plan.task, plan.source, plan.eval_source, plan.tried.form
    so_far = nothing_evaluated(task, state.variables, batches)
    train = (state, source.feed(0, 1), jnp.int32(1))
    evaluate = (so_far, state.variables, batches.feed(0, 1), jnp.int32(0), jnp.int32(1))
    return [
        (jax.jit(make_train_chunk(task, source.draw, config.seed)), jax.eval_shape(lambda: train)),
        (jax.jit(make_eval_chunk(task, batches.draw)), jax.eval_shape(lambda: evaluate)),
    ]


def operations(program: tuple[Any, tuple[Any, ...]], platform: str) -> Counter[str]:
    function, form = program
    exported = export.export(function, platforms=[platform])(*form)
    assert exported.platforms == (platform,)
    text = exported.mlir_module()
    names = re.findall(r'= "?stablehlo\.(\w+)', text)
    return Counter(names + re.findall(r"dim_numbers = (\[.*?\]x\[.*?\]->\[.*?\])", text))


def orders(found: Counter[str]) -> set[str]:
    return {name for name in found if "->" in name}

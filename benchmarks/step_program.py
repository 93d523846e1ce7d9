"""What a device does in a step, read from the program that XLA compiles: FLOPs, bytes reduced."""

import importlib
import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import jax

from mnist_flax import cpu
from mnist_flax.core.state import TrainState
from mnist_flax.core.task import Task
from mnist_flax.core.update import train_step
from mnist_flax.data.batch import Batch, batch_like
from mnist_flax.data.placement import Placement
from mnist_flax.errors import UserError
from mnist_flax.keys import rng_key
from mnist_flax.training.gather import gather

_SIZES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "f64": 8}
_OTHERS = "all-gather|reduce-scatter|all-to-all|collective-permute|collective-broadcast"


class Step(NamedTuple):
    """What a device does in a step.

    Attributes:
      batch: its images.
      flops: of them all.
      reduced: the bytes of each all-reduce, in the program's order.
    """

    batch: int
    flops: float
    reduced: tuple[int, ...]


def simulate(devices: int) -> None:
    """Has this process see so many CPU devices, whatever the machine has: before JAX starts."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", devices)


def step_of(recipe: str) -> Step:
    """Returns the step of configs/<recipe>.py, with its own batch on each device."""
    config = importlib.import_module(f"configs.{recipe}").get_config()
    config.data.name = "mnist_sample"  # of which only the form is used
    plan = gather(config, lambda line: None)
    form, shape = plan.tried.form, plan.spec.image_shape
    return compiled_step(plan.task, form, config.batch_size, shape, jax.devices())


def compiled_step(
    task: Task,
    form: TrainState,
    batch: int,
    image_shape: tuple[int, int, int],
    devices: Sequence[jax.Device],
) -> Step:
    """Compiles one step over these devices, the batch cut among them, and reads it.

    Args:
      task: what is learnt.
      form: of its state, as jax.ShapeDtypeStructs.
      batch: the images of each device.
      image_shape: (H, W, C).
      devices: at least two.
    """
    placement = Placement.over(devices)
    whole = batch_like(batch * placement.devices, image_shape)

    def step(state: TrainState, batch: Batch) -> TrainState:
        key = rng_key(0, "dropout", state.step)
        return train_step(state, placement.shard(batch), key, task=task)[0]

    # On a CPU, but with the gradients that a GPU or TPU is given.
    with cpu.lowered_for("cuda"), jax.set_mesh(placement.mesh):
        jitted = jax.jit(step, out_shardings=placement.everywhere)
        compiled = jitted.lower(placement.form(form), placement.form(whole)).compile()
    return Step(batch, float(compiled.cost_analysis()["flops"]), all_reduced(compiled.as_text()))


def all_reduced(program: str) -> tuple[int, ...]:
    """Returns the bytes of each all-reduce in the text of a compiled program.

    Raises:
      UserError: the devices exchange something in another way, which no formula here has.
    """
    if other := re.search(rf" ({_OTHERS})(-start)?\(", program):
        raise UserError(f"The step has a collective that is no all-reduce: {other[1]}.")
    found = re.findall(r"= (.*?) all-reduce(?:-start)?\(", program)
    return tuple(sum(map(_bytes, re.findall(r"(\w+)\[([\d,]*)\]", result))) for result in found)


def _bytes(array: tuple[str, str]) -> int:
    """The bytes of ('f32', '5,5,32,64')."""
    dtype, shape = array
    if dtype not in _SIZES:
        raise UserError(
            f"The step reduces {dtype}[{shape}], of a type whose size is not known here."
        )
    return _SIZES[dtype] * math.prod(map(int, filter(None, shape.split(","))))

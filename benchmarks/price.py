"""The price of data parallelism on paper: what a step's all-reduces take beside its FLOPs.

    python benchmarks/price.py
    python benchmarks/price.py --only=tutorial --share=0.1 --output=FILE

Computed, not measured. A step of each recipe is compiled over eight simulated devices of a CPU,
each of which has the recipe's batch, with the gradients that autodiff writes. From the compiled
program are read every all-reduce with its bytes (gradients, the statistics of batch-norm, the sums
of a row), and the FLOPs of one device. Neither depends on the number of devices.

The FLOPs are XLA's own count. It leaves out products with padding, and counts additions, activation
functions and the optimizer, too. For `tutorial`, 100 images, the products alone are, by hand,
2·100·(2·(134²·32) + 3·(64²·32·64) + 3·(3136·1024) + 3·(1024·10)) = 7,195,904,000, where 134 and 64
are the taps of 5 that lie inside of 28 and 14 pixels; XLA counts 7,271,697,408, 1.1 % more.

An all-reduce of S bytes over n devices has each of them send 2·(n-1)/n·S bytes, whatever algorithm
it uses: https://github.com/NVIDIA/nccl-tests/blob/master/doc/PERFORMANCE.md. It waits for hops
besides: a ring for 2·(n-1), a tree for 2·log2(n). Where the devices fill more than one node, the
slower link between nodes carries it, and 2·(nodes-1) or 2·log2(nodes) of the hops are between them.
Nothing is computed meanwhile: what a compiler can overlap is left out, and so is all that a step
takes beside its FLOPs. The batch at which communication equals compute is that of a device.

What is assumed of the machine are flags. The defaults are eight H200 a node:
  peak: of TF32, 494.7 TFLOP/s without sparsity: https://glennklockwood.com/garden/processors/h100
  share of it that is reached: 0.3, a guess
  within a node: NVLink, 900 GB/s, half of it each way: the same page
  between nodes: InfiniBand, 400 Gb/s an adapter, one for each device:
    https://docs.nvidia.com/networking/display/ConnectX7VPI/Introduction
  a hop: 1.9 and 4.0 µs, from the model by which NCCL chooses (hwLat, ring, LL128):
    https://github.com/NVIDIA/nccl/blob/01afd20a77b5804e0ecf1042509dd9d20ebf9e93/src/graph/tuning.cc
For TPU v5e (197 TFLOP/s in bfloat16; 256 chips with 400 GB/s each, half of it each way; 6.4 Tb/s
out of these 256: https://docs.cloud.google.com/tpu/docs/v5e) set --peak=197e12 --node_devices=256
--node_bandwidth=200e9 --bandwidth=3.1e9, and the latencies that you take for right.
"""

import argparse
import dataclasses
import importlib
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import machine

from mnist_flax import cpu
from mnist_flax.core.state import TrainState
from mnist_flax.core.task import Task
from mnist_flax.core.update import train_step
from mnist_flax.data.batch import Batch, batch_like
from mnist_flax.data.placement import Placement
from mnist_flax.errors import UserError
from mnist_flax.keys import rng_key
from mnist_flax.training.gather import gather

RECIPES = {"tutorial": "tutorial", "compact": "speedrun", "dcgan": "dcgan"}
DEVICES = (1, 8, 64, 512, 4096)
SIMULATED = 8
ALGORITHMS = ("ring", "tree")
_SIZES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "f64": 8}
_OTHERS = "all-gather|reduce-scatter|all-to-all|collective-permute|collective-broadcast"


@dataclasses.dataclass(frozen=True)
class Assumed:
    """What is assumed of the machine: each field is a flag.

    Attributes:
      peak: FLOP/s of a device.
      share: of the peak that a step reaches.
      node_devices: how many devices a node has.
      node_bandwidth: that a device sends with to others of its node, in bytes/s.
      bandwidth: likewise, to other nodes.
      node_latency: of a hop within a node, in seconds.
      latency: of a hop between nodes, in seconds.
    """

    peak: float = 494.7e12
    share: float = 0.3
    node_devices: int = 8
    node_bandwidth: float = 450e9
    bandwidth: float = 50e9
    node_latency: float = 1.9e-6
    latency: float = 4.0e-6


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Compiles, computes, prints and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default=",".join(RECIPES), help=f"of {', '.join(RECIPES)}")
    parser.add_argument("--output", type=Path, help="a JSON file to write; default: none")
    for field in dataclasses.fields(Assumed):
        kind: Any = machine.positive if field.type is int else positive
        parser.add_argument(f"--{field.name}", type=kind, default=field.default)
    parsed = parser.parse_args(arguments)
    names = machine.choose(parser, parsed.only, list(RECIPES))
    fields = dataclasses.fields(Assumed)
    assumed = Assumed(**{field.name: getattr(parsed, field.name) for field in fields})
    results: dict[str, Any] = {"assumed": dataclasses.asdict(assumed), "recipes": {}}
    print(f"Assumed, not measured: {told(assumed)}")
    simulate(SIMULATED)
    try:
        for name in names:
            step = step_of(RECIPES[name])
            results["recipes"][name] = step._asdict()
            _show(name, step, assumed)
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_status
    machine.write(results, parsed.output)
    return 0


def positive(text: str) -> float:
    """Reads a number above 0: a type for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return value


def told(assumed: Assumed) -> str:
    """Returns the assumptions in a line."""
    return (
        f"{assumed.peak / 1e12:g} TFLOP/s a device, {100 * assumed.share:g} % of it reached; "
        f"{assumed.node_devices} devices a node; a device sends {assumed.node_bandwidth / 1e9:g} "
        f"GB/s within its node and {assumed.bandwidth / 1e9:g} GB/s out of it; a hop takes "
        f"{assumed.node_latency * 1e6:g} µs within a node and {assumed.latency * 1e6:g} µs between "
        "two."
    )


# --- What a step is, read from the compiled program ---------------------------------------------


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


# --- The formulas -------------------------------------------------------------------------------


def sent(size: float, devices: int) -> float:
    """Returns the bytes that each device sends in an all-reduce of so many: 2·(n-1)/n of them."""
    return 2 * (devices - 1) / devices * size


def hops(algorithm: str, devices: int, node_devices: int) -> tuple[float, float]:
    """Returns how many hops an all-reduce waits for, within nodes and between them."""
    nodes = max(1.0, devices / node_devices)
    if algorithm == "ring":
        return 2 * (devices - nodes), 2 * (nodes - 1)
    return 2 * math.log2(devices / nodes), 2 * math.log2(nodes)


def communication(algorithm: str, step: Step, devices: int, assumed: Assumed) -> float:
    """Returns the seconds of a step's all-reduces, one after another."""
    within, between = hops(algorithm, devices, assumed.node_devices)
    waiting = within * assumed.node_latency + between * assumed.latency
    inside = devices <= assumed.node_devices
    bandwidth = assumed.node_bandwidth if inside else assumed.bandwidth
    return len(step.reduced) * waiting + sent(sum(step.reduced), devices) / bandwidth


def computation(step: Step, assumed: Assumed) -> float:
    """Returns the seconds of a step's FLOPs."""
    return step.flops / (assumed.peak * assumed.share)


def equal_batch(algorithm: str, step: Step, devices: int, assumed: Assumed) -> int:
    """Returns the images a device from which on computing takes longer than communicating.

    FLOPs grow with the batch, and the bytes do not: those of batch-norm are of its channels.
    """
    seconds = communication(algorithm, step, devices, assumed)
    return math.ceil(step.batch * seconds / computation(step, assumed))


def _show(name: str, step: Step, assumed: Assumed) -> None:
    total = sum(step.reduced)
    print(
        f"\n`{name}`: {step.batch} images a device, {step.flops / 1e9:.4g} GFLOP a step, ", end=""
    )
    print(
        f"{len(step.reduced)} all-reduces of {total:,} bytes (the largest {max(step.reduced):,})\n"
    )
    head = ("devices", "MB sent a device", "compute, ms")
    head += tuple(f"{algorithm}, ms" for algorithm in ALGORITHMS)
    head += tuple(f"equal at, {algorithm}" for algorithm in ALGORITHMS)
    rows = []
    for devices in DEVICES:
        asked = [(algorithm, step, devices, assumed) for algorithm in ALGORITHMS]
        numbers = [sent(total, devices) / 1e6]
        numbers += [1e3 * computation(step, assumed), *(1e3 * communication(*of) for of in asked)]
        cells = [f"{devices:,}", f"{numbers[0]:.3g}", *(f"{value:.3f}" for value in numbers[1:])]
        rows.append((*cells, *(f"{equal_batch(*of):,}" if devices > 1 else "–" for of in asked)))
    machine.print_table(head, rows)


if __name__ == "__main__":
    sys.exit(main())

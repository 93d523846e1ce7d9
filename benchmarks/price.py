"""The price of data parallelism on paper: what a step's all-reduces take next to its FLOPs.

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
as well: a ring for 2·(n-1), a tree for 2·log2(n). Where the devices fill more than one node, the
slower link between nodes carries it, and 2·(nodes-1) or 2·log2(nodes) of the hops are between them.
Nothing is computed meanwhile: what a compiler can overlap is left out, and so is all that a step
takes next to its FLOPs. The batch at which communication equals compute is that of a device.

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
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import machine
from step_program import Step, simulate, step_of

from mnist_flax.errors import UserError

RECIPES = {"tutorial": "tutorial", "compact": "speedrun", "dcgan": "dcgan"}
DEVICES = (1, 8, 64, 512, 4096)
SIMULATED = 8
ALGORITHMS = ("ring", "tree")


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

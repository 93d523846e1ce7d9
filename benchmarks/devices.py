"""The recipes themselves over several devices, compared with one: simulated ones, of a CPU.

    python benchmarks/devices.py
    python benchmarks/devices.py --only=tutorial --steps=50 --devices=4

The first steps of each recipe are made by one device and by eight, with its own batch. Printed is
by how much a mean over them differs, relatively, at most; and whether the state that they start
from, and the last step's batch as it was augmented, are the same bit for bit. The differences are
float32's rounding, which grows with the steps: tests/distributed/test_float64.py has the same in
float64, where nothing else is left.

It says nothing of speed: simulated devices share the cores of one processor.
"""

import argparse
import importlib
import sys
from typing import Any

import jax
import jax.numpy as jnp
import machine

from mnist_flax.core.sums import means
from mnist_flax.data.placement import Placement
from mnist_flax.training.compilation import Compiler, init_state
from mnist_flax.training.gather import gather

RECIPES = ("tutorial", "lenet_augmented", "vae", "dcgan")


def main() -> int:
    """Parses flags, prints a row for each recipe."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(RECIPES), help="recipes, by commas")
    parser.add_argument("--steps", type=machine.positive, default=10, help="default: 10")
    parser.add_argument("--devices", type=machine.positive, default=8, help="default: 8")
    parser.add_argument("--data_dir", help="config.data.data_dir; by default what launch.py finds")
    asked = parser.parse_args()
    names = machine.choose(parser, asked.only, RECIPES)
    jax.config.update("jax_num_cpu_devices", asked.devices)
    print(machine.conditions())
    print("| recipe | batch | largest difference of a mean | start | last batch |")
    print("|---|---|---|---|---|")
    for name in names:
        one, many = (_first_steps(name, devices, asked) for devices in (1, asked.devices))
        same = ["same bits" if one[key] == many[key] else "OTHER" for key in ("start", "batch")]
        difference = f"{_worst(one['means'], many['means']):.1e}"
        print(f"| {' | '.join((name, str(one['size']), difference, *same))} |", flush=True)
    return 0


def _worst(one: list[dict[str, float]], many: list[dict[str, float]]) -> float:
    """Returns by how much a mean differs at most, relatively to that of one device."""
    return max(
        abs(ours[key] / theirs[key] - 1)
        for ours, theirs in zip(many, one, strict=True)
        for key in theirs
        if theirs[key]
    )


def _first_steps(name: str, devices: int, asked: argparse.Namespace) -> dict[str, Any]:
    config = importlib.import_module(f"configs.{name}").get_config()
    config.data.data_dir = asked.data_dir
    if "judge" in config.task:  # it says nothing of a step
        config.task.judge = ""
    plan = gather(config, print, Placement.over(jax.devices()[:devices]))
    compiler = Compiler(plan)
    compiler.start(0)
    programs, state = compiler.programs(), plan.placement.replicate(init_state(plan))
    told: dict[str, Any] = {"size": config.batch_size, "start": _bytes(state), "means": []}
    for step in range(asked.steps):
        state, _ = programs.train_chunk(state, plan.source.feed(step, 1), jnp.int32(1))
        told["means"].append(means(state.window))
    last = asked.steps - 1
    draw = jax.jit(plan.source.draw, out_shardings=plan.placement.everywhere)
    return told | {"batch": _bytes(draw(plan.source.feed(last, 1), jnp.int32(last)))}


def _bytes(tree: Any) -> bytes:
    return b"".join(leaf.tobytes() for leaf in jax.tree.leaves(jax.device_get(tree)))


if __name__ == "__main__":
    sys.exit(main())

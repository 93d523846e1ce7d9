"""What the speed benchmarks share: the machine in words, its pace, rounds in turn, and tables.

Times of different hours or machines compare only next to the rate at which the same processor
multiplies matrices in the same minute. That rate is therefore measured in every round.
"""

import argparse
import json
import os
import resource
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

# For the benchmarks as well: they import this module before those of the framework.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp

from mnist_flax.cpu import half_precision
from mnist_flax.errors import UserError
from mnist_flax.workdir.environment import environment, processor

ROOT = Path(__file__).resolve().parent.parent
PEER = ROOT / "benchmarks" / "peers" / "classification.py"
PRODUCT_FLOPS = 2 * 2048**3
_PRODUCT_SECONDS = 0.2  # shorter measurements would time the dispatch


def parse(
    parser: argparse.ArgumentParser, steps: int, arguments: Sequence[str] | None = None
) -> argparse.Namespace:
    """Adds the flags that all benchmarks have and parses; --quick is two rounds of two steps."""
    parser.add_argument("--rounds", type=positive, help="default: 5, of which medians are taken")
    parser.add_argument("--steps", type=positive, help=f"a round; default: {steps}")
    parser.add_argument("--quick", action="store_true", help="two rounds of two steps, for a look")
    parser.add_argument("--output", type=Path, help="a JSON file to write; default: none")
    parsed = parser.parse_args(arguments)
    if parsed.__dict__.get("torch_peer") and not parsed.torch_python:
        parser.error("--torch_peer: needs a --torch_python to run it")
    parsed.rounds = parsed.rounds or (2 if parsed.quick else 5)
    parsed.steps = parsed.steps or (2 if parsed.quick else steps)
    return parsed


def add_peer(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the benchmarks that look at PyTorch, too."""
    parser.add_argument("--torch_python", help="an interpreter that has torch; without it no peer")
    parser.add_argument("--torch_peer", help=f"the program that it runs; default: {PEER.name}")


def positive(text: str) -> int:
    """Reads a whole number from 1 on: a type for argparse."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def choose(parser: argparse.ArgumentParser, only: str, names: Sequence[str]) -> list[str]:
    """Returns the names that --only asks for, in their own order; ends on an unknown one."""
    chosen = only.split(",")
    if unknown := sorted(set(chosen) - set(names)):
        parser.error(f"--only={','.join(unknown)}: there are {', '.join(names)}")
    return [name for name in names if name in chosen]


def conditions() -> dict[str, Any]:
    """Returns the processor, the device, the visible cores, versions, commit and present load."""
    known = environment()
    names = ("device", "cores", "python", "jax", "jaxlib", "flax", "optax")
    versions = {name: known[name] for name in names}
    load = round(os.getloadavg()[0], 2)
    return {"processor": processor(), **versions, "commit": commit(), "load": load}


def commit() -> str:
    """Returns the commit of this copy, '… dirty' if files differ from it, or 'unknown'."""
    git = ["git", "--no-optional-locks", "-C", str(ROOT)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True
        )
        changes = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True)
    except FileNotFoundError:
        return "unknown"
    if head.returncode:
        return "unknown"
    return head.stdout.strip() + (" dirty" if changes.stdout.strip() else "")


def peak_memory() -> int:
    """Returns the most memory that this process ever held, in MiB."""
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20)


def matrix_product(dtype: str = "float32") -> Callable[[], float]:
    """Returns a measurement, in FLOP/s: a jitted product of 2048×2048 matrices of this dtype.

    The precision is JAX's default for the device. Each product takes the last one's result, so that
    none of them overlap; entries of 1/2048 on average keep it from growing.
    """
    shape = (2, 2048, 2048)
    first, second = jax.random.uniform(jax.random.key(0), shape, maxval=2 / 2048).astype(dtype)
    product = jax.jit(jnp.matmul, compiler_options=half_precision.options(dtype))

    def run(count: int) -> float:
        started = time.perf_counter()
        result = first
        for _ in range(count):
            result = product(result, second)
        jax.block_until_ready(result)
        return time.perf_counter() - started

    run(1)  # compiles
    count = max(1, round(_PRODUCT_SECONDS / run(1)))
    return lambda: count * PRODUCT_FLOPS / run(count)


def stopwatch(
    advance: Callable[[Any, int], Any], state: Any, warm_up: int = 2
) -> Callable[[int], float]:
    """Returns run(count) -> seconds per step, after the steps that compile and warm up.

    Args:
      advance: (state, count) -> the state `count` steps later; may donate the old one.
      state: where the first step starts; each run goes on from the last one's end.
      warm_up: how many steps are taken before anything is timed.
    """

    def run(count: int) -> float:
        nonlocal state
        started = time.perf_counter()
        state = advance(state, count)
        jax.block_until_ready(state)
        return (time.perf_counter() - started) / count

    run(warm_up)
    return run


def interleave(measures: Mapping[Any, Callable[[], float]], rounds: int) -> dict[Any, list[float]]:
    """Takes each measurement once a round, so that what disturbs a minute disturbs them all."""
    taken: dict[Any, list[float]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            taken[name].append(measure())
    return taken


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Divides round by round."""
    return [a / b for a, b in zip(above, below, strict=True)]


def call(command: Sequence[str]) -> str:
    """Returns what a program prints; raises UserError with its last complaint if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise UserError(f"{command[0]}: {error.strerror}.") from error
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2] or "without a message"
        raise UserError(f"{shlex.join(command)}: exit status {done.returncode}: {last}")
    return done.stdout


def parse_peer(output: str, fields: tuple[str, ...]) -> dict[str, Any]:
    """Reads the JSON object in the last line that a peer printed."""
    line = output.strip().rpartition("\n")[2]
    try:
        told = json.loads(line)
    except ValueError:
        told = None
    if not isinstance(told, dict) or not set(fields) <= told.keys():
        raise UserError(f"The peer's last line is no JSON object with {fields}: {line[:160]!r}")
    return told


def spread(values: Sequence[float], form: str = ".2f", scale: float = 1.0) -> str:
    """Returns the median, and in brackets the lowest and the highest: '61.20 (60.00–65.31)'."""
    scaled = [scale * value for value in values]
    median, low, high = statistics.median(scaled), min(scaled), max(scaled)
    return f"{median:{form}} ({low:{form}}–{high:{form}})"


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a Markdown table whose columns are aligned."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, ["-" * width for width in widths], *rows]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        print(f"| {' | '.join(cells)} |", flush=True)


def print_conditions(told: Mapping[str, Any]) -> None:
    """Prints what conditions() returned, in one line."""
    print(", ".join(f"{name} {value}" for name, value in told.items()), flush=True)


def write(results: Mapping[str, Any], output: Path | None) -> None:
    """Writes the results as JSON if there is a file to write them to."""
    if output is None:
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    print(f"Wrote {output}")

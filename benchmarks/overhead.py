"""What the loop costs apart from its steps: the same steps with a run around them, and without.

    python benchmarks/overhead.py --data_dir=FOLDER --output=FILE
    python benchmarks/overhead.py --only=lenet --quick

`loop` is what a user waits for between two evaluations: chunks, rows on the console's bar and in
metrics.jsonl, the order and the row of an epoch, the checks for NaN, and two checkpoints a round:
one that is due, and the best. `bare` is as many steps in compiled chunks that only an epoch's end
cuts, its order made before. They take turns, on one state that goes on from each to the other; the
seconds that evaluations take are left out. The share is loop / bare - 1, and has the noise of both.
`outside` is what a run spends outside its compiled chunks, of what it spends inside them.
"""

import argparse
import contextlib
import dataclasses
import functools
import io
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import machine
from throughput import RECIPES, chunks, load_plan

from mnist_flax.core.state import TrainState
from mnist_flax.errors import UserError
from mnist_flax.show.console import Console
from mnist_flax.show.writer import Writer
from mnist_flax.training.compilation import Programs, init_state, start_compiling
from mnist_flax.training.gather import Plan
from mnist_flax.training.loop import run_loop
from mnist_flax.training.standing import Standing
from mnist_flax.training.telling import Run
from mnist_flax.workdir.checkpoints import Checkpoints

ONLY = "lenet,tutorial"


class Terminal(io.StringIO):
    """A stream on which the console draws its bar."""

    def isatty(self) -> bool:
        """Returns True."""
        return True


def main() -> int:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default=ONLY, help=f"of {', '.join(RECIPES)}; default: {ONLY}")
    parser.add_argument("--data_dir", help="config.data.data_dir; by default what launch.py finds")
    arguments = machine.parse(parser, steps=600)
    names = machine.choose(parser, arguments.only, RECIPES)
    results: dict[str, Any] = {"conditions": machine.conditions()}
    results |= {"rounds": arguments.rounds, "steps": arguments.steps, "recipes": {}}
    machine.print_conditions(results["conditions"])
    try:
        for name in names:
            plan = load_plan(name, arguments.data_dir)
            results["recipes"][name] = _measure(plan, arguments)
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_status
    _show(results)
    machine.write(results, arguments.output)
    return 0


def _measure(plan: Plan, arguments: argparse.Namespace) -> dict[str, list[float]]:
    state = init_state(plan)
    programs = start_compiling(plan, step=0)()

    def bare() -> float:
        nonlocal state
        fed = list(chunks(plan.source, int(state.step), arguments.steps))
        jax.block_until_ready(fed)
        started = time.perf_counter()
        for feed, count in fed:
            state, _ = programs.train_chunk(state, feed, jnp.int32(count))
        jax.block_until_ready(state)
        return (time.perf_counter() - started) / arguments.steps

    outside = []

    def loop() -> float:
        nonlocal state
        seconds, inside, state = _run(plan, programs, state, arguments.steps)
        outside.append(seconds / inside - 1)
        return seconds / arguments.steps

    for warm_up in (loop, bare):  # last_batch is compiled when it is first called
        warm_up()
    outside.clear()
    taken = machine.interleave({"bare": bare, "loop": loop}, arguments.rounds)
    return {**taken, "outside": outside, "product": [machine.matrix_product()()]}


def _run(
    plan: Plan, programs: Programs, state: TrainState, steps: int
) -> tuple[float, float, TrainState]:
    """Returns the seconds of a run of so many steps without its evaluations, those of them that
    are spent in chunks, and the run's state.
    """
    inside = 0.0

    def train_chunk(*chunk: Any) -> TrainState:
        nonlocal inside
        started = time.perf_counter()
        after = jax.block_until_ready(programs.train_chunk(*chunk))
        inside += time.perf_counter() - started
        return after

    step = int(state.step)
    times = dataclasses.replace(plan.times, total_steps=step + steps)
    # As if this step were a run's, with its rows, evaluation and save behind it.
    at = Standing(
        step,
        window_open=False,
        epoch_open=False,
        saved_step=step,
        evaluation={},
        best=None,
        row_step=step,
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        Console(Terminal()) as console,
        contextlib.closing(
            Checkpoints(Path(folder) / "checkpoints", keep=plan.config.keep_checkpoints)
        ) as checkpoints,
    ):
        run = Run(
            plan=dataclasses.replace(plan, times=times),
            programs=dataclasses.replace(programs, train_chunk=train_chunk),
            checkpoints=checkpoints,
            writer=Writer(Path(folder), console, plan.dataset.name),
            console=console,
            should_stop=lambda: False,
        )
        started = time.perf_counter()
        state = run_loop(run, at, state)
        jax.block_until_ready(state)
        seconds = time.perf_counter() - started
        rows = map(json.loads, (Path(folder) / "metrics.jsonl").read_text().splitlines())
        seconds -= sum(row["seconds"] for row in rows if row.get("split") == "eval")
        return seconds, inside, state


def _show(results: dict[str, Any]) -> None:
    spread = functools.partial(machine.spread, scale=1e3)
    rows = []
    for name, taken in results["recipes"].items():
        shares = [ratio - 1 for ratio in machine.ratios(taken["loop"], taken["bare"])]
        pace = f"{taken['product'][0] / 1e9:,.0f}"
        columns = spread(taken["bare"]), spread(taken["loop"])
        shares_of = (machine.spread(each, ".1%") for each in (shares, taken["outside"]))
        rows.append((name, *columns, *shares_of, pace))
    head = ("", "bare, ms/step", "loop, ms/step", "loop / bare - 1", "outside", "GFLOP/s")
    machine.print_table(head, rows)


if __name__ == "__main__":
    sys.exit(main())

"""Seconds from Enter to a test accuracy: launch.py as a user starts it, a process for each seed.

    python benchmarks/time_to_accuracy.py --config=configs/X.py --target=0.99 --data_dir=FOLDER
    python benchmarks/time_to_accuracy.py --config=configs/tutorial.py:quick --target=0.5 \\
        --seeds=0 --quick --config.num_steps=50 --config.eval_every_steps=25

Flags that begin with --config. go on to launch.py. The clock starts with the process and stops when
the evaluation row that reaches the target is in metrics.jsonl; the run is then told to stop.

    start     the interpreter, imports, the data, the first state: until the first row is there
    compile   from there to the first step, as far as it is waited for
    train     steps, as the training rows have them; those since the last such row count as rest
    evaluate  evaluations, as their rows have them
    rest      what remains: saves, rows, waiting

Beside each run stands the time of a step of `tutorial` and the rate of a matrix product, measured
right after it, so that seconds of different machines can be compared. With --torch_python, an
interpreter that has PyTorch, peers/classification.py takes its turn after each run: the recipe of
speedrun in PyTorch, in the same dtype. Another --torch_peer may be named: `PYTHON PEER accuracy
--target=0.99 --seed=0 --dtype=float32` prints {"reached": true, "seconds": 61.5} as its last line,
with "history": [[1, 0.985, 30.2], …] (epoch, accuracy, seconds) if it likes.

With --starts=2 each seed is started so often, in a workdir of its own, and the last counts: the
programs of the first are kept (config.compilation_cache), in a folder that is deleted afterwards.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import machine

from mnist_flax.errors import UserError

PARTS = ("start", "compile", "train", "evaluate", "rest")
_POLL_SECONDS = 0.02

Row = dict[str, Any]
Stamped = list[tuple[float, Row]]  # rows with the seconds at which they were seen


def main() -> int:
    """Runs, prints and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", required=True, help="a recipe, as for launch.py")
    parser.add_argument("--target", type=float, required=True, help="such as 0.99")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--data_dir", help="config.data.data_dir; by default what launch.py finds")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--starts", type=machine.positive, default=1)
    machine.add_peer(parser)
    passed_on = [argument for argument in sys.argv[1:] if argument.startswith("--config.")]
    own = [argument for argument in sys.argv[1:] if argument not in passed_on]
    arguments = machine.parse(parser, 20, own)
    results: dict[str, Any] = {"config": arguments.config, "overrides": passed_on, "runs": []}
    results["target"] = arguments.target
    try:
        for seed in arguments.seeds.split(","):
            run = measure(seed, passed_on, arguments)
            results["conditions"] = run.pop("conditions")
            results["runs"].append(run)
            print(f"seed {seed}: {_seconds(run['seconds'])} s", flush=True)
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_status
    machine.print_conditions(results["conditions"])
    _show(results["runs"], arguments.target)
    machine.write(results, arguments.output)
    return 0


def measure(seed: str, passed_on: list[str], arguments: argparse.Namespace) -> Row:
    """Returns one seed's run, the peer's, and the pace of the machine right after them."""
    command = [sys.executable, str(machine.ROOT / "launch.py"), "--mode=train"]
    command += [f"--config={arguments.config}", f"--config.seed={seed}"]
    command += ["--config.data.fallback=none", f"--config.compute_dtype={arguments.dtype}"]
    command += [f"--config.data.data_dir={arguments.data_dir}"] if arguments.data_dir else []
    command += passed_on
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(arguments.starts):
            shutil.rmtree(Path(folder) / "run", ignore_errors=True)
            rows = follow(command, Path(folder), arguments.target)
        run: Row = {"seed": seed, **summarize(rows, arguments.target)}
        if arguments.torch_python:
            run |= _peer(seed, arguments)
        return run | _pace(Path(folder) / "throughput.json", arguments)


def follow(command: list[str], folder: Path, target: float) -> Stamped:
    """Runs launch.py until it reaches the target or ends; returns its rows."""
    workdir, console = folder / "run", folder / "console.txt"
    tail, rows = Tail(workdir / "metrics.jsonl"), []
    with console.open("w") as stream:
        started = time.perf_counter()
        # As a user's own: JAX, which is imported here, sets this one.
        known = {name: text for name, text in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
        process = subprocess.Popen(
            [*command, f"--workdir={workdir}"],
            env=known | {"XDG_CACHE_HOME": str(folder / "cache")},
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
        try:
            while True:
                ended = process.poll() is not None  # asked first: nothing is written after it
                now = time.perf_counter() - started
                rows += [(now, json.loads(line)) for line in tail.read()]
                if ended or first_to_reach(rows, target) is not None:
                    break
                time.sleep(_POLL_SECONDS)
        finally:
            process.terminate()
            status = process.wait()
    text = console.read_text()
    if ended and status:
        last = text.strip().rpartition("\n")[2]
        raise UserError(f"launch.py: exit status {status}: {last}")
    return rows


class Tail:
    """Reads the lines of a file that grows, or is not there yet; each once, when it is whole."""

    def __init__(self, path: Path):
        """Starts at the file's beginning."""
        self._path = path
        self._offset = 0

    def read(self) -> list[str]:
        """Returns the lines that came since the last call."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._offset += len(whole) + len(newline)
        return whole.decode().splitlines()


def first_to_reach(rows: Stamped, target: float) -> int | None:
    """Returns the index of the first evaluation row with the target accuracy."""
    found = (
        index
        for index, (_, row) in enumerate(rows)
        if row.get("split") == "eval" and row["accuracy"] >= target
    )
    return next(found, None)


def summarize(rows: Stamped, target: float) -> Row:
    """Returns when a run reached the target and what it spent the time on until then.

    Returns:
      seconds, None if the target was not reached; step and accuracy of that evaluation, or of the
      best one; and the seconds of each of PARTS until it, or until the end.
    """
    index = first_to_reach(rows, target)
    seen = rows if index is None else rows[: index + 1]
    evaluations = [row for _, row in seen if row.get("split") == "eval"]
    if not evaluations:
        raise UserError("The run ended without an evaluation.")
    reached = max(evaluations, key=lambda row: row["accuracy"])
    first = next(stamped for stamped in seen if stamped[1].get("split") == "train")
    parts = {
        "start": seen[0][0],
        "compile": first[0] - seen[0][0] - first[1]["step"] / first[1]["steps_per_second"],
        "train": _training_seconds([row for _, row in seen if row.get("split") == "train"]),
        "evaluate": sum(row["seconds"] for row in evaluations),
    }
    total = seen[-1][0]
    return {
        "seconds": None if index is None else total,
        "step": reached["step"],
        "accuracy": reached["accuracy"],
        "parts": parts | {"rest": total - sum(parts.values())},
    }


def _training_seconds(rows: list[Row]) -> float:
    """Adds up the windows between training rows, each at its own pace."""
    ends = [row["step"] for row in rows]
    windows = zip([0, *ends], rows, strict=False)
    return sum((row["step"] - start) / row["steps_per_second"] for start, row in windows)


def _peer(seed: str, arguments: argparse.Namespace) -> Row:
    program = arguments.torch_peer or str(machine.PEER)
    command = [arguments.torch_python, program, "accuracy", f"--seed={seed}"]
    command += [f"--target={arguments.target}", f"--dtype={arguments.dtype}"]
    command += [f"--data_dir={arguments.data_dir}"] if arguments.data_dir else []
    told = machine.parse_peer(machine.call(command), ("reached", "seconds"))
    seconds = told["seconds"] if told["reached"] else None
    return {"torch_seconds": seconds, "torch_history": told.get("history", [])}


def _pace(output: Path, arguments: argparse.Namespace) -> Row:
    """Measures a step of `tutorial` in a process of its own, so that this one holds no device."""
    program = Path(__file__).with_name("throughput.py")
    command = [sys.executable, str(program), "--only=tutorial", "--ours_only", f"--output={output}"]
    command += [f"--rounds={min(arguments.rounds, 3)}", f"--steps={arguments.steps}"]
    command += [f"--data_dir={arguments.data_dir}"] if arguments.data_dir else []
    machine.call(command)
    told = json.loads(output.read_text())
    measured = told["recipes"]["tutorial"]
    return {
        "conditions": told["conditions"],
        "tutorial_seconds_per_step": statistics.median(measured["seconds_per_step"]["ours"]),
        "product_flops_per_second": statistics.median(measured["product_flops_per_second"]),
    }


def _show(runs: list[Row], target: float) -> None:
    print(f"\nSeconds until a test accuracy of {target}")
    head = ["seed", "seconds", "step", "accuracy", *PARTS, "tutorial, ms/step", "GFLOP/s"]
    peer = "torch_seconds" in runs[0]
    rows = [
        [
            run["seed"],
            _seconds(run["seconds"]),
            f"{run['step']:,}",
            f"{run['accuracy']:.4f}",
            *(f"{run['parts'][part]:.1f}" for part in PARTS),
            f"{run['tutorial_seconds_per_step'] * 1e3:.1f}",
            f"{run['product_flops_per_second'] / 1e9:.0f}",
            *([_seconds(run["torch_seconds"])] if peer else []),
        ]
        for run in runs
    ]
    medians = ["median", _seconds(_median([run["seconds"] for run in runs]))]
    medians += [""] * (len(head) - 2)
    medians += [_seconds(_median([run["torch_seconds"] for run in runs]))] if peer else []
    machine.print_table([*head, *(["torch, s"] if peer else [])], [*rows, medians])


def _median(seconds: list[float | None]) -> float | None:
    """The median; a run that never got there took longer than any other."""
    median = statistics.median(math.inf if value is None else value for value in seconds)
    return None if math.isinf(median) else median


def _seconds(seconds: float | None) -> str:
    return "not reached" if seconds is None else f"{seconds:.1f}"


if __name__ == "__main__":
    sys.exit(main())

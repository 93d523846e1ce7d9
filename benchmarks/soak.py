"""What a long life does to a run: many steps and saves in one process, then kill -9 many times.

    python benchmarks/soak.py --data_dir=FOLDER --output=FILE
    python benchmarks/soak.py --quick                         a look, in half a minute

steps: one process trains to the end and saves every 50 steps. Once a second its memory, open files
and threads are read from /proc, and what its folder holds. Nothing should grow but metrics.jsonl.

cycles: a second run of the same config is killed so often, each time at a random moment between its
start and a few seconds of training, and resumed by the same command. Then it is left to finish: its
state must be that of the first run bit for bit, its rows the same but for their times.

A run is launch.py as a user starts it, by default with the tests' small network, so that much of
the time goes to saves. Flags that begin with --config. go on to it. The exit status is 1 if
anything grew or the two runs differ.
"""

import argparse
import logging
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import machine

from mnist_flax.errors import UserError
from mnist_flax.workdir.checkpoints import Checkpoints
from mnist_flax.workdir.rows import read_rows

CYCLES, STEPS, EVERY = 200, 50_000, 50
QUICK_CYCLES, QUICK_STEPS = 2, 2_000
LAUNCH, TINY = machine.ROOT / "launch.py", machine.ROOT / "tests" / "tiny.py"
# By so much may the last quarter exceed the second: noise, not a leak.
ALLOWED = {"rss_mib": 16, "open_files": 2, "threads": 2, "saves": 1, "other_kib": 0}
# They come and go with each save: a leak raises their least, and a slow disk their median.
_COME_AND_GO = {"open_files", "threads", "saves"}
_CLOCKS = ("steps_per_second", "images_per_second", "seconds")

Sample = dict[str, float]
Told = dict[str, Any]


def main() -> int:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", default=str(TINY), help="default: the tests' small network")
    parser.add_argument("--cycles", type=machine.positive, help=f"kills; default: {CYCLES}")
    parser.add_argument("--steps", type=machine.positive, help=f"default: {STEPS}")
    parser.add_argument("--data_dir", help="config.data.data_dir; by default what launch.py finds")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_CYCLES} kills, for a look")
    parser.add_argument("--output", type=Path, help="a JSON file to write; default: none")
    passed_on = [argument for argument in sys.argv[1:] if argument.startswith("--config.")]
    arguments = parser.parse_args([each for each in sys.argv[1:] if each not in passed_on])
    arguments.cycles = arguments.cycles or (QUICK_CYCLES if arguments.quick else CYCLES)
    arguments.steps = arguments.steps or (QUICK_STEPS if arguments.quick else STEPS)
    if not Path("/proc/self/fd").is_dir():
        print("Error: there is no /proc here to read memory and open files from.", file=sys.stderr)
        return 1
    logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax reports each of its steps
    results: Told = {"conditions": machine.conditions()}
    machine.print_conditions(results["conditions"])
    try:
        with tempfile.TemporaryDirectory() as folder:
            results |= soak(command(arguments, passed_on), arguments, Path(folder))
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_status
    machine.write(results, arguments.output)
    return 1 if results["faults"] else 0


def command(arguments: argparse.Namespace, passed_on: list[str]) -> list[str]:
    """Returns the command of both runs, but for its --workdir."""
    start = [sys.executable, str(LAUNCH), f"--config={arguments.config}"]
    data = [f"--config.data.data_dir={arguments.data_dir}"] if arguments.data_dir else []
    steps = {"num": arguments.steps, "checkpoint_every": EVERY, "log_every": 2 * EVERY}
    steps["eval_every"] = 20 * EVERY
    intervals = [f"--config.{name}_steps={count}" for name, count in steps.items()]
    return [*start, "--config.data.fallback=mnist_sample", *data, *intervals, *passed_on]


def soak(launch: list[str], arguments: argparse.Namespace, folder: Path) -> Told:
    """Runs both parts, prints them, and returns them with the faults that were found."""
    whole, killed = folder / "whole", folder / "killed"
    samples, seconds = one_process(launch, whole)
    grown = growth(samples)
    print(f"\n{arguments.steps:,} steps in one process, {len(samples)} samples.")
    rows = [(name, *(f"{value:,g}" for value in values)) for name, values in grown.items()]
    machine.print_table(("quantity", "second quarter", "most", "last quarter"), rows)
    cycles = kill_and_resume(launch, killed, arguments, seconds)
    differences = compare(killed, whole, arguments.steps)
    show_cycles(cycles, differences)
    faults = [
        f"{name} grew from {first:,g} to {last:,g}"
        for name, (first, _, last) in grown.items()
        if last - first > ALLOWED.get(name, float("inf"))
    ]
    faults += [f"the killed run's {what} are others" for what in differences]
    if cycles["kills"] < arguments.cycles:
        faults.append(f"the run was over after {cycles['kills']:,} kills: take more --steps")
    if cycles["wrong_resumes"]:
        faults.append(f"{cycles['wrong_resumes']:,} starts went on elsewhere than they should")
    if cycles["leftover_kib"][-1] > 0:
        faults.append(f"unfinished saves take {cycles['leftover_kib'][-1]:,} KiB")
    print("".join(f"Fault: {fault}.\n" for fault in faults), end="")
    steps = {"samples": samples, "growth": grown, "seconds_to_first_save": seconds}
    return {"steps": steps, "cycles": cycles, "faults": faults}


def one_process(launch: list[str], workdir: Path) -> tuple[list[Sample], float]:
    """Returns what was sampled from the first save to the end, and the seconds to that save."""
    started, samples, to_first_save = time.perf_counter(), [], None
    with (workdir.parent / "console.txt").open("w+") as console:
        process = start(launch, workdir, console)
        try:
            while process.poll() is None:
                if to_first_save is None and newest(workdir) >= 0:
                    to_first_save = time.perf_counter() - started
                if to_first_save is not None:
                    samples += sample(process.pid, workdir)
                time.sleep(1.0 if to_first_save else 0.02)
        finally:
            process.kill()
        refuse_failure(process, console)
    if to_first_save is None or not samples:
        raise UserError("The run was over before anything could be sampled: take more --steps.")
    return samples, to_first_save


def start(launch: list[str], workdir: Path, console: Any) -> subprocess.Popen:
    """Starts the run, or lets it go on."""
    return subprocess.Popen(
        [*launch, f"--workdir={workdir}"], stdout=subprocess.DEVNULL, stderr=console
    )


def refuse_failure(process: subprocess.Popen, console: Any) -> None:
    """Raises UserError with its last line if a process has failed."""
    if process.wait():
        console.seek(0)
        last = console.read().strip().rpartition("\n")[2]
        raise UserError(f"launch.py: exit status {process.returncode}: {last}")


def sample(pid: int, workdir: Path) -> list[Sample]:
    """Returns what a process and its folder hold now; nothing if it is over."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        open_files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    except OSError:
        return []
    rss, threads = (re.search(rf"^{name}:\s+(\d+)", status, re.M) for name in ("VmRSS", "Threads"))
    if rss is None or threads is None:  # it is over, but not waited for
        return []
    held = {"rss_mib": round(int(rss[1]) / 1024, 1), "open_files": open_files}
    return [{"step": newest(workdir), **held, "threads": int(threads[1]), **disk(workdir)}]


def disk(workdir: Path) -> Sample:
    """Returns the number of saves, and KiB in them, metrics.jsonl, unfinished saves, the rest."""
    sizes = dict.fromkeys(("saves_kib", "rows_kib", "leftover_kib", "other_kib"), 0.0)
    # os.walk passes over folders that vanish meanwhile; Path.rglob raises.
    files = (Path(folder, name) for folder, _, names in os.walk(workdir) for name in names)
    for path in files:
        try:
            size = path.stat().st_size / 1024
        except FileNotFoundError:  # of an old save, just deleted
            continue
        parts = path.relative_to(workdir).parts
        kind = "rows_kib" if parts == ("metrics.jsonl",) else "other_kib"
        if parts[0] == "checkpoints" and len(parts) > 2:
            kind = "saves_kib" if parts[2].isdecimal() else "leftover_kib"
        sizes[kind] += size
    saves = sum(path.name.isdecimal() for path in workdir.glob("checkpoints/[lb]*/*"))
    return {"saves": saves, **{name: round(size, 1) for name, size in sizes.items()}}


def newest(workdir: Path) -> int:
    """Returns the newest saved step, -1 if there is none."""
    saves = workdir.glob("checkpoints/[lb]*/*")
    return max((int(save.name) for save in saves if save.name.isdecimal()), default=-1)


def growth(samples: list[Sample]) -> dict[str, list[float]]:
    """Returns for each quantity its median in the second quarter, its most, and in the last.

    Of what comes and goes the least stands in the place of the median.
    """
    quarter = max(1, len(samples) // 4)
    second, last = samples[quarter : 2 * quarter] or samples, samples[-quarter:]

    def usual(name: str, of: list[Sample]) -> float:
        values = [each[name] for each in of]
        return min(values) if name in _COME_AND_GO else statistics.median(values)

    return {
        name: [usual(name, second), max(each[name] for each in samples), usual(name, last)]
        for name in samples[0]
        if name != "step"
    }


def kill_and_resume(
    launch: list[str], workdir: Path, arguments: argparse.Namespace, seconds: float
) -> Told:
    """Kills a run so often, or until it is done; then lets it finish.

    A run that is ahead of its kills is killed earlier, as far as that helps, so that it is not done
    before them: `seconds`, to the first save, may have been those of a busier machine.
    """
    told: Told = {"kills": 0, "wrong_resumes": 0, "step": [], "leftover_kib": []}
    latest = window = 1.3 * seconds
    while True:
        last, before = told["kills"] == arguments.cycles, newest(workdir)
        ahead = before / arguments.steps > told["kills"] / arguments.cycles
        window = window * 0.9 if ahead else min(latest, window * 1.1)
        with tempfile.TemporaryFile("w+") as console:
            process = start(launch, workdir, console)
            try:
                process.wait(None if last else random.uniform(0, window))
                refuse_failure(process, console)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                told["kills"] += 1
            console.seek(0)
            said = re.search(r"Resumed at step ([\d,]+)|Started in", console.read())
        if said and int((said[1] or "-1").replace(",", "")) != before:
            told["wrong_resumes"] += 1
        told["step"].append(newest(workdir))
        told["leftover_kib"].append(disk(workdir)["leftover_kib"] if workdir.exists() else 0.0)
        if process.returncode == 0:
            return told


def compare(one: Path, other: Path, step: int) -> list[str]:
    """Returns what differs between the ends of two runs."""
    digests, rows = [], []
    for workdir in (one, other):
        checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
        digests.append(checkpoints.metadata(step)["state_sha256"])
        checkpoints.close()
        scores = [row for row in read_rows(workdir) if "split" in row]
        rows.append([{k: v for k, v in row.items() if k not in _CLOCKS} for row in scores])
    differ = {"arrays": digests[0] != digests[1], "rows": rows[0] != rows[1]}
    return [name for name, is_so in differ.items() if is_so]


def show_cycles(cycles: Told, differences: list[str]) -> None:
    """Prints the table of the kills."""
    print()
    rows = [
        ("kills", f"{cycles['kills']:,}"),
        ("starts that went on elsewhere than at the newest save", f"{cycles['wrong_resumes']:,}"),
        ("most that unfinished saves took, KiB", f"{max(cycles['leftover_kib']):,g}"),
        ("the end", " and ".join(differences) + " differ" if differences else "bit-identical"),
    ]
    machine.print_table(("killed and resumed", "figure"), rows)


if __name__ == "__main__":
    sys.exit(main())

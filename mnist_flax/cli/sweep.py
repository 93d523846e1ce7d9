"""--mode=sweep: a recipe's runs, several at once, and what they came to.

Each run is what the training command makes in a folder of its own, and goes on as such a run does;
nothing else is remembered between two starts of a sweep.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mnist_flax.cli.flags import Launch, workdir
from mnist_flax.cli.hints import after_a_stop, say
from mnist_flax.cli.signals import StopSignals
from mnist_flax.cli.sweep_plan import Sweep, SweepRun, planned
from mnist_flax.cli.sweep_processes import CONSOLE_FILE, Ended, Slots, find_slots, run_pinned
from mnist_flax.config import WHAT_IS_EVALUATED, diff
from mnist_flax.errors import UserError
from mnist_flax.show.counted import counted
from mnist_flax.workdir.files import CONFIG_FILE, read_config
from mnist_flax.workdir.lock import locked
from mnist_flax.workdir.rows import last_evaluation, read_rows
from mnist_flax.workdir.saves import saved_steps


def sweep(launch: Launch) -> int:
    """Trains what is not trained yet and shows what all came to; returns the exit status."""
    slots, told = find_slots()
    with StopSignals() as stop:
        swept = planned(launch)
        folder = workdir()
        if (folder / CONFIG_FILE).exists():
            raise UserError(
                f"--workdir={folder}: holds a run. A sweep has a folder of its own; name another."
            )
        with locked(folder):
            _say_what_starts(swept, folder, min(len(slots), len(swept.runs)), told)
            faults = _train_all(launch, swept, folder, slots, stop)
            if stop.signal is None:
                _show(swept, folder, faults)
    if stop.signal is not None:
        after_a_stop(launch)
        return 128 + stop.signal
    return 1 if faults else 0


def _say_what_starts(swept: Sweep, folder: Path, at_once: int, told: str) -> None:
    points = len({run.point_name for run in swept.runs})
    seeds = len({run.seed for run in swept.runs})
    say(
        f"Sweep in {folder}: {counted(len(swept.runs), 'run')}, of {counted(points, 'point')} and "
        f"{counted(seeds, 'seed')}, {at_once} at once. {told}"
    )
    asked = {run.name for run in swept.runs}
    left = sorted(path.parent.name for path in folder.glob(f"*/{CONFIG_FILE}"))
    if unasked := [name for name in left if name not in asked]:
        say(f"No longer asked for, and left as they are: {', '.join(unasked)}")


def _train_all(
    launch: Launch, swept: Sweep, folder: Path, slots: Slots, stop: StopSignals
) -> dict[str, str]:
    """Trains the runs that are not finished; returns why each that failed did, by its name."""
    waiting = [run for run in swept.runs if not _is_finished(run, folder, swept)]
    done = len(swept.runs) - len(waiting)
    if done:
        say(f"Finished before: {counted(done, 'run')}.")
    commands = {folder / run.name: run.command(launch, folder) for run in waiting}
    faults: dict[str, str] = {}
    fallbacks: set[str] = set()
    for event in run_pinned(commands, slots, lambda: stop.signal):
        if not isinstance(event, Ended):
            say(_begins(waiting[event].name, folder))
            continue
        run = waiting[event.index]
        if event.stopped:
            say(f"stopped   {run.name}")
            continue
        done += 1
        fault, line = _became(run, folder, swept, event)
        if fault:
            faults[run.name] = fault
        say(f"{line} ({done} of {len(swept.runs)})")
        for fallback in _fallbacks(folder / run.name) - fallbacks:
            say(fallback)
            fallbacks.add(fallback)
    return faults


def _fallbacks(path: Path) -> set[str]:
    """Returns what a run said of data that took the place of those asked for."""
    messages = (str(row.get("message", "")) for row in read_rows(path))
    lines = {line for message in messages for line in message.splitlines()}
    return {line for line in lines if line.startswith("Fallback:")}


def _begins(name: str, folder: Path) -> str:
    """Says that a run starts, or from which of its saves it goes on."""
    saved = saved_steps(folder / name / "checkpoints")
    return f"resumed   {name}, at step {saved[-1]:,}" if saved else f"started   {name}"


def _became(run: SweepRun, folder: Path, swept: Sweep, ended: Ended) -> tuple[str, str]:
    """Returns why a run failed, '' if it did not; and the line of the console."""
    from mnist_flax.show.console import clock

    fault, took = ended.fault, f"in {clock(ended.seconds)}"
    try:
        value = 0.0 if fault else result(run, folder, swept)
    except UserError as error:
        fault = str(error).splitlines()[0]
    if fault:
        log = folder / run.name / CONSOLE_FILE
        return fault, f"failed    {run.name}, {took}: {fault.rstrip('.')}; see {log}"
    name = swept.metric_name.replace("_", " ")
    return "", f"finished  {run.name}, {took}: {name} {value:{swept.metric.format}}"


def result(run: SweepRun, folder: Path, swept: Sweep) -> float:
    """Returns the metric of a finished run's last evaluation.

    Raises:
      UserError: there is no such row, or it is of another evaluation than the one asked for: a run
        takes another split when it goes on, which a finished run does not.
    """
    path = folder / run.name
    value: Any = last_evaluation(read_rows(path)).get(swept.metric_name)
    if type(value) not in (int, float):
        raise UserError(f"{path}: its last evaluation has no {swept.metric_name}.")
    changed = diff(read_config(path)["config"], run.config.to_dict())
    for field in WHAT_IS_EVALUATED:
        if field in changed and field != "eval_every_steps":
            was, now = changed[field]
            raise UserError(
                f"it was finished with config.{field}={was!r}, now {now!r}: undo the change, or "
                f"remove {path} to train it afresh."
            )
    return float(value)


def _is_finished(run: SweepRun, folder: Path, swept: Sweep) -> bool:
    """Says whether a run is finished, as its folder says; where in doubt, training decides."""
    path = folder / run.name
    try:
        rows = read_rows(path)
        if not rows or rows[-1].get("event") != "finished":
            return False
        result(run, folder, swept)
        return not diff(read_config(path)["config"], run.config.to_dict())
    except UserError:
        return False


def _show(swept: Sweep, folder: Path, faults: Mapping[str, str]) -> None:
    """Prints the table, and writes it and the page."""
    from mnist_flax.report.sweep_page import write_sweep
    from mnist_flax.report.sweep_table import SweptRun

    runs = [
        SweptRun(run.point_name, run.point, run.seed, folder / run.name, faults.get(run.name, ""))
        for run in swept.runs
    ]
    table, page = write_sweep(folder, runs, swept.metric_name, swept.metric)
    print(table, flush=True)
    say(f"Curves, and what differs in the configs: {page}")

"""Kills at moments that nobody chose, and at every moment that a file operation ends."""

import random
import re
import shutil
import subprocess
import time
from collections import Counter
from concurrent.futures import Executor
from pathlib import Path

from harness import Bench, digests
from pair import newest_save

# A hundred saves: most of the time that it trains, it saves.
LONG = ("--config.num_steps=400",)
SAVING = ("os.mkdir:latest/16.", "os.mkdir:latest/20.")  # a save and its copy, a deletion, a row
RESUMING = ("open:/.lock", "compile#1")


def random_kills(bench: Bench, kills: int, pool: Executor) -> str:
    """Starts and kills the long run, anew whenever it is done; two at a time."""
    undisturbed, started = bench.folder / "undisturbed-long", time.monotonic()
    done = bench.launch(undisturbed, *LONG)
    assert done.returncode == 0, done.stderr
    seconds = time.monotonic() - started
    parts = [(seed, kills // 2 + (kills % 2) * seed) for seed in (0, 1)]
    jobs = [pool.submit(_kill_again_and_again, bench, seed, n, seconds) for seed, n in parts]
    counts = sum((job.result() for job in jobs), Counter())
    assert counts["kills"] == kills
    return (
        f"{counts['kills']} kills, {counts['starting']} of them before the run had said where it "
        f"goes on, {counts['training']} after it; {counts['saved']} left an unfinished save; "
        f"{counts['done']} runs were finished, each of them bit-identical"
    )


def _kill_again_and_again(bench: Bench, seed: int, kills: int, seconds: float) -> Counter:
    """Kills so often, each at a moment between nothing and a whole run's seconds."""
    moments, counts = random.Random(seed), Counter()
    workdir = bench.folder / f"killed-{seed}"
    while True:
        newest = newest_save(workdir)
        last = counts["kills"] == kills
        status, errors = _start(bench, workdir, None if last else moments.uniform(0, seconds))
        said = re.search(r"Resumed at step (\d+)|Started in", errors)
        if said:
            assert int(said[1] or -1) == newest, errors
        assert "Traceback" not in errors, errors
        if status == -9:
            counts["kills"] += 1
            counts["training" if said else "starting"] += 1
            counts["saved"] += any(workdir.glob("checkpoints/*/*tmp*"))
            continue
        assert status == 0, errors
        bench.compare(workdir, undisturbed=bench.folder / "undisturbed-long")
        counts["done"] += 1
        shutil.rmtree(workdir)
        if last:
            return counts


def _start(bench: Bench, workdir: Path, seconds: float | None) -> tuple[int, str]:
    """Starts the run and kills it after so many seconds; returns its status and what it said."""
    process = subprocess.Popen(
        bench.command(workdir, *LONG),
        cwd=bench.folder,
        env=bench.environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        errors = process.communicate(timeout=seconds)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        errors = process.communicate()[1]
    return process.returncode, errors


def every_file_operation(bench: Bench, pool: Executor) -> str:
    """Goes on from what a kill before each operation on a file would have left."""
    fresh, resumed = bench.folder / "watched", bench.folder / "watched-resumed"
    shutil.copytree(bench.half, resumed)
    found: dict[tuple, Path] = {}
    for workdir, (first, last) in ((fresh, SAVING), (resumed, RESUMING)):
        copies = bench.folder / f"{workdir.name}-copies"
        copies.mkdir()
        during = f"copy={copies}@{first} kill@{last}"
        assert bench.launch(workdir, during=during).returncode == -9
        found |= {tuple(digests(copy).items()): copy for copy in sorted(copies.iterdir())}
    assert len(found) > 40
    list(pool.map(lambda copy: (bench.goes_on(copy), bench.compare(copy)), found.values()))
    return f"{len(found)} different workdirs; from each the run goes on; bit-identical"

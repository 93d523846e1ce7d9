"""Finished runs by accuracy and cost: seeds together, McNemar's test from one recipe to the next.

    python benchmarks/accuracy.py fast995='runs/fast995-*' best='runs/best-*'

Each NAME=GLOB is one recipe with its runs, one for each seed, in the order in which they are to be
compared. All are asked about the same images, the evaluation split of the first one, which must be
images that no choice was made on. Printed is a table in Markdown:

    accuracy   mean over the seeds, and the smallest and largest
    interval   what the number of images alone leaves open: Wilson's 95 % interval for the mean
    p          McNemar's exact test of the first seed against the recipe above; small: they differ
    seconds    of the median run: its steps and evaluations as its rows have them, without start-up
    an answer  milliseconds for an image in batches of 500, on this machine, after compilation

--output keeps the same as JSON, which docs/pictures.py --accuracy draws.
"""

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import machine
import numpy as np
from experiments import is_finished, read_rows
from scipy import stats

from mnist_flax import restore
from mnist_flax.errors import UserError
from mnist_flax.report.scores import mcnemar
from mnist_flax.use.run import RestoredRun
from mnist_flax.use.run_data import load_data

_BATCH, _ROUNDS = 500, 5


def main() -> int:
    """Asks each run, prints and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipes", nargs="+", metavar="NAME=GLOB", help="in order of their cost")
    parser.add_argument("--output", type=Path, help="a JSON file to write; default: none")
    arguments = parser.parse_args()
    try:
        recipes = [recipe(*named(text)) for text in arguments.recipes]
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_status
    for other, one in itertools.pairwise(recipes):
        one["p"] = mcnemar(np.array(other["right"]), np.array(one["right"])).p_value
    for one in recipes:
        del one["right"]
    machine.print_table(COLUMNS, [cells(one) for one in recipes])
    conditions = machine.conditions()
    machine.print_conditions(conditions)
    machine.write({"conditions": conditions, "recipes": recipes}, arguments.output)
    return 0


def named(text: str) -> tuple[str, list[Path]]:
    """Returns a NAME and its finished runs. Raises UserError where there are none."""
    name, _, pattern = text.partition("=")
    workdirs = [path for path in sorted(Path().glob(pattern or "-")) if is_finished(path)]
    if not workdirs:
        raise UserError(f"{text}: no finished run. Give NAME=GLOB, such as best='runs/best-*'.")
    return name, workdirs


def recipe(name: str, workdirs: Sequence[Path]) -> dict[str, Any]:
    """Returns what is known of a recipe's runs; 'right' says it for each image, of the first."""
    runs = [restore(workdir) for workdir in workdirs]
    split = load_data(runs[0], lambda *lines: None).eval
    answers = [run.predict(split.images).classes == split.labels for run in runs]
    accuracies = [float(right.mean()) for right in answers]
    mean = statistics.mean(accuracies)
    proportion = stats.binomtest(round(mean * len(split.labels)), len(split.labels))
    return {
        "name": name,
        "seeds": [run.config.seed for run in runs],
        "images": len(split.labels),
        "accuracies": accuracies,
        "mean": mean,
        "interval": list(proportion.proportion_ci(method="wilson")),
        "steps": [int(run.state.step) for run in runs],
        "seconds": [trained_seconds(workdir) for workdir in workdirs],
        "answer_ms": answer_ms(runs[0], split.images),
        "environments": [
            json.loads((workdir / "config.json").read_text())["environment"] for workdir in workdirs
        ],
        "right": answers[0].tolist(),
    }


def trained_seconds(workdir: Path) -> float:
    """Returns the seconds of a run's steps and evaluations, as its rows have them."""
    seconds, step = 0.0, 0
    for row in read_rows(workdir):
        if row.get("split") == "eval":
            seconds += row["seconds"]
        elif row.get("split") == "train" and row["step"] > step:
            seconds += (row["step"] - step) / row["steps_per_second"]
            step = row["step"]
    return seconds


def answer_ms(run: RestoredRun, images: np.ndarray) -> float:
    """Returns the milliseconds of an answer: the median of some batches, after the first."""
    import jax

    ask = jax.jit(run.task.predict, compiler_options=run.compiler_options)
    batch = jax.device_put(images[:_BATCH])
    jax.block_until_ready(ask(run.state.variables, batch))
    times = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        jax.block_until_ready(ask(run.state.variables, batch))
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times) / len(batch)


COLUMNS = ("recipe", "seeds", "accuracy", "range", "interval", "p", "seconds", "an answer, ms")


def cells(one: dict[str, Any]) -> list[str]:
    """Returns a row of the table."""
    low, high = one["interval"]
    return [
        f"`{one['name']}`",
        str(len(one["seeds"])),
        f"{one['mean']:.4f}",
        f"{min(one['accuracies']):.4f}–{max(one['accuracies']):.4f}",
        f"{low:.4f} to {high:.4f}",
        f"{one['p']:.2g}" if "p" in one else "–",
        f"{statistics.median(one['seconds']):.0f}",
        f"{one['answer_ms']:.3f}",
    ]


if __name__ == "__main__":
    sys.exit(main())

"""How a step's time grows with the batch, with the images on the device, and with the threads.

    python benchmarks/scaling.py --data_dir=FOLDER --output=FILE
    python benchmarks/scaling.py --config=lenet --only=batch --quick

batch: 32 to 4,096 images a step. images: 1,000 to all, of which a step should notice nothing.
threads: one and two processor cores, in processes of their own under `taskset`. Sizes take turns,
round by round, and --steps is for the recipe's own batch size: the other sizes take as many images.
"""

import argparse
import dataclasses
import functools
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import machine
from throughput import RECIPES, load_plan, our_step

from mnist_flax.data.dataset import Split
from mnist_flax.data.sources import num_examples, train_source
from mnist_flax.errors import UserError
from mnist_flax.training.gather import Plan

BATCHES = (32, 64, 128, 256, 512, 1024, 2048, 4096)
IMAGES = (1_000, 4_000, 16_000)  # and all that there are
THREADS = (1, 2)

Row = dict[str, Any]  # size, batch_size, seconds_per_step and product_flops_per_second by round


def main() -> int:
    """Measures, prints and writes."""
    parts = {"batch": over_batches, "images": over_images, "threads": over_threads}
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", default="tutorial", choices=RECIPES)
    parser.add_argument("--only", default=",".join(parts), help=f"of {', '.join(parts)}")
    parser.add_argument("--data_dir", help="config.data.data_dir; by default what launch.py finds")
    arguments = machine.parse(parser, steps=60)
    chosen = machine.choose(parser, arguments.only, list(parts))
    results: dict[str, Any] = {"conditions": machine.conditions(), "config": arguments.config}
    machine.print_conditions(results["conditions"])
    try:
        plan = load_plan(arguments.config, arguments.data_dir)
        for part in chosen:
            results[part] = parts[part](plan, arguments)
            _show(part, results[part])
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_status
    results["peak_mib"] = machine.peak_memory()
    print(f"\nPeak memory of this process: {results['peak_mib']:,} MiB")
    machine.write(results, arguments.output)
    return 0


def over_batches(plan: Plan, arguments: argparse.Namespace) -> list[Row]:
    """Returns a row for each batch size that the images can fill; with --quick for two."""
    config, dataset = plan.config, plan.dataset
    most = num_examples(config, dataset)
    sizes = [size for size in BATCHES if size <= most]
    if sizes != list(BATCHES):
        print(f"\nSkipped: batches of more than the {most:,} images that there are.")
    measures, batch_sizes = {}, {}
    for size in sizes[:2] if arguments.quick else sizes:
        changed = config.copy_and_resolve_references()
        changed.batch_size = batch_sizes[size] = size
        source = train_source(changed, dataset)
        sized = dataclasses.replace(plan, config=changed, source=source)
        count = max(1, arguments.steps * config.batch_size // size)
        measures[size] = functools.partial(our_step(sized), count)
    return _rows(measures, batch_sizes, arguments.rounds)


def over_images(plan: Plan, arguments: argparse.Namespace) -> list[Row]:
    """Returns a row for each number of images, all of them last; with --quick for two."""
    whole, measures = plan.dataset.train, {}
    count = len(whole.labels)
    sizes = [*(size for size in IMAGES if size < count), count]
    for size in sizes[-2:] if arguments.quick else sizes:
        train = Split(whole.images[:size], whole.labels[:size])
        dataset = dataclasses.replace(plan.dataset, train=train)
        source = train_source(plan.config, dataset)
        cut = dataclasses.replace(plan, dataset=dataset, source=source)
        measures[size] = functools.partial(our_step(cut), arguments.steps)
    return _rows(measures, dict.fromkeys(measures, plan.config.batch_size), arguments.rounds)


def _rows(
    measures: Mapping[int, Callable[[], float]], batch_sizes: Mapping[int, int], rounds: int
) -> list[Row]:
    taken = machine.interleave({**measures, "product": machine.matrix_product()}, rounds)
    return [
        {
            "size": size,
            "batch_size": batch_sizes[size],
            "seconds_per_step": taken[size],
            "product_flops_per_second": taken["product"],
        }
        for size in measures
    ]


def over_threads(plan: Plan, arguments: argparse.Namespace) -> list[Row]:
    """Returns a row for each number of cores; none where they cannot be chosen."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    obstacles = {
        "threads are a processor's": jax.default_backend() != "cpu",
        "there is no taskset": shutil.which("taskset") is None,
        "only one core is visible": len(cores) < max(THREADS),
    }
    if reasons := [reason for reason, applies in obstacles.items() if applies]:
        print(f"\nSkipped: threads, because {' and '.join(reasons)}.")
        return []
    rows: dict[int, Row] = {
        count: {"size": count, "batch_size": plan.config.batch_size} for count in THREADS
    }
    for _ in range(arguments.rounds):
        for count, row in rows.items():
            for name, values in _on_cores(cores[:count], arguments).items():
                row.setdefault(name, []).extend(values)
    return list(rows.values())


def _on_cores(cores: list[int], arguments: argparse.Namespace) -> Row:
    """Runs throughput.py for one round on these cores alone."""
    program = Path(__file__).with_name("throughput.py")
    command = ["taskset", "--cpu-list", ",".join(map(str, cores)), sys.executable, str(program)]
    command += [f"--only={arguments.config}", "--ours_only", "--rounds=1"]
    command += [f"--steps={arguments.steps}"]
    command += [f"--data_dir={arguments.data_dir}"] if arguments.data_dir else []
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "throughput.json"
        machine.call([*command, f"--output={output}"])
        measured = json.loads(output.read_text())["recipes"][arguments.config]
    return {
        "seconds_per_step": measured["seconds_per_step"]["ours"],
        "product_flops_per_second": measured["product_flops_per_second"],
    }


def _show(part: str, rows: list[Row]) -> None:
    if not rows:
        return
    first = rows[0]["seconds_per_step"]
    print()
    machine.print_table(
        (part, "ms/step", "images/s", "time / first row's", "GFLOP/s of the product"),
        [
            (
                f"{row['size']:,}",
                machine.spread(row["seconds_per_step"], ".2f", 1e3),
                f"{row['batch_size'] / statistics.median(row['seconds_per_step']):,.0f}",
                machine.spread(machine.ratios(row["seconds_per_step"], first)),
                machine.spread(row["product_flops_per_second"], ",.0f", 1e-9),
            )
            for row in rows
        ],
    )


if __name__ == "__main__":
    sys.exit(main())

"""What decoding while a run trains costs: the same steps with the pictures in memory, and streamed.

    python benchmarks/streams.py --output=FILE
    python benchmarks/streams.py --data_dir=FOLDER --config=lenet --steps=1000

Without --data_dir it makes folders of JPEG pictures in colour, of each of --sides. `memory` and
`streamed` are the compiled chunks of a run, fed and waited for as in a run; they take turns.
`waited` is the share of the streamed time in which a step waits for its block: what the threads
that decode did not get done next to the steps; the first block of a round lies ready, so a round
should have many. `decoding` is how many pictures a second the same
threads decode while nothing else runs.
"""

import argparse
import functools
import importlib
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import machine
import numpy as np
from PIL import Image
from throughput import RECIPES, timed

from mnist_flax.core.state import TrainState
from mnist_flax.data import grain_reader
from mnist_flax.data.sources import Feed
from mnist_flax.data.streamed_images import StreamedImages
from mnist_flax.errors import UserError
from mnist_flax.training.compilation import init_state, start_compiling
from mnist_flax.training.gather import Plan, gather

SIDES = "32,64,128"
PICTURES = 2000  # made, of each side
QUALITY = 90


def main() -> int:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", default="speedrun", choices=RECIPES)
    parser.add_argument("--data_dir", help="picture folders or a TFDS directory; default: made")
    parser.add_argument("--name", default="made", help="config.data.name; default: made")
    parser.add_argument("--sides", default=SIDES, help=f"of made pictures; default: {SIDES}")
    arguments = machine.parse(parser, steps=400)
    results: dict[str, Any] = {"conditions": machine.conditions(), "config": arguments.config}
    results |= {"threads": grain_reader.threads(), "data": {}}
    machine.print_conditions(results["conditions"] | {"threads": results["threads"]})
    try:
        if arguments.data_dir:
            results["data"][arguments.data_dir] = _measure(Path(arguments.data_dir), arguments)
        else:
            for side in map(machine.positive, arguments.sides.split(",")):
                count = 200 if arguments.quick else PICTURES
                with tempfile.TemporaryDirectory() as folder:
                    make(Path(folder), side, count)
                    results["data"][f"JPEG, {side}x{side}"] = _measure(Path(folder), arguments)
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_status
    _show(results["data"])
    machine.write(results, arguments.output)
    return 0


def make(folder: Path, side: int, count: int) -> None:
    """Writes so many smooth pictures into train/<class>/, a tenth as many into test/<class>/."""
    random = np.random.default_rng(0)
    for split, number in (("train", count), ("test", count // 10)):
        for index in range(number):
            place = folder / split / str(index % 10)
            place.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8))
            coarse.resize((side, side)).save(place / f"{index:05}.jpg", quality=QUALITY)


def _measure(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    plans = {stream: _plan(folder, arguments, stream=stream) for stream in (False, True)}
    images = plans[True].dataset.train.images
    assert isinstance(images, StreamedImages)
    shares: list[float] = []
    steps = {"memory": _step(plans[False], []), "streamed": _step(plans[True], shares)}
    measures = {name: functools.partial(step, arguments.steps) for name, step in steps.items()}
    some = np.arange(min(len(images), 1000))

    def decoding() -> float:
        started = time.perf_counter()
        grain_reader.read(images.records, images.numbers[some])
        return len(some) / (time.perf_counter() - started)

    taken = machine.interleave({**measures, "decoding": decoding}, arguments.rounds)
    return {"batch_size": plans[True].config.batch_size, "waited": shares, **taken}


def _plan(folder: Path, arguments: argparse.Namespace, *, stream: bool) -> Plan:
    config = importlib.import_module(f"configs.{arguments.config}").get_config()
    config.data.update(data_dir=str(folder), name=arguments.name, stream=stream)
    config.data.update(train_split="train", eval_split="test", select_split="")
    config.num_epochs, config.num_steps = None, 10**6  # a block is always to come
    return gather(config, print)


def _step(plan: Plan, shares: list[float]) -> Callable[[int], float]:
    """Returns run(count) -> seconds per step; adds the share that feeds were waited for."""
    state, waited = init_state(plan), 0.0
    programs = start_compiling(plan, step=0)()

    def feed(step: int, count: int) -> Feed:
        nonlocal waited
        started = time.perf_counter()
        fed = jax.block_until_ready(plan.source.feed(step, count))
        waited += time.perf_counter() - started
        return fed

    def advance(state: TrainState, fed: Feed, count: int) -> TrainState:
        return jax.block_until_ready(programs.train_chunk(state, fed, jnp.int32(count))[0])

    run = timed(plan.source._replace(feed=feed), state, advance)

    def measured(count: int) -> float:
        nonlocal waited
        waited = 0.0
        seconds = run(count)
        shares.append(waited / (seconds * count))
        return seconds

    return measured


def _show(data: dict[str, Any]) -> None:
    head = ("", "memory, ms/step", "streamed, ms/step", "its time / memory's", "waited")
    rows = [
        (
            name,
            machine.spread(taken["memory"], ".2f", 1e3),
            machine.spread(taken["streamed"], ".2f", 1e3),
            machine.spread(machine.ratios(taken["streamed"], taken["memory"])),
            machine.spread(taken["waited"], ".1%"),
            machine.spread(taken["decoding"], ",.0f"),
        )
        for name, taken in data.items()
    ]
    print()
    machine.print_table((*head, "decoding, pictures/s"), rows)


if __name__ == "__main__":
    sys.exit(main())

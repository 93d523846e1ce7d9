"""--mode=train: what is asked for, answered; by one process, or by one of several."""

import os
import re
from collections.abc import Sequence
from typing import Any

from mnist_flax.cli import processes, watching
from mnist_flax.cli.flags import FLAGS, Launch, refuse, required_recipe, workdir
from mnist_flax.cli.hints import after_a_stop, after_training, say
from mnist_flax.cli.kept_programs import kept_programs
from mnist_flax.cli.signals import StopSignals
from mnist_flax.config import overridden
from mnist_flax.config.paths import expanded
from mnist_flax.errors import UsageError

# In the environment of a run of a sweep: the number of the process that started it.
SWEEP = "MNIST_FLAX_SWEEP"
_MOST_TRACED = 1_000  # steps: some 50 kB each of a small network


def train_as_asked(launch: Launch) -> tuple[int, bool]:
    """Trains; returns the exit status, and whether a finished run's folder is this process's."""
    init_from, window = asked_init_from(), _window()
    recipe = required_recipe(launch)
    processes.check()
    of_sweep = os.environ.pop(SWEEP, None)
    if of_sweep is not None:
        watching.end_with_parent(int(of_sweep))
    if (together := FLAGS.distributed != "off") and not watching.is_watched():
        return watching.watch(), False
    config, notes = overridden(recipe, launch.overrides)
    folder = workdir()
    if not together:
        _say(notes)
    with StopSignals(deaf_seconds=1.0 if together or of_sweep else 0.0) as stop:
        from mnist_flax.training import train
        from mnist_flax.training.gather import pretended_task

        with processes.joined() if together else kept_programs(launch, say):
            writes = not together or processes.is_first()
            if together and writes:
                _say(notes)
            train(config, folder, should_stop=stop.requested, init_from=init_from, profile=window)
            signal = processes.first_signal(stop.signal) if together else None
    signal = signal or stop.signal
    if signal is not None:
        if writes:
            after_a_stop(launch)
        return 128 + signal, False
    if writes:
        after_training(launch, config, pretended_task(config))
    return 0, writes


def asked_init_from() -> tuple[Any, ...] | None:
    """Returns what --init_from, --checkpoint and --init_map say, as train() takes it."""
    if not FLAGS.init_from:
        refuse({"checkpoint", "init_map"}, "is for --init_from, which is not given. Leave it out.")
        return None
    source = expanded(FLAGS.init_from, "--init_from")
    if source.is_file():
        refuse({"checkpoint"}, f"--init_from={source} is a file, with one network. Leave it out.")
    return source, FLAGS.checkpoint, FLAGS.init_map


def _window() -> tuple[int, int] | None:
    """Returns what --profile says, as train() takes it."""
    if FLAGS.profile is None:
        return None
    numbers = re.fullmatch(r"(\d{1,9}):(\d{1,9})", FLAGS.profile)
    first, last = map(int, numbers.groups()) if numbers else (0, 0)
    if not first < last:
        raise UsageError(
            f"--profile={FLAGS.profile}: must be two step numbers, the smaller first: 100:120 "
            "traces the steps 101 to 120."
        )
    if last - first > _MOST_TRACED:
        raise UsageError(
            f"--profile={FLAGS.profile}: {last - first:,} steps; no viewer opens so large a trace. "
            f"Take 20 or so, at most {_MOST_TRACED:,}."
        )
    return first, last


def _say(notes: Sequence[str]) -> None:
    for note in notes:
        say(note)

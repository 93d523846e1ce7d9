"""--mode=train: what is asked for, answered; by one process, or by one of several."""

import os
from collections.abc import Sequence

from mnist_flax.cli import processes, watching
from mnist_flax.cli.flags import FLAGS, Launch, refuse, workdir
from mnist_flax.cli.hints import after_a_stop, after_training, say
from mnist_flax.cli.kept_programs import kept_programs
from mnist_flax.cli.signals import StopSignals
from mnist_flax.config import overridden
from mnist_flax.config.paths import expanded
from mnist_flax.errors import UsageError

# In the environment of a run of a sweep: the number of the process that started it.
SWEEP = "MNIST_FLAX_SWEEP"


def train_as_asked(launch: Launch) -> tuple[int, bool]:
    """Trains; returns the exit status, and whether a finished run's folder is this process's."""
    if not FLAGS.init_from:
        refuse({"checkpoint", "init_map"})
    if launch.recipe is None:
        raise UsageError("--config is missing: --config=configs/tutorial.py, or your own recipe.")
    processes.check()
    of_sweep = os.environ.pop(SWEEP, None)
    if of_sweep is not None:
        watching.end_with_parent(int(of_sweep))
    if (together := FLAGS.distributed != "off") and not watching.is_watched():
        return watching.watch(), False
    config, notes = overridden(launch.recipe, launch.overrides)
    folder, init_from = workdir(), None
    if FLAGS.init_from:
        source = expanded(FLAGS.init_from, "--init_from")
        if source.is_file():
            refuse({"checkpoint"})
        init_from = (source, FLAGS.checkpoint, FLAGS.init_map)
    if not together:
        _say(notes)
    with StopSignals(deaf_seconds=1.0 if together or of_sweep else 0.0) as stop:
        from mnist_flax.training import train
        from mnist_flax.training.gather import pretended_task

        with processes.joined() if together else kept_programs(launch, say):
            writes = not together or processes.writes()
            if together and writes:
                _say(notes)
            train(config, folder, should_stop=stop.requested, init_from=init_from)
            signal = processes.first_signal(stop.signal) if together else None
    signal = signal or stop.signal
    if signal is not None:
        if writes:
            after_a_stop(launch)
        return 128 + signal, False
    if writes:
        after_training(launch, config, pretended_task(config))
    return 0, writes


def _say(notes: Sequence[str]) -> None:
    for note in notes:
        say(note)

"""What is said next to the results, on stderr, and the commands that come next."""

import contextlib
import re
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ml_collections import ConfigDict

from mnist_flax.cli import program
from mnist_flax.cli.flags import FLAGS, Launch, workdir

if TYPE_CHECKING:  # it brings JAX
    from mnist_flax.core.task import Task

_LONGER = "--config.num_steps=N"


def say(text: str) -> None:
    """Prints a line that is no result."""
    with contextlib.suppress(OSError):  # a closed pipe must not change what a run is worth
        print(text, file=sys.stderr, flush=True)


def after_a_stop(launch: Launch) -> None:
    """Says how a run that was stopped goes on."""
    # Without the window of a profile, which may lie behind.
    arguments = _without("profile", launch.argv[1:])
    say(f"Go on with: {_command(launch, arguments)}")


def after_training(launch: Launch, config: ConfigDict, task: "Task") -> None:
    """Says what may be done with the finished run of this config, as far as its task can."""
    from mnist_flax.core.optimizers import length_matters  # it brings JAX

    run = [f"--config={FLAGS.config}", f"--workdir={workdir()}"]
    if "eval" in task.modes:
        # Where no images were held out to choose the best save, only the latest is not chosen.
        best = task.best and config.data.select_split
        which = ["--checkpoint=best" if best else "--checkpoint=latest"]
        say(f"Evaluate it with: {_command(launch, [*run, '--mode=eval', *which])}")
    if "predict" in task.modes:
        say(f"Ask it with:      {_command(launch, [*run, '--mode=predict', 'PICTURE.png'])}")
    if "sample" in task.modes:
        say(f"Have it draw:     {_command(launch, [*run, '--mode=sample', '--output=grid.png'])}")
    if "report" in task.modes and not FLAGS.report:
        say(f"Look at it with:  {_command(launch, [*run, '--mode=report'])}")
    fixed_length = length_matters(config.schedule) or config.early_stopping_patience
    if task.trains and not fixed_length:
        say(f"Train it longer:  {_command(launch, [*_to_go_on(launch.argv[1:]), _LONGER])}")


def _command(launch: Launch, arguments: Sequence[str]) -> str:
    return shlex.join([*program.typed(launch.argv[0]), *arguments])


def _to_go_on(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments without those of a run's start and end.

    These are --config.num_steps, --config.num_epochs, --init_from, --init_map, --checkpoint,
    --profile and --report.
    """
    start = r"init_from|init_map|checkpoint|profile"
    return _without(rf"config\.num_(?:steps|epochs)|{start}|(?P<alone>(?:no)?report)", arguments)


def _without(names: str, arguments: Sequence[str]) -> list[str]:
    """Returns the arguments without some flags; one that is `alone` has no value."""
    pattern = rf"--?(?:{names})(?P<value>=.*)?"
    kept, skip = [], False
    for argument in arguments:
        match = re.fullmatch(pattern, argument)
        if not match and not skip:
            kept.append(argument)
        # Whether its value stands apart.
        skip = bool(match and not match["value"] and not match.groupdict().get("alone"))
    return kept

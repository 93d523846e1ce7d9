"""The command that trains a run once more."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from mnist_flax.config import OF_TAKEN, as_flag, default_config, diff, flatten, may_be_added


class Recipe(NamedTuple):
    """What was asked for.

    Attributes:
      named: what --config said, with its variant.
      config: its fields before any override.
      program: what was started, as a shell takes it: 'python launch.py'.
    """

    named: str
    config: ConfigDict
    program: str


def repeat_command(
    recipe: Recipe, config: Mapping[str, Any], workdir: Path
) -> tuple[str, list[str]]:
    """Returns the command, and the fields that no flag can set as the run had them.

    Args:
      recipe: may be another than the run's: whatever differs becomes a flag.
      config: the run's, from its config.json.
      workdir: the run's; the command names another.
    """
    theirs, ours = flatten(recipe.config), flatten(dict(config))
    defaults = flatten(default_config())
    arguments = [f"--config={recipe.named}", f"--workdir={workdir}-again"]
    beyond = []
    for field, (old, new) in diff(recipe.config.to_dict(), dict(config)).items():
        section = field.partition(".")[0]
        renamed = theirs.get(f"{section}.name") != ours.get(f"{section}.name")
        if field.startswith(OF_TAKEN):
            continue  # the run writes it
        if new is not None and (field in theirs or may_be_added(field)):
            arguments.append(as_flag(field, new))
        elif field in ("num_steps", "num_epochs"):
            continue  # the other one is set, and takes its place
        elif field not in ours and (renamed or old == defaults.get(field)):
            continue  # another name leaves it out; or the run is older than the field
        elif field not in ours and old == "":
            continue  # likewise, of a task
        else:
            beyond.append(field)
    return " \\\n    ".join([recipe.program, *map(shlex.quote, arguments)]), beyond

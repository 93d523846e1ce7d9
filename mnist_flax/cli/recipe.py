"""--config and its overrides: the recipe alone, and every fault of the flags at once.

Beside launch.py the only file that knows absl's flags.
"""

import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from mnist_flax.config import flatten
from mnist_flax.config.registry import nearest
from mnist_flax.config.validation import require_fields
from mnist_flax.errors import UsageError

_KINDS = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "tuple": "names, such as \"'random_rotation','random_shift'\"",
}


def load_recipe(argv: Sequence[str]) -> ConfigDict | None:
    """Loads the config file that --config names alone, without overrides.

    Its folder joins Python's path: a model of the user's own may lie beside the recipe.

    Returns:
      The config, None if no --config is given.

    Raises:
      UsageError: there is no such file, or it fails; with its line.
    """
    given = [i for i, argument in enumerate(argv) if re.match(r"--?config(=|$)", argument)]
    if not given:
        return None
    _, equals, value = argv[given[-1]].partition("=")
    value = value if equals else "".join(argv[given[-1] + 1 : given[-1] + 2])
    path = Path(value.partition(":")[0])
    if not path.is_file():
        near = nearest(path.stem, [file.stem for file in Path("configs").glob("*.py")])
        raise UsageError(f"--config={value}: there is no file {path}.{near}")
    sys.path.append(str(path.resolve().parent))  # 'package.module:…' may lie beside the recipe
    try:
        recipe = _parse_config([argv[0], f"--config={value}"]).config
        require_fields(recipe)
        return recipe
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"--config={value}: {_fault_in(path, error)}") from error


def _parse_config(argv: Sequence[str]) -> flags.FlagValues:
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, "", flag_values=values, sys_argv=list(argv))
    values(argv)
    return values


def _fault_in(path: Path, error: BaseException) -> str:
    """Returns 'line 12: TypeError: …' for an exception that a config file raised."""
    while isinstance(error, flags.Error) or str(error).startswith("Error whilst parsing"):
        if error.__context__ is None:
            break
        error = error.__context__  # what ml_collections and absl wrapped
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).resolve() == path.resolve()
    ]
    if isinstance(error, SyntaxError) and error.lineno is not None:
        lines = [error.lineno]
    where = f"line {lines[-1]}: " if lines else ""
    what = str(error).strip("'\"").splitlines()[0][:160] if str(error) else ""
    return f"{where}{type(error).__name__}: {what}"


def override_faults(argv: Sequence[str], recipe: ConfigDict) -> list[str]:
    """Tries every --config.field=value alone, so that all faults are told at once.

    Returns:
      A line for each fault: no such field, or a value of another type.
    """
    fields, faults = flatten(recipe), []
    first = next(i for i, argument in enumerate(argv) if re.match(r"--?config(=|$)", argument))
    source = argv[first : first + 1 if "=" in argv[first] else first + 2]
    for i, argument in enumerate(argv):
        match = re.match(r"--?(?:no)?config\.([^=]+)(=?)(.*)", argument)
        if match is None:
            continue
        name, equals, value = match.groups()
        if name not in fields:
            inside = [field for field in fields if field.startswith(name + ".")]
            hint = f" It is a section; set {inside[0]} or another." if inside else ""
            faults.append(f"--config.{name}: no such field.{hint or nearest(name, fields)}")
            continue
        section, _, leaf = name.rpartition(".")
        kind = (recipe[section] if section else recipe).get_type(leaf).__name__
        apart = [] if equals or kind == "bool" else argv[i + 1 : i + 2]  # --config.seed 3
        try:
            _parse_config([argv[0], *source, argument, *apart])
        except flags.Error:
            shown = value if equals else " ".join(apart)
            faults.append(f"--config.{name}={shown}: the value must be {_KINDS.get(kind, kind)}.")
    return faults


def to_go_on(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments without those of a run's start and end.

    These are --config.num_steps, --config.num_epochs, --init_from, --checkpoint and --report.
    """
    pattern = r"--?(?:config\.num_(?:steps|epochs)|init_from|checkpoint|((?:no)?report))(=.*)?"
    kept, skip = [], False
    for argument in arguments:
        match = re.fullmatch(pattern, argument)
        if not match and not skip:
            kept.append(argument)
        skip = bool(match and not match[1] and not match[2])  # its value stands apart
    return kept

"""--config and its overrides: the file is executed once, every fault of the flags told at once."""

import ast
import copy
import inspect
import logging
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from mnist_flax.cli.recipe_files import recipe_file
from mnist_flax.config import flatten, may_be_added, overridden
from mnist_flax.config.section import WrongName, WrongType, near_fields
from mnist_flax.config.validation import require_fields
from mnist_flax.errors import UsageError

_KINDS = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "tuple": "names, such as \"'random_rotation','random_shift'\"",
}
_CONFIG = r"--?config(=|$)"
_OVERRIDE = r"--?(?:no)?config\.([^=]*)(=?)(.*)"


def load_recipe(argv: Sequence[str]) -> ConfigDict | None:
    """Executes the recipe that --config names, the last one if there are several.

    Its folder joins Python's path: a model of the user's own may lie next to the recipe.

    Returns:
      The config without overrides, None if no --config is given.

    Raises:
      UsageError: there is no such file, or it fails; with its line.
    """
    given = [i for i, argument in enumerate(argv) if re.match(_CONFIG, argument)]
    if not given:
        return None
    _, equals, value = argv[given[-1]].partition("=")
    value = value if equals else "".join(argv[given[-1] + 1 : given[-1] + 2])
    path = recipe_file(value)
    sys.path.append(str(path.resolve().parent))  # 'package.module:…' may lie next to the recipe
    try:
        recipe = _execute(path, value.partition(":")[2])
        require_fields(recipe, f"--config={value}: ")
        return recipe
    except (WrongName, WrongType) as error:
        raise UsageError(f"--config={value}: {_fault_in(path, error)}") from error
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"--config={value}: {_fault_in(path, error)}") from error


def _execute(path: Path, variant: str) -> Any:
    """Returns what its get_config(), with the variant if there is one, returns, locked."""
    # It warns of a get_config() that returns nothing, which require_fields() refuses.
    logging.getLogger("absl").addFilter(
        lambda record: "get_config() returned None" not in record.msg
    )
    values = flags.FlagValues()
    argv = ["", f"--config={path}:{variant}" if variant else f"--config={path}"]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    values(argv)
    return values.config


def swept_points(file: str) -> list[Any] | None:
    """Returns what get_sweep() of the recipe returns as a list; None if it has no such function.

    One that takes an argument is given what follows the colon of --config, as get_config() is.

    Args:
      file: what --config said, with its variant; load_recipe has executed it.

    Raises:
      UsageError: get_sweep() fails, with its line; or returns no list.
    """
    # Where ml_collections leaves the module of DEFINE_config_file("config").
    get_sweep = getattr(sys.modules["config_config"], "get_sweep", None)
    if get_sweep is None:
        return None
    where = f"--config={file}: get_sweep()"
    try:
        takes_variant = bool(inspect.signature(get_sweep).parameters)
        points = get_sweep(file.partition(":")[2]) if takes_variant else get_sweep()
        if isinstance(points, Iterable) and not isinstance(points, str | Mapping):
            return list(points)
    except UsageError as error:
        raise UsageError(
            "\n".join(f"{where}: {line}" for line in str(error).split("\n"))
        ) from error
    except Exception as error:
        fault = _fault_in(recipe_file(file), error)
        raise UsageError(f"{where}: {fault}") from error
    raise UsageError(
        f"{where}: returned a {type(points).__name__}: return a list of points, such as "
        "grid({'batch_size': (50, 100)}) of mnist_flax.config.sweep gives."
    )


def parse_overrides(arguments: Sequence[str], recipe: ConfigDict) -> dict[str, Any]:
    """Returns the values of --config.field=value arguments, as they are on a command line.

    Raises:
      UsageError: a line for each fault, as define_overrides has it.
    """
    values = flags.FlagValues()
    overrides = define_overrides(arguments, recipe, values)
    values(["", *arguments])
    return overrides()


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
    if isinstance(error, UsageError):
        return f"{where}{error}"
    what = str(error).strip("'\"").splitlines()[0][:160] if str(error) else ""
    return f"{where}{type(error).__name__}: {what}"


def define_overrides(
    argv: Sequence[str], recipe: ConfigDict | None, values: flags.FlagValues
) -> Callable[[], dict[str, Any]]:
    """Defines a flag for each --config.field on the command line.

    One that the recipe has is of its type. One that is added to a section that passes its fields on
    is what Python takes its text for: a number, true or false, a tuple; else it is text.

    Returns:
      () -> {'optimizer.learning_rate': 0.01, …}, to be called after values(argv).

    Raises:
      UsageError: there is no recipe, no such field, or a value is of another type; a line for each.
    """
    given = [argument for argument in argv if re.match(_OVERRIDE, argument)]
    if not given:
        return dict
    if recipe is None:
        raise UsageError("--config.… overrides a recipe: name it with --config=FILE.")
    if faults := _override_faults(argv, recipe):
        raise UsageError("\n".join(faults.values()))
    names = dict.fromkeys(_name(argument) for argument in given)
    added = [name for name in names if name not in flatten(recipe)]
    for name in added:
        flags.DEFINE_string(f"config.{name}", None, "", flag_values=values)
    old = [argument for argument in given if _name(argument) not in added]
    known = _define(old, recipe, values) if old else {}

    def found() -> dict[str, Any]:
        return {**known, **{name: _literal(values[f"config.{name}"].value) for name in added}}

    return found


def _name(argument: str) -> str:
    """Returns the field of a --config.field…"""
    match = re.match(_OVERRIDE, argument)
    assert match is not None  # who calls has looked
    return match[1]


def _literal(text: str) -> Any:
    """Returns what a value's text means: 0.9, True, (8, 16), None, or the text itself."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def _define(
    given: Sequence[str], recipe: ConfigDict, values: flags.FlagValues
) -> Mapping[str, Any]:
    """Defines them, for fields that the recipe has. Their values go to a copy of it."""
    own = flags.FlagValues()
    config_flags.DEFINE_config_dict(
        "config", copy.deepcopy(recipe), flag_values=own, sys_argv=list(given)
    )
    for name in own:
        if name != "config":
            values[name] = own[name]
    return config_flags.get_override_values(own["config"])


def other_faults(argv: Sequence[str], recipe: ConfigDict) -> list[str]:
    """Returns what else is wrong with a config some of whose overrides are: a line for each."""
    from mnist_flax.training.gather import check  # it brings JAX

    wrong = _override_faults(argv, recipe)
    right: list[str] = []
    for i, argument in enumerate(argv):
        match = re.match(_OVERRIDE, argument)
        if match and i not in wrong:
            apart = [] if match[2] else argv[i + 1 : i + 2]  # --config.seed 3
            right += [argument, *(value for value in apart if not re.match(r"--?[a-z]", value))]
    try:
        check(overridden(recipe, parse_overrides(right, recipe))[0])
    except UsageError as error:
        return str(error).split("\n")
    return []


def _override_faults(argv: Sequence[str], recipe: ConfigDict) -> dict[int, str]:
    """Tries every --config.field=value alone; returns a line for each fault, by its place."""
    fields, faults = flatten(recipe), {}
    for i, argument in enumerate(argv):
        match = re.match(_OVERRIDE, argument)
        if match is None:
            continue
        name, equals, value = match.groups()
        inside = [field for field in fields if field.startswith(name + ".")]
        if name not in fields and not inside and may_be_added(name):
            if argument.lstrip("-").startswith("no") or not (equals or argv[i + 1 : i + 2]):
                faults[i] = f"--config.{name}: is no field yet; give it a value, {name}=…"
            continue
        if name not in fields:
            hint = f" It is a section; set {inside[0]} or another." if inside else ""
            faults[i] = f"--config.{name}: no such field.{hint or near_fields(name, recipe)}"
            continue
        section, _, leaf = name.rpartition(".")
        kind = (recipe[section] if section else recipe).get_type(leaf).__name__
        if argument.lstrip("-").startswith("no") and (equals or kind != "bool"):
            told = f"says false: without a value, of what is {_KINDS['bool']}"
            faults[i] = f"--noconfig.{name}{equals}{value}: {told}."
            continue
        apart = [] if equals or kind == "bool" else argv[i + 1 : i + 2]  # --config.seed 3
        values = flags.FlagValues()
        try:
            _define([argument], recipe, values)
            values(["", argument, *apart])
        except flags.Error:
            shown = value if equals else " ".join(apart)
            faults[i] = f"--config.{name}={shown}: the value must be {_KINDS.get(kind, kind)}."
    return faults

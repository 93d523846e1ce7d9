"""Names in a config become objects in one place: a known name, or 'package.module:attribute'."""

import difflib
import functools
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from mnist_flax.errors import UsageError, together, where_it_failed


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns " Did you mean 'x'?" for the known name closest to name, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def resolve(name: str, table: Mapping[str, str], field: str) -> Any:
    """Returns the object that a config field names.

    Args:
      name: a key of table, or 'package.module:attribute' for an object of the user's own. The
        package is looked up as `import` does; the command puts the working directory on that path.
      table: known names, each with the 'package.module:attribute' that it stands for.
      field: the config field, for the message.

    Raises:
      UsageError: no such name, module or attribute; or a module that fails while it is imported,
        with the line where it does.
    """
    if not isinstance(name, str):
        raise UsageError(f"{field}={name!r}: must be a name, such as {min(table)!r}.")
    path = table.get(name, name)
    module_name, colon, attribute = path.partition(":")
    if not (module_name and colon and attribute) or module_name.startswith("."):
        raise UsageError(
            f"{field}={name!r}: unknown.{nearest(name, table)} "
            f"Known: {', '.join(sorted(table))}; or 'package.module:attribute' for your own."
        )
    try:
        module = importlib.import_module(module_name)
    except UsageError:  # which says already what it is and what to do
        raise
    except Exception as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is None or not (module_name + ".").startswith(missing + "."):
            # What the module itself does or imports fails: its author wants the line.
            raise UsageError(f"{field}={name!r}: {where_it_failed(error, __file__)}") from error
        raise UsageError(
            f"{field}={name!r}: there is no module {missing!r} on the Python path; "
            "run from the folder that holds it, put it beside the recipe, or install it."
        ) from error
    if not hasattr(module, attribute):
        raise UsageError(
            f"{field}={name!r}: {module_name} has no {attribute!r}."
            f"{nearest(attribute, vars(module))}"
        )
    return getattr(module, attribute)


def resolve_functions(
    names: Iterable[str], table: Mapping[str, str], field: str, parameters: Sequence[str]
) -> tuple[Callable[..., Any], ...]:
    """Returns the functions that a config field names, all to be called in one way.

    Args:
      names: as resolve takes each.
      table: as resolve takes it.
      field: as resolve takes it.
      parameters: what each is called with, by position.

    Raises:
      UsageError: a line for each name that there is no such function for.
    """

    def find(name: str) -> Callable[..., Any]:
        found = resolve(name, table, field)
        if not callable(found):
            raise UsageError(f"{field}: {name!r} is no function, but {found!r}.")
        try:
            signature = inspect.signature(found)
        except ValueError:  # in C, without one
            return found
        try:
            signature.bind(*parameters)
        except TypeError as error:
            raise UsageError(
                f"{field}: {name!r} takes {signature}, and is called with "
                f"({', '.join(parameters)}): {error}."
            ) from error
        return found

    return together(*(functools.partial(find, name) for name in names))

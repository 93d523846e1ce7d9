"""Names in a config become objects in one place: a known name, or 'package.module:attribute'."""

import difflib
import importlib
from collections.abc import Iterable, Mapping
from typing import Any

from mnist_flax.errors import UsageError


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns " Did you mean 'x'?" for the known name closest to name, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def resolve(name: str, table: Mapping[str, str], field: str) -> Any:
    """Returns the object that a config field names.

    Args:
      name: a key of table, or 'package.module:attribute' for an object of the user's own. The
        package is looked up as `import` does; launch.py puts the working directory on that path.
      table: known names, each with the 'package.module:attribute' that it stands for.
      field: the config field, for the message.

    Raises:
      UsageError: no such name, module or attribute. A module that exists and fails while it is
        imported raises its own exception, so that its author sees the line.
    """
    path = table.get(name, name)
    module_name, colon, attribute = path.partition(":")
    if not (module_name and colon and attribute) or module_name.startswith("."):
        raise UsageError(
            f"{field}={name!r}: unknown.{nearest(name, table)} "
            f"Known: {', '.join(sorted(table))}; or 'package.module:attribute' for your own."
        )
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # A missing import inside the user's module is that module's fault, not the field's.
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise
        raise UsageError(
            f"{field}={name!r}: there is no module {error.name!r} on the Python path; "
            "run from the folder that holds it, or install it."
        ) from error
    if not hasattr(module, attribute):
        raise UsageError(
            f"{field}={name!r}: {module_name} has no {attribute!r}."
            f"{nearest(attribute, vars(module))}"
        )
    return getattr(module, attribute)

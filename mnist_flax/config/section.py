"""A config and its sections: a wrong name or type is an error of one line, with the nearest names.

ml_collections refuses them, too, but its messages print the whole config. A function or class that
is given in the place of a name is kept by its name, since a run that goes on must find it again.
"""

import sys
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from mnist_flax.config.registry import nearest
from mnist_flax.errors import UsageError

TYPES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
# Modules that the next start does not find by their name.
_RUN = {"__main__": "script", "config_config": "recipe"}  # so ml_collections calls a recipe


class WrongName(UsageError, AttributeError, KeyError):
    """There is no such field. Also what ml_collections raises then, so that hasattr() works."""

    __str__ = Exception.__str__  # a KeyError shows its message as Python writes a text


class WrongType(UsageError, TypeError):
    """A field does not take a value of this type."""


class Section(ConfigDict):
    """A ConfigDict that knows where it stands in the config: 'data.' or, the whole of it, ''."""

    _place = ""

    def __getitem__(self, key: str) -> Any:
        try:
            return super().__getitem__(key)
        except WrongName:
            raise
        except KeyError:
            raise WrongName(self._told(key, "")) from None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what copying looks for
            raise AttributeError(name)
        return self[name]

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __setitem__(self, key: str, value: Any) -> None:
        field = f"config.{self._place}{key}"
        value = _by_name(value, field)
        if isinstance(value, ConfigDict):
            _place(value, f"{self._place}{key}.")
            if isinstance(self._fields.get(key), ConfigDict):  # of either class
                self._fields[key] = value
                return
        try:
            super().__setitem__(key, value)
        except KeyError:
            raise WrongName(self._told(key, f"={value!r}")) from None
        except TypeError:
            a_section = isinstance(self._fields[key], ConfigDict)
            kind = "a section" if a_section else TYPES.get(self.get_type(key), "a list of names")
            raise WrongType(f"{field}={value!r}: must be {kind}.") from None

    def __eq__(self, other: object) -> bool:
        if isinstance(other, ConfigDict):  # of either class
            same = self._fields == other._fields and self.is_locked == other.is_locked
            return same and self.is_type_safe == other.is_type_safe
        return False

    def _told(self, key: str, given: str) -> str:
        """Returns the line for a name that is not here."""
        place = self._place
        near = near_fields(f"{place}{key}", {f"{place}{name}": self[name] for name in self})
        return f"config.{place}{key}{given}: no such field.{near}"


def near_fields(name: str, config: Mapping[str, Any] | ConfigDict) -> str:
    """Returns " Did you mean 'x'?" for the field, or else the section, whose name is closest.

    Args:
      name: 'lerning_rate', 'optimiser.name', …
      config: sections and fields by their names.
    """
    inside = [f"{key}.{leaf}" for key, part in config.items() if _is_section(part) for leaf in part]
    return nearest(name, [*config, *inside]) or nearest(
        name.partition(".")[0], [key for key, part in config.items() if _is_section(part)]
    )


def _is_section(part: object) -> bool:
    return isinstance(part, ConfigDict)


def _place(section: ConfigDict, place: str) -> None:
    """Tells a section where it stands, and those within it."""
    if isinstance(section, Section):
        object.__setattr__(section, "_place", place)
        for key, part in section.items():
            if isinstance(part, Section):
                _place(part, f"{place}{key}.")


def _by_name(value: Any, field: str) -> Any:
    """Returns a value with the functions and classes in it as 'module:name'."""
    if isinstance(value, list | tuple) and any(callable(item) for item in value):
        return type(value)(_by_name(item, field) for item in value)
    return _name_of(value, field) if callable(value) else value


def _name_of(value: Any, field: str) -> str:
    """Returns 'module:name' of a function.

    Raises:
      WrongType: another process would not find it by that name.
    """
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not module or not name:
        why = "this one has none"
    elif "<lambda>" in name:
        why = "a lambda has none"
    elif "." in name:
        why = "it stands inside another function or class"
    elif module in _RUN:
        why = f"it stands in the {_RUN[module]} that runs"
    elif getattr(sys.modules.get(module), name, None) is not value:
        why = f"{module} has something else under it"
    else:
        return f"{module}:{name}"
    raise WrongType(
        f"{field}={name or repr(value)}: a run that goes on must find it again by its name, and "
        f"{why}. Put it in a file of its own, and give '<file>:<function>'."
    )

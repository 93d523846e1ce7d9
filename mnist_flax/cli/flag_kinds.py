"""Kinds of flags whose errors read as those of a config: what is allowed, and the nearest word.

absl has the same kinds, with messages of its own.
"""

from collections.abc import Sequence
from typing import Any

from absl import flags

from mnist_flax.config.registry import nearest

_HOME = "mnist_flax.cli.flags"  # whose flags they are, which absl keeps by module


class _OneOf(flags.ArgumentParser[str]):
    """One of some words."""

    def __init__(self, words: Sequence[str]):
        self.enum_values = words  # as absl calls them, for the reference

    def parse(self, argument: str) -> str:
        if argument not in self.enum_values:
            known = f"{', '.join(self.enum_values[:-1])} or {self.enum_values[-1]}"
            raise ValueError(f"must be {known}.{nearest(argument, self.enum_values)}")
        return argument


class _Whole(flags.ArgumentParser[int]):
    """A whole number, not below the least and not above the most."""

    def __init__(self, least: int, most: int | None):
        self._least, self._most = least, most

    def parse(self, argument: str | int) -> int:
        most = "" if self._most is None else f" and at most {self._most:,}"
        told = f"must be a whole number, at least {self._least}{most}."
        try:
            number = int(argument)
        except ValueError:
            raise ValueError(told) from None
        if number < self._least or (self._most is not None and number > self._most):
            raise ValueError(told)
        return number


class _YesNo(flags.BooleanParser):
    """True or false."""

    def parse(self, argument: str | int) -> bool:
        try:
            return super().parse(argument)
        except (ValueError, TypeError):
            raise ValueError("must be true or false.") from None


def define_one_of(name: str, default: str, words: Sequence[str], told: str) -> None:
    """Defines a flag that takes one of some words."""
    flags.DEFINE(_OneOf(words), name, default, told, module_name=_HOME)


def define_whole(
    name: str, default: int | None, told: str, least: int, most: int | None = None
) -> None:
    """Defines a flag that takes a whole number."""
    flags.DEFINE(_Whole(least, most), name, default, told, module_name=_HOME)


def define_yes_no(name: str, default: bool | None, told: str) -> None:
    """Defines a flag that is true, false, or neither if its default is None."""
    flag: flags.Flag[Any] = flags.BooleanFlag(name, default, told)
    flag.parser = _YesNo()
    flags.DEFINE_flag(flag, module_name=_HOME)

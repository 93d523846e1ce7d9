"""Folders and files as a user names them."""

import os
from pathlib import Path

from mnist_flax.errors import UsageError


def expanded(name: str, field: str) -> Path:
    """Returns the path of a name; a `~` or `~user` that it begins with is the home folder.

    Args:
      name: as the user gave it.
      field: the flag or field that it was given for, for the message.

    Raises:
      UsageError: there is no such user, or no home folder is known.
    """
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        user = name.split("/")[0]
        who = f"there is no user {user[1:]!r}" if user != "~" else "no home folder is known"
        raise UsageError(
            f"{field}={name}: {who}. Write the folder out, or ./{name} for a folder of this name."
        ) from error


def cache_folder() -> Path:
    """Returns where things are kept that can be made again: ~/.cache/mnist_flax, as XDG has it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mnist_flax"

"""The folder that data are looked for in, and what is said of it where nothing is understood."""

import os
from pathlib import Path
from typing import Any

from mnist_flax.config.paths import expanded
from mnist_flax.data import entries, layouts, tfds_source
from mnist_flax.errors import UserError


def default_dir() -> Path:
    """Returns where data lie if no folder is named: $TFDS_DATA_DIR or ~/tensorflow_datasets."""
    default = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return expanded(default, "config.data.data_dir")


def data_dir(given: str | None) -> Path:
    """Returns the folder that config.data.data_dir means; raises UserError where it is none."""
    if given is None:
        return default_dir()
    directory = expanded(given, "config.data.data_dir")
    if not directory.is_dir():
        # Not created: a typing error would download the data into a new place.
        what = "is a file, not a directory" if directory.exists() else "does not exist"
        todo = f"holding {layouts.UNDERSTOOD}, or create it for a download"
        raise UserError(f"config.data.data_dir={given!r} {what}: give one {todo}.")
    return directory


def of_a_run(named: Any, found: Any) -> str | None:
    """Returns the data_dir under which the data of an earlier run are found again.

    Args:
      named: its config.data.data_dir.
      found: where its data lay, absolute; None where that was not recorded. Both are from files
        that may have been edited: what is no text counts as None.

    Returns:
      `named` where that still means the same folder, else `found`; None for the default folder.
    """
    named, found = (value if isinstance(value, str) else None for value in (named, found))
    here = expanded(named, "config.data.data_dir") if named else default_dir()
    if found is None or here.absolute() == Path(found):
        return named
    return found if named or Path(found).is_dir() else None


def is_for_downloads(directory: Path) -> bool:
    """Says whether a named folder may take a download: it is empty, or holds what TFDS put there.

    Anywhere else it would pass for the data that the user meant.
    """
    names = entries.names_in(directory)
    return "dataset_info.json" in names or all(_is_of_tfds(directory / name) for name in names)


def _is_of_tfds(path: Path) -> bool:
    kept = path.name in ("downloads", "extracted")
    # A preparation that was killed is called incomplete.<letters>_1.0.0.
    own = path.name.startswith("incomplete.") or path.name.endswith(tfds_source.OWN_SUFFIX)
    infos = (f"{depth}dataset_info.json" for depth in ("", "*/"))
    return kept or own or any(any(path.glob(info)) for info in infos)

"""A path that Orbax takes for a name, whatever the folder is called."""

import contextlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mnist_flax.errors import UserError
from mnist_flax.workdir.files import reason

# Letters of any script, and what is neither part of a pattern (* ? [ and, to escape them, \) nor
# a byte that is not UTF-8: Python keeps it as half a surrogate pair, and TensorStore refuses that.
_PLAIN = re.compile(r"[\w ./:+,=@~-]*")


@contextlib.contextmanager
def plain_path(folder: Path) -> Iterator[Path]:
    """Gives a path to a folder that no library takes for a pattern.

    Orbax looks for the parts of a save with glob(), the save's whole path included, and leaves the
    parts unmerged where that matches nothing: the save cannot be read back. Where the path is not
    plain letters, a symbolic link stands for it as long as the context lasts.

    Args:
      folder: absolute. It exists, or nothing will be written to it.

    Raises:
      UserError: there can be no such link.
    """
    if _PLAIN.fullmatch(str(folder)):
        yield folder
        return
    with contextlib.ExitStack() as stack:
        try:
            place = stack.enter_context(tempfile.TemporaryDirectory(prefix="mnist_flax-"))
            link = Path(place, "folder")
            link.symlink_to(folder, target_is_directory=True)
        except (OSError, NotImplementedError) as error:
            raise UserError(
                f"{folder}: its name needs a link in {tempfile.gettempdir()}, and there can be "
                f"none ({reason(error)}). Name a folder with letters, digits, - and _ alone."
            ) from error
        if not _PLAIN.fullmatch(str(link)):
            raise UserError(
                f"{folder}: its name needs a link, and the folder for such, {place}, has no plain "
                "name either. Set TMPDIR to one with letters, digits, - and _ alone."
            )
        yield link

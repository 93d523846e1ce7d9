"""What this program is called by whoever started it, how it is started once more, its version.

It has three names: `python launch.py` in a checkout, `mnist-flax` where it is installed, and
`python -m mnist_flax` in both. The first argument of a command line, argv[0], says which it was.
"""

import importlib.metadata
import shutil
import sys
from pathlib import Path

import mnist_flax

_INSTALLED = "mnist-flax"
_MODULE = ["-m", "mnist_flax"]


def name(argv0: str) -> list[str]:
    """Returns its name as the words of a shell, for a page that may be read elsewhere."""
    if _is_module(argv0):
        return ["python", *_MODULE]
    file = Path(argv0).name
    return [file] if file == _INSTALLED else ["python", file]


def typed(argv0: str) -> list[str]:
    """Returns what starts it in the shell that it was started from: its name, or its path."""
    words = name(argv0)
    if _is_module(argv0) or (words == [_INSTALLED] and _is_found(argv0)):
        return words
    return [*words[:-1], argv0]


def again(argv0: str) -> list[str]:
    """Returns what starts it once more, as a child of this process and with this Python."""
    return [sys.executable, *(_MODULE if _is_module(argv0) else [argv0])]


def version() -> str:
    """Returns a line: its version, and those of JAX and Flax, neither of which is imported."""
    others = (f"{each} {importlib.metadata.version(each)}" for each in ("jax", "flax"))
    return ", ".join([f"mnist_flax {mnist_flax.__version__}", *others])


def _is_module(argv0: str) -> bool:
    return Path(argv0).parts[-2:] == ("mnist_flax", "__main__.py")


def _is_found(argv0: str) -> bool:
    """Says whether the shell finds this installed command by its name."""
    found = shutil.which(_INSTALLED)
    return found is not None and Path(found).resolve() == Path(argv0).resolve()

"""Which files of a folder are the four IDX files of a dataset, by their names."""

import re
from pathlib import Path

from mnist_flax.data import entries
from mnist_flax.errors import UsageError

# The names under which MNIST and the datasets modelled on it are published.
STEMS = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
_COPY = r"(?: ?\(\d+\))?"  # what a browser adds to the name of a file that it saves again
_NAME = re.compile(
    r"(?:emnist-(?P<part>\w+)-)?(?P<split>train|t10k|test)-(?P<what>images|labels)"
    rf"[-.]idx[1-4]-ubyte{_COPY}(?:\.gz)?{_COPY}"
)
Files = dict[tuple[str, str], Path]  # by ('train' or 'test', 'images' or 'labels')


def find(directory: Path) -> dict[str, Files]:
    """Returns the IDX files in a folder, by EMNIST's part; '' for those named as MNIST's are.

    Each may be spelled with a dot (`train-images.idx3-ubyte`) or be a browser's copy. Of several a
    plain file is preferred to its gzipped twin, and both to copies.
    """
    found: dict[str, Files] = {}
    for path in sorted(_files(directory), key=_preference, reverse=True):
        match = _NAME.fullmatch(path.name)
        assert match is not None
        split = "train" if match["split"] == "train" else "test"
        found.setdefault(match["part"] or "", {})[split, match["what"]] = path
    return found


def _files(directory: Path) -> list[Path]:
    paths = directory.iterdir() if directory.is_dir() else ()
    named = [path for path in paths if _NAME.fullmatch(path.name)]
    for path in named:
        entries.refuse_dangling(path)
    return [path for path in named if path.is_file()]


def _preference(path: Path) -> tuple[bool, bool, bool, str]:
    name = path.name
    return "(" in name, ".idx" in name, name.endswith(".gz"), name


def choose(found: dict[str, Files], directory: Path, name: str) -> str:
    """Returns which part of EMNIST config.data.name asks for; '' for files named as MNIST's.

    Raises:
      UsageError: there are several, and the name tells none; or the one it tells is not there.
    """
    is_emnist = name.lower().startswith("emnist")
    asked = name.lower().removeprefix("emnist").strip("_-/") if is_emnist else ""
    if asked in found:
        return asked
    if len(found) == 1 and not asked:
        return next(iter(found))
    names = ", ".join(f"emnist_{part}" for part in sorted(found) if part)
    raise UsageError(
        f"config.data.name={name!r}: {directory} holds {names}. Name one of them with "
        "config.data.name"
    )


def missing(files: Files, part: str) -> list[str]:
    """Returns the names of those of the four files that are not there."""
    names = []
    for split, stems in STEMS.items():
        for what, stem in zip(("images", "labels"), stems, strict=True):
            if (split, what) not in files:
                own = f"emnist-{part}-{stem.replace('t10k', 'test')}" if part else stem
                names.append(f"{own}[.gz]")
    return names

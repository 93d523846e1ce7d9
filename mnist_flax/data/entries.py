"""What lies in a folder: what is looked at, what is passed over, what is reported of it."""

from pathlib import Path

from mnist_flax.errors import UserError

# What Windows and macOS leave; names with a dot are hidden anyway.
_LITTER = ("thumbs.db", "desktop.ini", "__macosx")
_NAMED = 5  # of the things that lie there


def visible(folder: Path) -> list[Path]:
    """Returns what lies in a folder, by name, without hidden files and litter; [] for no folder.

    Raises:
      UserError: a symbolic link leads nowhere.
    """
    if not folder.is_dir():
        return []
    paths = sorted(folder.iterdir(), key=lambda path: path.name)
    shown = [p for p in paths if not p.name.startswith(".") and p.name.lower() not in _LITTER]
    for path in shown:
        refuse_dangling(path)
    return shown


def refuse_dangling(path: Path) -> None:
    """Raises UserError for a symbolic link whose target is not there."""
    if path.is_symlink() and not path.exists():
        raise UserError(
            f"{path} is a symbolic link to {path.readlink()}, which is not there. Put that there, "
            "or remove the link."
        )


def litter_note(directory: Path) -> tuple[str, ...]:
    """Returns a note where a folder, or one in it, holds what macOS adds to an archive."""
    found = [path for depth in ("", "*/", "*/*/") for path in directory.glob(f"{depth}__MACOSX")]
    if not found:
        return ()
    more = f", and {len(found) - 1:,} more," if len(found) > 1 else ""
    return (f"{found[0]}{more} is what macOS adds to an archive, no data: passed over.",)


def names_in(directory: Path) -> list[str]:
    """Returns the names in a folder, sorted, without hidden ones; folders end in '/'."""
    if not directory.is_dir():
        return []
    paths = (path for path in directory.iterdir() if not path.name.startswith("."))
    return sorted(f"{path.name}/" if path.is_dir() else path.name for path in paths)


def told(directory: Path) -> str:
    """Returns what lies in a folder, a few names, for a message."""
    names = names_in(directory)
    if not names:
        return "it is empty"
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return f"it holds {', '.join(map(_named, names[:_NAMED]))}{more}"


def _named(name: str) -> str:
    return f"{name!r} (what macOS adds to an archive)" if name == "__MACOSX/" else repr(name)

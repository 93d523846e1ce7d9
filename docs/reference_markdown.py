"""Comments, docstrings and tables of the code -> Markdown. For reference.py."""

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# What is code in a comment: `as it is`, a command, 'a name', {'a': 'section'}, (('a', 'tuple'),).
_CODE = re.compile(
    r"`+[^`]+`+"
    r"|(?<![\w`])--[\w.]+"
    r"|pip install -e '[^']+'"
    r"|\{(?:[^{}]|\{[^{}]*\})*\}"
    r"|\((?:\([^()]*\)(?:, )?)+\)"
    r"|(?<!\w)[\w.]+='[^']*'"
    r"|(?<!\w)'[^']+'(?!\w)"
)


def prose(text: str) -> str:
    """Returns a comment's or a docstring's words as Markdown, whatever is code in it marked."""
    parts, end = [], 0
    for match in _CODE.finditer(text):
        parts += [_escaped(text[end : match.start()]), code(match[0].strip("`"))]
        end = match.end()
    return "".join([*parts, _escaped(text[end:])])


def code(text: Any) -> str:
    """Returns a text as code that may stand in a table."""
    return f"`{text}`".replace("|", "\\|")


def codes(names: Iterable[Any], between: str = ", ") -> str:
    """Returns several of them."""
    return between.join(code(name) for name in names)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table, without the columns that are empty in every row."""
    rows = list(rows)
    kept = [place for place in range(len(heads)) if any(row[place] for row in rows)]
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line[place] for place in kept) + " |" for line in lines)


def first_sentence(thing: Any) -> str:
    """Returns the first sentence of an object's docstring, or of a docstring."""
    text = thing if isinstance(thing, str) else inspect.getdoc(thing) or ""
    paragraph = " ".join(text.partition("\n\n")[0].split())
    return re.split(r"(?<=[.!?])\s+(?=[A-Z])", paragraph)[0]


def described(thing: Any) -> Mapping[str, str]:
    """Returns what the 'Args:' or 'Attributes:' of a docstring say of each name."""
    found: dict[str, str] = {}
    name = ""
    inside = False
    for line in (inspect.getdoc(thing) or "").splitlines():
        if not line.startswith(" "):
            inside = line in ("Args:", "Attributes:") or (inside and not line)
        elif inside and (match := re.match(r"  (\w[\w, ]*): (.*)", line)):
            name, found[match[1]] = match[1], match[2]
        elif inside and name:
            found[name] += f" {line.strip()}"
    return {one: text for names, text in found.items() for one in names.split(", ")}


def sentence(text: str) -> str:
    """Returns a comment as a sentence: a capital at its start, a full stop at its end."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("." if text and text[-1] not in ".?!" else "")


def _escaped(text: str) -> str:
    """Returns words that Markdown takes as they are."""
    return re.sub(r"([|*<>\[\]])|(?<!\w)_|_(?!\w)", lambda match: "\\" + match[0], text)


def shown(value: Any) -> str:
    """Returns a value as a command line gives it; an empty text as Python does."""
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) and value else repr(value)

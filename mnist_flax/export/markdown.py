"""Tables and JSON in a Markdown text."""

import json
from collections.abc import Iterable, Sequence
from typing import Any


def table_of(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Returns a table; a bar in a cell does not end it."""
    lines = [head, ["---"] * len(head), *rows]
    # A bar in a text would end its cell: a split or a model is named by the user.
    cells = ([str(cell).replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def json_of(value: Any, indent: int | None = 2) -> str:
    """Returns a block of JSON."""
    return f"```json\n{json.dumps(value, indent=indent, ensure_ascii=False)}\n```"

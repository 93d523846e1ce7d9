"""Columns of a table in plain text."""

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]], words: int) -> list[str]:
    """Returns a line for each row.

    Args:
      rows: the cells of each, the same number in all.
      words: how many columns, from the left, begin at one place; the others end at one.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i < words else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]

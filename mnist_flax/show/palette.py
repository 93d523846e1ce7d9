"""The colours of all that is drawn and of all pages, and what each of them means.

- Red and blue say the sign of a number and nothing else: red is positive, blue negative, grey zero.
  Red is lighter than the grey and blue darker, for paper and for eyes that see no hues.
- Violet and amber tell two things apart, the first and the second of a legend: training and
  evaluation, accuracy and confidence, right and wrong. Form does so, too: marks, strokes, places.
- An amount is violet alone, from nothing to the most.
- On a page violet is what can be pressed, and amber stands next to what must be heeded.

No colour is the only one that says something: a word, a form or a lightness says it as well.
"""

from collections.abc import Iterable
from typing import NamedTuple


class Scheme(NamedTuple):
    """The colours of a page, as '#rrggbb'; a page's style has them as --page, --raised, …

    Attributes:
      page: the ground.
      raised: the ground of what is set off.
      ink: text.
      quiet: text of less weight.
      line: what parts things.
      first: violet.
      second: amber.
      third: grey, of what a figure marks as well.
      heed: the ground of what must be heeded.
    """

    page: str
    raised: str
    ink: str
    quiet: str
    line: str
    first: str
    second: str
    third: str
    heed: str


SCHEMES = {
    "light": Scheme(
        *("#ffffff", "#f6f8fa", "#24292f", "#59636e", "#d0d7de"),
        *("#6f42c1", "#9a6700", "#6e7781", "#fff1d6"),
    ),
    "dark": Scheme(
        *("#15181d", "#1d2127", "#d7dde4", "#98a2ad", "#3d444d"),
        *("#b392f0", "#e3a13b", "#8b949e", "#2e2611"),
    ),
}
SIGNED = ("#123f8c", "#8a8a8a", "#ff9d87")  # the most negative, zero, the most positive
AMOUNT = ("#000000", "#7a4fd0", "#f6f0ff")  # nothing, half, the most; of pictures on black
ON_ANY_PAGE = ("#8a66d4", "#b06c00")  # the first and the second, where the page is not known


def css() -> str:
    """Returns the colours as custom properties of a page's style, light and dark."""
    signed = zip(("negative", "zero", "positive"), SIGNED, strict=True)
    light = [*SCHEMES["light"]._asdict().items(), *signed]
    dark = SCHEMES["dark"]._asdict().items()
    return (
        f":root {{ color-scheme: light dark; {_properties(light)} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root {{ {_properties(dark)} }} }}"
    )


def rgb(colour: str) -> tuple[int, int, int]:
    """Returns red, green and blue of '#rrggbb', each 0 to 255."""
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue


def _properties(colours: Iterable[tuple[str, str]]) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in colours)

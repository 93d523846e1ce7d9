"""The colours: what can be told apart and read, and that nobody has others."""

import itertools
import re

import pytest
from conftest import ROOT

from mnist_flax.show.palette import ON_ANY_PAGE, SCHEMES, SIGNED, Scheme, css, rgb


def _luminance(colour: str) -> float:
    """Of WCAG 2.2."""
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (part / 255 for part in rgb(colour))
    ]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_text_and_lines_can_be_read_on_every_ground(scheme: Scheme) -> None:
    for ground in (scheme.page, scheme.raised):
        for text in (scheme.ink, scheme.quiet, scheme.first):
            assert _contrast(text, ground) >= 4.5
        for line in (scheme.first, scheme.second, scheme.third):
            assert _contrast(line, ground) >= 3
    assert _contrast(scheme.ink, scheme.heed) >= 4.5


def test_signs_differ_in_lightness_by_what_a_reader_needs() -> None:
    assert _contrast(SIGNED[0], SIGNED[2]) >= 3


def test_a_line_is_seen_where_the_page_is_not_known() -> None:
    for colour, scheme in itertools.product(ON_ANY_PAGE, SCHEMES.values()):
        assert _contrast(colour, scheme.page) >= 3


def test_a_page_has_the_colours_of_the_palette_and_no_others() -> None:
    pages = sorted((ROOT / "mnist_flax").glob("*/*.html"))
    assert len(pages) == 5
    known = set(re.findall(r"--([a-z]+):", css()))
    for page in pages:
        style = page.read_text().partition("<style>")[2].partition("</style>")[0]
        assert not re.search(r"#[0-9a-f]{3,8}\b(?!\s*\{)(?<!#000)", style), page
        used = set(re.findall(r"var\(--([a-z]+)\)", style))
        assert used <= known | {"half"}, page


def test_violet_and_amber_are_no_signs() -> None:
    """Neither is near the red or the blue: hue, in a circle of 360 degrees."""
    import colorsys

    def hue(colour: str) -> float:
        return 360 * colorsys.rgb_to_hsv(*(part / 255 for part in rgb(colour)))[0]

    blue, red = hue(SIGNED[0]), hue(SIGNED[2])
    for scheme in SCHEMES.values():
        for colour in (scheme.first, scheme.second):
            for sign in (blue, red):
                apart = abs(hue(colour) - sign)
                assert min(apart, 360 - apart) > 20, (colour, sign)

"""The HTML file of a report, or of a sweep. The only importer of jinja2."""

import base64
import importlib.resources
import math
from dataclasses import dataclass
from typing import Any

import jinja2

from mnist_flax.show.palette import css


@dataclass(frozen=True)
class Picture:
    """A picture of the page.

    Attributes:
      name: its file's, without '.png'.
      png: the file.
      alt: what it shows, for those who do not see it.
      dark: the file for a dark page, where that is another one.
      film: an animated WebP that is shown instead, where motion is wanted.
    """

    name: str
    png: bytes
    alt: str
    dark: bytes | None = None
    film: bytes | None = None

    def files(self) -> dict[str, bytes]:
        """Returns its files by name."""
        dark = {f"{self.name}-dark.png": self.dark} if self.dark else {}
        film = {f"{self.name}.webp": self.film} if self.film else {}
        return {f"{self.name}.png": self.png} | dark | film


def render(page: str, **content: Any) -> str:
    """Fills a page: 'page.html' of a run, or 'sweep.html'.

    Whatever is text is escaped, and a name that is missing is an error.
    """
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"share": _share, "percent": _percent, "uri": _uri}
    environment.globals["palette"] = css
    return environment.get_template(page).render(**content)


def _template(name: str) -> str:
    file = importlib.resources.files("mnist_flax.report").joinpath(name)
    return file.read_text(encoding="utf-8")


def _share(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4f}"


def _percent(value: float) -> str:
    return f"{100 * value:.2f}\N{NO-BREAK SPACE}%"


def _uri(picture: bytes) -> str:
    kind = "webp" if picture[:4] == b"RIFF" else "png"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"

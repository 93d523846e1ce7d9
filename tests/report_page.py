"""The page of a report, read back. Not a test itself."""

from html.parser import HTMLParser
from pathlib import Path

from mnist_flax.report import write_report
from mnist_flax.use.restore import restore
from mnist_flax.use.run_data import load_data


class Page(HTMLParser):
    """The tables, by id, as rows of texts; images and other sources; the text."""

    def __init__(self, path: Path):
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.texts: dict[str, str] = {}  # of elements with an id
        self.images: list[dict[str, str]] = []
        self.sources: list[str] = []
        self.text = ""
        self._table: list[list[str]] = []
        self._in_cell, self._id = False, ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list) -> None:
        given = dict(attributes)
        self.sources += [given[name] for name in ("src", "srcset", "href") if name in given]
        self._id = given.get("id", "")
        if tag == "img":
            self.images.append(given)
        elif tag == "table":
            self._table = self.tables[given["id"]] = []
        elif tag == "tr":
            self._table.append([])
        elif tag in ("td", "th"):
            self._table[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self._id = ""
        self._in_cell &= tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._id:
            self.texts[self._id] = data
        if self._in_cell:
            self._table[-1][-1] += data


def write_and_read(workdir: Path, **more) -> Page:
    """Writes a run's report and reads its page."""
    restored = restore(workdir, "latest", {})
    return Page(write_report(workdir, restored, load_data(restored, print), **more))

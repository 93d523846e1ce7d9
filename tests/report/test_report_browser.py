"""The pages of runs and of a sweep in a real browser: everybody can read them, on any screen."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from conftest import recipe
from page_faults import page_faults
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright
from report_page import write_and_read
from swept_runs import ACCURACY, swept_runs
from tiny import get_config

from mnist_flax.report.sweep_page import write_sweep
from mnist_flax.training import train

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium or google-chrome"),
]
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


@pytest.fixture(scope="module")
def pages(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of a run that predicts classes, of one that draws, and of a sweep."""
    folder = tmp_path_factory.mktemp("pages")
    config = get_config()
    config.data.data_dir = str(digits)
    config.augment.order = ("random_shift",)
    train(config, folder / "classes")
    config = recipe("vae")
    config.data.name = "mnist_sample"
    config.num_epochs, config.num_steps, config.eval_every_steps = None, 4, 2
    train(config, folder / "draws")
    for name in ("classes", "draws"):
        write_and_read(folder / name)
    (folder / "sweep").mkdir()
    runs = swept_runs(folder / "sweep")
    _, swept = write_sweep(folder / "sweep", runs, "accuracy", ACCURACY)
    written = {name: folder / name / "report/index.html" for name in ("classes", "draws")}
    return {**written, "sweep": swept}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def _opened(browser: Browser, path: Path, scheme: Literal["light", "dark"], width: int) -> Page:
    size = ViewportSize(width=width, height=844)
    page = browser.new_page(viewport=size, color_scheme=scheme)
    page.goto(path.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach((e) => { e.open = true; })")
    return page


@pytest.mark.promise
@pytest.mark.parametrize("name", ["classes", "draws", "sweep"])
def test_everybody_can_read_it_on_any_screen(
    pages: dict[str, Path], browser: Browser, name: str
) -> None:
    for scheme in SCHEMES:
        for width in (390, 800, 1280):
            page = _opened(browser, pages[name], scheme, width)
            assert page_faults(page) == [], (scheme, width)
            page.close()


@pytest.mark.promise
def test_letters_of_all_figures_have_one_size(pages: dict[str, Path], browser: Browser) -> None:
    for name, path in pages.items():
        for width in (390, 1280):
            page = _opened(browser, path, "light", width)
            scales: list[Any] = page.evaluate(
                "[...document.querySelectorAll('.plots > figure img')].map("
                "(e) => e.clientWidth / e.naturalWidth)"
            )
            page.close()
            assert len(scales) >= 3, name
            assert max(scales) - min(scales) < 0.01, (name, width)


BROKEN = {
    "pixels wide": "document.querySelector('h1').style.width = '500px'",
    "id doubled": "document.querySelector('h1').id = 'scores'",
    "no scope": "document.querySelector('th').scope = ''",
    "no caption": "document.querySelector('caption').remove()",
    "no alt": "document.querySelector('img').alt = ''",
    "a heading skipped": "document.querySelector('h1').remove()",
    "no key": "document.querySelectorAll('.scroll').forEach((e) => { e.tabIndex = -1; })",
    "small": "document.querySelector('nav a').style = 'display: block; min-height: 0; height: 9px'",
    "contrast": "document.querySelector('p').style.color = '#777777'",
}


@pytest.mark.parametrize("fault", BROKEN)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_page_that_is_broken_is_found_out(
    pages: dict[str, Path], browser: Browser, fault: str, scheme: Literal["light", "dark"]
) -> None:
    page = _opened(browser, pages["classes"], scheme, 390)
    page.evaluate(BROKEN[fault])
    found = page_faults(page)
    page.close()
    assert any(fault in line for line in found), found

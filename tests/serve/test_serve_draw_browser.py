"""The page that draws, in a real browser: pictures by number, walks, and what was drawn."""

import shutil
from collections.abc import Iterator
from typing import Literal

import pytest
from conftest import recipe
from page_faults import page_faults
from playwright.sync_api import Page, ViewportSize, expect, sync_playwright
from serving import served

from mnist_flax import train

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
READY = "See digits drawn on http://127.0.0.1:"
SHOWN = "document.querySelector('#shown').toDataURL()"
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
expect.set_options(timeout=30_000)  # ms; processors are shared
pytestmark = [
    pytest.mark.slow,
    pytest.mark.promise,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium or google-chrome"),
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    config, workdir = recipe("vae"), tmp_path_factory.mktemp("vae")
    config.data.name = "mnist_sample"
    config.num_epochs, config.num_steps = None, 30
    train(config, workdir)
    with served(f"--workdir={workdir}", ready=READY) as (_, port):
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture(params=[(1280, 900, False), (390, 844, True)], ids=["desktop", "telephone"])
def page(url: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    width, height, still = request.param
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(
            viewport=ViewportSize(width=width, height=height),
            has_touch=width < 500,
            reduced_motion="reduce" if still else "no-preference",
        )
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text))  # as a broken policy is
        page.goto(f"{url}#17")
        expect(page.locator("#drawn li")).to_have_count(1)
        yield page
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            assert page_faults(page) == [], scheme
        browser.close()
    assert [fault for fault in faults if "net::ERR_FAILED" not in fault] == []  # a test's own doing


def test_a_number_in_the_address_is_its_picture(page: Page) -> None:
    expect(page.locator("#way")).to_have_text("No. 17")
    first = page.evaluate(SHOWN)
    page.locator("#another").click()
    expect(page.locator("#drawn li")).to_have_count(2)
    assert page.evaluate(SHOWN) != first
    assert not page.url.endswith("#17")
    page.get_by_label("Show No. 17 again").click()
    expect(page.locator("#way")).to_have_text("No. 17")
    assert page.evaluate(SHOWN) == first
    assert page.url.endswith("#17")


def test_a_walk_goes_on_until_it_is_stopped(page: Page) -> None:
    moves = not page.evaluate("matchMedia('(prefers-reduced-motion: reduce)').matches")
    first, walk, place = page.evaluate(SHOWN), page.locator("#walk"), page.locator("#place")
    walk.click()
    expect(page.locator("#way")).to_contain_text("From No. 17 to No. ")
    if moves:
        expect(walk).to_have_attribute("aria-pressed", "true")
        expect(page.locator("#place")).not_to_have_value("0")
        expect(page.locator("#way")).not_to_contain_text("From No. 17 ")  # the next way
        walk.click()
    expect(walk).to_have_attribute("aria-pressed", "false")
    assert page.evaluate(SHOWN) != first or not moves
    # The slider shows any place on the way.
    place.fill("10")
    shown = page.evaluate(SHOWN)
    place.fill("11")
    assert page.evaluate(SHOWN) != shown


def test_a_server_that_is_gone_is_said_and_the_page_stays(page: Page, url: str) -> None:
    page.route("**/draw*", lambda route: route.abort())
    page.locator("#another").click()
    expect(page.locator("#fault")).to_have_text("The server does not answer. Is it still running?")
    page.unroute("**/draw*")
    page.locator("#another").click()
    expect(page.locator("#fault")).to_have_text("")
    expect(page.locator("#drawn li")).to_have_count(2)

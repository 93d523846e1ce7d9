"""The page in a real browser: digits drawn with the mouse are read, files are opened."""

import io
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from drawings import SHAPES, drawings, spline, stroke_points
from own_data import write_folders
from page_faults import page_faults
from PIL import Image
from playwright.sync_api import Page, ViewportSize, expect, sync_playwright
from sample_run import train_on_sample
from serving import served
from tiny import get_config

from mnist_flax.training import train

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
expect.set_options(timeout=30_000)  # ms; processors are shared
pytestmark = [
    pytest.mark.slow,
    pytest.mark.promise,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium or google-chrome"),
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a network answers that has seen 4,000 digits a few times."""
    workdir = tmp_path_factory.mktemp("sample")
    train_on_sample(workdir)
    with served(f"--workdir={workdir}") as (_, port):
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture(params=[(1280, 900), (390, 844)], ids=["desktop", "telephone"])
def page(url: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    width, height = request.param
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(
            viewport=ViewportSize(width=width, height=height), has_touch=width < 500
        )
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text))  # as a broken policy is
        page.goto(url)
        expect(page.locator("#bars li")).to_have_count(10)
        yield page
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            assert page_faults(page) == [], scheme
        browser.close()
    assert faults == []


def draw(page: Page, strokes: list[str]) -> None:
    """Draws with the mouse, in the middle three quarters of the pad."""
    box = page.locator("#pad").bounding_box()
    assert box is not None
    for stroke in strokes:
        points = stroke_points(stroke)
        places = spline(points) if stroke.startswith("~") else points
        x, y = (0.125 + 0.75 * places.T) * box["width"]
        page.mouse.move(box["x"] + x[0], box["y"] + y[0])
        page.mouse.down()
        for to_x, to_y in zip(x[1:], y[1:], strict=True):
            page.mouse.move(box["x"] + to_x, box["y"] + to_y, steps=4)
        page.mouse.up()


def test_drawn_digits_are_read_while_they_are_drawn(page: Page) -> None:
    best, seen = page.locator("#best"), "document.querySelector('#input').toDataURL()"
    blank = page.evaluate(seen)
    for digit, shape in ((1, "bar"), (0, "oval"), (7, "plain")):
        expect(best).to_have_text("")
        draw(page, SHAPES[digit][shape])
        expect(best).to_have_text(str(digit))
        bold = page.locator("#bars li.best")
        expect(bold.locator("span").first).to_have_text(str(digit))
        assert float(bold.locator(".percent").inner_text().removesuffix(" %")) > 50
        said = rf"The network says {digit}, with \d+\.\d %\."  # once, after the last stroke
        expect(page.locator("#said")).to_have_text(re.compile(said))
        assert page.evaluate(seen) != blank
        names = page.locator("#layers figcaption").all_inner_texts()
        assert [name.partition(":")[0] for name in names] == [
            *("conv1", "norm1", "conv2", "norm2", "conv3", "norm3")
        ]
        page.locator("#clear").click()
        expect(best).to_have_text("")
        expect(page.locator("#said")).to_have_text("")
        expect(page.locator("#layers figcaption")).to_have_count(0)
        assert page.evaluate(seen) == blank


def test_the_answer_is_there_before_the_mouse_or_the_finger_is_lifted(page: Page) -> None:
    box = page.locator("#pad").bounding_box()
    assert box is not None
    x, ys = box["x"] + box["width"] / 2, box["y"] + np.linspace(0.2, 0.8, 10) * box["height"]
    if page.evaluate("navigator.maxTouchPoints") == 0:
        page.mouse.move(x, ys[0])
        page.mouse.down()
        page.mouse.move(x, ys[-1], steps=10)
    else:
        touch = page.context.new_cdp_session(page)
        for y, kind in zip(ys, ["touchStart"] + 9 * ["touchMove"], strict=True):
            touch.send(
                "Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]}
            )
    expect(page.locator("#best")).to_have_text("1")
    assert page.evaluate("scrollY") == 0  # the finger draws and does not scroll


def test_a_picture_is_opened_and_a_wrong_file_is_told(page: Page, tmp_path: Path) -> None:
    photograph = next(drawn for drawn in drawings() if drawn.name == "3 round, photographed.jpg")
    photograph.picture.save(tmp_path / "three.jpg")
    page.locator("#file").set_input_files(tmp_path / "three.jpg")
    expect(page.locator("#best")).to_have_text("3")
    expect(page.locator("#photo")).to_be_visible()

    draw(page, SHAPES[1]["bar"])  # on a new sheet
    expect(page.locator("#photo")).to_be_hidden()
    expect(page.locator("#best")).to_have_text("1")

    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(16 * 2**20 + 1)
    page.locator("#file").set_input_files(tmp_path / "large.png")
    expect(page.locator("#fault")).to_have_text(
        "large.png has more than 16 MiB: scale the picture down."
    )
    expect(page.locator("#best")).to_have_text("")


KEEP_WHAT_IS_SENT = """
const ask = window.fetch;
window.fetch = async (url, options) => {
  if (options?.body) window.sent = [...new Uint8Array(await options.body.arrayBuffer())];
  return ask(url, options);
};
"""


@pytest.mark.parametrize(("kind", "ground"), [("place", 0), ("dark on white", 255)])
def test_a_drawing_has_the_ground_of_the_pictures_that_were_trained_on(
    kind: str, ground: int, tmp_path: Path
) -> None:
    """Of a network whose input is no digit's: the page sends what it is to see."""
    write_folders(tmp_path / "data", kind, 24, 4)
    config = get_config()
    config.num_steps = 4
    config.data.data_dir = str(tmp_path / "data")
    train(config, tmp_path / "run")
    ready = "Draw a picture on http://127.0.0.1:"  # no class is called by a digit
    with (
        served(f"--workdir={tmp_path / 'run'}", ready=ready) as (_, port),
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.add_init_script(KEEP_WHAT_IS_SENT)
        page.goto(f"http://127.0.0.1:{port}/")
        expect(page.locator("#bars li")).to_have_count(4)
        draw(page, SHAPES[1]["bar"])
        body = page.wait_for_function("window.sent").json_value()
        browser.close()
    with Image.open(io.BytesIO(bytes(body))) as picture:
        pixels = np.asarray(picture.convert("L")).astype(int)
    assert pixels.shape == (28, 28)
    assert pixels[0, 0] == ground
    assert abs(pixels - ground).max() > 120  # the ink, or the beginning of it

"""The numbers that docs/TOUR.md works out by hand."""

import contextlib
import io
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
from conftest import ROOT

TOUR = (ROOT / "docs/TOUR.md").read_text()
START = (4.0, 0.5, -1.0)  # w, v, c
PIXEL = 0.5


def number(text: str) -> float:
    return float(text.replace("−", "-").replace(",", ""))


def section(title: str) -> str:
    """The text from a heading to the next one."""
    found = re.search(rf"^#+ {re.escape(title)}$(.*?)^#+ ", TOUR, re.DOTALL | re.MULTILINE)
    assert found, title
    return found[1]


def last_column(text: str) -> dict[str, float]:
    """{first word of a table's row: the number in its last cell}."""
    rows = re.findall(r"^\| (\w+).* \| ([−\d.]+) \|$", text, re.MULTILINE)
    return {name: number(value) for name, value in rows}


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    """What the page's Python defines, and what it prints."""
    (block,) = re.findall(r"```python\n(.*?)```", section("Backpropagation by hand"), re.DOTALL)
    names: dict[str, Any] = {"block": block}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(block, names)
    return names | {"printed": printed.getvalue()}


def test_forward_is_what_the_page_says() -> None:
    w, v, c = START
    h = jax.nn.relu(w * PIXEL)
    z = v * h + c
    p = jax.nn.softmax(jnp.array([z, 0.0]))[0]
    forward, _ = section("Backpropagation by hand").split("*Back*")
    expected = {"h": h, "z": z, "p": p, "loss": -jnp.log(p)}
    assert last_column(forward) == pytest.approx(jax.tree.map(float, expected), abs=5e-4)


def test_back_is_what_jax_says(example: dict[str, Any]) -> None:
    (w, v, c), loss = START, example["loss"]

    def after_z(z: float) -> jax.Array:
        return -jnp.log(jax.nn.sigmoid(z))

    def after_h(h: float) -> jax.Array:
        return after_z(v * h + c)

    slopes = jax.grad(loss, argnums=(0, 1, 2))(*START)
    h = w * PIXEL
    expected = dict(zip("wvc", slopes, strict=True))
    expected |= {"z": jax.grad(after_z)(v * h + c), "h": jax.grad(after_h)(h)}
    _, back = section("Backpropagation by hand").split("*Back*")
    assert last_column(back) == {name: float(slope) for name, slope in expected.items()}


def test_the_step_is_that_of_sgd(example: dict[str, Any]) -> None:
    text = re.sub(r"\s+", " ", section("Backpropagation by hand"))
    found = re.search(
        r"learning rate of ([\d.]+) makes w = ([−\d.]+), v = ([−\d.]+), c = ([−\d.]+), "
        r"and the loss of the same pixel is ([\d.]+)\. ",
        text,
    )
    assert found
    rate, *made, loss = map(number, found.groups())
    sgd = optax.sgd(rate)
    gradient = jax.grad(example["loss"], argnums=(0, 1, 2))(*START)
    updates, _ = sgd.update(gradient, sgd.init(START))
    stepped = optax.apply_updates(START, updates)
    assert made == pytest.approx([float(value) for value in stepped])
    assert loss == pytest.approx(float(example["loss"](*made)), abs=5e-4)


def test_the_example_prints_what_it_says(example: dict[str, Any]) -> None:
    (said,) = re.findall(r"  # (\[.*\])$", example["block"], re.MULTILINE)
    assert example["printed"] == said + "\n"


def first_step(optimizer: Callable[[float], optax.GradientTransformation]) -> float:
    """How far a weight moves in the first step, in learning rates, at a gradient of 0.1."""
    made = optimizer(1.0)
    update, _ = made.update(jnp.array(0.1), made.init(jnp.array(0.0)), jnp.array(0.0))
    return -float(update)


def test_first_steps_of_rmsprop_are_optaxs() -> None:
    assert "Take g = 0.1" in section("Three optimizers")
    steps = re.findall(r"/ [\d.]+ = ([\d.]+) η", section("Three optimizers"))
    published = first_step(lambda rate: optax.rmsprop(rate, decay=0.9, initial_scale=1.0))
    default = first_step(lambda rate: optax.rmsprop(rate, decay=0.9))
    assert list(map(number, steps)) == pytest.approx([published, default], rel=5e-3)


def test_the_first_step_of_adam_is_the_learning_rate() -> None:
    text = re.sub(r"\s+", " ", section("Optimizers: how to step"))
    assert "In the first step that gives m = g and v = g²: every weight moves by η" in text
    assert first_step(optax.adam) == pytest.approx(1.0, rel=1e-5)


def test_sums_of_parameters_are_right() -> None:
    term = r"[\d,]+"
    found = re.findall(rf"({term}(?:\s[·+]\s{term})+)\s=\s({term})", TOUR)
    assert len(found) >= 10
    for text, result in found:
        products = [map(number, part.split("·")) for part in text.split("+")]
        assert sum(map(math.prod, products)) == number(result), f"{text} = {result}"

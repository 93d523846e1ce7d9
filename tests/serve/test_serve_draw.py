"""The server of a network that draws: pictures by number, and walks from one to another."""

import base64
import itertools
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import recipe
from ml_collections import ConfigDict
from starlette.testclient import TestClient

from mnist_flax.core.sampling import latents_of, sample
from mnist_flax.core.state import create_state
from mnist_flax.serve.app import create_app
from mnist_flax.serve.drawings import make_draw, walk
from mnist_flax.tasks import Spec, create_task
from mnist_flax.use.restore import Restored

HERE = "http://127.0.0.1:8000"
NAMES = tuple("0123456789")


def untrained(name: str, **model: Any) -> Restored:
    config = recipe(name)
    config.model = ConfigDict({**config.model.to_dict(), **model})
    config.batch_size = 6
    task = create_task(config, Spec((28, 28, 1), NAMES, 1))
    state = create_state(task, {"count": jnp.int32(0)}, 0)
    return Restored(config, task, state, Path("nowhere"), {}, NAMES, (28, 28, 1))


DCGAN = pytest.param("dcgan", marks=[pytest.mark.slow, pytest.mark.promise])


@pytest.fixture(scope="module", params=["vae", DCGAN])
def restored(request: pytest.FixtureRequest) -> Restored:
    """Of the second, a picture depends on those that are drawn with it."""
    return untrained(request.param)


@pytest.fixture(scope="module")
def client(restored: Restored) -> TestClient:
    app = create_app({"network": "Painter"}, ["127.0.0.1"], draw=make_draw(restored))
    return TestClient(app, base_url=HERE)


def drawn(client: TestClient, query: str) -> np.ndarray:
    answer = client.get(f"/draw{query}")
    assert answer.status_code == 200, answer.text
    told = answer.json()
    return np.frombuffer(base64.b64decode(told["pixels"]), np.uint8).reshape(told["shape"])


def test_a_number_is_a_picture_of_its_own(client: TestClient, restored: Restored) -> None:
    first = drawn(client, "")
    assert first.shape == (1, 28, 28, 1)
    np.testing.assert_array_equal(first, drawn(client, "?start=0"))
    task, variables = restored.task, restored.state.variables
    ours = sample(task, variables, restored.config.seed, 1, restored.config.batch_size)
    assert np.abs(first.astype(int) - ours).max() <= 1  # that of --mode=sample
    assert not np.array_equal(first, drawn(client, "?start=7"))


def test_a_walk_begins_and_ends_where_it_is_asked_to(client: TestClient) -> None:
    way = drawn(client, "?start=3&end=9&frames=5").astype(int)
    assert way.shape == (5, 28, 28, 1)
    for place, number in ((0, 3), (-1, 9)):
        alone = drawn(client, f"?start={number}")[0]
        assert np.abs(way[place] - alone).max() <= 1
    assert all(np.abs(a - b).max() > 0 for a, b in itertools.pairwise(way))
    again = drawn(client, "?start=9&end=9&frames=2")
    np.testing.assert_array_equal(*again)


def test_a_walk_keeps_the_length_of_noise() -> None:
    start, end = latents_of(0, jnp.arange(2), 100)
    way = walk(start, end, 9)
    np.testing.assert_allclose(way[0], start, atol=1e-6)
    np.testing.assert_allclose(way[-1], end, atol=1e-5)
    lengths = np.linalg.norm(way, axis=1)
    ends = sorted((float(jnp.linalg.norm(start)), float(jnp.linalg.norm(end))))
    assert ends[0] * 0.98 < lengths.min()
    assert lengths.max() < ends[1] * 1.02
    assert np.linalg.norm((start + end) / 2) < 0.85 * ends[0]  # as the straight line has it
    # A right angle, halfway: by hand.
    one, other = jnp.array([2.0, 0.0]), jnp.array([0.0, 2.0])
    np.testing.assert_allclose(walk(one, other, 3)[1], [2**0.5, 2**0.5], rtol=1e-5)
    np.testing.assert_allclose(walk(one, one, 3), [[2, 0]] * 3, atol=1e-6)


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("?start=-1", "?start=-1: must be a whole number from 0 to 2,147,483,647."),
        ("?start=2147483648", "?start=2147483648: must be a whole number from 0 to 2,147,483,647."),
        ("?start=1.5", "?start=1.5: must be a whole number"),
        ("?end=x", "?end=x: must be a whole number"),
        ("?frames=0", "?frames=0: must be a whole number from 1 to 64."),
        ("?frames=65", "?frames=65: must be a whole number from 1 to 64."),
        ("?number=3", "?number: known are start, end and frames."),
    ],
)
def test_what_is_refused(client: TestClient, query: str, told: str) -> None:
    answer = client.get(f"/draw{query}")
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(told)


def test_the_page_and_nothing_else(client: TestClient) -> None:
    page = client.get("/")
    assert "Digits out of noise" in page.text
    assert page.headers["content-security-policy"].startswith("default-src 'none'; script-src 'sha")
    assert client.get("/model").json()["network"] == "Painter"
    assert client.post("/predict", content=b"x").status_code == 404
    assert client.post("/draw").status_code == 405

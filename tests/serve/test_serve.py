"""The server's API: what it answers, what it refuses, and how it starts and ends."""

import asyncio
import base64
import json
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawings import drawings
from picture_files import COLOUR_IMAGE, GREY_IMAGE, JPEGS, png, saved
from PIL import Image
from starlette.testclient import TestClient
from tiny import get_config

from mnist_flax.core.state import create_state
from mnist_flax.data.preparation import AS_IS, DIGIT, Preparation
from mnist_flax.errors import UsageError
from mnist_flax.serve import serve
from mnist_flax.serve.answers import make_answer
from mnist_flax.serve.app import MAX_BYTES, create_app
from mnist_flax.tasks import Spec, create_task
from mnist_flax.use.features import feature_maps
from mnist_flax.use.prediction import predict_files
from mnist_flax.use.restore import Restored

HERE = "http://127.0.0.1:8000"
NAMES = tuple("abcdefghij")


def untrained(shape: tuple[int, int, int]) -> Restored:
    config = get_config()
    task = create_task(config, Spec(shape, NAMES, 1))
    state = create_state(task, {"count": jnp.int32(0)}, 0)
    return Restored(config, task, state, Path("nowhere"), {}, NAMES, shape)


def client_of(restored: Restored, preparation: Preparation) -> TestClient:
    about = {"network": "TinyNet", "center": preparation == DIGIT}
    answer = make_answer(restored, preparation)
    app = create_app(about, ["127.0.0.1", "[::1]"], answer=answer)
    return TestClient(app, base_url=HERE)


@pytest.fixture(scope="module")
def restored() -> Restored:
    return untrained((28, 28, 1))


@pytest.fixture(scope="module")
def client(restored: Restored) -> TestClient:
    return client_of(restored, DIGIT)


@pytest.fixture(scope="module")
def drawing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A four in a photograph: JPEG, 640×480."""
    drawn = next(drawn for drawn in drawings() if drawn.name == "4 open, photographed.jpg")
    path = tmp_path_factory.mktemp("drawing") / "four.jpg"
    drawn.picture.save(path)
    return path


def test_an_answer_is_what_predict_says_of_the_file(
    client: TestClient, restored: Restored, drawing: Path
) -> None:
    (wanted,) = predict_files(restored, [str(drawing)], DIGIT)
    best = int(wanted.outputs["classes"])
    answer = client.post("/predict", content=drawing.read_bytes())
    assert answer.status_code == 200
    assert answer.json() == {
        "classes": best,
        "class": best,
        "class_name": NAMES[best],
        "probabilities": wanted.row()["probabilities"],
        "class_names": list(NAMES),
        "image": wanted.image[..., 0].tolist(),
    }
    assert set(answer.json()) - {"image"} == set(wanted.row()) - {"file"}  # one language


def test_a_warning_comes_with_the_answer(client: TestClient) -> None:
    pixels = np.zeros((60, 90), np.uint8)
    pixels[15:45, 20:26] = pixels[15:45, 50:56] = 255
    answer = client.post("/predict", content=saved(Image.fromarray(pixels))).json()
    assert answer["warning"].startswith("several drawings stand side by side")


def test_feature_maps_come_when_they_are_asked_for(
    client: TestClient, restored: Restored, drawing: Path
) -> None:
    (wanted,) = predict_files(restored, [str(drawing)], DIGIT)
    answer = client.post("/predict?features=1", content=drawing.read_bytes()).json()
    assert answer["class"] == wanted.outputs["classes"]
    variables = restored.state.variables
    maps = jax.device_get(feature_maps(restored.model, variables, wanted.image[None]))
    assert [layer["name"] for layer in answer["features"]] == ["conv", "norm", "dropout"]
    for layer in answer["features"]:
        values = maps[layer["name"]][0].transpose(2, 0, 1)  # [c, h, w]
        assert layer["shape"] == list(values.shape)
        assert layer["low"] == pytest.approx(values.min(), abs=1e-5)
        pixels = np.frombuffer(base64.b64decode(layer["pixels"]), np.uint8).reshape(values.shape)
        step = (layer["high"] - layer["low"]) / 255
        np.testing.assert_allclose(layer["low"] + pixels * step, values, atol=0.51 * step)


def test_a_network_of_another_shape_takes_pictures_of_its_size() -> None:
    client = client_of(untrained((5, 4, 3)), AS_IS)
    answer = client.post("/predict", content=saved(COLOUR_IMAGE))
    assert answer.json()["image"] == np.asarray(COLOUR_IMAGE).tolist()  # [5, 4, 3]
    answer = client.post("/predict", content=saved(GREY_IMAGE.resize((9, 7))))
    assert (answer.status_code, answer.json()) == (
        422,
        {
            "error": "The picture is 9 pixels wide and 7 high, the network takes 4 and 5; "
            "scale it to that size, or leave center=false (AS_IS) out."
        },
    )


def test_a_network_of_another_shape_has_pictures_scaled_and_says_so() -> None:
    client = client_of(untrained((5, 4, 3)), Preparation("size"))
    answer = client.post("/predict", content=saved(COLOUR_IMAGE)).json()
    assert answer["image"] == np.asarray(COLOUR_IMAGE).tolist()
    assert "prepared" not in answer
    answer = client.post("/predict", content=saved(GREY_IMAGE.resize((9, 7)))).json()
    assert np.shape(answer["image"]) == (5, 4, 3)
    assert answer["prepared"] == ["grey in all three colours", "scaled from 9x7 to 4x5"]


def test_a_form_is_told_what_to_be(client: TestClient) -> None:
    answer = client.post("/predict", files={"file": saved(GREY_IMAGE)})
    assert (answer.status_code, list(answer.json())) == (415, ["error"])
    assert "--data-binary" in answer.json()["error"]


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "The file is empty"),
        (b"GIF89a" + bytes(30), "No PNG or JPEG picture"),
        (b'{"image": "../../etc/passwd"}', "No PNG or JPEG picture"),
        (saved(GREY_IMAGE)[:-20], "amaged"),
        (JPEGS["grey"][:200], "amaged"),
        (saved(GREY_IMAGE.point(lambda _: 9)), "all pixels are alike"),
        # What unpacks to gigabytes is refused by its header.
        (png(20_001, 1, 8, 0, b""), "20001x1 pixels: the picture is too large"),
        (png(19_000, 19_000, 8, 2, bytes(10**6)), "too large"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else None,
)
def test_what_is_no_picture_is_told(client: TestClient, data: bytes, fault: str) -> None:
    answer = client.post("/predict", content=data)
    assert answer.status_code == 422
    assert list(answer.json()) == ["error"]
    assert fault in answer.json()["error"]
    assert len(answer.json()["error"]) < 300
    assert "\n" not in answer.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "fault"),
    [
        ("POST", "/predict?feature=1", {}, 400, "?feature=1: only ?features=1 is known."),
        ("POST", "/predict", {"Origin": "http://evil.example"}, 403, "http://evil.example"),
        ("POST", "/predict", {"Origin": "null"}, 403, "null"),
        ("POST", "/predict", {"Origin": "https://127.0.0.1:8000"}, 403, "https://127.0.0.1"),
        ("POST", "/predict", {"Origin": "http://127.0.0.1:9000"}, 403, "http://127.0.0.1:9000"),
        ("GET", "/predict", {}, 405, "Method Not Allowed"),
        ("POST", "/", {}, 405, "Method Not Allowed"),
        ("GET", "/page.html", {}, 404, "Not Found"),
        ("GET", "/../serve/app.py", {}, 404, "Not Found"),
    ],
)
def test_other_requests_are_refused(
    client: TestClient, method: str, path: str, headers: dict, status: int, fault: str
) -> None:
    answer = client.request(method, path, headers=headers)
    assert answer.status_code == status
    assert fault in answer.json()["error"]


@pytest.mark.parametrize("path", ["/", "/model", "/predict"])
@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example"])
def test_another_name_for_this_address_is_refused(
    client: TestClient, drawing: Path, path: str, host: str
) -> None:
    """As a page has it whose name was made to point here (DNS rebinding)."""
    method, content = ("POST", drawing.read_bytes()) if path == "/predict" else ("GET", b"")
    answer = client.request(method, path, content=content, headers={"Host": host})
    told = f"Host {host!r}: no name of this server's."
    assert answer.status_code == 400
    assert answer.json() == {"error": told}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:1", "[::1]:8000", "[::1]"])
def test_its_own_names_and_its_own_page_are_answered(
    client: TestClient, drawing: Path, host: str
) -> None:
    headers = {"Host": host, "Origin": f"http://{host}"}
    assert client.post("/predict", content=drawing.read_bytes(), headers=headers).is_success


def test_the_page_may_run_its_own_script_alone(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert not re.search(
        r"(src|href)=|https?://|@import|url\(", answer.text
    )  # nothing from outside
    assert client.get("/model").json() == {
        "network": "TinyNet",
        "center": True,
        "max_bytes": 16_777_216,
    }


def exchange(app: Any, method: str, path: str, receive: Callable) -> Any:
    """A request without a client in between: a coroutine of (status, JSON)."""

    async def run() -> tuple[int, Any]:
        sent = []

        async def send(message: dict) -> None:
            sent.append(message)

        headers = [(b"host", b"127.0.0.1")]
        scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode()}
        scope |= {"query_string": b"", "headers": headers, "scheme": "http", "server": None}
        await app(scope | {"root_path": "", "http_version": "1.1"}, receive, send)
        return sent[0]["status"], json.loads(sent[1]["body"])

    return run()


def test_an_upload_is_read_to_its_limit_and_no_further() -> None:
    app = create_app({}, ["127.0.0.1"], answer=lambda data, features: {"size": len(data)})
    taken = 0

    async def endless() -> dict:
        nonlocal taken
        taken += 1
        return {"type": "http.request", "body": bytes(2**20), "more_body": True}

    status, told = asyncio.run(exchange(app, "POST", "/predict", endless))
    assert (status, taken) == (413, 17)
    assert told == {"error": "The picture has more than 16 MiB: scale it down."}
    taken = 0

    async def sixteen() -> dict:
        nonlocal taken
        taken += 1
        return {"type": "http.request", "body": bytes(2**20), "more_body": taken < 16}

    assert asyncio.run(exchange(app, "POST", "/predict", sixteen)) == (200, {"size": MAX_BYTES})


def test_pictures_are_answered_one_by_one_and_hold_up_nothing_else() -> None:
    running, most = 0, 0
    goes_on = threading.Event()

    def answer(_data: bytes, _features: bool) -> dict:
        nonlocal running, most
        running += 1
        most = max(most, running)
        assert goes_on.wait(30)
        running -= 1
        return {}

    app = create_app({"network": "Slow"}, ["127.0.0.1"], answer=answer)

    async def body() -> dict:
        return {"type": "http.request", "body": b"x", "more_body": False}

    async def together() -> list[tuple[int, Any]]:
        asked = [asyncio.create_task(exchange(app, "POST", "/predict", body)) for _ in range(4)]
        while running == 0:
            await asyncio.sleep(0.01)
        status, told = await exchange(app, "GET", "/model", body)  # while a picture is answered
        assert (status, told["network"]) == (200, "Slow")
        goes_on.set()
        return await asyncio.gather(*asked)

    assert asyncio.run(together()) == [(200, {})] * 4
    assert most == 1


@pytest.mark.parametrize(
    ("host", "told"),
    [
        ("0.0.0.0", "stands for every address"),
        ("", "stands for every address"),
        ("::", "stands for every address"),
        ("192.0.2.1", "cannot be bound"),  # an address of nobody's
        ("no.such.host.invalid", "cannot be bound"),
    ],
)
def test_an_address_that_is_not_this_machines_own_is_told(
    restored: Restored, host: str, told: str
) -> None:
    with pytest.raises(UsageError, match=told) as caught:
        serve(restored, DIGIT, host=host, port=0, report=print)
    assert f"host={host}" in str(caught.value)
    assert len(str(caught.value)) < 290


def test_a_network_of_another_shape_is_told_what_it_needs() -> None:
    with pytest.raises(UsageError, match=r"takes 5x4x3: use center=false \(AS_IS\), or leave"):
        serve(untrained((5, 4, 3)), DIGIT, host="127.0.0.1", port=0, report=print)

"""Clients that stall, go away or come by the hundred: the server answers the others."""

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mnist_flax.serve import app as app_module
from mnist_flax.serve import connection as connection_module
from mnist_flax.serve import make_server
from mnist_flax.serve.app import MAX_BYTES, SMALL_BYTES, create_app

HEAD = "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n"
ASK = b"GET /model HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@pytest.fixture
def serving() -> Iterator[Callable[..., int]]:
    """Starts a server in a thread of its own; gives its port."""
    with contextlib.ExitStack() as stack:

        def start(answer: Callable[[bytes, bool], Any] = _size) -> int:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            server = make_server(create_app({"network": "N"}, ["localhost"], answer=answer))
            thread = threading.Thread(target=server.run, args=([listener],))
            thread.start()
            stack.callback(thread.join)
            stack.callback(setattr, server, "should_exit", True)
            return int(listener.getsockname()[1])

        yield start


def _size(data: bytes, features: bool) -> dict[str, int]:
    return {"size": len(data)}


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def everything(connection: socket.socket) -> tuple[int, Any]:
    """What is answered before the connection is closed; (0, None) for nothing."""
    received = b""
    try:
        while part := connection.recv(2**16):
            received += part
    except TimeoutError:
        pytest.fail("The connection stays open.")
    if not received:
        return 0, None
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"application/json" in head.lower()
    return int(head.split()[1]), json.loads(body)


def still_answers(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(ASK)
        status, told = everything(connection)
    assert (status, told["network"]) == (200, "N")


def test_a_connection_on_which_nothing_comes_is_closed(
    serving: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "HEAD_SECONDS", 0.2)
    port = serving()
    for sent in (b"", ASK[:20], ASK.replace(b"Connection: close\r\n", b"") + ASK[:9]):
        with connected(port) as connection:
            connection.sendall(sent)
            status, _ = everything(connection)  # returns: the server closes it
            assert status == (200 if len(sent) > len(ASK) / 2 else 0)
    still_answers(port)


def test_an_answer_may_take_longer_than_a_request_may(
    serving: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "HEAD_SECONDS", 0.2)

    def slow(data: bytes, features: bool) -> dict[str, int]:
        time.sleep(0.6)
        return {"size": len(data)}

    with connected(serving(slow)) as connection:
        connection.sendall(HEAD.format(3).encode() + b"abc")
        assert everything(connection) == (200, {"size": 3})


def test_a_picture_that_does_not_come_is_told_so(
    serving: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_module, "BODY_SECONDS", 0.2)
    port = serving()
    with connected(port) as connection:
        connection.sendall(HEAD.format(1000).encode() + b"x")
        told = {"error": "The picture took longer than 0 seconds to come."}
        assert everything(connection) == (408, told)
    still_answers(port)


def test_uploads_that_are_broken_off_print_nothing(
    serving: Callable[..., int], capfd: pytest.CaptureFixture[str]
) -> None:
    port = serving()
    for _ in range(70):
        with connected(port) as connection:
            connection.sendall(HEAD.format(10**6).encode() + bytes(1000))
    still_answers(port)
    time.sleep(0.1)
    assert capfd.readouterr().err == ""


def test_what_is_no_http_is_told_so(serving: Callable[..., int]) -> None:
    with connected(serving()) as connection:
        connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        assert everything(connection) == (400, {"error": "Invalid HTTP request received."})


def test_connections_beyond_the_bound_are_refused(
    serving: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "MOST_CONNECTIONS", 5)
    port = serving()
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(connected(port)) for _ in range(5)]
        with connected(port) as one_more:
            status, told = everything(one_more)
        assert status == 503
        assert list(told) == ["error"]
        held[0].sendall(ASK)  # those that are there are served
        assert everything(held[0])[0] == 200
    still_answers(port)


def test_many_large_pictures_wait_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four of 16 MiB are in memory, not sixty; drawings are answered beside them."""
    app = create_app({}, ["localhost"], answer=lambda data, features: {"size": len(data)})

    async def ask(size: int, goes_on: asyncio.Event) -> tuple[int, Any]:
        parts, sent = iter([size - 1, 1]), []

        async def receive() -> dict[str, Any]:
            count = next(parts)
            if count == 1:
                await goes_on.wait()
            return {"type": "http.request", "body": bytes(count), "more_body": count > 1}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/predict", "raw_path": b"/predict"}
        scope |= {"query_string": b"", "headers": [(b"host", b"localhost")], "scheme": "http"}
        scope |= {"server": None, "root_path": "", "http_version": "1.1"}
        await app(scope, receive, send)
        return sent[0]["status"], json.loads(sent[1]["body"])

    async def together() -> list[tuple[int, Any]]:
        goes_on, at_once = asyncio.Event(), asyncio.Event()
        at_once.set()
        large = [asyncio.create_task(ask(MAX_BYTES, goes_on)) for _ in range(4)]
        await asyncio.sleep(0)
        refused = [await ask(MAX_BYTES, at_once) for _ in range(3)]
        small = [await ask(SMALL_BYTES, at_once) for _ in range(3)]
        goes_on.set()
        done = await asyncio.gather(*large)
        return [*refused, *small, *done, await ask(MAX_BYTES, at_once)]

    told = asyncio.run(together())
    full = (503, {"error": "Other large pictures are being read: try again."})
    assert told[:3] == [full] * 3
    assert told[3:6] == [(200, {"size": SMALL_BYTES})] * 3
    assert told[6:] == [(200, {"size": MAX_BYTES})] * 5


def test_a_fault_of_ours_is_told_as_json(serving: Callable[..., int]) -> None:
    def broken(data: bytes, features: bool) -> dict[str, Any]:
        raise ZeroDivisionError

    port = serving(broken)
    with connected(port) as connection:
        head = HEAD.format(1).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")
        connection.sendall(head.encode() + b"x")
        status, told = everything(connection)
    assert (status, told) == (500, {"error": "The server failed; its console says why."})

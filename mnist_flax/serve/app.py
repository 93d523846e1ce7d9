"""The page and the API over HTTP; the only importer of starlette.

    GET  /           the page
    GET  /model      what network answers: JSON
    POST /predict    the body is a PNG or JPEG file; ?features=1 asks for the feature maps, too
    GET  /draw       of a network that draws, instead: ?start=3&end=4&frames=24, the way from one
                     number's picture to another's; all three may be left out

A refusal is {"error": "one line"} with a status of 4xx. Nothing of a request is
written to a disk or executed. A page of another site can neither post to this server nor reach it
under a name of its own (DNS rebinding).
"""

import asyncio
import base64
import contextlib
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from mnist_flax.data.decoding import PictureError
from mnist_flax.serve.answers import Answer
from mnist_flax.serve.drawings import MOST_FRAMES, Draw
from mnist_flax.show import palette

MAX_BYTES = 16 * 2**20  # a telephone's photograph has 3 to 12 MB
BODY_SECONDS = 60.0  # for all of it to come
SMALL_BYTES = 2**18  # a drawing has a hundredth of it: of these there is always room
MOST_LARGE_BYTES = 4 * MAX_BYTES  # of what larger pictures have beyond that, all together
_LARGEST_NUMBER = 2**31 - 1
Asked = Callable[[Request], Any]  # a coroutine that gives the response


def create_app(
    about: Mapping[str, Any],
    hosts: Sequence[str],
    *,
    answer: Answer | None = None,
    draw: Draw | None = None,
) -> Starlette:
    """Returns the ASGI application of a network that answers, or of one that draws.

    Either is called in one thread of its own, once at a time, so that the event loop never waits
    for it and memory holds one decoded picture.

    Args:
      about: what GET /model gives.
      hosts: the names under which the server may be asked.
      answer: of answers.make_answer().
      draw: of drawings.make_draw(), where there is no answer.
    """
    if answer is not None:
        name, route = "page.html", Route("/predict", _predict_with(answer), methods=["POST"])
    else:
        assert draw is not None  # who calls has one of the two
        name, route = "draw.html", Route("/draw", _draw_with(draw))
    page = (files("mnist_flax.serve") / name).read_text(encoding="utf-8")
    page = page.replace("/* palette */", palette.css())
    headers = {
        "Content-Security-Policy": _policy(page),
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",  # the next server on this port may have another page
    }

    async def show_page(_request: Request) -> Response:
        return HTMLResponse(page, headers=headers)

    async def show_model(_request: Request) -> Response:
        return JSONResponse({**about, "max_bytes": MAX_BYTES})

    return Starlette(
        routes=[Route("/", show_page), Route("/model", show_model), route],
        middleware=[Middleware(_OwnNames, hosts=hosts)],
        exception_handlers={HTTPException: _tell, Exception: _tell_a_fault},
    )


def _predict_with(answer: Answer) -> Asked:
    thread, room = ThreadPoolExecutor(max_workers=1, thread_name_prefix="answer"), _Room()

    async def predict(request: Request) -> Response:
        _refuse_other_origins(request)
        if request.headers.get("content-type", "").startswith("multipart/"):
            raise HTTPException(415, "A form: send the file itself (curl --data-binary @FILE).")
        if request.url.query not in ("", "features=1"):
            raise HTTPException(400, f"?{request.url.query[:80]}: only ?features=1 is known.")
        loop = asyncio.get_running_loop()
        with room.of_one() as size:
            try:
                data = await _body(request, size)
                row = await loop.run_in_executor(thread, answer, data, bool(request.url.query))
            except PictureError as error:
                told = str(error)  # begins as it goes on after a file's name
                raise HTTPException(422, f"{told[0].upper()}{told[1:]}.") from error
            except ClientDisconnect:
                return Response(status_code=400)  # to nobody: the client went away
        return JSONResponse(row)

    return predict


def _draw_with(draw: Draw) -> Asked:
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="draw")

    async def drawn(request: Request) -> Response:
        given = dict(request.query_params)
        start = _number(given.pop("start", "0"), "start", 0, _LARGEST_NUMBER)
        end = _number(given.pop("end", str(start)), "end", 0, _LARGEST_NUMBER)
        frames = _number(given.pop("frames", "1"), "frames", 1, MOST_FRAMES)
        if given:
            raise HTTPException(400, f"?{min(given)[:80]}: known are start, end and frames.")
        loop = asyncio.get_running_loop()
        return JSONResponse(await loop.run_in_executor(thread, draw, start, end, frames))

    return drawn


def _number(text: str, name: str, least: int, most: int) -> int:
    """Returns a whole number of a query; raises HTTPException for anything else."""
    if not re.fullmatch(r"[0-9]{1,10}", text) or not least <= int(text) <= most:
        told = f"?{name}={text[:80]}: must be a whole number from {least} to {most:,}."
        raise HTTPException(400, told)
    return int(text)


async def _tell(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # it is registered for these alone
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _tell_a_fault(_request: Request, _error: Exception) -> Response:
    return JSONResponse({"error": "The server failed; its console says why."}, 500)


def _refuse_other_origins(request: Request) -> None:
    """Raises HTTPException if a browser says that another site's page sent this."""
    origin = request.headers.get("origin")
    if origin is not None and origin != f"{request.url.scheme}://{request.headers['host']}":
        raise HTTPException(403, f"Origin {origin[:80]}: only this server's own page may post.")


async def _body(request: Request, size: "_Size") -> bytes:
    """Reads the body as far as it may go; raises HTTPException beyond."""
    parts = []
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                size.grow(len(part))
                parts.append(part)
    except TimeoutError as error:
        told = f"The picture took longer than {BODY_SECONDS:.0f} seconds to come."
        raise HTTPException(408, told, {"Connection": "close"}) from error
    return b"".join(parts)


class _Room:
    """The bytes of pictures that are being read or wait for their answer."""

    def __init__(self) -> None:
        self.large_bytes = 0

    @contextlib.contextmanager
    def of_one(self) -> Iterator["_Size"]:
        """Counts one picture's, until it is answered."""
        size = _Size(self)
        try:
            yield size
        finally:
            self.large_bytes -= size.large_bytes


class _Size:
    """One picture's bytes, of those of all."""

    def __init__(self, room: _Room) -> None:
        self._room, self._bytes = room, 0

    @property
    def large_bytes(self) -> int:
        """Those beyond the size of a small picture."""
        return max(0, self._bytes - SMALL_BYTES)

    def grow(self, count: int) -> None:
        """Takes so many more; raises HTTPException where there is no room for them."""
        before = self.large_bytes
        self._bytes += count
        self._room.large_bytes += self.large_bytes - before
        if self._bytes > MAX_BYTES:
            limit = f"{MAX_BYTES // 2**20} MiB"
            raise HTTPException(413, f"The picture has more than {limit}: scale it down.")
        if self._room.large_bytes > MOST_LARGE_BYTES:
            raise HTTPException(503, "Other large pictures are being read: try again.")


class _OwnNames:
    """Answers only who asks for the server by a name of its own (see the module's text)."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        self._app, self._hosts = app, {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        host = Headers(scope=scope).get("host", "")
        if re.sub(r":[0-9]*$", "", host).lower() in self._hosts:
            await self._app(scope, receive, send)
        else:
            told = f"Host {host[:80]!r}: no name of this server's."
            await JSONResponse({"error": told}, 400)(scope, receive, send)


def _policy(page: str) -> str:
    """The page's own script and style by their hashes; nothing else is run, and none loaded."""
    parts = [
        f"{kind}-src {' '.join(map(_hashed, re.findall(f'<{tag}>(.*?)</{tag}>', page, re.S)))}"
        for kind, tag in (("script", "script"), ("style", "style"))
    ]
    shown = "img-src blob:; connect-src 'self'"  # an opened picture; the questions
    closed = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    return "; ".join(["default-src 'none'", *parts, shown, closed])


def _hashed(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

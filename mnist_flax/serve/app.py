"""The page and the API over HTTP; the only importer of starlette.

    GET  /           the page
    GET  /model      what network answers: JSON
    POST /predict    the body is a PNG or JPEG file; ?features=1 asks for the feature maps, too

Whatever is refused is told as {"error": "one line"} with a status of 4xx. Nothing of a request is
written to a disk or executed. A page of another site can neither post to this server nor reach it
under a name of its own (DNS rebinding).
"""

import asyncio
import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from mnist_flax.data.pictures import PictureError
from mnist_flax.serve.answers import Answer

MAX_BYTES = 16 * 2**20  # a telephone's photograph has 3 to 12 MB


def create_app(answer: Answer, about: Mapping[str, Any], hosts: Sequence[str]) -> Starlette:
    """Returns the ASGI application.

    Args:
      answer: of answers.make_answer(); called in one thread of its own, one picture at a time, so
        that the event loop never waits for it and memory holds one decoded picture.
      about: what GET /model tells.
      hosts: the names under which the server may be asked.
    """
    page = (files("mnist_flax.serve") / "page.html").read_text(encoding="utf-8")
    headers = {
        "Content-Security-Policy": _policy(page),
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",  # the next server on this port may have another page
    }
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="answer")

    async def show_page(_request: Request) -> Response:
        return HTMLResponse(page, headers=headers)

    async def show_model(_request: Request) -> Response:
        return JSONResponse({**about, "max_bytes": MAX_BYTES})

    async def predict(request: Request) -> Response:
        _refuse_other_origins(request)
        if request.headers.get("content-type", "").startswith("multipart/"):
            raise HTTPException(415, "A form: send the file itself (curl --data-binary @FILE).")
        if request.url.query not in ("", "features=1"):
            raise HTTPException(400, f"?{request.url.query[:80]}: only ?features=1 is known.")
        data = await _body(request)
        loop = asyncio.get_running_loop()
        try:
            row = await loop.run_in_executor(thread, answer, data, bool(request.url.query))
        except PictureError as error:
            told = str(error)  # begins as it goes on after a file's name
            raise HTTPException(422, f"{told[0].upper()}{told[1:]}.") from error
        return JSONResponse(row)

    return Starlette(
        routes=[
            Route("/", show_page),
            Route("/model", show_model),
            Route("/predict", predict, methods=["POST"]),
        ],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
        ],
        exception_handlers={HTTPException: _tell},
    )


async def _tell(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # it is registered for these alone
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


def _refuse_other_origins(request: Request) -> None:
    """Raises HTTPException if a browser says that another site's page sent this."""
    origin = request.headers.get("origin")
    if origin is not None and origin != f"{request.url.scheme}://{request.headers['host']}":
        raise HTTPException(403, f"Origin {origin[:80]}: only this server's own page may post.")


async def _body(request: Request) -> bytes:
    """Reads the body as far as it may go; raises HTTPException beyond."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BYTES:
            limit = f"{MAX_BYTES // 2**20} MiB"
            raise HTTPException(413, f"The picture has more than {limit}: scale it down.")
        parts.append(part)
    return b"".join(parts)


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

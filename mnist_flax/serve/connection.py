"""Connections that cannot hold the server up: their number and their time are bounded.

uvicorn itself waits for ever for the first byte of a request, and for the rest of half a header.
"""

import asyncio
import json
from http import HTTPStatus

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 15.0  # for a request's head to come, from a connection's start or its last answer
MOST_CONNECTIONS = 128


class BoundedConnection(H11Protocol):
    """One connection of a client's."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins the time that a request has to come; too many connections are closed at once."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            self._refuse(503, "Too many connections: close some, and try again.")
        else:
            self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends it."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Begins it anew."""
        super().on_response_complete()
        if not self.transport.is_closing():
            self._wait_for_head()

    def send_400_response(self, msg: str) -> None:
        """Refuses what is no HTTP."""
        self._refuse(400, msg)

    def _wait_for_head(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(HEAD_SECONDS, self._close_if_nothing_came)

    def _close_if_nothing_came(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()

    def _refuse(self, status: int, told: str) -> None:
        """Answers with one line of JSON, past the application, and closes."""
        body = json.dumps({"error": told}).encode()
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

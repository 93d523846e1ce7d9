"""Connections that cannot hold the server up: their number and their time are bounded.

uvicorn itself waits for ever for the first byte of a request, and for the rest of half a header.
"""

import asyncio
import json
from http import HTTPStatus

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 15.0  # for a request's head to come, from a connection's start or its last answer
ANSWER_SECONDS = 120.0  # for a request to be read, answered, and its answer taken
MOST_CONNECTIONS = 128


class BoundedConnection(H11Protocol):
    """One connection of a client's."""

    _timer: asyncio.TimerHandle | None = None
    _seen: object = None  # the request that was under way when the timer last looked
    _since = 0.0  # when it was first seen

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
        self._timer = self.loop.call_later(HEAD_SECONDS, self._look)

    def _look(self) -> None:
        """Ends what no request came on, and what a request is under way on for too long."""
        now = self.loop.time()
        if self.cycle is None or self.cycle.response_complete:
            self._end()
        elif self._seen is self.cycle and now - self._since > ANSWER_SECONDS:
            self.transport.abort()  # whoever does not read is not waited for
        else:
            if self._seen is not self.cycle:
                self._seen, self._since = self.cycle, now
            self._wait_for_head()

    def _end(self) -> None:
        """Closes; what is not taken soon is not sent."""
        self.transport.close()
        self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _refuse(self, status: int, told: str) -> None:
        """Answers with one line of JSON, past the application, and closes."""
        body = json.dumps({"error": told}).encode()
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self._end()

"""A page to draw digits on, or that draws them, and an API for programs: a network over HTTP.

answers.py makes numbers of a picture's bytes, drawings.py makes pictures of a number, app.py speaks
HTTP, connection.py bounds connections. page.html and draw.html are the two pages, whole. No other
folder imports uvicorn.
"""

import contextlib
import ipaddress
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

from mnist_flax.data.pictures import check_shape
from mnist_flax.data.preparation import Preparation
from mnist_flax.errors import UsageError, UserError, installing
from mnist_flax.serve.answers import make_answer
from mnist_flax.serve.drawings import make_draw
from mnist_flax.use.restore import Restored

try:
    import uvicorn

    from mnist_flax.serve.app import create_app
    from mnist_flax.serve.connection import BoundedConnection
except ImportError as error:
    raise UserError(f"serve: {error}. Install it with {installing('serve')}.") from error


def serve(
    restored: Restored,
    preparation: Preparation | None,
    *,
    host: str,
    port: int,
    report: Callable[[str], None],
) -> None:
    """Answers until Ctrl-C, or SIGTERM.

    Args:
      restored: a network.
      preparation: what is done to pictures, as pictures.fit_picture() takes it; None for a network
        that draws instead.
      host: one address of this machine, or its name.
      port: 0 for any free one.
      report: is given the address when the network is compiled, and a line at the end.

    Raises:
      UsageError: the address cannot be bound, or the network takes no centred pictures.
    """
    if preparation is not None:
        check_shape(restored.image_shape, preparation)
    with _listening(host, port) as listener:
        name = f"[{host}]" if ":" in host else host
        hosts = (name, "localhost", "127.0.0.1", "[::1]")
        about: dict[str, Any] = {
            "network": type(restored.task.model or restored.task).__name__,
            "step": int(restored.state.step),
            "class_names": restored.class_names,
            "image_shape": restored.image_shape,
        }
        if preparation is None:
            app = create_app(about, hosts, draw=make_draw(restored))
        else:
            about["center"] = preparation.layout == "digit"
            about["preparation"] = preparation._asdict()
            app = create_app(about, hosts, answer=make_answer(restored, preparation))
        what = "See digits drawn"
        if preparation is not None:  # as page.html says it
            digits = set(restored.class_names) <= set("0123456789")
            what = "Draw a digit" if digits else "Draw a picture"
        report(f"{what} on http://{name}:{listener.getsockname()[1]}/ (Ctrl-C ends it.)")
        with contextlib.suppress(KeyboardInterrupt), _ended_by(signal.SIGTERM):
            make_server(app).run(sockets=[listener])
    report("The server is closed.")


def make_server(app: Any) -> uvicorn.Server:
    """Returns what serves an ASGI application; it logs nothing and waits for nobody who stalls."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=BoundedConnection,
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=2,  # seconds
        )
    )


@contextlib.contextmanager
def _ended_by(number: signal.Signals) -> Iterator[None]:
    """Has a signal end the server as Ctrl-C does; uvicorn raises it again when all is closed."""

    def interrupt(_number: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(number, interrupt)
    try:
        yield
    finally:
        signal.signal(number, before)


def _listening(host: str, port: int) -> socket.socket:
    """Returns a socket that listens already: who comes while the network compiles will wait."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        reason = str(error.strerror).partition(" (while")[0]  # Python adds the address again
        raise UsageError(
            f"host={host}, port={port}: cannot be bound ({reason}). Name an address of "
            "this machine, and a port that is free; 0 is any free one."
        ) from error
    if ipaddress.ip_address(listener.getsockname()[0]).is_unspecified:
        listener.close()
        raise UsageError(
            f"host={host}: stands for every address of this machine. Name one of them: only "
            "requests that name it, or localhost, are answered."
        )
    return listener

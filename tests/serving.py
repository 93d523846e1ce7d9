"""launch.py --mode=serve as a process, for tests. Not a test itself."""

import contextlib
import re
import subprocess
import threading
from collections.abc import Iterator

from conftest import launch_command, launch_environment

READY = "Draw a digit on http://127.0.0.1:"


@contextlib.contextmanager
def served(*arguments: str, ready: str = READY) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The process and its port, as soon as it says that it is ready; killed at the end."""
    process = subprocess.Popen(
        launch_command("--mode=serve", "--port=0", *arguments),
        env=launch_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    patience = threading.Timer(120, process.kill)  # another line than this is waited for in vain
    patience.start()
    try:
        lines = iter(process.stderr.readline, "")
        said = next(filter(None, (re.match(rf"{ready}(\d+)", line) for line in lines)), None)
        patience.cancel()
        assert said is not None, process.communicate()
        yield process, int(said.group(1))
    finally:
        patience.cancel()
        process.kill()
        process.communicate()

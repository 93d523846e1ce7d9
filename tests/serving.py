"""launch.py --mode=serve as a process, for tests. Not a test itself."""

import contextlib
import subprocess
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
    try:
        lines = iter(process.stderr.readline, "")
        said = next((line for line in lines if line.startswith(ready)), None)
        assert said is not None, process.communicate()
        yield process, int(said.removeprefix(ready).partition("/")[0])
    finally:
        process.kill()
        process.communicate()

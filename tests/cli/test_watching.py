"""What the parent of one of several processes says of it, and when it keeps quiet."""

import subprocess
import sys

import pytest

CHILD = """
import os
from mnist_flax.cli import watching
watching.write_to_parent({wrote!r})
{ends}
"""
PARENT = """
import sys
from mnist_flax.cli import watching
watching.FLAGS(["launch.py", "--distributed=auto"])
sys.orig_argv = [sys.executable, "-c", {child!r}]
sys.exit(watching.watch())
"""
GONE = "Error: ended by SIGABRT: another process of this run is gone"
LATE = "Error: --distributed=auto: not all processes came together in 45 seconds."


@pytest.mark.parametrize(
    ("wrote", "ends", "status", "says"),
    [
        (b"", "os.abort()", 1, LATE),
        (b".", "os.abort()", 1, GONE),
        (b"!", "os.abort()", 1, ""),
        (b".!", "os.abort()", 1, ""),  # JAX ended it while it left
        (b".!", "os._exit(2)", 2, ""),
        (b".", "", 0, ""),
        (b".", "os.kill(os.getppid(), 15); import time; time.sleep(60)", 143, ""),
    ],
)
def test_the_parent_says_what_the_child_could_not(
    wrote: bytes, ends: str, status: int, says: str
) -> None:
    program = PARENT.format(child=CHILD.format(wrote=wrote, ends=ends))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    assert done.stderr.startswith(says)
    assert len(done.stderr.splitlines()) == bool(says)

"""Launches for tests that need not wait for Python to import JAX: a process that has done so forks.

Each launch is a process of its own all the same, with its own arguments, folder, environment and
output; what is imported before the fork are libraries, nothing of this package. As a script, this
file is the process that forks.
"""

import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Libraries read these when they are imported, which is before the fork.
_READ_EARLY = ("JAX_", "XLA_", "TF_", "PYTHON", "LD_", "OMP_", "OPENBLAS_")


class Forker:
    """Runs Python scripts, each in a fork of one process, one at a time."""

    def __init__(self, environment: Mapping[str, str]):
        """Starts this process; it ends with the one that calls."""
        self._early = _early(environment)
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair()
        self._replies = self._socket.makefile("r")
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            env=dict(environment),
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )
        theirs.close()

    def close(self) -> None:
        """Ends it."""
        self._replies.close()
        self._socket.close()
        self._process.wait(timeout=60)

    def fits(self, environment: Mapping[str, str]) -> bool:
        """Says whether its forks are as a process started in this environment."""
        return _early(environment) == self._early

    def run(
        self, command: Sequence[str], cwd: Path, environment: Mapping[str, str], timeout: float
    ) -> "subprocess.CompletedProcess[str]":
        """Does as subprocess.run(command, …, capture_output=True, text=True) does."""
        text = {"mode": "w+", "encoding": "utf-8"}
        with (
            self._lock,
            tempfile.TemporaryFile(**text) as out,
            tempfile.TemporaryFile(**text) as err,
        ):
            socket.send_fds(self._socket, [b"!"], [out.fileno(), err.fileno()])
            request = {"argv": command[1:], "cwd": str(cwd), "environment": dict(environment)}
            self._socket.sendall(json.dumps(request).encode() + b"\n")
            pid = int(self._replies.readline())
            timer = threading.Timer(timeout, os.kill, (pid, signal.SIGKILL))
            timer.start()
            status = int(self._replies.readline())
            timer.cancel()
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read())
        return subprocess.CompletedProcess(list(command), status, *texts)


def _early(environment: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in environment.items() if key.startswith(_READ_EARLY)}


def _serve(fileno: int) -> list[str]:
    """Forks for every request; returns the arguments in each fork."""
    import jax.export  # noqa: F401  what most launches import
    import ml_collections.config_flags  # noqa: F401
    import optax  # noqa: F401
    import orbax.checkpoint  # noqa: F401
    from flax import linen  # noqa: F401

    channel = socket.socket(fileno=fileno)
    requests = channel.makefile("r")
    while True:
        mark, files, *_ = socket.recv_fds(channel, 1, 2)
        if not mark:
            sys.exit()
        request = json.loads(requests.readline())
        with warnings.catch_warnings(action="ignore"):  # JAX warns: it has started nothing yet
            pid = os.fork()
        if pid == 0:
            requests.close()
            channel.close()
            _become(request, files)
            return list(request["argv"])
        for file in files:
            os.close(file)
        channel.sendall(f"{pid}\n".encode())
        _, status = os.waitpid(pid, 0)
        channel.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _become(request: Mapping[str, Any], files: Sequence[int]) -> None:
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    for file, place in zip(files, (1, 2), strict=True):
        os.dup2(file, place)
        os.close(file)


if __name__ == "__main__":
    sys.argv = _serve(int(sys.argv[1]))
    sys.path[0] = str(Path(sys.argv[0]).parent)
    runpy.run_path(sys.argv[0], run_name="__main__")

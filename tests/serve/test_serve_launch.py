"""launch.py --mode=serve from the outside: how it starts, answers and ends."""

import http.client
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, TESTS, launch_command, launch_environment
from drawings import drawings
from picture_files import saved
from serving import served
from tiny import get_config

from mnist_flax.serve.app import MAX_BYTES
from mnist_flax.training import train


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a run of four steps on pictures of 28×28."""
    config = get_config()
    config.data.name = "mnist_sample"
    config.num_steps = 4
    workdir = tmp_path_factory.mktemp("trained")
    train(config, workdir)
    return workdir


def test_it_answers_until_ctrl_c(trained: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    with served(f"--workdir={trained}") as (process, port):
        picture = saved(next(drawings()).picture)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        for _ in range(2):  # over one connection
            connection.request("POST", "/predict", picture)
            row = json.loads(connection.getresponse().read())
            assert np.shape(row["image"]) == (28, 28)
            assert row["class_names"] == list("0123456789")
        connection.request("GET", "/model")
        model = json.loads(connection.getresponse().read())
        told = {"network": "TinyNet", "step": 4, "image_shape": [28, 28, 1], "center": True}
        assert told.items() <= model.items()
        assert model["preparation"] == {"layout": "digit", "ground": "dark"}

        process.send_signal(signal.SIGINT)  # with a connection still open
        _, rest = process.communicate(timeout=30)
        connection.close()
    assert (process.returncode, rest) == (0, "The server is closed.\n")
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before


def test_sigterm_ends_it_with_a_line(trained: Path) -> None:
    with served(f"--workdir={trained}") as (process, port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/model")
        connection.getresponse().read()
        process.send_signal(signal.SIGTERM)  # with a connection still open
        _, rest = process.communicate(timeout=30)
        connection.close()
    assert (process.returncode, rest) == (0, "The server is closed.\n")


def test_a_large_upload_ends_in_413(trained: Path) -> None:
    with (
        served(f"--workdir={trained}") as (process, port),
        socket.create_connection(("127.0.0.1", port), timeout=30) as connection,
    ):
        head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {2**40}\r\n\r\n"
        connection.sendall(head.encode() + bytes(MAX_BYTES + 1))
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")
        assert process.poll() is None


def test_a_port_that_is_taken_is_one_line(launch: Callable, trained: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = launch(f"--workdir={trained}", "--mode=serve", f"--port={port}")
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"Error: host=127.0.0.1, port={port}: cannot be bound (Address ")
    assert len(last) < 300


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--port=65536",), "--port"),
        (("--split=test",), "--split: is for --mode=predict, not for --mode=serve"),
        (("a.png",), "'a.png': --mode=predict takes files, and --mode=serve takes none"),
    ],
)
def test_wrong_flags_are_told(
    launch: Callable, trained: Path, flags: tuple[str, ...], told: str
) -> None:
    done = launch(f"--workdir={trained}", "--mode=serve", *flags)
    assert (done.returncode, told in done.stderr) == (2, True), done.stderr


@pytest.mark.slow
@pytest.mark.promise
def test_the_benchmark_asks_a_server_of_its_own(trained: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks/serve.py"), "--quick"]
    done = subprocess.run(
        [*command, f"--workdir={trained}"],
        env=launch_environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("|")]
    kinds = ["280×280", "280×280, with feature maps", "28×28"]
    assert [cells[0].strip() for cells in rows[2:]] == kinds
    assert all(0 < float(cells[1]) <= float(cells[3]) for cells in rows[2:])

    done = subprocess.run([*command, "--workdir=nowhere"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "Error: The server does not start: Error: nowhere/config.json" in done.stderr


def test_other_modes_know_no_port(launch: Callable, trained: Path) -> None:
    done = launch(f"--workdir={trained}", "--mode=eval", "--port=8000")
    assert (done.returncode, "--port" in done.stderr) == (2, True)


def test_a_missing_extra_is_one_line(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "uvicorn.py").write_text("raise ModuleNotFoundError(\"No module named 'uvicorn'\")")
    environment = launch_environment()
    environment["PYTHONPATH"] = f"{tmp_path}:{TESTS}"
    done = subprocess.run(
        launch_command(f"--workdir={trained}", "--mode=serve"),
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr == (
        "Error: serve: No module named 'uvicorn'. Install it with pip install -e '.[serve]'.\n"
    )

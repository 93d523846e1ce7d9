"""--distributed=auto asks JAX who is there: a SLURM step, as far as its variables make one."""

import contextlib
import socket
import subprocess
from pathlib import Path

import pytest
from conftest import TESTS, launch_command, launch_environment

pytestmark = pytest.mark.distributed

FIRST_PORT, PORTS = 2**16 - 1 - 2**12 + 1, 2**12  # JAX takes one of these, by the job's number


def command(workdir: Path, digits: Path, *more: str) -> list[str]:
    recipe = (f"--config={TESTS / 'tiny.py'}", f"--config.data.data_dir={digits}")
    return launch_command(*recipe, f"--workdir={workdir}", "--config.num_steps=2", *more)


def environment() -> dict[str, str]:
    kept = {k: v for k, v in launch_environment().items() if not k.endswith("_proxy")}
    return kept | {"JAX_NUM_CPU_DEVICES": "1"}


def test_two_tasks_of_a_slurm_step(digits: Path, tmp_path: Path) -> None:
    port = _free_port()
    step = {
        "SLURM_JOB_ID": str(port - FIRST_PORT),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
        "SLURM_STEP_NUM_NODES": "1",
    }
    tasks = [
        subprocess.Popen(
            command(tmp_path / "run", digits, "--distributed=auto"),
            env=environment() | step | {"SLURM_PROCID": task, "SLURM_LOCALID": task},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for task in ("0", "1")
    ]
    said = [task.communicate(timeout=120)[1] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], said
    assert "for 2 × cpu" in said[0]
    assert "Finished at step 2" in said[0]
    assert "step" not in said[1]


def _free_port() -> int:
    for port in range(FIRST_PORT, FIRST_PORT + PORTS):
        with socket.socket() as tried, contextlib.suppress(OSError):
            tried.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def test_nothing_is_detected(digits: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        command(tmp_path, digits, "--distributed=auto"),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert "JAX finds no SLURM, Open MPI, Kubernetes or TPU around this process" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--distributed=manual",), "--coordinator is missing"),
        (("--coordinator=here:1",), "--coordinator: --mode=train takes no such thing here"),
        (
            ("--distributed=manual", "--coordinator=here", "--num_processes=2", "--process_id=0"),
            "--coordinator=here: must be HOST:PORT",
        ),
        (
            ("--distributed=manual", "--coordinator=here:1", "--num_processes=2", "--process_id=2"),
            "--process_id=2: must be below --num_processes=2",
        ),
        (("--join_seconds=9",), "--join_seconds: --mode=train takes no such thing here"),
    ],
)
def test_flags_that_do_not_go_together(
    more: tuple[str, ...], says: str, digits: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        command(tmp_path, digits, *more), env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 2
    assert f"Error: {says}" in done.stderr

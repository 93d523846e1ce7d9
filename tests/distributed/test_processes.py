"""--distributed from the outside: who is there, what is written besides, and how all end."""

import contextlib
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from conftest import TESTS, launch_command, launch_environment
from pair import BOUND, Pair

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
        (("--coordinator=here:1",), "--coordinator: is for --distributed=manual"),
        (
            ("--distributed=manual", "--coordinator=here", "--num_processes=2", "--process_id=0"),
            "--coordinator=here: must be HOST:PORT",
        ),
        (
            ("--distributed=manual", "--coordinator=here:1", "--num_processes=2", "--process_id=2"),
            "--process_id=2: must be below --num_processes=2",
        ),
        (("--join_seconds=9",), "--join_seconds: is for --distributed=auto and manual"),
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


def test_report_events_and_another_runs_parameters(digits: Path, tmp_path: Path) -> None:
    """What one process writes besides, and asks of the others."""
    kept = environment() | {"JAX_NUM_CPU_DEVICES": "2"}
    first = subprocess.run(command(tmp_path / "first", digits), env=kept, capture_output=True)
    assert first.returncode == 0, first.stderr
    more = ("--report", "--config.tensorboard=true", f"--init_from={tmp_path / 'first'}")
    commands = {
        0: command(tmp_path / "run", digits, *more),
        1: command(tmp_path / "second", digits, *more),
    }
    statuses, said = Pair(commands, kept).end()
    assert statuses == [0, 0], said
    assert "Started in" in said[0]
    assert (tmp_path / "run/report/index.html").exists()
    assert list((tmp_path / "run/tensorboard").iterdir())
    assert not (tmp_path / "second").exists()


def test_a_signal_to_parent_and_child_is_one(digits: Path, tmp_path: Path) -> None:
    """Whoever ends a group of processes sends it to both, and the parent hands it on."""
    more = ("--config.num_steps=20000",)
    pair = Pair(
        {number: command(tmp_path / str(number), digits, *more) for number in (0, 1)}, environment()
    )
    pair.wait_for_save(tmp_path / "0", 8)
    os.kill(pair.training(0), signal.SIGTERM)
    pair.processes[0].send_signal(signal.SIGTERM)
    statuses, said = pair.end(BOUND)
    assert statuses == [143, 143], said
    assert ", which is saved." in said[0]


def test_what_nobody_has_caught_ends_all(digits: Path, tmp_path: Path) -> None:
    """An observer of the first process's fails: the others do not wait for it."""
    (tmp_path / "mine.py").write_text(
        "import jax\n\n\ndef fails(event, step, row, context):\n"
        "    if event == 'train' and jax.process_index() == 0:\n"
        "        raise RuntimeError('mine')\n"
    )
    own = environment() | {"PYTHONPATH": f"{TESTS}{os.pathsep}{tmp_path}"}
    more = ("--config.observers=('mine:fails',)",)
    pair = Pair({number: command(tmp_path / str(number), digits, *more) for number in (0, 1)}, own)
    statuses, said = pair.end(BOUND)
    assert statuses == [1, 1], said
    assert "mine" in said[0]
    assert "another process of this run is gone" in said[1], said[1]


def test_only_the_first_process_calls_writers(digits: Path, tmp_path: Path) -> None:
    """Where one of them ends the run, all processes end."""
    (tmp_path / "mine.py").write_text(
        "import jax\n\n\ndef tells(event, step, row, context):\n"
        "    with open(context.workdir.parent / 'told', 'a') as file:\n"
        "        print(jax.process_index(), event, file=file)\n"
        "    if event == 'eval':\n"
        "        raise ValueError('mine')\n"
    )
    own = environment() | {"PYTHONPATH": f"{TESTS}{os.pathsep}{tmp_path}"}
    more = ("--config.writers='mine:tells',", "--config.on_writer_fault=stop")
    pair = Pair({number: command(tmp_path / str(number), digits, *more) for number in (0, 1)}, own)
    statuses, said = pair.end(BOUND)
    assert statuses == [1, 1], said
    told = (tmp_path / "told").read_text().split()
    assert set(told[::2]) == {"0"}
    assert told[1::2] == ["started", "train", "train", "eval"]
    assert "fails at 'eval' of step 2: " in said[0]
    assert "mine" not in said[1]

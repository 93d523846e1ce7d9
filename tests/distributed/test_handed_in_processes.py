"""Two processes to which data are handed in: they train on the same, or not at all."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TESTS, launch_environment, rows

pytestmark = pytest.mark.distributed

SCRIPT = """
import os, sys
from pathlib import Path

import jax

port, number, workdir, digits, change = sys.argv[1:]
jax.distributed.initialize(f"127.0.0.1:{port}", 2, int(number), initialization_timeout=60)

from mnist_flax import train
from mnist_flax.data.idx import read_idx
from mnist_flax.errors import UserError
from tiny import get_config

names = [f"{split}-{what}.gz" for split in ("train", "t10k")
         for what in ("images-idx3-ubyte", "labels-idx1-ubyte")]
arrays = [read_idx(Path(digits) / name).copy() for name in names]
arrays[0][0, 0, 0] += int(change)
config = get_config()
config.data.fallback, config.num_steps = "mnist_sample", 8
config.data.extra_eval_splits = {"few": "test[:5]"}
status = 0
try:
    train(config, Path(workdir), data=arrays)
except UserError as error:
    print("Error:", error, file=sys.stderr, flush=True)
    status = 1
os._exit(status)
"""


def both(tmp_path: Path, digits: Path, change: int) -> tuple[list[int], list[str]]:
    """The exit statuses of two processes, and what they say; the second one's data are changed."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    kept = {k: v for k, v in launch_environment().items() if not k.endswith("_proxy")}
    path = os.pathsep.join((str(TESTS), str(TESTS.parent)))
    processes = [
        subprocess.Popen(
            [
                *(sys.executable, "-c", SCRIPT, str(port), str(number)),
                *(str(tmp_path / f"run-{number}"), str(digits), str(change * number)),
            ],
            env=kept | {"JAX_NUM_CPU_DEVICES": "1", "PYTHONPATH": path},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in (0, 1)
    ]
    said = [process.communicate(timeout=300)[1] for process in processes]
    return [process.returncode for process in processes], said


def test_each_process_is_handed_the_same(digits: Path, tmp_path: Path) -> None:
    statuses, said = both(tmp_path, digits, change=0)
    assert statuses == [0, 0], said
    evaluated = [row for row in rows(tmp_path / "run-0") if row["split"] in ("few", "eval")]
    assert [(row["split"], row["examples"]) for row in evaluated] == [("few", 5), ("eval", 37)]
    written = json.loads((tmp_path / "run-0/config.json").read_text())
    assert written["dataset"]["handed_in"]
    assert not (tmp_path / "run-1").exists()


def test_other_data_are_refused_in_both(digits: Path, tmp_path: Path) -> None:
    statuses, said = both(tmp_path, digits, change=1)
    assert statuses == [1, 1], said
    assert all("runs something else: " in each for each in said), said
    assert all("the data's fingerprint: " in each for each in said), said
    assert not (tmp_path / "run-0/metrics.jsonl").exists()

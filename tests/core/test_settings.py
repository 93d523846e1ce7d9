"""How a user has set JAX: what no run can work with is said in a line."""

import contextlib
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pytest
from conftest import ROOT, launch_command, launch_environment

from mnist_flax.core.settings import require_jax
from mnist_flax.errors import UserError, out_of_memory
from mnist_flax.training import train
from mnist_flax.use.restore import restore

Launch = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        (lambda: jax.disable_jit(), "JAX_DISABLE_JIT is set: "),
        (lambda: jax.numpy_dtype_promotion("strict"), "JAX_NUMPY_DTYPE_PROMOTION=strict: "),
        (lambda: jax.transfer_guard("disallow"), "JAX_TRANSFER_GUARD=disallow: "),
        (
            lambda: jax.transfer_guard_device_to_host("disallow_explicit"),
            "JAX_TRANSFER_GUARD_DEVICE_TO_HOST=disallow_explicit: ",
        ),
    ],
)
def test_a_setting_that_no_run_can_work_with(
    setting: Callable[[], contextlib.AbstractContextManager],
    told: str,
    tiny_config: Any,
    tmp_path: Path,
) -> None:
    require_jax()
    with setting():
        for call in (
            require_jax,
            lambda: train(tiny_config, tmp_path / "run"),
            lambda: restore(tmp_path, "latest", {}),
        ):
            with pytest.raises(UserError, match=told.replace(".", r"\.")) as error:
                call()
            assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("guard", ["allow", "log"])
def test_guards_that_only_tell_are_left(guard: str) -> None:
    with jax.transfer_guard(guard):
        require_jax()


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="there is an accelerator")
def test_a_device_that_is_not_here(tmp_path: Path) -> None:
    done = subprocess.run(
        launch_command(f"--config={ROOT / 'configs/tutorial.py'}"),
        cwd=tmp_path,
        env=launch_environment() | {"JAX_PLATFORMS": "cuda"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(
        "Error: JAX_PLATFORMS=cuda: JAX finds no such device here"
    )


GREEDY = """
import jax.numpy as jnp
import tiny


def get_config():
    config = tiny.get_config()
    config.data.name = "mnist_sample"
    config.num_steps = 1
    return config


def of_xla(event, step, row, context):
    jnp.zeros(2**45).block_until_ready()


def of_python(event, step, row, context):
    raise MemoryError("Unable to allocate 44.9 GiB for an array")


def without_a_word(event, step, row, context):
    raise MemoryError


def another(event, step, row, context):
    raise ValueError("a fault of our own")
"""


@pytest.mark.parametrize(
    ("observer", "told"),
    [
        ("of_xla", "RESOURCE_EXHAUSTED"),
        ("of_python", "Unable to allocate 44.9 GiB"),
        ("without_a_word", "MemoryError)"),
    ],
)
def test_memory_that_is_not_to_be_had(
    observer: str, told: str, launch: Launch, tmp_path: Path
) -> None:
    (tmp_path / "greedy.py").write_text(GREEDY)
    done = launch("--config=greedy.py", f"--config.observers='greedy:{observer}',")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"Error: out of memory ({told}")
    assert line.endswith("Lower --config.batch_size, or take a smaller network.")


def test_a_fault_of_our_own_keeps_its_traceback(launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "greedy.py").write_text(GREEDY)
    done = launch("--config=greedy.py", "--config.observers='greedy:another',")
    assert done.returncode == 1
    assert "ValueError: a fault of our own" in done.stderr
    assert not out_of_memory(RuntimeError("RESOURCE_EXHAUSTED: of no XLA"))

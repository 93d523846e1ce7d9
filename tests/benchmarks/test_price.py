"""The price of data parallelism: its formulas by hand, and its reader on compiled programs."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import pytest
from conftest import ROOT, TESTS

from mnist_flax.data.placement import beside_batch
from mnist_flax.errors import UserError

BENCHMARKS = ROOT / "benchmarks"
PROGRAM = """
  %all-reduce.8 = s32[] all-reduce(%sum.5), channel_id=9, replica_groups=[1,8]<=[8]
  %all-reduce.9 = (f32[32]{0}, bf16[5,5,1,32]{3,2,1,0}, /*index=2*/f32[]) all-reduce(%a, %b, %c)
  %start = f32[10,1024]{1,0} all-reduce-start(%d), channel_id=2
  %done = f32[10,1024]{1,0} all-reduce-done(%start)
  %fusion = f32[7]{0} fusion(%all-reduce.8), kind=kLoop, calls=%all-reduce-fused
"""


@pytest.fixture
def price(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("price")


@pytest.fixture
def step_program(price: ModuleType) -> ModuleType:
    return importlib.import_module("step_program")


@pytest.fixture
def assumed(price: ModuleType) -> Any:
    """50 FLOP/s; two devices a node; numbers that are easily divided by."""
    return price.Assumed(
        peak=100.0,
        share=0.5,
        node_devices=2,
        node_bandwidth=100.0,
        bandwidth=10.0,
        node_latency=1.0,
        latency=3.0,
    )


def test_what_a_device_sends(price: ModuleType) -> None:
    # Of four quarters each device passes three on while they are summed, and three sums after that.
    assert [price.sent(1000, devices) for devices in (1, 2, 4)] == [0, 1000, 1500]


@pytest.mark.parametrize(
    ("algorithm", "devices", "within", "between"),
    [
        ("ring", 1, 0, 0),
        ("tree", 1, 0, 0),
        ("ring", 4, 6, 0),
        ("tree", 4, 4, 0),
        ("ring", 8, 14, 0),
        ("ring", 64, 112, 14),  # 126, of which 14 leave one of the eight nodes
        ("tree", 64, 6, 6),
        ("tree", 4096, 6, 18),
    ],
)
def test_hops(price: ModuleType, algorithm: str, devices: int, within: int, between: int) -> None:
    assert price.hops(algorithm, devices, 8) == (within, between)


@pytest.mark.parametrize(
    ("algorithm", "devices", "seconds", "batch"),
    [
        # Two all-reduces of two hops, and 100 bytes at 100 bytes/s: a quarter of the computation.
        ("ring", 2, 2 * 2 + 1, 3),
        # 150 bytes at 10 bytes/s. Two nodes: 4 and 2 hops in a ring, 2 and 2 in a tree.
        ("ring", 4, 2 * (4 * 1 + 2 * 3) + 15, 18),
        ("tree", 4, 2 * (2 * 1 + 2 * 3) + 15, 16),
    ],
)
def test_communication_and_the_batch_that_takes_as_long(
    price: ModuleType, assumed: Any, algorithm: str, devices: int, seconds: float, batch: int
) -> None:
    step = price.Step(batch=10, flops=1000.0, reduced=(40, 60))
    assert price.computation(step, assumed) == 20
    assert price.communication(algorithm, step, devices, assumed) == seconds
    assert price.equal_batch(algorithm, step, devices, assumed) == batch


def test_all_reduces_are_read_from_a_program(step_program: ModuleType) -> None:
    assert step_program.all_reduced(PROGRAM) == (4, 4 * 32 + 2 * 800 + 4, 4 * 10240)


def test_what_no_formula_has_is_an_error(step_program: ModuleType) -> None:
    gather = PROGRAM + "  %g = f32[8]{0} all-gather(%done), dimensions={0}"
    with pytest.raises(UserError, match="no all-reduce: all-gather"):
        step_program.all_reduced(gather)
    with pytest.raises(UserError, match="reduces s4"):
        step_program.all_reduced("%a = s4[3]{0} all-reduce(%b)")


@pytest.mark.parametrize(
    "flag", ["--share=0", "--peak=inf", "--latency=fast", "--node_devices=2.5"]
)
def test_an_assumption_is_a_number_above_0(
    price: ModuleType, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        price.main([flag])
    assert "above 0" in (told := capsys.readouterr().err) or "whole number" in told


def test_without_devices_nothing_is_added_to_a_program() -> None:
    form = jax.ShapeDtypeStruct((4, 3), "float32")
    assert jax.make_jaxpr(beside_batch)(form).eqns == []


NETWORK = """
import optax
from flax import linen as nn
from made import spec_of, task_of
from mnist_flax.core.state import try_task

class Net(nn.Module):
    num_classes: int = 10

    @nn.compact
    def __call__(self, images, *, train=False):
        x = nn.max_pool(nn.relu(nn.Conv(4, (3, 3))(images)), (2, 2), (2, 2))
        return nn.Dense(10)(x.reshape(len(x), -1))

task = task_of(Net(), optax.sgd(0.1))
form = try_task(task, spec_of(), "classification").form
step = step_program.compiled_step(task, form, 2, (8, 8, 1), jax.devices())
told = [len(jax.devices()), *step]
"""


def test_a_small_networks_gradients_are_what_is_reduced(tmp_path: Path) -> None:
    devices, batch, flops, reduced = simulated(4, NETWORK, tmp_path)
    assert (devices, batch) == (4, 2)
    parameters = (3 * 3 * 4 + 4) + (4 * 4 * 4 * 10 + 10)
    # Beside them the sums of a row, a few numbers.
    assert 0 < sum(reduced) - 4 * parameters <= 16
    # Of a device's two images: the kernel's gradient has as many products as the convolution, of
    # 22 taps of 24 each way; the dense layer has two gradients.
    products = 2 * 2 * (2 * 22 * 22 * 4 + 3 * 64 * 10)
    assert products < flops < 2 * products


ADVERSARIES = """
from conftest import recipe
from mnist_flax.training.gather import gather

config = recipe("dcgan_fast")
config.model.update(features=4, judge_features=4)
config.data.name, config.batch_size = "mnist_sample", 2
plan = gather(config, print)
asked = plan.task, plan.tried.form, 2, (28, 28, 1)
told = [step_program.compiled_step(*asked, jax.devices()[:count])[1:] for count in (2, 4)]
"""


@pytest.mark.slow
@pytest.mark.promise
def test_a_generator_draws_for_its_own_devices_images_alone(tmp_path: Path) -> None:
    (two, reduced_by_two), (four, reduced_by_four) = simulated(4, ADVERSARIES, tmp_path)
    assert two == four
    assert reduced_by_two == reduced_by_four
    assert sum(reduced_by_two) > 4 * 25_000  # both networks' gradients


@pytest.mark.slow
@pytest.mark.promise
def test_flops_of_the_tutorial(tmp_path: Path) -> None:
    """Of a device's 100 images: what is outside an image is multiplied by nobody."""
    batch, flops, reduced = simulated(8, 'told = list(step_program.step_of("tutorial"))', tmp_path)
    conv1, conv2 = (5 * 28 - 6) ** 2 * 32, (5 * 14 - 6) ** 2 * 32 * 64
    products = 2 * 100 * (2 * conv1 + 3 * conv2 + 3 * 3136 * 1024 + 3 * 1024 * 10)
    assert batch == 100
    assert products < flops < 1.02 * products
    assert 0 < sum(reduced) - 4 * 3_274_634 <= 16


def simulated(devices: int, code: str, folder: Path) -> Any:
    """What `told` is after this code, in a process that sees so many CPU devices."""
    program = folder / "program.py"
    lines = [
        "import json, sys",
        f"sys.path[:0] = {[str(path) for path in (BENCHMARKS, TESTS, ROOT)]}",
        "import jax, step_program",
        f"step_program.simulate({devices})",
        code,
        "print(json.dumps(told))",
    ]
    program.write_text("\n".join(lines))
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])

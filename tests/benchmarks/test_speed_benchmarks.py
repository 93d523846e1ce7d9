"""The speed benchmarks: what they count, read and time; never how fast anything is."""

import argparse
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT, recipe
from flax import linen as nn
from ml_collections import ConfigDict

from mnist_flax.core.chunk import make_train_chunk
from mnist_flax.errors import UserError
from mnist_flax.models import create_model
from mnist_flax.tasks.networks import init_variables
from mnist_flax.training.gather import gather

BENCHMARKS = ROOT / "benchmarks"
PEER = """
import json, sys
if not {"throughput", "--recipe=tutorial", "--dtype=float32"} <= set(sys.argv):
    sys.exit("no such network")
print("warming up")
ms_per_step = 250.0 if "--way=channels_last" in sys.argv else 1e9
told = {"peer": "torch 9.9", "way": "channels_last", "ms_per_step": ms_per_step}
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def on_path() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield


@pytest.fixture
def throughput(on_path: None) -> ModuleType:
    return importlib.import_module("throughput")


@pytest.fixture
def machine(on_path: None) -> ModuleType:
    return importlib.import_module("machine")


@pytest.fixture
def times(on_path: None) -> ModuleType:
    return importlib.import_module("time_to_accuracy")


def variables_of(model: nn.Module, side: int = 28) -> dict[str, Any]:
    """The shapes of its variables."""
    return jax.eval_shape(lambda: init_variables(model, (side, side, 1), jax.random.key(0)))


def test_flops_of_the_tutorial(throughput: ModuleType) -> None:
    model = create_model(recipe("tutorial").model, 10)
    images = jax.ShapeDtypeStruct((100, 28, 28, 1), "uint8")
    conv1, conv2 = 2 * 100 * 784 * 25 * 32, 2 * 100 * 196 * 800 * 64
    dense, logits = 2 * 100 * 3136 * 1024, 2 * 100 * 1024 * 10
    forward = conv1 + conv2 + dense + logits
    # Each product has two gradients as large as itself; the images' is not needed.
    expected = forward, 3 * forward - conv1
    assert throughput.count_flops(model, variables_of(model), images) == expected


def test_flops_of_groups_strides_and_scans(throughput: ModuleType) -> None:
    class Cell(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, _: None) -> tuple[jax.Array, None]:
            return nn.Dense(6)(x), None

    class Net(nn.Module):
        @nn.compact
        def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
            x = nn.Conv(6, (3, 3), strides=(2, 2))(images)
            x = nn.Conv(6, (3, 3), feature_group_count=3)(x).mean((1, 2))
            cells = nn.scan(
                Cell, variable_axes={"params": 0}, split_rngs={"params": True}, length=4
            )
            return cells()(x, None)[0]

    images = jax.ShapeDtypeStruct((5, 8, 8, 1), "uint8")
    forward, _ = throughput.count_flops(Net(), variables_of(Net(), side=8), images)
    # 4×4 places; 9 products of 1 channel, then of 2 of the 6; four times 6×6.
    assert forward == 2 * 5 * (16 * 9 * 6 + 16 * 9 * 2 * 6 + 4 * 6 * 6)


def test_the_plain_step_is_the_same_step(throughput: ModuleType, tiny_config: ConfigDict) -> None:
    tiny_config.optimizer = ConfigDict({"name": "sgd", "learning_rate": 0.1})
    plan = gather(tiny_config, print)
    state, feed = throughput.init_state(plan), plan.source.feed(0, 2)
    plain = jax.jit(throughput.make_plain_step(plan))
    other, _ = plain(plain(state, feed)[0], feed)
    chunk = jax.jit(make_train_chunk(plan.task, plan.source.draw, tiny_config.seed))
    ours, _ = chunk(state, feed, jnp.int32(2))
    assert (int(ours.step), int(other.step)) == (2, 2)
    assert jax.tree.structure(ours.variables) == jax.tree.structure(other.variables)
    for a, b in zip(*(jax.tree.leaves(s.variables) for s in (ours, other)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_steps_are_cut_where_a_run_cuts_them(
    throughput: ModuleType, tiny_config: ConfigDict
) -> None:
    source = gather(tiny_config, print).source  # 17 steps an epoch
    asked = []

    def feed(step: int, count: int) -> str:
        asked.append((step, count))
        return f"for {count} from {step}"

    fed = source._replace(feed=feed, most_steps=lambda step: min(10, 17 - step % 17))
    cut = list(throughput.chunks(fed, 15, 22))
    assert asked == [(15, 2), (17, 10), (27, 7), (34, 3)]
    assert cut == [(f"for {count} from {step}", count) for step, count in asked]


def test_the_peers_last_line(machine: ModuleType) -> None:
    told = {"peer": "torch 9.9", "ms_per_step": 61.25}
    output = f"a warning\n{json.dumps(told)}\n"
    assert machine.parse_peer(output, ("peer", "ms_per_step")) == told


@pytest.mark.parametrize("output", ["", "61.2", '{"peer": "torch 9.9"}', '{"peer"', "Traceback"])
def test_a_peer_that_says_something_else(machine: ModuleType, output: str) -> None:
    with pytest.raises(UserError, match=r"no JSON object with .*ms_per_step"):
        machine.parse_peer(output, ("peer", "ms_per_step"))


def test_a_peer_that_fails_or_is_not_there(machine: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="exit status 1: no torch here"):
        machine.call([sys.executable, "-c", "raise SystemExit('no torch here')"])
    with pytest.raises(UserError, match="nowhere: No such file"):
        machine.call([str(tmp_path / "nowhere")])


def rows_of(accuracies: list[float]) -> list[tuple[float, dict[str, Any]]]:
    """Rows seen 2 s after the start, then 10 s for every 40 steps at 5/s and 1 s to evaluate."""
    rows: list[tuple[float, dict[str, Any]]] = [(2.0, {"step": 0, "event": "data"})]
    for number, accuracy in enumerate(accuracies, start=1):
        step, seen = 40 * number, 2.0 + 10 * number
        rows += [
            (seen - 1, {"step": step, "split": "train", "accuracy": 1.0, "steps_per_second": 5.0}),
            (seen, {"step": step, "split": "eval", "accuracy": accuracy, "seconds": 1.0}),
        ]
    return rows


def test_time_to_the_target(times: ModuleType) -> None:
    summary = times.summarize(rows_of([0.5, 0.99, 0.98, 1.0]), target=0.99)
    assert (summary["seconds"], summary["step"], summary["accuracy"]) == (22.0, 80, 0.99)
    # 80 steps at 5/s, the first of them a second after the first row; what is left is the rest.
    parts = {"start": 2.0, "compile": 1.0, "train": 16.0, "evaluate": 2.0, "rest": 1.0}
    assert summary["parts"] == parts


def test_a_target_out_of_reach(times: ModuleType) -> None:
    summary = times.summarize(rows_of([0.5, 0.75, 0.625]), target=0.99)
    assert (summary["seconds"], summary["step"], summary["accuracy"]) == (None, 80, 0.75)
    assert sum(summary["parts"].values()) == 32.0
    with pytest.raises(UserError, match="without an evaluation"):
        times.summarize(rows_of([]), target=0.99)


def test_a_growing_file_is_read_line_by_line(times: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail = times.Tail(path)
    assert tail.read() == []
    path.write_text("one\ntw")
    assert (tail.read(), tail.read()) == (["one"], [])
    path.write_text("one\ntwo ×\nthree\n")
    assert (tail.read(), tail.read()) == (["two ×", "three"], [])


def test_a_run_is_followed_to_its_target(times: ModuleType, tmp_path: Path) -> None:
    code = """
import json, pathlib, sys, time
folder = pathlib.Path(sys.argv[1].partition("=")[2])
folder.mkdir()
with (folder / "metrics.jsonl").open("w") as file:
    for accuracy in (0.25, 0.75):
        print(json.dumps({"step": 1, "split": "eval", "accuracy": accuracy}), file=file, flush=True)
        time.sleep(0.2)
    print("said", flush=True)
    time.sleep(60)
"""
    command = [sys.executable, "-c", code]
    rows = times.follow(command, tmp_path, target=0.75)
    (first, _), (second, row) = rows
    assert row["accuracy"] == 0.75
    assert first < second < 30


def test_a_run_that_fails(times: ModuleType, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no data')"]
    with pytest.raises(UserError, match=r"launch.py: exit status 1: no data"):
        times.follow(command, tmp_path, target=0.5)


def run(script: str, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / script), *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_throughput_in_a_few_steps(digits: Path, tmp_path: Path) -> None:
    peer, output = tmp_path / "peer.py", tmp_path / "throughput.json"
    peer.write_text(PEER)
    flags = ["--quick", "--only=tutorial", f"--data_dir={digits}", f"--output={output}"]
    done = run("throughput.py", *flags, f"--torch_python={sys.executable}", f"--torch_peer={peer}")
    assert done.returncode == 0, done.stderr
    told = json.loads(output.read_text())
    seconds = told["recipes"]["tutorial"]["seconds_per_step"]
    assert {kind: len(taken) for kind, taken in seconds.items()} == {
        "ours": 2,
        "plain": 2,
        "torch": 2,
    }
    assert seconds["torch"] == [0.25, 0.25]
    assert "torch 9.9, channels_last" in done.stdout
    cells = "| 250.00 (250.00–250.00) | 400 (400–400) "
    assert cells in re.sub(" +", " ", done.stdout)  # columns are as wide as the slowest needs
    assert told["conditions"]["jax"] == jax.__version__


@pytest.mark.slow
def test_any_model_in_a_few_steps(tmp_path: Path) -> None:
    output = tmp_path / "any_model.json"
    done = run("any_model.py", "--quick", "--rounds=1", "--only=mlp", f"--output={output}")
    assert done.returncode == 0, done.stderr
    model = json.loads(output.read_text())["models"]["mlp"]
    assert (list(model["seconds_per_step"]), model["named"]) == (["ours", "plain", "trapped"], [])


@pytest.mark.parametrize(
    ("script", "flags", "message"),
    [
        ("throughput.py", ["--only=tutorail"], "--only=tutorail: there are adam, best, fast995, "),
        ("throughput.py", ["--torch_peer=x"], "--torch_peer: needs a --torch_python to run it"),
        ("scaling.py", ["--only=threads,bach"], "--only=bach: there are batch, images, threads"),
        ("any_model.py", ["--steps=0"], "--steps: '0' is no whole number from 1 on"),
    ],
)
def test_wrong_flags(script: str, flags: list[str], message: str) -> None:
    done = run(script, *flags)
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.slow
@pytest.mark.promise
def test_the_loops_overhead_is_of_the_same_steps(
    on_path: None, digits: Path, tiny_config: ConfigDict
) -> None:
    overhead = importlib.import_module("overhead")
    taken = overhead._measure(gather(tiny_config, print), argparse.Namespace(steps=17, rounds=2))
    assert len(taken["bare"]) == len(taken["loop"]) == 2
    assert min(taken["bare"]) > 0
    # 34 steps each to warm up and in two rounds, on one state: the loop's rows and saves besides.
    assert min(taken["loop"]) > min(taken["bare"])


@pytest.mark.slow
def test_streams_are_timed_beside_memory(
    on_path: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    streams = importlib.import_module("streams")
    streams.make(tmp_path / "data", 16, 200)
    flags = argparse.Namespace(config="speedrun", name="made", steps=7, rounds=2)
    taken = streams._measure(tmp_path / "data", flags)
    assert {len(taken[name]) for name in ("memory", "streamed", "waited", "decoding")} == {2}
    assert all(0 < share < 1 for share in taken["waited"])

"""Whatever breaks a run: it ends as if nothing had been, or refuses in a line and changes nothing.

    python -m pytest -m slow tests/faults        every fault, and 200 kills at random moments

FAULTS_REPORT=FILE has the table of what happened written there, besides.
"""

import os
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from conftest import launch_environment, turned_folder

pytest.register_assert_rewrite("harms", "harness", "kills", "processes", "table")
from harness import Bench, report  # noqa: E402
from kills import every_file_operation, random_kills  # noqa: E402
from table import FAULTS, PROCESSES, SHORT  # noqa: E402
from tiny import get_config as tiny_recipe  # noqa: E402

from mnist_flax import train  # noqa: E402
from mnist_flax.workdir.weights import weights_content  # noqa: E402

Outcomes = dict[str, "Future[str]"]


@pytest.fixture(scope="session")
def bench(
    digits: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Bench]:
    bench = Bench(digits, tmp_path_factory.mktemp("faults"))
    if not request.config.option.markexpr.startswith("slow"):  # nothing there is about compiling
        bench.known = launch_environment()
    bench.prepare()
    yield bench
    told = {name: bench.told[name] for name in (*FAULTS, *bench.told) if name in bench.told}
    table = report(told, bench.folder)
    if request.config.option.markexpr.startswith("slow"):
        with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            print(f"\n\n{table}")
    if file := os.environ.get("FAULTS_REPORT"):
        Path(file).write_text(table)


# Other tasks, each in a recipe with the intervals of tiny.py.
RECIPES = {
    "regression": """
from ml_collections import ConfigDict
from tiny import get_config as tiny

def get_config():
    config = tiny()
    config.task = ConfigDict({"name": "turned:turned", "max_degrees": 45.0})
    config.optimizer.learning_rate = 0.03  # so that each evaluation is the best so far
    return config
""",
    "autoencoder": """
from ml_collections import ConfigDict
from tiny import get_config as tiny

def get_config():
    config = tiny()
    config.task = ConfigDict({"name": "autoencoder"})
    config.model = ConfigDict({"name": "vae", "hidden": 16, "latent_size": 4})
    return config
""",
}
# What a run can be asked for, all at once: wrappers, parts, labels that are mixed, an nnx module,
# and to start from a file's weights under other names.
EVERYTHING = """
from ml_collections import ConfigDict
from tiny_nnx import get_config as tiny

def get_config():
    config = tiny()
    with config.unlocked():
        config.optimizer.rates = (("conv/.*", 0.5), ("norm/bias", 0.0))
        config.augment.mixup = ConfigDict({"share": 0.5})
    config.augment.order = ("elastic_distortion", "random_erasing", "mixup", "cutmix")
    config.accumulate_steps, config.compute_dtype, config.ema_decay = 2, "bfloat16", 0.9
    config.class_weights, config.data.balance = (1.0, 2.0) * 5, True
    config.data.extra_eval_splits = {"seen": "train[:20]"}
    config.on_bad_step, config.log_norms = "skip", True
    config.plateau_patience, config.early_stopping_patience = 1, 8
    return config
"""


@pytest.fixture(scope="session", params=RECIPES)
def other(
    request: pytest.FixtureRequest, digits: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Outcomes]:
    folder = turned_folder(tmp_path_factory.mktemp("task"))
    (folder / f"tiny_{request.param}.py").write_text(RECIPES[request.param])
    sys.path.append(str(folder))  # the runs are restored here, too
    runs = tmp_path_factory.mktemp(request.param)
    bench = Bench(digits, runs, folder / f"tiny_{request.param}.py")
    bench.prepare()
    asked = faults_of("test_another_task_has_the_same_faults", request)
    with two_at_a_time(bench, asked) as outcomes:
        yield outcomes
    sys.path.remove(str(folder))


# The tutorials' two networks, on the digits scaled to their size, an average of them, and a judge.
ADVERSARIES = """
from ml_collections import ConfigDict
from tiny import get_config as tiny

def get_config():
    config = tiny()
    config.task = ConfigDict({{"name": "gan", "discriminator_learning_rate": 3e-4}})
    config.task.update(first_steps=6, judge={judge!r})
    config.model = ConfigDict({{"name": "dcgan"}})
    config.optimizer.learning_rate = 1e-4
    config.ema_decay = 0.9
    config.data.resize = 28
    return config
"""
KILLED = [n for n in FAULTS if n.startswith(("kill -9", "SIG")) and "best" not in n]
SAMPLE = ("kill -9: the middle of a save", "SIGTERM: the middle of an evaluation")


@pytest.fixture(scope="session")
def adversaries(
    digits: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Outcomes]:
    folder = tmp_path_factory.mktemp("adversaries")
    config = tiny_recipe()
    config.data.data_dir, config.data.resize = str(digits), 28
    train(config, folder / "judge")
    (folder / "recipe.py").write_text(ADVERSARIES.format(judge=str(folder / "judge")))
    bench = Bench(digits, tmp_path_factory.mktemp("gan"), folder / "recipe.py")
    bench.prepare()
    asked = faults_of("test_two_networks_and_their_judge_go_on", request)
    with two_at_a_time(bench, asked) as outcomes:
        yield outcomes


@pytest.fixture(scope="session")
def asked_for(
    digits: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Bench:
    recipe = tmp_path_factory.mktemp("everything") / "everything.py"
    recipe.write_text(EVERYTHING)
    stem = {"stem/kernel": np.full((3, 3, 1, 4), 0.1, np.float32)}
    weights = recipe.with_name("stem.safetensors")
    weights.write_bytes(weights_content({"params": stem}, {}))
    start = (f"--init_from={weights}", r"--init_map=stem/(.*)=>conv/\1")
    bench = Bench(digits, tmp_path_factory.mktemp("asked-for"), recipe, changes=start)
    if not request.config.option.markexpr.startswith("slow"):  # nothing there is about compiling
        bench.known = launch_environment()
    bench.prepare()
    return bench


@pytest.fixture(scope="session")
def outcomes(bench: Bench, request: pytest.FixtureRequest) -> Iterator[Outcomes]:
    tests = ("test_a_few_faults", "test_every_fault", "test_one_of_two_processes")
    asked = [fault for test in tests for fault in faults_of(test, request)]
    with two_at_a_time(bench, asked) as outcomes:
        yield outcomes


def faults_of(test: str, request: pytest.FixtureRequest) -> list[str]:
    """The faults that a test is asked for in this run."""
    items = [item for item in request.session.items if getattr(item, "originalname", "") == test]
    return [item.callspec.params["fault"] for item in items]


@contextmanager
def two_at_a_time(bench: Bench, faults: list[str]) -> Iterator[Outcomes]:
    """What these faults lead to, by name; they start processes, and wait for them."""
    possible = [name for name in dict.fromkeys(faults) if not FAULTS[name].obstacle()]
    with ThreadPoolExecutor(2) as pool:
        yield {name: pool.submit(bench.perform, FAULTS[name]) for name in possible}
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("fault", SHORT)
def test_a_few_faults(fault: str, outcomes: Outcomes) -> None:
    _meet(fault, outcomes)


@pytest.mark.slow
@pytest.mark.promise
@pytest.mark.parametrize("fault", SAMPLE)
def test_all_that_a_step_can_be_asked_for_at_once(fault: str, asked_for: Bench) -> None:
    asked_for.perform(FAULTS[fault])


@pytest.mark.slow
def test_all_of_that_killed_at_ten_random_moments(asked_for: Bench) -> None:
    with ThreadPoolExecutor(2) as pool:
        told = random_kills(asked_for, 10, pool)
    assert "bit-identical" in told


@pytest.mark.slow  # what of a task's own a stop may get wrong is in test_own_task.py, too
@pytest.mark.parametrize("fault", [name for name in FAULTS if name not in PROCESSES])
def test_another_task_has_the_same_faults(fault: str, other: Outcomes) -> None:
    """The regression of docs/guide/tasks.md, and the autoencoder."""
    _meet(fault, other)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault", [pytest.param(n, marks=pytest.mark.promise) if n in SAMPLE else n for n in KILLED]
)
def test_two_networks_and_their_judge_go_on(fault: str, adversaries: Outcomes) -> None:
    _meet(fault, adversaries)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault(fault: str, bench: Bench, outcomes: Outcomes) -> None:
    _meet(fault, outcomes)


@pytest.mark.distributed
@pytest.mark.parametrize("fault", PROCESSES)
def test_one_of_two_processes(fault: str, outcomes: Outcomes) -> None:
    _meet(fault, outcomes)


@pytest.mark.slow
def test_200_kills_at_random_moments(bench: Bench) -> None:
    with ThreadPoolExecutor(2) as pool:
        bench.told["kill -9: 200 times, at random moments"] = random_kills(bench, 200, pool)


@pytest.mark.slow
def test_a_kill_before_every_file_operation(bench: Bench) -> None:
    with ThreadPoolExecutor(2) as pool:
        told = every_file_operation(bench, pool)
        bench.told["kill -9: before every file operation of two saves and a resume"] = told


def _meet(fault: str, outcomes: Outcomes) -> None:
    if fault not in outcomes:
        pytest.skip(FAULTS[fault].obstacle())
    outcomes[fault].result()

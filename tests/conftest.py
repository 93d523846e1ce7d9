import gc
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forked import Forker
from ml_collections import ConfigDict

from mnist_flax.data.idx import write_idx

# LLVM would spend a third to a half of a launch's processor time on optimizing programs that run
# for a few steps. `XLA_FLAGS= python -m pytest` tests with its optimizations.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

# Where a shell starts this in the background, or nohup does, these are ignored: by launches, too.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(
            number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        )

TESTS = Path(__file__).parent
ROOT = TESTS.parent


def pytest_configure(config: pytest.Config) -> None:
    """Simulates eight devices for the tests that are about them: before JAX looks for any."""
    if config.option.markexpr == "distributed":
        os.environ["JAX_NUM_CPU_DEVICES"] = "8"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest first, which compile for themselves: no process is left alone at the end."""
    items.sort(key=lambda item: item.get_closest_marker("compiles") is None)


def pytest_collection_finish() -> None:
    """Spares the collector what is imported: a fifteenth of the processor time."""
    gc.collect()
    gc.freeze()


# Where this run of the tests, all its processes together, keeps what XLA has compiled.
compiled: list[Path] = []


@pytest.fixture(autouse=True, scope="session")
def compiled_programs(tmp_path_factory: pytest.TempPathFactory) -> None:
    compiled.append(tmp_path_factory.getbasetemp().parent / "compiled")


@pytest.fixture(scope="session")
def forkers() -> Iterator[dict[bool, Forker]]:
    """What launches are forked from: one that keeps compiled programs, one that does not."""
    started: dict[bool, Forker] = {}
    yield started
    for forker in started.values():
        forker.close()


@pytest.fixture(autouse=True)
def shared_programs(request: pytest.FixtureRequest) -> None:
    """Has tests take programs that an earlier test has compiled: a third to a half of their time.

    Not those that are about compiling, or about bits whatever was compiled, which say so with
    `pytest.mark.compiles`. Launches do likewise.
    """
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    compiles = request.node.get_closest_marker("compiles") is not None
    folder = None if compiles else str(compiled[0])
    if jax.config.jax_compilation_cache_dir != folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
        compilation_cache.reset_cache()


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four IDX files: 105 images to train (17 batches of 6 and 3 over), 37 to evaluate.

    8×8 pixels, ten classes; class k has a bright 2×2 square at a place of its own, over noise.
    """
    folder = tmp_path_factory.mktemp("digits")
    random = np.random.default_rng(0)
    for prefix, count in (("train", 105), ("t10k", 37)):
        labels = (np.arange(count) * 7 % 10).astype(np.uint8)
        images = random.integers(0, 120, (count, 8, 8), np.uint8)
        for image, label in zip(images, labels, strict=True):
            row, column = 2 * (label // 4), 2 * (label % 4)
            image[row : row + 2, column : column + 2] = 255
        write_idx(folder / f"{prefix}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", labels)
    return folder


@pytest.fixture
def tiny_config(digits: Path) -> ConfigDict:
    from tiny import get_config

    config = get_config()
    config.data.data_dir = str(digits)
    return config


# Recipes that start from other runs: test_taken.py makes some, and runs these.
TAKING = ("ensemble", "distilled")


def recipe(name: str) -> ConfigDict:
    """The config that configs/<name>.py gives."""
    return importlib.import_module(f"configs.{name}").get_config()


def turned_folder(folder: Path) -> Path:
    """Writes the task and the recipe of docs/guide/tasks.md into a folder: turned.py, recipe.py."""
    page = (ROOT / "docs/guide/tasks.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    task, recipe, observer = blocks
    (folder / "turned.py").write_text(f"{task}\n\n{observer}")
    (folder / "recipe.py").write_text(recipe)
    return folder


def launch_command(*arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "launch.py"), *arguments]


def launch_environment(*, compiles: bool = False) -> dict[str, str]:
    """What a launch in a test sees: the tests' modules, no network, no datasets of the user's.

    Unless it `compiles` for itself, it takes what another has compiled.
    """
    nowhere = "http://127.0.0.1:9"  # the discard port, where nothing listens
    environment = os.environ | {
        "PYTHONPATH": str(TESTS),
        "TFDS_DATA_DIR": str(TESTS / "no_datasets_here"),
        "http_proxy": nowhere,
        "https_proxy": nowhere,
        "COLUMNS": "100",
    }
    if compiles:
        return environment | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    return environment | {
        "JAX_COMPILATION_CACHE_DIR": str(compiled[0]),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        # XLA's false alarms about programs that it reads back (jax issue 38445).
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


@pytest.fixture
def launch(
    tmp_path: Path,
    request: pytest.FixtureRequest,
    forkers: dict[bool, Forker],
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs launch.py as a user does, in an empty folder."""
    compiles = request.node.get_closest_marker("compiles") is not None
    environment = launch_environment(compiles=compiles)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        if compiles not in forkers:
            forkers[compiles] = Forker(environment)
        command, forker = launch_command(*arguments), forkers[compiles]
        if forker.fits(environment):
            return forker.run(command, tmp_path, environment, timeout=300)
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )

    return run


@pytest.fixture
def called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Does as `launch` does, in this process: for the many commands that are refused.

    A process of its own would take most of a test's time. That its status and its words are those
    of main() is shown by the tests that launch.
    """
    from absl.testing import flagsaver

    from mnist_flax.cli.flags import FLAGS
    from mnist_flax.cli.main import main

    for name, value in launch_environment().items():
        if name.startswith(("JAX_", "TF", "COLUMNS")) or name.endswith("proxy"):
            monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))  # which main() makes longer
    saved, before = flagsaver.save_flag_values(FLAGS), set(sys.modules)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = launch_command(*arguments)[1:]
        capsys.readouterr()
        sys.modules.pop("config_config", None)  # ml_collections' of a recipe; it executes into it
        # It loads it by an old function of Python's.
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            try:
                status = main(command)
            finally:
                flagsaver.restore_flag_values(saved, FLAGS)
        return subprocess.CompletedProcess(command, status, *capsys.readouterr())

    yield run
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file and Path(file).absolute().is_relative_to(tmp_path):  # a recipe's may be relative
            del sys.modules[name]


def rows(workdir: Path, *, timed: bool = False) -> list[dict[str, Any]]:
    """The training and evaluation rows of a run, without what a clock decides."""
    clocks = ("steps_per_second", "images_per_second", "seconds")
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [
        {key: value for key, value in row.items() if timed or key not in clocks}
        for row in map(json.loads, lines)
        if "split" in row
    ]


def events(workdir: Path, *names: str) -> list[dict[str, Any]]:
    """The other rows of a run, of these kinds."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row.get("event") in names]

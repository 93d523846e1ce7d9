"""A run whose pictures are streamed is the run in memory: every bit of the state, every row."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import picture_folder
import pytest
from conftest import ROOT, TESTS, events, launch_environment, rows
from ml_collections import ConfigDict
from picture_folder import config_of
from PIL import Image

from mnist_flax import restore, train
from mnist_flax.data import streams
from mnist_flax.errors import UserError
from mnist_flax.export import export_network
from mnist_flax.report import write_report
from mnist_flax.use.evaluation import evaluate_restored
from mnist_flax.use.run_data import load_data

Launch = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(streams, "BLOCK_BYTES", 4 * 6 * 64)  # four steps of seven an epoch


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_folder.made(tmp_path_factory.mktemp("pictures"))


def recipe(place: Path, *, stream: bool, steps: int = 32, **fields: object) -> ConfigDict:
    """The tiny recipe on these pictures, for four epochs and a half."""
    config = config_of(place, stream=stream, **fields)
    config.model = ConfigDict({"name": "tiny:TinyNet"})
    config.optimizer = ConfigDict({"name": "adam", "learning_rate": 0.01})
    config.augment.order = ("random_shift",)
    config.num_steps, config.log_every_steps = steps, 5
    config.eval_every_steps, config.checkpoint_every_steps = 11, 9
    config.log_probabilities = True
    return config


def assert_same_run(one: Path, other: Path) -> None:
    left, right = (
        jax.tree_util.tree_leaves_with_path(restore(workdir, "latest", {}).state)
        for workdir in (one, other)
    )
    for (path, a), (_, b) in zip(left, right, strict=True):
        assert a.dtype == b.dtype, path
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), path
    assert rows(one) == rows(other)
    kinds = ("epoch", "probabilities")
    assert events(one, *kinds) == events(other, *kinds) != []
    for name in ("trained_on.npy", "chosen_on.npy"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


@pytest.mark.slow
@pytest.mark.promise
def test_in_memory_streamed_and_half_of_each(pictures: Path, tmp_path: Path) -> None:
    train(recipe(pictures, stream=False), tmp_path / "memory")
    train(recipe(pictures, stream=True), tmp_path / "streamed")
    assert_same_run(tmp_path / "memory", tmp_path / "streamed")
    for name, stream in (("first", True), ("then", False)):
        workdir = tmp_path / f"{name} streamed"

        def at_step_15(workdir: Path = workdir) -> bool:  # in the middle of a block
            written = (workdir / "metrics.jsonl").exists()
            return written and any(row["step"] == 15 for row in rows(workdir))

        train(recipe(pictures, stream=stream), workdir, should_stop=at_step_15)
        assert int(restore(workdir, "latest", {}).state.step) == 15
        train(recipe(pictures, stream=not stream), workdir)
        assert_same_run(tmp_path / "memory", workdir)
        (resumed,) = events(workdir, "resumed")
        assert resumed["changed"] == {"data.stream": [stream, not stream]}


@pytest.mark.slow
def test_with_everything_that_draws_otherwise(pictures: Path, tmp_path: Path) -> None:
    fields = {"balance": True, "extended": True, "resplit": 1, "resize": 7}
    for name, stream in (("memory", False), ("streamed", True)):
        train(recipe(pictures, stream=stream, steps=23, **fields), tmp_path / name)
    assert_same_run(tmp_path / "memory", tmp_path / "streamed")


@pytest.mark.slow
def test_what_uses_a_run_reads_its_stream(pictures: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    train(recipe(pictures, stream=True, steps=11), workdir)
    restored = restore(workdir, "latest", {})
    assert load_data(restored, print).streamed
    other = restore(workdir, "latest", {"data.stream": False})
    assert not load_data(other, print).streamed
    results = [evaluate_restored(r, load_data(r, print).eval) for r in (restored, other)]
    assert results[0].means == results[1].means
    (row,) = [row for row in rows(workdir) if row["split"] == "eval"]
    assert row["accuracy"] == results[0].means["accuracy"]
    page = write_report(workdir, restored, load_data(restored, print)).read_text()
    assert "13 images" in page
    assert "It has not been evaluated yet" not in page
    rows_of = export_network(workdir, restored, load_data(restored, print), ["stablehlo"], print)
    assert rows_of[0]["examples"] == 13


def test_other_data_are_refused_however_they_are_read(pictures: Path, tmp_path: Path) -> None:
    workdir, place = tmp_path / "run", picture_folder.made(tmp_path / "data")
    train(recipe(place, stream=False, steps=5), workdir)
    (place / "test/a/00.png").write_bytes((place / "test/b/00.png").read_bytes())
    with pytest.raises(UserError, match="not the data of the run"):
        load_data(restore(workdir, "latest", {"data.stream": True}), print)


def test_a_launch_tells_of_a_damaged_picture_before_the_first_step(
    tmp_path: Path, launch: Launch
) -> None:
    place = picture_folder.made(tmp_path / "data")
    (place / "train/b/03.png").write_bytes(b"no picture")
    arguments = [f"--config={TESTS / 'tiny.py'}", f"--workdir={tmp_path / 'run'}"]
    data = [f"--config.data.data_dir={place}", "--config.data.name=abc"]
    done = launch(*arguments, *data, "--config.data.stream=true")
    assert done.returncode == 1
    assert "b/03.png cannot be read" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run/metrics.jsonl").exists()


PEAK = """
import resource, sys
from pathlib import Path
import test_streamed_runs
from mnist_flax import train

place, workdir, stream = sys.argv[1:]
config = test_streamed_runs.recipe(Path(place), stream=stream == "True", steps=300)
config.batch_size, config.observers, config.log_probabilities = 100, (), False
train(config, Path(workdir))
print("PEAK", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak(place: Path, workdir: Path, *, stream: bool) -> int:
    """The most KiB that a process holds which trains on these pictures."""
    environment = launch_environment() | {"XDG_CACHE_HOME": str(workdir.parent / "cache")}
    environment["PYTHONPATH"] = f"{ROOT}:{TESTS}:{TESTS / 'training'}"
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(place), str(workdir), str(stream)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout.rpartition("PEAK ")[2])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux")
def test_a_hundred_thousand_pictures_take_the_memory_of_a_thousand(tmp_path: Path) -> None:
    few, many, random = tmp_path / "few", tmp_path / "many", np.random.default_rng(0)
    for number in range(1000):
        place = few / "train" / str(number % 10)
        place.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8))
        coarse.resize((64, 64)).save(place / f"{number:04}.png")
    (few / "test").symlink_to(few / "train")
    for picture in sorted((few / "train").glob("*/*")):
        place = many / "train" / picture.parent.name
        place.mkdir(parents=True, exist_ok=True)
        for copy in range(100):
            (place / f"{picture.stem}-{copy:02}.png").hardlink_to(picture)
    (many / "test").symlink_to(few / "train")
    in_memory = peak(few, tmp_path / "memory", stream=False)
    streamed = peak(many, tmp_path / "streamed", stream=True)
    print(f"peak of 1,000 in memory {in_memory:,} KiB, of 100,000 streamed {streamed:,} KiB")
    assert streamed - in_memory < 2**20

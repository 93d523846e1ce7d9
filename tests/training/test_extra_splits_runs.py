"""Runs with config.data.extra_eval_splits: rows besides, exact, which change nothing else."""

import json
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TESTS, events, recipe, rows
from flax import linen as nn
from ml_collections import ConfigDict
from tiny import get_config

from mnist_flax import restore, train
from mnist_flax.core import evaluation
from mnist_flax.data.idx import read_idx, write_idx
from mnist_flax.errors import UsageError, UserError
from mnist_flax.export.model_card import without_places
from mnist_flax.report import plots, write_report
from mnist_flax.show.writer import Writer
from mnist_flax.training import check, compilation, loop
from mnist_flax.training.compilation import start_compiling
from mnist_flax.training.gather import gather
from mnist_flax.use.evaluation import evaluate_restored
from mnist_flax.use.run_data import load_data

Launch = Callable[..., subprocess.CompletedProcess[str]]
EXTRA = {"seen": "train[:37]", "shifted": "test[:10]"}


@pytest.fixture(scope="module")
def far(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits with light and dark exchanged."""
    folder = tmp_path_factory.mktemp("far")
    for path in digits.iterdir():
        content = read_idx(path)
        write_idx(folder / path.name, 255 - content if content.ndim == 3 else content)
    return folder


def config_of(digits: Path, extra: Any, **changes: Any) -> ConfigDict:
    config = get_config()
    config.data.data_dir = str(digits)
    config.data.extra_eval_splits = extra
    config.update(changes)
    return config


@pytest.fixture(scope="module")
def with_extra(digits: Path, far: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("extra")
    extra = {**EXTRA, "far": {"data_dir": str(far), "name": "inverted"}}
    train(config_of(digits, extra, tensorboard=True), workdir)
    return workdir


@pytest.fixture(scope="module")
def without(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("without")
    train(config_of(digits, {}), workdir)
    return workdir


def of_splits(workdir: Path, *splits: str) -> list[dict[str, Any]]:
    return [row for row in rows(workdir) if row["split"] in splits]


def same_bits(one: Path, other: Path, which: str = "latest") -> None:
    states = [jax.device_get(restore(workdir, which, {}).state) for workdir in (one, other)]
    jax.tree.map(np.testing.assert_array_equal, *states)


def test_rows_stand_beside_those_of_each_evaluation(with_extra: Path) -> None:
    evaluated = [row for row in rows(with_extra) if row["split"] != "train"]
    assert [row["split"] for row in evaluated] == ["far", "seen", "shifted", "eval"] * 3
    assert [row["step"] for row in evaluated] == [16] * 4 + [32] * 4 + [40] * 4
    *extra, main = evaluated[-4:]
    assert [row["examples"] for row in evaluated[-4:]] == [37, 37, 10, 37]
    assert all(row.keys() == main.keys() for row in extra)
    assert [row["dataset"] for row in evaluated[-4:]] == ["inverted", "mnist", "mnist", "mnist"]
    assert len({row["loss"] for row in evaluated[-4:]}) == 4


def test_their_figures_are_those_of_their_images(with_extra: Path, digits: Path, far: Path) -> None:
    restored = restore(with_extra, "latest", {})
    dataset = load_data(restored, print)
    last = {row["split"]: row for row in rows(with_extra)[-4:]}
    assert dataset.extra == {}  # of training alone
    for name, overrides in (
        ("seen", {"data.eval_split": "train[:37]"}),
        ("shifted", {"data.eval_split": "test[:10]"}),
        ("far", {"data.data_dir": str(far)}),
    ):
        split = load_data(restore(with_extra, "latest", overrides), print).eval
        result = evaluate_restored(restored, split)
        assert result.means["loss"] == pytest.approx(last[name]["loss"], rel=1e-6)
        assert result.means["accuracy"] == last[name]["accuracy"]


def test_nothing_else_of_the_run_is_another(with_extra: Path, without: Path) -> None:
    for which in ("latest", "best"):
        same_bits(with_extra, without, which)
    kinds = ("train", "eval")
    assert of_splits(with_extra, *kinds) == of_splits(without, *kinds)
    told = ("epoch", "lost_classes", "predictions", "finished", "flat_loss")
    assert events(with_extra, *told) == events(without, *told)


def test_a_run_says_what_it_evaluates_besides(with_extra: Path, far: Path) -> None:
    told = [row["message"] for row in events(with_extra, "data")]
    assert told[1:] == [
        f"Evaluated besides: far, 37 images, 'test' of inverted, IDX files in {far}.",
        "Evaluated besides: seen, 37 images, 'train[:37]' of the same data.",
        "Evaluated besides: shifted, 10 images, 'test[:10]' of the same data.",
    ]
    (known,) = events(with_extra, "known_images")
    assert known["message"] == (
        "config.data.extra_eval_splits.seen: all 37 images are also among the images to train on "
        "(found by their digests): their figures look better than the network is."
    )


def test_a_model_card_says_nothing_of_their_place(with_extra: Path, far: Path) -> None:
    config = json.loads((with_extra / "config.json").read_text())["config"]
    told = without_places(config)["data"]
    assert told["extra_eval_splits"] == {**EXTRA, "far": {"name": "inverted"}}
    assert "data_dir" not in told
    assert config["data"]["extra_eval_splits"]["far"]["data_dir"] == str(far)


def test_event_files_have_their_curves(with_extra: Path) -> None:
    written = b"".join(path.read_bytes() for path in (with_extra / "tensorboard").iterdir())
    assert all(f"{name}/accuracy".encode() in written for name in ("far", "seen", "shifted"))


@pytest.mark.slow
@pytest.mark.promise
def test_a_report_has_their_curves(with_extra: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, made = {}, plots.curves

    def curves(lines: Any, ylabel: str, **more: Any) -> Any:
        drawn[ylabel] = {name: steps for name, (steps, _) in lines.items()}
        return made(lines, ylabel, **more)

    monkeypatch.setattr(plots, "curves", curves)
    restored = restore(with_extra, "latest", {})
    page = write_report(with_extra, restored, load_data(restored, print)).read_text()
    assert "which choose nothing: far, seen, shifted." in page
    assert list(drawn["accuracy"]) == ["train", "eval", "far", "seen", "shifted"]
    assert drawn["accuracy"]["far"] == [16, 32, 40]
    assert list(drawn["learning rate"]) == ["train"]


class Killed(BaseException):
    """Ends a run as kill -9 would."""


@pytest.mark.slow
@pytest.mark.promise
@pytest.mark.parametrize("asked", [7, 11, 16])
def test_a_stop_in_an_evaluation_leaves_all_of_it_undone(
    digits: Path, with_extra: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: int
) -> None:
    """After the last batch of eval, in the middle of seen, after the last batch of shifted."""
    begun: list[int] = []
    whole = loop.evaluate

    def counted(*args: Any) -> Any:
        begun[:] = begun or [0]
        return whole(*args)

    def stop() -> bool:
        begun[:] = [begun[0] + 1] if begun else []
        return begun >= [asked]

    config = config_of(digits, EXTRA)
    with monkeypatch.context() as patched:
        patched.setattr(loop, "evaluate", counted)
        patched.setattr(evaluation, "_CHUNK_SECONDS", 0)  # a batch at a time: 7, 7 and 2
        train(config, tmp_path, should_stop=stop)
    assert begun == [asked + 1]  # asked once more before the save
    assert (tmp_path / "checkpoints/latest/16").exists()
    assert [row["step"] for row in rows(tmp_path)] == [1, 10]  # nothing of step 16
    train(config, tmp_path)
    kinds = ("train", "eval", "seen", "shifted")
    assert of_splits(tmp_path, *kinds) == of_splits(with_extra, *kinds)
    same_bits(tmp_path, with_extra)


@pytest.mark.slow
@pytest.mark.promise
@pytest.mark.parametrize("before", ["seen", "shifted", "eval"])
def test_a_kill_between_the_rows_of_an_evaluation_leaves_each_once(
    digits: Path, with_extra: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    """Of an evaluation of a step that an earlier process has saved: its rows are not cut."""
    metrics = tmp_path / "metrics.jsonl"

    def in_evaluation() -> bool:
        return metrics.exists() and (tmp_path / "checkpoints/latest/12").exists()

    config = config_of(digits, EXTRA)
    step = int(train(config, tmp_path, should_stop=in_evaluation).step)
    assert step == 16
    written = Writer.row

    def row(self: Writer, step: int, split: str, *more: Any, **values: float) -> None:
        if split == before:
            raise Killed
        written(self, step, split, *more, **values)

    with monkeypatch.context() as patched:
        patched.setattr(Writer, "row", row)
        with pytest.raises(Killed):
            train(config, tmp_path)
    train(config, tmp_path)
    kinds = ("train", "eval", "seen", "shifted")
    assert of_splits(tmp_path, *kinds) == of_splits(with_extra, *kinds)
    same_bits(tmp_path, with_extra)


@pytest.mark.slow
@pytest.mark.promise
def test_one_may_be_added_changed_and_left_out_of_a_run(
    digits: Path, far: Path, without: Path, tmp_path: Path
) -> None:
    config = config_of(digits, {}, num_steps=16)
    train(config, tmp_path)
    config.num_steps = 32
    config.data.extra_eval_splits = {"shifted": "test[:10]"}
    train(config, tmp_path)
    config.num_steps = 36
    config.data.extra_eval_splits = {"shifted": {"data_dir": str(far), "split": "test[:10]"}}
    train(config, tmp_path)
    config.num_steps = 40
    config.data.extra_eval_splits = {}
    train(config, tmp_path)
    assert [(r["step"], r["dataset"]) for r in of_splits(tmp_path, "shifted")] == [
        (32, "mnist"),
        (36, "mnist"),
    ]
    told = [row["message"] for row in events(tmp_path, "resumed")]
    field = "config.data.extra_eval_splits.shifted"
    others = f"The images of {field} are others than they were."
    assert f"{field} was None, is test[:10]." in told[0]
    assert f"{field} was test[:10], is None. {field}.data_dir was None, is {far}." in told[1]
    assert [others in line for line in told] == [False, True, False]
    same_bits(tmp_path, without)


def test_a_finished_run_stays_as_it_is(
    digits: Path, far: Path, launch: Launch, tmp_path: Path, capsys: Any
) -> None:
    config, workdir = config_of(digits, {"seen": "train[:9]"}, num_steps=4), tmp_path / "run"
    train(config, workdir)
    once = (workdir / "metrics.jsonl").read_bytes()
    assert "Not evaluated" not in capsys.readouterr().err
    extra = {"seen": "train[:9]", "few": "test[:10]", "far": {"data_dir": str(far)}}
    config.data.extra_eval_splits = extra
    train(config, workdir)
    assert (workdir / "metrics.jsonl").read_bytes() == once
    told = capsys.readouterr().err
    assert "is finished" in told
    assert "Not evaluated: far, few. " in told
    assert " config.num_steps=5 trains one step more" in told
    flags = re.findall(r"^  (\w+), without training: (.*)$", told, re.MULTILINE)
    assert [name for name, _ in flags] == ["far", "few"]
    for (_, asked), count in zip(flags, (37, 10), strict=True):
        done = launch(f"--config={TESTS / 'tiny.py'}", f"--workdir={workdir}", *shlex.split(asked))
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["examples"] == count
    config.data.extra_eval_splits["seen"] = "train[9:18]"  # others by the same name
    train(config, workdir)
    assert "Not evaluated: far, few, seen. " in capsys.readouterr().err


def test_they_neither_choose_nor_count(digits: Path, far: Path, tmp_path: Path) -> None:
    """Patience is over while those besides still become better, and those of select choose."""
    config = config_of(digits, {"seen": "train[:37]"}, eval_every_steps=4)
    config.data.update(train_split="train[:80]", select_split="train[80:]")
    config.early_stopping_patience = 1
    train(config, tmp_path / "with")
    config.data.extra_eval_splits = {}
    train(config, tmp_path / "without")
    select = [row["accuracy"] for row in of_splits(tmp_path / "with", "select")]
    seen = [row["accuracy"] for row in of_splits(tmp_path / "with", "seen")]
    assert len(select) == len(seen) < 10
    assert of_splits(tmp_path / "with", "select") == of_splits(tmp_path / "without", "select")
    for which in ("latest", "best"):
        same_bits(tmp_path / "with", tmp_path / "without", which)


def test_splits_of_one_size_share_a_program(digits: Path) -> None:
    plan = gather(config_of(digits, EXTRA | {"also": "train[60:70]"}), print)
    assert compilation._shared_programs(plan) == {
        "": "",
        "also": "also",
        "seen": "",
        "shifted": "also",
    }
    assert start_compiling(plan, 0)().extra_chunks.keys() == {"also", "seen", "shifted"}
    alone = gather(config_of(digits, {}), print)
    assert compilation._shared_programs(alone) == {"": ""}
    assert start_compiling(alone, 0)().extra_chunks == {}


class Exploding(nn.Module):
    """Logits that are infinite on light images, and finite on dark ones."""

    num_classes: int = 10

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        del train
        logits = nn.Dense(self.num_classes)(images.reshape(len(images), -1))
        light = images.mean((1, 2, 3)) > 0.6
        return jnp.where(light[:, None] & (jnp.arange(10) == 3), jnp.inf, logits)


def test_what_is_not_finite_ends_no_run(digits: Path, far: Path, tmp_path: Path) -> None:
    config = config_of(digits, {"far": {"data_dir": str(far)}}, num_steps=2)
    config.model = ConfigDict({"name": f"{__name__}:Exploding"})
    assert int(train(config, tmp_path).step) == 2
    (row,) = of_splits(tmp_path, "far")
    assert "loss" not in row
    assert row["examples"] == 37
    told = [row["message"] for row in events(tmp_path, "not_finite")]
    assert told == ["Of far, loss is nan: its row goes without."]


def test_an_autoencoder_evaluates_them_too(digits: Path, far: Path, tmp_path: Path) -> None:
    config = config_of(digits, {"far": {"data_dir": str(far)}}, num_steps=2)
    config.task = ConfigDict({"name": "autoencoder"})
    config.model = ConfigDict({"name": "vae", "hidden": 8, "latent_size": 2})
    train(config, tmp_path)
    main, besides = (of_splits(tmp_path, name)[0] for name in ("eval", "far"))
    assert main.keys() == besides.keys()
    assert main["negative_elbo"] != besides["negative_elbo"]


def test_a_task_whose_measure_is_of_drawings_refuses_them() -> None:
    config = recipe("dcgan_fast")
    config.data.extra_eval_splits = EXTRA
    with pytest.raises(
        UsageError, match=r"extra_eval_splits: the task 'gan' does not use it: what"
    ):
        check(config)


def test_flags_name_them(digits: Path, launch: Launch) -> None:
    tiny = (f"--config={TESTS / 'tiny.py'}", f"--config.data.data_dir={digits}", "--workdir=run")
    field = "--config.data.extra_eval_splits"
    more = (f"{field}.shifted=test[:10]", f"{field}.seen.split=train[:9]", "--config.num_steps=3")
    done = launch(*tiny, *more)
    assert done.returncode == 0, done.stderr
    assert "  shifted  loss " in done.stderr
    assert "  seen   loss " in done.stderr
    evaluated = launch(*tiny, *more, "--mode=eval")
    assert evaluated.returncode == 0, evaluated.stderr
    assert json.loads(evaluated.stdout)["examples"] == 37
    refused = launch(*tiny, f"{field}.shifted=test", "--mode=eval")
    assert refused.returncode == 2
    assert (
        "was trained with 'test[:10]', and only training can change that. Leave it out; other"
        in refused.stderr
    )
    wrong = launch(*tiny, f"{field}.eval=test")
    assert wrong.returncode == 2
    assert "config.data.extra_eval_splits.eval: 'eval' cannot be the name of" in wrong.stderr
    clash = launch(*tiny, f"{field}.a=test", f"{field}.a.name=kmnist")
    assert clash.returncode == 2
    assert "Traceback" not in clash.stderr


def test_an_older_run_goes_on_and_takes_one(digits: Path, tmp_path: Path) -> None:
    config = config_of(digits, {}, num_steps=4)
    train(config, tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    del written["config"]["data"]["extra_eval_splits"], written["dataset"]["extra_eval_splits"]
    del written["dataset"]["handed_in"]
    (tmp_path / "config.json").write_text(json.dumps(written))
    assert len(load_data(restore(tmp_path, "latest", {}), print).eval.labels) == 37
    config.num_steps, config.data.extra_eval_splits = 8, EXTRA
    train(config, tmp_path)
    assert [row["step"] for row in of_splits(tmp_path, "shifted")] == [8]


def test_damaged_fields_are_told(digits: Path, tmp_path: Path) -> None:
    config = config_of(digits, {}, num_steps=4)
    train(config, tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    written["config"]["data"]["extra_eval_splits"] = 5
    (tmp_path / "config.json").write_text(json.dumps(written))
    with pytest.raises(UserError, match="extra_eval_splits=5: want"):
        restore(tmp_path, "latest", {})

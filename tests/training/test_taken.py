"""Networks that a run takes out of other runs: an ensemble's members, a student's teacher."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT, events, recipe, rows
from ml_collections import ConfigDict
from tiny import get_config

from mnist_flax import restore
from mnist_flax.core.state import TrainState
from mnist_flax.data.idx import read_idx
from mnist_flax.errors import UsageError, UserError
from mnist_flax.export import export_network
from mnist_flax.report import write_report
from mnist_flax.training import members, train
from mnist_flax.training.finetune import InitFrom
from mnist_flax.training.gather import check
from mnist_flax.use.restore import Restored
from mnist_flax.use.restore import restore as restore_network
from mnist_flax.use.run_data import load_data
from mnist_flax.workdir.digests import state_digest


def member_config(digits: Path, **model: Any) -> ConfigDict:
    config = get_config()
    config.data.data_dir, config.num_steps = str(digits), 6
    config.model.update(model)
    return config


@pytest.fixture(scope="module")
def runs(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two members: one of an average, one in bfloat16, whose run is not finished."""
    folder = tmp_path_factory.mktemp("runs")
    first, second = member_config(digits), member_config(digits, features=3)
    first.ema_decay, second.compute_dtype, second.num_steps = 0.9, "bfloat16", 12
    train(first, folder / "seed=0")
    train(second, folder / "seed=1", should_stop=(folder / "seed=1/checkpoints/latest/4").exists)
    return folder


@pytest.fixture(scope="module")
def ensemble(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of both, whose folders were elsewhere when it was made, and are gone."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(runs, folder / "members")
    train(ensemble_config(folder / "members/seed=*"), folder / "ensemble")
    shutil.rmtree(folder / "members")
    return folder / "ensemble"


def ensemble_config(*members: Path) -> ConfigDict:
    config = recipe("ensemble")
    config.task.members = tuple(map(str, members))
    return config


def distilled_config(teacher: Path, digits: Path) -> ConfigDict:
    config = get_config()
    config.data.data_dir = str(digits)
    config.task = recipe("distilled").task
    config.task.teacher = str(teacher)
    config.num_steps, config.log_every_steps = 5, 2
    config.eval_every_steps, config.checkpoint_every_steps = 3, 1
    return config


def pictures(digits: Path) -> np.ndarray:
    return read_idx(digits / "t10k-images-idx3-ubyte.gz")[..., None]


def assert_same(one: TrainState, other: TrainState) -> None:
    for a, b in zip(*map(jax.tree.leaves, jax.device_get((one, other))), strict=True):
        assert a.dtype == b.dtype
        assert a.tobytes() == b.tobytes()


def test_an_ensemble_is_the_mean_of_its_members_and_needs_them_no_longer(
    runs: Path, ensemble: Path, digits: Path
) -> None:
    images = pictures(digits)
    runs_of = [restore(runs / name) for name in ("seed=0", "seed=1")]
    alone = [np.stack([p.probabilities for p in one.predict(images)]) for one in runs_of]
    found = restore(ensemble)
    mean = (alone[0] + alone[1]) / 2
    together = np.stack([p.probabilities for p in found.predict(images)])
    np.testing.assert_allclose(together, mean, rtol=3e-2, atol=1e-3)  # bfloat16 has eight bits
    assert abs(alone[0] - mean).max() > 0.02
    for name, one in zip(("member1", "member2"), runs_of, strict=True):
        own = {kind: found.variables[kind][name] for kind in ("params", "batch_stats")}
        assert_same(own, one.variables)  # of the first, its average
    (row,) = rows(ensemble)
    assert (row["step"], row["split"], row["examples"]) == (0, "eval", 37)
    assert row["accuracy"] == found.evaluate().means["accuracy"]


def test_it_tells_what_it_was_made_of(runs: Path, ensemble: Path) -> None:
    config = json.loads((ensemble / "config.json").read_text())["config"]
    told = events(ensemble, "taken")
    for number, (step, dtype) in enumerate(((6, "float32"), (8, "bfloat16")), start=1):
        run, name = runs / f"seed={number - 1}", f"member{number}"
        digest = state_digest(jax.device_get(restore(run).variables))
        assert config["task"]["taken"][name]["digest"] == told[number - 1]["digest"] == digest
        assert config["task"]["taken"][name]["step"] == step
        assert config["model"]["members"][name]["compute_dtype"] == dtype
        ended = " Its run is not finished." if number == 2 else ""
        assert told[number - 1]["message"].endswith(
            f"/seed={number - 1}, step {step}, tiny:TinyNet, SHA-256 {digest[:16]}….{ended}"
        )
    assert config["compute_dtype"] == "bfloat16"
    assert (ensemble / "checkpoints/latest/0").is_dir()
    assert (ensemble / "checkpoints/best/0").is_dir()


def test_the_same_command_again_does_nothing(
    ensemble: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = json.loads((ensemble / "config.json").read_text())["config"]["task"]["members"]
    before = (ensemble / "metrics.jsonl").read_bytes()
    state = train(ensemble_config(*map(Path, asked)), ensemble)
    assert_same(state, restore(ensemble).state)
    assert (ensemble / "metrics.jsonl").read_bytes() == before
    assert f"The ensemble in {ensemble} is complete" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"holds another run.*\n.*task\.members: was"):
        train(ensemble_config(Path("elsewhere")), ensemble)


def test_a_member_that_has_changed_is_reported(
    runs: Path, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(runs / "seed=0", tmp_path / "a")
    config = ensemble_config(tmp_path / "a")
    made = train(config, tmp_path / "ensemble")
    longer = member_config(digits)
    longer.ema_decay, longer.num_steps = 0.9, 8
    train(longer, tmp_path / "a")
    assert_same(train(config, tmp_path / "ensemble"), made)
    told = "member1: {0} has changed since: it stands at step 8. This run keeps what it took, of"
    assert told.format(tmp_path / "a") in capsys.readouterr().err


def test_what_cannot_be_a_member(runs: Path, digits: Path, tmp_path: Path) -> None:
    first = runs / "seed=0"
    other = member_config(digits)
    other.data.train_split, other.num_steps = "train[:60]", 1
    train(other, tmp_path / "other")
    faults = {
        (): "names no run. Name the workdirs of finished classifications",
        (runs / "none=*",): "matches no run's workdir",
        (first, first): "is named twice",
        (first, runs / "seed=1/../seed=0"): "is named twice",
        (first, tmp_path / "gone"): f"{tmp_path / 'gone'}: ",
        (first, tmp_path / "other"): (
            f"{tmp_path / 'other'} was trained on other data than {first}: config.data.train_split "
            "'train[:60]' and 'train'. Take members of the same data."
        ),
    }
    for named, told in faults.items():
        with pytest.raises(UserError) as error:
            train(ensemble_config(*named), tmp_path / "made")
        assert str(error.value).startswith("config.task.members: ")
        assert told in str(error.value)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "made/checkpoints").exists()
    # The data of the run itself are others than its members'.
    config = ensemble_config(first)
    config.data.update(data_dir=str(digits), train_split="train[:60]")
    config.batch_size = 6
    with pytest.raises(UserError, match="was trained on other data than these"):
        train(config, tmp_path / "made")


def test_a_run_is_finished_by_its_newest_process(tmp_path: Path) -> None:
    kinds = ("started", "saved", "finished", "resumed", "stopped", "resumed", "finished")
    lines = [json.dumps({"step": 1, "event": kind}) + "\n" for kind in kinds]
    found = []
    for count in range(len(lines) + 1):
        (tmp_path / "metrics.jsonl").write_text("".join(lines[:count]))
        found.append(members.is_finished(tmp_path))
    assert [number for number, finished in enumerate(found) if finished] == [3, 7]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"class_names": tuple("abcdefghij")}, "has other classes than {first}: a, b, c, "),
        ({"image_shape": (9, 9, 1)}, "has another image shape than {first}: 9×9×1 and 8×8×1."),
        ({"predict": lambda variables, images: {"drawn": images}}, "holds no classification"),
    ],
)
def test_a_member_that_knows_something_else(
    change: dict[str, Any], told: str, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, odd = runs / "seed=0", tmp_path / "odd"

    def other(path: Path, which: str, overrides: Any) -> Restored:
        found = restore_network(first, which, overrides)
        if path != odd:
            return found
        if "predict" in change:
            return replace(found, task=found.task._replace(**change))
        zeros = {"classes": jnp.zeros(1, jnp.int32), "probabilities": jnp.zeros((1, 10))}
        task = found.task._replace(predict=lambda variables, images: zeros)
        return replace(found, task=task, **change)

    monkeypatch.setattr(members, "restore", other)
    monkeypatch.setattr(members, "_require_logits", lambda *given: None)
    with pytest.raises(UserError) as error:
        train(ensemble_config(first, odd), tmp_path / "made")
    assert str(error.value).startswith(f"config.task.members: {odd} {told.format(first=first)}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("num_steps", 5, "config.num_steps=5: the task 'ensemble' trains nothing"),
        ("num_epochs", 2, "config.num_epochs=2: the task 'ensemble' trains nothing"),
        ("ema_decay", 0.9, "config.ema_decay=0.9: the task 'ensemble' does not use it"),
        ("optimizer.learning_rate", 0.1, "the task 'ensemble' does not use it"),
        ("on_bad_step", "skip", "the task 'ensemble' does not use it"),
        ("augment.order", ("random_shift",), "the task 'ensemble' does not use it"),
        ("early_stopping_patience", 2, "the task 'ensemble' does not use it"),
        ("model.name", "lenet", "the task 'ensemble' has the model 'ensemble'"),
        ("task.members", "runs/a", "must be a tuple of workdirs"),
        ("task.checkpoint", "newest", "must be 'latest' or 'best'"),
    ],
)
def test_what_makes_no_sense_for_an_ensemble(field: str, value: Any, told: str) -> None:
    config = recipe("ensemble")
    if field == "num_epochs":
        config.num_steps = None
    section, _, leaf = field.rpartition(".")
    with config.ignore_type():
        (config[section] if section else config)[leaf] = value
    with pytest.raises(UsageError) as error:
        check(config)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_no_steps_are_for_a_task_that_trains_nothing() -> None:
    check(recipe("ensemble"))
    config = recipe("speedrun")
    config.num_steps = 0
    with pytest.raises(UsageError) as error:
        check(config)
    assert str(error.value) == "config.num_steps=0: must be at least 1."


def test_an_ensemble_takes_no_other_start(ensemble: Path, runs: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"init_from=.*: the task 'ensemble' trains nothing"):
        train(ensemble_config(runs / "seed=0"), tmp_path, init_from=InitFrom(runs / "seed=1"))


def test_a_student_goes_on_to_the_bit_at_every_step_without_its_teacher(
    ensemble: Path, digits: Path, tmp_path: Path
) -> None:
    teacher = shutil.copytree(ensemble, tmp_path / "teacher")
    config = distilled_config(teacher, digits)
    config.ema_decay, config.eval_every_steps = 0.5, 5
    straight = train(config, tmp_path / "straight")
    seen: list[int] = []
    while 5 not in seen:
        asked = iter((False,))  # and then yes: a step later, or in the middle of an evaluation
        state = train(config, tmp_path / "cut", should_stop=lambda: next(asked, True))  # noqa: B023
        seen.append(int(state.step))
        assert len(seen) < 10
        shutil.rmtree(teacher, ignore_errors=True)
    assert {*seen} == {1, 2, 3, 4, 5}
    assert_same(train(config, tmp_path / "cut"), straight)
    assert rows(tmp_path / "cut") == rows(tmp_path / "straight")
    found = restore(tmp_path / "cut")
    assert_same(found.state.variables["teacher"], restore(ensemble).variables)
    assert found.variables.keys() == {"params", "batch_stats"}
    assert found.variables["params"].keys() == {"conv", "norm", "logits"}
    assert "member1" not in (tmp_path / "cut/config.json").read_text().split("task")[0]


@pytest.mark.parametrize("kind", ["ensemble", "distilled"])
def test_its_files_give_what_it_gives(kind: str, runs: Path, digits: Path, tmp_path: Path) -> None:
    workdir = tmp_path / kind
    if kind == "ensemble":  # of float32: onnxruntime has no convolution of bfloat16
        shutil.copytree(runs / "seed=0", tmp_path / "copy")
        train(ensemble_config(runs / "seed=0", tmp_path / "copy"), workdir)
    else:
        config = distilled_config(runs / "seed=0", digits)
        config.num_steps = 1
        train(config, workdir)
    found = restore(workdir)
    data = load_data(found, print)
    files = export_network(workdir, found, data, ["stablehlo", "onnx"], print)
    for row in files[:2]:
        assert row["max_abs_difference"] < 1e-4
    card = (workdir / "export/MODEL_CARD.md").read_text()
    parameters = sum(leaf.size for leaf in jax.tree.leaves(found.variables["params"]))
    assert f" {parameters:,} parameters" in card
    told = {
        "ensemble": "It is the mean of the probabilities of 2 networks.",
        "distilled": "It was taught by another network, 'tiny:TinyNet'.",
    }
    assert told[kind] in card
    assert str(tmp_path) not in card
    assert str(runs) not in card
    page = write_report(workdir, found, data).read_text()
    assert f"{parameters:,}" in page


def test_the_command_makes_one_and_teaches_from_it(
    runs: Path, launch: Callable[..., Any], tmp_path: Path
) -> None:
    named = f"--config.task.members=('{runs}/seed=*',)"
    done = launch(f"--config={ROOT / 'configs/ensemble.py'}", named)
    assert done.returncode == 0, done.stderr
    assert "Finished at step 0, which is saved." in done.stderr
    assert "Train it longer" not in done.stderr
    done = launch("--workdir=runs/ensemble", "--mode=eval")
    assert json.loads(done.stdout)["accuracy"] == rows(tmp_path / "runs/ensemble")[0]["accuracy"]
    done = launch(f"--config={ROOT / 'configs/ensemble.py'}", named, "--mode=check")
    assert "is complete" in done.stderr
    done = launch(f"--config={ROOT / 'configs/distilled.py'}", "--mode=check")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("Error: config.task.teacher: names no run.")

"""What version 0.1.0 has written stays readable: judged, asked, reported, and trained on.

The functions up to `parts` say where today's package keeps what an old workdir holds. They follow
the package; the tests below them, and what old_run.py writes, do not.
"""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from conftest import events, rows
from ml_collections import ConfigDict
from old_run import BEST_STEP, KINDS, LATEST_STEP, OldRun, OldState, read_digits, write_old_run
from PIL import Image
from report_page import Page
from tiny import TinyNet, get_config

from mnist_flax.errors import UserError
from mnist_flax.training import train
from mnist_flax.use.restore import restore

Launch = Callable[..., subprocess.CompletedProcess[str]]


def todays_config(digits: Path, kind: str = "adam") -> ConfigDict:
    """The recipe that goes on with an old run of this kind, in today's fields."""
    config = get_config()
    config.num_steps, config.eval_every_steps = 20, 5
    config.data.data_dir = str(digits)
    if kind == "clipped sgd":
        config.optimizer = ConfigDict({"name": "sgd", "learning_rate": 0.01, "momentum": 0.9})
        config.clip_by_global_norm = 1.0
    elif kind == "smoothed":
        config.label_smoothing, config.log_probabilities = 0.1, True
    return config


def another_rate(config: ConfigDict) -> None:
    config.optimizer.learning_rate = 0.02


def another_clip(config: ConfigDict) -> None:
    config.clip_by_global_norm = 2.0


def another_smoothing(config: ConfigDict) -> None:
    config.label_smoothing = 0.0


def restored_state(workdir: Path, which: str) -> Any:
    return restore(workdir, which, {}).state


def step_of(state: Any) -> int:
    return int(state.step)


def sums(metrics: Any) -> dict[str, Any]:
    return {
        "loss_sum": metrics["loss"],
        "correct": metrics["accuracy"],
        "count": metrics["count"],
    }


def parts(state: Any) -> dict[str, Any]:
    """All that a state of today's carries, under the names that it had in 0.1.0."""
    return {
        "step": state.step,
        "params": state.params,
        "batch_stats": state.batch_stats,
        "opt_state": state.opt_state,
        "window": sums(state.window),
        "epoch": sums(state.epoch),
    }


def old_parts(state: OldState) -> dict[str, Any]:
    names = ("step", "params", "batch_stats", "opt_state")
    return {name: getattr(state, name) for name in names} | {
        "window": vars(state.window),
        "epoch": vars(state.epoch),
    }


def bits(tree: Any) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(tree))
    return {
        jax.tree_util.keystr(path): (str(leaf.dtype), leaf.shape, leaf.tobytes())
        for path, leaf in leaves
    }


def logits_by_hand(state: OldState, images: np.ndarray) -> np.ndarray:
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    return np.asarray(TinyNet().apply(variables, images.astype(np.float32) / np.float32(255)))


def accuracy_by_hand(state: OldState, digits: Path) -> float:
    images, labels = read_digits(digits, "t10k")
    return float(np.mean(logits_by_hand(state, images).argmax(-1) == labels))


def means_at(workdir: Path, step: int) -> dict[str, Any]:
    """The training row or the epoch's that ends at this step."""
    told = [row for row in rows(workdir) if row["split"] == "train"] + events(workdir, "epoch")
    (row,) = (row for row in told if row["step"] == step)
    return row


def contents(workdir: Path) -> dict[Path, bytes]:
    """Every file of a run but those that say who holds it."""
    files = (path for path in workdir.rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in files if path.name not in (".holder", ".lock")}


@pytest.fixture(scope="module")
def old(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> OldRun:
    """An old run that nobody trains on."""
    return write_old_run(tmp_path_factory.mktemp("old") / "run", digits)


@pytest.fixture(scope="module")
def gone_on(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[OldRun, Any]:
    """An old run that was trained on to its end, and its last state."""
    run = write_old_run(tmp_path_factory.mktemp("gone_on") / "run", digits)
    return run, jax.device_get(train(todays_config(digits), run.workdir))


@pytest.mark.parametrize("which", ["latest", "best"])
def test_an_old_network_is_judged_as_its_own_parameters_have_it(
    launch: Launch, old: OldRun, digits: Path, which: str
) -> None:
    state = {"latest": old.latest, "best": old.best}[which]
    done = launch(f"--workdir={old.workdir}", "--mode=eval", f"--checkpoint={which}")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    images, labels = read_digits(digits, "t10k")
    likely = np.asarray(jax.nn.log_softmax(logits_by_hand(state, images)))
    assert told["loss"] == pytest.approx(-likely[np.arange(37), labels].mean(), rel=1e-6)
    assert told["accuracy"] == accuracy_by_hand(state, digits)
    assert (told["examples"], told["global_step"]) == (37, int(state.step))


def test_an_old_network_says_of_a_picture_what_its_own_parameters_say(
    launch: Launch, old: OldRun, digits: Path, tmp_path: Path
) -> None:
    images, _ = read_digits(digits, "t10k")
    Image.fromarray(images[3, ..., 0]).save(tmp_path / "digit.png")
    done = launch(f"--workdir={old.workdir}", "--mode=predict", "--center=false", "digit.png")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    expected = jax.nn.softmax(logits_by_hand(old.latest, images[3:4]))[0]
    np.testing.assert_allclose(told["probabilities"], expected, rtol=0, atol=1e-6)
    assert told["classes"] == int(expected.argmax())


@pytest.mark.slow
@pytest.mark.promise
def test_a_report_shows_an_old_runs_rows_and_its_accuracy(
    launch: Launch, old: OldRun, digits: Path
) -> None:
    before = contents(old.workdir)
    done = launch(f"--workdir={old.workdir}", "--mode=report")
    assert done.returncode == 0, done.stderr
    page = Page(old.workdir / "report/index.html")
    accuracy = accuracy_by_hand(old.latest, digits)
    assert page.texts["accuracy"] == f"{100 * accuracy:.2f}\N{NO-BREAK SPACE}%"
    for row in old.rows:
        if "event" in row:
            # Folders are named by their last part: a report travels.
            told = row["message"].replace(f"{old.workdir.parent}/", "")
            assert told.replace(f"{digits.parent}/", "") in page.text
    shown = " ".join(image["alt"] for image in page.images)
    for curve in ("Loss", "Accuracy", "Learning rate", "Steps per second"):
        assert curve in shown
    assert "It has not been evaluated yet" not in page.text
    assert before.items() <= contents(old.workdir).items()


@pytest.mark.parametrize("kind", KINDS)
def test_an_old_state_is_restored_to_the_bit(digits: Path, tmp_path: Path, kind: str) -> None:
    run = write_old_run(tmp_path / "run", digits, kind)
    for which, written in (("latest", run.latest), ("best", run.best)):
        assert bits(parts(restored_state(run.workdir, which))) == bits(old_parts(written))


@pytest.mark.parametrize("kind", ["adam", "clipped sgd"])
def test_an_old_run_goes_on_from_the_very_bits_that_it_was_left_with(
    digits: Path, tmp_path: Path, capsys, kind: str
) -> None:
    run = write_old_run(tmp_path / "run", digits, kind)
    state = train(todays_config(digits, kind), run.workdir, should_stop=lambda: True)
    assert f"Resumed at step {LATEST_STEP} from {run.workdir}." in capsys.readouterr().err
    assert bits(parts(state)) == bits(old_parts(run.latest))
    assert events(run.workdir, "resumed")[0]["changed"] == {}


def test_the_rows_of_before_stay_and_each_that_follows_comes_once(gone_on) -> None:
    run, state = gone_on
    assert step_of(state) == 20
    lines = (run.workdir / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines[: len(run.rows)]] == run.rows
    told = [(row["split"], row["step"]) for row in rows(run.workdir)]
    assert [step for split, step in told if split == "train"] == [1, 10, 20]
    assert [step for split, step in told if split == "eval"] == [5, 10, 15, 20]
    assert [event["step"] for event in events(run.workdir, "epoch")] == [17]


def test_the_best_save_stays_until_an_evaluation_is_better(gone_on) -> None:
    run, _ = gone_on
    told = [row["accuracy"] for row in rows(run.workdir) if row["split"] == "eval"]
    assert max(told[1:]) < told[0]  # or this would show nothing
    state = restored_state(run.workdir, "best")
    assert step_of(state) == BEST_STEP
    assert bits(parts(state)) == bits(old_parts(run.best))


def test_the_open_sums_count_in_the_next_row_and_a_better_evaluation_is_saved(
    gone_on, digits: Path, tmp_path: Path
) -> None:
    one, state = gone_on
    other = write_old_run(
        tmp_path / "run", digits, best_accuracy=0.0, mean_loss=1.25, right_a_step=3
    )
    other_state = train(todays_config(digits), other.workdir)
    assert bits(parts(state)) == bits(parts(other_state))  # sums and rows move no parameter
    # Steps 2 to 10 and 1 to 17, six images each; what was summed up to step 8 differs.
    for step, share in ((10, 7 / 9), (17, 8 / 17)):
        left, right = (means_at(run.workdir, step) for run in (one, other))
        assert left["loss"] - right["loss"] == pytest.approx(1.25 * share, abs=1e-5)
        assert left["accuracy"] - right["accuracy"] == pytest.approx(-2 / 6 * share)
    # Every later row is the same: the old sums were closed.
    assert [row for row in rows(one.workdir) if row["step"] > 10] == [
        row for row in rows(other.workdir) if row["step"] > 10
    ]
    told = {row["step"]: row["accuracy"] for row in rows(other.workdir) if row["split"] == "eval"}
    assert step_of(restored_state(other.workdir, "best")) == max(told, key=told.__getitem__)


@pytest.mark.slow
@pytest.mark.promise
def test_saves_of_now_beside_old_ones_give_the_same_run(
    gone_on, digits: Path, tmp_path: Path
) -> None:
    straight, state = gone_on
    cut = write_old_run(tmp_path / "run", digits)
    stop = (cut.workdir / "checkpoints/latest/12").exists
    assert LATEST_STEP < step_of(train(todays_config(digits), cut.workdir, should_stop=stop)) < 20
    assert bits(parts(train(todays_config(digits), cut.workdir))) == bits(parts(state))
    assert rows(cut.workdir) == rows(straight.workdir)
    assert step_of(restored_state(cut.workdir, "best")) == BEST_STEP


def test_an_old_run_with_probabilities_goes_on_writing_them(digits: Path, tmp_path: Path) -> None:
    run = write_old_run(tmp_path / "run", digits, "smoothed")
    train(todays_config(digits, "smoothed"), run.workdir)
    assert events(run.workdir, "resumed")[0]["changed"] == {}
    told = events(run.workdir, "probabilities")
    assert told[0] in run.rows
    assert [row["step"] for row in told] == [1, 10, 20]
    assert np.shape(told[1]["probabilities"]) == (6, 10)


@pytest.mark.parametrize(
    ("kind", "change", "told"),
    [
        ("adam", another_rate, "learning_rate: was 0.01, now 0.02"),
        ("clipped sgd", another_clip, "clip_by_global_norm: was 1.0, now 2.0"),
        ("smoothed", another_smoothing, "label_smoothing: was 0.1, now 0.0"),
    ],
)
def test_a_harmful_change_to_an_old_run_is_refused_with_old_and_new(
    digits: Path, tmp_path: Path, kind: str, change: Callable[[ConfigDict], None], told: str
) -> None:
    run = write_old_run(tmp_path / "run", digits, kind)
    before = contents(run.workdir)
    config = todays_config(digits, kind)
    change(config)
    with pytest.raises(UserError) as caught:
        train(config, run.workdir)
    assert told in str(caught.value)
    assert contents(run.workdir) == before

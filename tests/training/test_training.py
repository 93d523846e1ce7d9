import json
import logging
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import events, rows
from made import state_of
from ml_collections import ConfigDict
from tiny import TinyNet

from mnist_flax.core.chunk import all_finite
from mnist_flax.data import load
from mnist_flax.data.idx import read_idx, write_idx
from mnist_flax.data.sources import order_of
from mnist_flax.errors import UsageError, UserError
from mnist_flax.keys import rng_key
from mnist_flax.report import write_report
from mnist_flax.training import train
from mnist_flax.use.restore import restore
from mnist_flax.use.run_data import load_data
from mnist_flax.workdir.environment import environment


def test_a_run_writes_every_row_that_is_due_once(tiny_config: ConfigDict, tmp_path: Path) -> None:
    state = train(tiny_config, tmp_path)
    assert int(state.step) == 40
    told = [(row["split"], row["step"]) for row in rows(tmp_path)]
    assert told == [
        ("train", 1),
        ("train", 10),
        ("eval", 16),
        ("train", 20),
        ("train", 30),
        ("eval", 32),
        ("train", 40),
        ("eval", 40),
    ]
    evaluations = [row for row in rows(tmp_path) if row["split"] == "eval"]
    assert {row["examples"] for row in evaluations} == {37}  # all, though 6 does not divide 37
    assert {row["dataset"] for row in rows(tmp_path)} == {"mnist"}


def test_an_epoch_row_holds_its_sums_and_its_last_batch(tiny_config, tmp_path, capsys) -> None:
    tiny_config.log_every_steps = 1
    train(tiny_config, tmp_path)
    epochs = events(tmp_path, "epoch")
    assert [(row["epoch"], row["step"]) for row in epochs] == [(1, 17), (2, 34)]  # not 40
    losses = [row["loss"] for row in rows(tmp_path) if row["split"] == "train"]
    accuracies = [row["accuracy"] for row in rows(tmp_path) if row["split"] == "train"]
    for row, steps in zip(epochs, (slice(0, 17), slice(17, 34)), strict=True):
        assert row["loss_sum"] == pytest.approx(sum(losses[steps]), rel=1e-5)
        assert row["loss"] == pytest.approx(sum(losses[steps]) / 17, rel=1e-5)
        assert row["accuracy"] == pytest.approx(sum(accuracies[steps]) / 17)
        assert row["last_batch_accuracy"] * 6 == pytest.approx(
            round(row["last_batch_accuracy"] * 6)
        )
    told = f"epoch  loss {epochs[0]['loss']:.4f}  accuracy {epochs[0]['accuracy']:.4f}  epoch 1: "
    assert told in capsys.readouterr().err


def test_the_last_batch_is_seen_after_its_update_in_training_mode(tiny_config, tmp_path) -> None:
    tiny_config.log_every_steps = tiny_config.num_steps = 17
    tiny_config.log_probabilities = True
    state = train(tiny_config, tmp_path)
    dataset = load(tiny_config.data)
    order = np.asarray(order_of(rng_key(0, "shuffle", 0), 105, shuffle=True))
    picks = order[16 * 6 : 17 * 6]
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    logits, _ = TinyNet().apply(
        variables,
        dataset.train.images[picks] / np.float32(255),
        train=True,
        rngs={"dropout": rng_key(0, "dropout", 16)},
        mutable=["batch_stats"],
    )
    told = events(tmp_path, "probabilities")
    assert [row["step"] for row in told] == [1, 17]
    assert told[-1]["labels"] == dataset.train.labels[picks].tolist()
    np.testing.assert_allclose(told[-1]["probabilities"], jax.nn.softmax(logits), atol=1e-5)
    right = (logits.argmax(-1) == dataset.train.labels[picks]).mean()
    assert events(tmp_path, "epoch")[0]["last_batch_accuracy"] == pytest.approx(float(right))


def test_the_first_twenty_predictions_stand_beside_their_labels(tiny_config, tmp_path, capsys):
    tiny_config.num_steps = 17
    state = train(tiny_config, tmp_path)
    dataset = load(tiny_config.data)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    logits = TinyNet().apply(variables, dataset.eval.images[:20] / np.float32(255))
    (told,) = events(tmp_path, "predictions")
    assert told["classes"] == logits.argmax(-1).tolist()
    assert told["labels"] == [i * 7 % 10 for i in range(20)]
    lines = capsys.readouterr().err.splitlines()
    assert f"First 20 predictions: {' '.join(map(str, told['classes']))}" in lines
    assert f"     and their labels: {' '.join(map(str, told['labels']))}" in lines


def test_a_run_on_mixed_splits_is_judged_on_its_own(tiny_config, tmp_path) -> None:
    tiny_config.data.resplit = tiny_config.num_steps = 1
    train(tiny_config, tmp_path)
    restored = restore(tmp_path, "latest", {"data.eval_split": "test"})
    assert load_data(restored, str).fingerprint == load(tiny_config.data).fingerprint
    for split in ("train", "test[:5]"):  # cut from other images than the run was trained on
        with pytest.raises(UsageError, match=r"config\.data\.eval_split='.*this run has mixed its"):
            restore(tmp_path, "latest", {"data.eval_split": split})
    with pytest.raises(UsageError, match=r"config\.data\.resplit=\d+: the run in .* was trained"):
        restore(tmp_path, "latest", {"data.resplit": 2})


def test_a_run_on_mixed_splits_tells_its_own_images_from_others(
    tiny_config, tmp_path, digits
) -> None:
    tiny_config.data.resplit = tiny_config.num_steps = 1
    train(tiny_config, tmp_path / "run")
    other = tmp_path / "other"
    other.mkdir()
    for prefix in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            name = f"{prefix}-{kind}-ubyte.gz"
            write_idx(other / name, read_idx(digits / name)[::-1])
    same_name = restore(tmp_path / "run", "latest", {"data.data_dir": str(other)})
    with pytest.raises(UserError, match="images that it was trained on would be judged"):
        load_data(same_name, str)
    overrides = {"data.data_dir": str(other), "data.name": "mine", "data.eval_split": "train[:9]"}
    unmixed = load_data(restore(tmp_path / "run", "latest", overrides), str)
    assert "cut again" not in unmixed.source
    np.testing.assert_array_equal(
        unmixed.eval.images[..., 0], read_idx(other / "train-images-idx3-ubyte.gz")[:9]
    )


def test_a_run_of_another_version_is_told(tiny_config, tmp_path) -> None:
    tiny_config.num_steps = 1
    train(tiny_config, tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    del written["config"]["clip_by_global_norm"], written["config"]["data"]["resplit"]
    (tmp_path / "config.json").write_text(json.dumps(written))
    with pytest.raises(UserError, match=r"lacks clip_by_global_norm, data\.resplit; another"):
        restore(tmp_path, "latest", {})


@pytest.mark.slow
@pytest.mark.promise
def test_the_extended_set_makes_an_epoch_six_times_as_long(tiny_config, tmp_path) -> None:
    tiny_config.data.extended = True
    tiny_config.num_steps, tiny_config.num_epochs = None, 1
    assert int(train(tiny_config, tmp_path).step) == 6 * 105 // 6


def test_a_gradient_is_clipped_to_its_norm(tiny_config, tmp_path) -> None:
    tiny_config.optimizer = ConfigDict({"name": "sgd", "learning_rate": 1.0})
    tiny_config.num_steps, tiny_config.clip_by_global_norm = 1, 1e-3
    after = train(tiny_config, tmp_path).params
    before = state_of(TinyNet(), optax.identity(), (8, 8, 1), 0).params
    moved = jax.tree.leaves(jax.tree.map(jnp.subtract, after, before))
    norm = sum(float((leaf**2).sum()) for leaf in moved) ** 0.5
    assert norm == pytest.approx(1e-3, rel=1e-3)


def test_train_rows_hold_the_fields_that_scripts_rely_on(tiny_config, tmp_path) -> None:
    tiny_config.num_steps = 2
    train(tiny_config, tmp_path)
    first = rows(tmp_path, timed=True)[0]
    assert {"step", "split", "loss", "accuracy", "dataset"} <= first.keys()
    assert first["images_per_second"] == pytest.approx(6 * first["steps_per_second"])


def test_a_network_learns(tiny_config, tmp_path) -> None:
    tiny_config.num_steps = 150
    train(tiny_config, tmp_path)
    losses = [row["loss"] for row in rows(tmp_path) if row["split"] == "train"]
    accuracy = [row["accuracy"] for row in rows(tmp_path) if row["split"] == "eval"]
    assert losses[-1] < losses[0] / 3
    assert accuracy[-1] > 0.9


def test_the_chunk_is_compiled_once_in_a_whole_run(tiny_config, tmp_path, caplog) -> None:
    # Not `jax.log_compiles()`, which holds for this thread alone.
    jax.config.update("jax_log_compiles", True)
    try:
        with caplog.at_level(logging.WARNING):
            train(tiny_config, tmp_path)
    finally:
        jax.config.update("jax_log_compiles", False)
    for program in ("train_chunk", "eval_chunk", "epoch_order"):
        mark = f"Finished XLA compilation of jit({program})"
        assert sum(mark in message for message in caplog.messages) == 1, program


def test_config_json_holds_every_field_and_the_versions(tiny_config, tmp_path) -> None:
    tiny_config.num_steps = 1
    train(tiny_config, tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["config"]["optimizer"] == {"name": "adam", "learning_rate": 0.01}
    assert written["config"]["num_epochs"] is None
    assert {"python", "jax", "flax", "optax", "orbax-checkpoint"} <= written["environment"].keys()
    assert len(written["dataset"]["fingerprint"]) == 64


def test_num_epochs_is_that_many_times_all_full_batches(tiny_config, tmp_path) -> None:
    tiny_config.num_steps, tiny_config.num_epochs = None, 2
    assert int(train(tiny_config, tmp_path).step) == 2 * 17  # 105 // 6 = 17


@pytest.mark.slow
@pytest.mark.promise
def test_interval_zero_is_once_an_epoch(tiny_config, tmp_path) -> None:
    tiny_config.eval_every_steps = tiny_config.log_every_steps = 0
    train(tiny_config, tmp_path)
    assert [row["step"] for row in rows(tmp_path) if row["split"] == "eval"] == [17, 34, 40]


def test_a_finished_run_is_left_as_it_is(tiny_config, tmp_path, capsys) -> None:
    first = jax.device_get(train(tiny_config, tmp_path))
    before = (tmp_path / "metrics.jsonl").read_bytes()
    again = jax.device_get(train(tiny_config, tmp_path))
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert "finished" in capsys.readouterr().err


def test_the_best_evaluation_is_saved_at_its_step(tiny_config, tmp_path) -> None:
    tiny_config.checkpoint_every_steps = 1000
    train(tiny_config, tmp_path)
    evaluations = [row for row in rows(tmp_path) if row["split"] == "eval"]
    best = max(evaluations, key=lambda row: (row["accuracy"], -row["step"]))
    assert [p.name for p in (tmp_path / "checkpoints/best").iterdir()] == [str(best["step"])]


def test_a_diverging_run_stops_and_saves_nothing_bad(tiny_config, tmp_path) -> None:
    tiny_config.optimizer.name = "sgd"
    tiny_config.optimizer.learning_rate = 1e30
    with pytest.raises(UserError, match=r"diverged.* learning rate 1e\+30.*learning_rate=1e\+29"):
        train(tiny_config, tmp_path)
    assert all(np.isfinite(row["loss"]) for row in rows(tmp_path))
    assert not list((tmp_path / "checkpoints/latest").iterdir())


def test_parameters_that_are_no_numbers_are_never_saved(tiny_config, tmp_path) -> None:
    # The window of step 1 is finite: its loss was taken before the update that spoils all.
    tiny_config.optimizer.name = "tiny:spoil"
    tiny_config.log_every_steps = tiny_config.checkpoint_every_steps = 1
    with pytest.raises(UserError, match="diverged"):
        train(tiny_config, tmp_path)
    assert not list((tmp_path / "checkpoints/latest").iterdir())


def test_a_run_that_diverges_stops_in_that_chunk_and_keeps_its_good_save(
    tiny_config, tmp_path
) -> None:
    tiny_config.optimizer = ConfigDict({"name": "tiny:spoil_late", "learning_rate": 0.01})
    tiny_config.log_every_steps = tiny_config.eval_every_steps = 1000
    told = r"NaN or infinity within steps 13 to 16, at learning rate 0.01. Last good save: step 12"
    with pytest.raises(UserError, match=told):
        train(tiny_config, tmp_path)
    saved = restore(tmp_path, "latest", {}).state
    assert int(saved.step) == 12
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(saved.params))


def test_an_optimizer_whose_state_becomes_infinite_stops_the_run(tiny_config, tmp_path) -> None:
    tiny_config.optimizer = ConfigDict({"name": "tiny:overflow", "learning_rate": 0.01})
    tiny_config.eval_every_steps = 1000
    with pytest.raises(UserError, match=r"NaN or infinity within steps 13 to 16.*save: step 12"):
        train(tiny_config, tmp_path)


@pytest.mark.slow
@pytest.mark.promise
def test_a_run_that_diverged_says_so_in_its_rows_and_its_report(tiny_config, tmp_path) -> None:
    tiny_config.optimizer = ConfigDict({"name": "tiny:spoil_late", "learning_rate": 0.01})
    for _ in range(2):  # on resume it is cut with the rows after the save
        with pytest.raises(UserError, match="diverged"):
            train(tiny_config, tmp_path)
        (told,) = events(tmp_path, "diverged")
    assert told["first_step"] <= 14 <= told["last_step"] == told["step"] <= 16
    assert told["learning_rate"] == pytest.approx(0.01)
    assert told["message"].startswith("The run diverged: NaN or infinity within steps 1")
    restored = restore(tmp_path, "latest", {})
    page = write_report(tmp_path, restored, load_data(restored, print)).read_text()
    assert f"Step {told['step']}: The run diverged" in page


def test_an_infinite_number_of_an_optimizer_is_no_divergence() -> None:
    state = state_of(TinyNet(), optax.sgd(0.1), (8, 8, 1), 0)
    for its_own, sound in (
        (jnp.inf, True),
        (jnp.nan, False),
        (jnp.array([1.0, jnp.inf]), False),
        (jax.random.key(0), True),
        (jnp.array([7, 8]), True),
    ):
        assert bool(all_finite(state.replace(opt_state=(jnp.asarray(its_own),)))) is sound


def test_an_evaluation_that_is_no_number_stops_the_run(tiny_config, tmp_path) -> None:
    tiny_config.optimizer = ConfigDict({"name": "sgd", "learning_rate": 1e38})
    tiny_config.num_steps = 1
    with pytest.raises(UserError, match="diverged"):
        train(tiny_config, tmp_path)
    assert [row["split"] for row in rows(tmp_path)] == ["train"]


def test_a_run_shortened_to_where_it_stands_gets_its_last_row(tiny_config, tmp_path) -> None:
    train(tiny_config, tmp_path, should_stop=(tmp_path / "checkpoints/latest/4").exists)
    tiny_config.num_steps = 8  # where it stopped, in the middle of a window
    train(tiny_config, tmp_path)
    assert [(r["split"], r["step"]) for r in rows(tmp_path)][-2:] == [("train", 8), ("eval", 8)]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("tiny:WideNet", r"gives logits \[6, 12\] .* needed are \[6, 10\]"),
        ("tiny:BrokenNet", r"tiny.py, line \d+: "),
    ],
)
def test_a_model_that_does_not_fit_is_told_in_one_line(tiny_config, tmp_path, model, expected):
    tiny_config.model.name = model
    with pytest.raises(UsageError, match=expected) as caught:
        train(tiny_config, tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_batch_larger_than_the_data_is_refused(tiny_config, tmp_path) -> None:
    tiny_config.batch_size = 106
    with pytest.raises(UsageError, match=r"batch_size=106.*105"):
        train(tiny_config, tmp_path)


def test_the_same_images_under_another_name_are_the_same_data(tiny_config, tmp_path) -> None:
    tiny_config.num_steps = 4
    train(tiny_config, tmp_path)
    tiny_config.num_steps = 8
    tiny_config.data.eval_split = "test[:100%]"
    assert int(train(tiny_config, tmp_path).step) == 8


def test_other_data_is_not_resumed_on(tiny_config, tmp_path) -> None:
    tiny_config.num_steps = 4
    train(tiny_config, tmp_path)
    tiny_config.num_steps = 8
    tiny_config.data.eval_split = "test[:30]"
    with pytest.raises(UserError, match=r"data.eval_split: was test, now test\[:30\]"):
        train(tiny_config, tmp_path)


def test_harmless_changes_are_taken_and_named(tiny_config, tmp_path, capsys) -> None:
    tiny_config.num_steps = 4
    train(tiny_config, tmp_path)
    tiny_config.num_steps = 8
    tiny_config.log_every_steps = 3
    assert int(train(tiny_config, tmp_path).step) == 8
    told = capsys.readouterr().err
    assert "config.num_steps was 4, is 8." in told
    assert "config.log_every_steps was 10, is 3." in told


def test_a_harmful_change_stops_with_old_and_new_and_changes_nothing(tiny_config, tmp_path) -> None:
    tiny_config.num_steps = 4
    train(tiny_config, tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    tiny_config.num_steps = 8
    tiny_config.optimizer.learning_rate = 0.02
    tiny_config.seed = 1
    with pytest.raises(UserError) as caught:
        train(tiny_config, tmp_path)
    assert "optimizer.learning_rate: was 0.01, now 0.02" in str(caught.value)
    assert "seed: was 0, now 1" in str(caught.value)
    assert f"afresh with workdir={tmp_path}-new" in str(caught.value)
    after = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert {p: b for p, b in after.items() if p.name not in (".holder", ".lock")} == {
        p: b for p, b in before.items() if p.name not in (".holder", ".lock")
    }


def test_a_layer_that_no_loop_runs_fast_is_announced(tiny_config, tmp_path, capsys) -> None:
    tiny_config.model.name = "tiny:SlowNet"
    tiny_config.num_steps = 1
    train(tiny_config, tmp_path)
    (told,) = [row["message"] for row in events(tmp_path, "slow_layer")]
    assert "each step is called from Python: convolution 3x3, 1 to 4 channels" in told
    assert told in capsys.readouterr().err


def test_steps_called_from_python_resume_to_the_bit(tiny_config, tmp_path) -> None:
    tiny_config.model.name = "tiny:SlowNet"
    tiny_config.num_steps = 5
    whole = train(tiny_config, tmp_path / "whole")
    tiny_config.num_steps = 2
    train(tiny_config, tmp_path / "cut")
    tiny_config.num_steps = 5
    cut = train(tiny_config, tmp_path / "cut")
    assert all(map(np.array_equal, jax.tree.leaves(whole), jax.tree.leaves(cut)))


def test_another_environment_is_named_on_resume(tiny_config, tmp_path, capsys, monkeypatch) -> None:
    tiny_config.num_steps = 1
    train(tiny_config, tmp_path)
    tiny_config.num_steps = 2
    here = environment()
    monkeypatch.setattr(
        "mnist_flax.training.resume.environment", lambda *asked: here | {"cores": 64}
    )
    train(tiny_config, tmp_path)
    assert f"cores was {here['cores']}, is 64. The bits may differ" in capsys.readouterr().err

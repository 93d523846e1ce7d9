"""How good drawings are: its figures by hand, and the run that it chooses the best save of."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from conftest import ROOT, events, recipe, rows
from flax import linen as nn
from ml_collections import ConfigDict
from report_page import Page
from tiny import get_config

from mnist_flax import restore, train
from mnist_flax.data.dataset import Dataset
from mnist_flax.errors import UsageError, UserError
from mnist_flax.models.compact import Compact
from mnist_flax.report import Recipe, write_report
from mnist_flax.tasks import Spec, create_task
from mnist_flax.use.judge import (
    Judged,
    frechet_distance,
    judge_drawings,
    moments,
    nearest,
    penultimate,
)
from mnist_flax.use.run_data import load_data
from mnist_flax.workdir.known_images import count_known

Launch = Callable[..., CompletedProcess[str]]
DATA = {
    "data.name": "mnist_sample",
    "data.train_split": "train[:300]",
    "data.eval_split": "test[:100]",
}


def test_the_distance_of_two_bell_curves() -> None:
    # |0 - 3|² + (1 - 2)²: of deviations 1 and 2.
    one, other = (np.array([0.0]), np.eye(1)), (np.array([3.0]), 4 * np.eye(1))
    assert frechet_distance(one, other) == pytest.approx(10)
    assert frechet_distance(other, other) == pytest.approx(0, abs=1e-9)


def test_the_distance_where_covariances_do_not_commute() -> None:
    rng = np.random.default_rng(0)
    one, other = (moments(rng.standard_normal((50, 4)) @ rng.random((4, 4))) for _ in range(2))
    root = scipy.linalg.sqrtm(one[1] @ other[1]).real
    wanted = np.square(one[0] - other[0]).sum() + np.trace(one[1] + other[1] - 2 * root)
    assert frechet_distance(one, other) == pytest.approx(wanted, rel=1e-6)
    assert frechet_distance(other, one) == pytest.approx(wanted, rel=1e-6)


def test_a_feature_that_is_always_zero_costs_nothing() -> None:
    features = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)
    dead = np.concatenate([features, np.zeros((20, 2), np.float32)], axis=1)
    other = np.concatenate([features[::-1] + 1, np.zeros((20, 2), np.float32)], axis=1)
    assert frechet_distance(moments(dead), moments(other)) == pytest.approx(3, rel=1e-5)


def test_the_nearest_training_image() -> None:
    train = np.zeros((3, 2, 2, 1), np.uint8)
    train[1], train[2] = 255, 51
    images = np.zeros((3, 2, 2, 1), np.uint8)
    images[1, 0] = 102  # 2 pixels of 0.4: from 0.2, √(4 · 0.2²) = 0.4; from 0, 0.57
    images[2] = 255
    assert nearest(images[:1], train) == pytest.approx(0, abs=1e-3)
    assert nearest(images[1:2], train) == pytest.approx(0.4, rel=1e-3)
    assert nearest(images, train) == pytest.approx(0, abs=1e-3)  # of 0, 0.4 and 0
    plain = [min(math.dist(a.ravel() / 255, b.ravel() / 255) for b in train) for a in images]
    assert nearest(images, train) == pytest.approx(np.median(plain), abs=1e-3)


@pytest.mark.parametrize("views", [False, True])
def test_what_the_last_layer_reads(views: bool) -> None:
    model = Compact(features=(4, 6), shifted_views=views)
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28, 1), np.uint8)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    features, probabilities = penultimate(model, variables, images)
    assert features.shape == (5, 7 * 7 * 6)
    layer = variables["params"]["logits"]
    logits = features @ layer["kernel"] + layer["bias"]
    # With several views, the features are of the image as it is.
    single = Compact(features=(4, 6)).apply(variables, images / np.float32(255))
    np.testing.assert_allclose(logits, single, atol=1e-5)
    np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-5)


class Headless(nn.Module):
    """Ten means of an image: no dense layer anywhere."""

    num_classes: int = 10

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, (self.num_classes,))
        return images.mean((1, 2)) * scale


def test_a_judge_needs_a_dense_layer() -> None:
    images = np.zeros((2, 8, 8, 1), np.uint8)
    variables = Headless().init(jax.random.key(0), images)
    with pytest.raises(UsageError, match="Headless has no dense layer to look at"):
        penultimate(Headless(), variables, images)


def small(**changes: Any) -> ConfigDict:
    """A recipe that draws, of three steps."""
    config = recipe("dcgan_fast")
    config.model.features, config.model.judge_features = 2, 4
    config.update_from_flattened_dict({**DATA, "data.select_split": "", "batch_size": 20})
    config.num_steps, config.log_every_steps = 3, 3
    config.eval_every_steps = config.checkpoint_every_steps = 1
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config, workdir = get_config(), tmp_path_factory.mktemp("judge") / "judge"
    config.update_from_flattened_dict(DATA)
    train(config, workdir)
    return workdir


@pytest.fixture(scope="module")
def data(judge: Path) -> Dataset:
    return load_data(restore(judge, "latest", {}), print)


@pytest.fixture(scope="module")
def run(judge: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("judged") / "run"
    train(small(**{"task.judge": str(judge)}), workdir)
    return workdir


def test_images_are_as_far_from_themselves_as_nothing(judge: Path, data: Dataset) -> None:
    judged = Judged(restore(judge, "latest", {}), data.train.images, data.eval.images)
    same = judged.measure({"samples": data.eval.images})
    assert same["frechet_distance"] == pytest.approx(0, abs=1e-4)
    assert same["frechet_floor"] > 0
    assert same["nearest_train"] == same["nearest_train_of_images"] > 1
    shares = {k: v for k, v in same.items() if k.startswith("class_share_")}
    assert list(shares) == [f"class_share_{n}" for n in range(10)]
    assert sum(shares.values()) == pytest.approx(1)
    copies = judged.measure({"samples": data.train.images[:100]})
    assert copies["nearest_train"] == pytest.approx(0, abs=1e-2)
    noise = np.random.default_rng(0).integers(0, 256, data.eval.images.shape, np.uint8)
    assert judged.measure({"samples": noise})["frechet_distance"] > 5 * same["frechet_floor"]


def test_the_shares_are_the_judges_answers(judge: Path, data: Dataset) -> None:
    restored = restore(judge, "latest", {})
    judged = Judged(restored, data.train.images, data.eval.images)
    found = judged.measure({"samples": data.eval.images})
    answers = restored.task.predict(restored.state.variables, data.eval.images)
    for name in range(10):
        share = float((answers["classes"] == name).mean())
        assert found[f"class_share_{name}"] == pytest.approx(share)
    sure = float((answers["probabilities"].max(-1) >= 0.8).mean())
    assert found["confident_share"] == pytest.approx(sure)
    assert found["confident_share_of_images"] == pytest.approx(sure)
    assert 0 < sure < 1


def test_a_run_is_judged_and_its_best_is_the_nearest(run: Path, judge: Path) -> None:
    told = [row for row in rows(run) if row["split"] == "eval"]
    distances = {row["step"]: row["frechet_distance"] for row in told}
    assert list(distances) == [1, 2, 3]
    (best,) = (run / "checkpoints/best").iterdir()
    assert int(best.name) == min(distances, key=lambda step: distances[step])
    (said,) = events(run, "measure")
    assert said["step"] == 0
    assert len(said["digest"]) == 64
    assert said["digest"][:16] in said["message"]
    assert str(judge) in said["message"]


def test_without_a_judge_that_is_said_and_nothing_is_chosen(tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    train(small(num_steps=1), workdir)
    (said,) = events(workdir, "measure")
    assert said["message"].startswith("No judge: how good the drawings are is not measured")
    (row,) = (row for row in rows(workdir) if row["split"] == "eval")
    assert "frechet_distance" not in row
    best = workdir / "checkpoints/best"
    assert not best.exists() or not any(best.iterdir())


@pytest.mark.slow
@pytest.mark.promise
def test_a_judge_may_come_later_and_must_stay(judge: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    train(small(num_steps=1), workdir)
    judged = {"task.judge": str(judge)}
    train(small(num_steps=2, **judged), workdir)
    told = [row for row in rows(workdir) if row["split"] == "eval"]
    # Its last step is evaluated once more: nothing had measured it.
    assert [(row["step"], "frechet_distance" in row) for row in told] == [
        (1, False),
        (1, True),
        (2, True),
    ]
    assert len(events(workdir, "measure")) == 2
    other = tmp_path / "other"
    config = get_config()
    config.update_from_flattened_dict({**DATA, "num_steps": 1})
    train(config, other)
    before = (workdir / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match=r"were measured with another network, SHA-256 \w{16}…, n"):
        train(small(num_steps=3, **{"task.judge": str(other)}), workdir)
    assert (workdir / "metrics.jsonl").read_bytes() == before
    # Nor after a start without any; the same network in another place is the same judge.
    train(small(num_steps=2, **{"task.judge": ""}), workdir)
    with pytest.raises(UserError, match="were measured with another network"):
        train(small(num_steps=3, **{"task.judge": str(other)}), workdir)
    moved = tmp_path / "moved"
    moved.symlink_to(judge)
    train(small(num_steps=3, **{"task.judge": str(moved)}), workdir)
    assert len(events(workdir, "measure")) == 3  # what an end without a new step says is not kept
    # What chose is known, and a report draws the rows that were measured.
    restored = restore(workdir, "best", {})
    dataset = load_data(restored, print)
    assert count_known(workdir, dataset.eval.images, chosen=True).chosen_on == 100
    page = Page(write_report(workdir, restored, dataset))
    assert "Frechet distance over the steps of the run" in str(page.images)


@pytest.mark.slow
@pytest.mark.promise
def test_a_recipe_may_leave_the_judge_out(tmp_path: Path) -> None:
    config = small(num_steps=1)
    with config.unlocked():
        del config.task.judge
    train(config, tmp_path / "run")
    (said,) = events(tmp_path / "run", "measure")
    assert said["message"].startswith("No judge: ")
    restored = restore(tmp_path / "run", "latest", {})
    path = write_report(
        tmp_path / "run",
        restored,
        load_data(restored, print),
        recipe=Recipe("dcgan_fast", recipe("dcgan_fast"), "mnist-flax"),
    )
    assert "It is not the same run" not in path.read_text()


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("joint", "no", "='no': must be true or false."),
        ("real_label", 5.0, "=5.0: must be above 0 and at most 1."),
        ("judge", 2024, "=2024: must be a folder's name, or empty."),
    ],
)
def test_fields_of_another_kind(field: str, value: Any, told: str) -> None:
    config = small()
    with config.task.ignore_type():
        config.task[field] = value
    with pytest.raises(UsageError) as error:
        create_task(config, Spec((28, 28, 1), tuple("0123456789"), 3))
    assert str(error.value) == f"config.task.{field}{told}"


def test_what_can_be_no_judge(run: Path, judge: Path, data: Dataset, tmp_path: Path) -> None:
    def refused(name: Path, dataset: Dataset = data) -> str:
        config = small(**{"task.judge": str(name)})
        with pytest.raises(UsageError) as error:
            judge_drawings(config, dataset, dataset.eval.images)
        return str(error.value)

    told = f"config.task.judge={tmp_path}: holds no run. Name the folder of a finished classif"
    assert refused(tmp_path).startswith(told)
    one = dataclasses.replace(
        data, eval=dataclasses.replace(data.eval, images=data.eval.images[:1])
    )
    assert refused(judge, one).endswith("one image is no split to compare with.")
    assert refused(run).endswith("its run learns no classes; name one that does.")
    fields = {**vars(data), "class_names": tuple("abcdefghij")}
    assert "knows images [28, 28, 1] of the classes 0, 1, 2" in refused(judge, Dataset(**fields))


@pytest.mark.slow
@pytest.mark.promise
def test_another_judge_may_be_asked_of_a_finished_run(
    run: Path, judge: Path, launch: Launch
) -> None:
    flags = (f"--config={ROOT / 'configs/dcgan_fast.py'}", f"--workdir={run}", "--mode=eval")
    done = launch(*flags, f"--config.task.judge={judge}")
    assert done.returncode == 0, done.stderr
    (last,) = (row for row in rows(run) if row["split"] == "eval" and row["step"] == 3)
    told = json.loads(done.stdout)
    assert told["frechet_distance"] == pytest.approx(last["frechet_distance"], rel=1e-4)
    assert told["class_share_0"] == last["class_share_0"]
    assert "Judge: " in done.stderr
    done = launch(*flags, "--config.task.judge=")
    assert done.returncode == 0, done.stderr
    assert "frechet_distance" not in json.loads(done.stdout)
    assert "No judge: " in done.stderr

"""A task of a user's own, from outside the package: the very code of docs/guide/tasks.md."""

import importlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT, events, rows, turned_folder
from ml_collections import ConfigDict
from PIL import Image

from mnist_flax import restore, train
from mnist_flax.config import overridden
from mnist_flax.core.state import try_task
from mnist_flax.core.task import Metric, Spec, Task
from mnist_flax.data import load
from mnist_flax.data.distort import rotate
from mnist_flax.errors import UsageError
from mnist_flax.keys import rng_key
from mnist_flax.tasks import create_task
from mnist_flax.tasks.networks import apply_eval
from mnist_flax.use.evaluation import evaluate_restored

Launch = Callable[..., CompletedProcess[str]]
SMALL: dict[str, Any] = {
    "data.name": "mnist_sample",
    "data.train_split": "train[:240]",
    "data.eval_split": "test[:70]",
    "log_every_steps": 4,
    "num_steps": 12,
    "observers": ("turned:far_off",),
}


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = turned_folder(tmp_path_factory.mktemp("elsewhere"))
    assert ROOT not in folder.parents
    monkeypatch.syspath_prepend(str(folder))
    return folder


def test_it_is_a_page(folder: Path) -> None:
    lines = (folder / "turned.py").read_text().partition("def far_off")[0].splitlines()
    assert sum(bool(line.strip()) for line in lines) <= 40


@pytest.mark.slow
@pytest.mark.promise
def test_it_trains_resumes_and_is_used(launch: Launch, folder: Path, tmp_path: Path) -> None:
    config, _ = overridden(importlib.import_module("recipe").get_config(), SMALL)
    straight, cut = tmp_path / "straight", tmp_path / "cut"
    train(config, straight)
    train(config, cut, should_stop=lambda: any(row["step"] == 4 for row in rows(cut)))
    values = [f"--config.{field}={value}" for field, value in SMALL.items()]
    done = launch(f"--config={folder / 'recipe.py'}", "--workdir=cut", *values)
    assert done.returncode == 0, done.stderr
    assert "Resumed at step 4" in done.stderr
    assert re.search(r"step      8/12 .* squared error \d+\.\d  ", done.stderr)
    assert "--mode=serve" not in done.stderr
    ours, theirs = (restore(workdir, "latest", {}) for workdir in (cut, straight))
    jax.tree.map(np.testing.assert_array_equal, ours.state, theirs.state)
    assert rows(cut) == rows(straight)
    run = (f"--config={folder / 'recipe.py'}", "--workdir=cut")  # beside which the task lies
    assert [row["event"] for row in events(cut, "far_off")]
    best = min(row["squared_error"] for row in rows(cut) if row["split"] == "eval")

    done = launch(*run, "--mode=eval", "--checkpoint=best")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["squared_error"] == pytest.approx(best)
    assert told["examples"] == 70
    assert told["squared_error"] == pytest.approx(_by_hand(cut), rel=1e-4)

    images = load(config.data).eval.images
    Image.fromarray(images[3, :, :, 0]).save(tmp_path / "3.png")
    done = launch(*run, "--mode=predict", "--center=false", "3.png")
    assert done.returncode == 0, done.stderr
    expected = 45 * apply_eval(ours.model, ours.state.variables, jnp.asarray(images[3:4]))[0, 0]
    row = json.loads(done.stdout)
    assert list(row) == ["file", "degrees"]  # no classes, and no names of any
    assert row["degrees"] == pytest.approx(float(expected), abs=1e-4)

    done = launch(*run, "--mode=export")
    assert done.returncode == 0, done.stderr
    content = (cut / "export/model.stablehlo").read_bytes()
    network = jax.export.deserialize(bytearray(content))
    np.testing.assert_allclose(network.call(images[3:4]), [expected], rtol=1e-5)

    done = launch(*run, "--mode=serve")
    assert done.returncode == 2
    assert "--mode=serve: makes no sense for the task 'turned:turned'. It can eval, predict, " in (
        done.stderr
    )


def _by_hand(workdir: Path) -> float:
    """The mean squared error of the best save: each angle a function of (seed, image)."""
    found = restore(workdir, "best", {})
    images = load(found.config.data).eval.images
    degrees = [
        float(jax.random.uniform(rng_key(0, "turned", i), minval=-45.0, maxval=45.0))
        for i in range(len(images))
    ]
    turned = rotate(jnp.asarray(images), jnp.deg2rad(jnp.asarray(degrees)))
    answers = 45 * apply_eval(found.model, found.state.variables, turned)[:, 0]
    return float(np.mean((np.asarray(answers) - degrees) ** 2))


def test_fields_that_it_does_not_read_are_refused(launch: Launch, folder: Path) -> None:
    done = launch(
        f"--config={folder / 'recipe.py'}",
        "--config.label_smoothing=0.1",
        "--config.log_probabilities=true",
    )
    assert done.returncode == 2
    for field in ("config.label_smoothing=0.1", "config.log_probabilities=True"):
        assert f"{field}: the task 'turned:turned' does not use it; leave it out." in done.stderr


# What a task gets wrong -> what is said of it.
FAULTS = {
    "an output that fails": (
        "apply_eval(model, variables, images)[:, 0]}",
        "apply_eval(model, variables, images)[:, 0, 7]}",
        r"config\.task\.name='turned:turned' fails on images \[2, 28, 28, 1\]: .*turned\.py, line",
    ),
    "no count": (
        "return sums(outputs, degrees, batch.mask), {",
        "return {'squared_error': outputs.sum()}, {",
        "the sums of evaluate have no 'count', only squared_error",
    ),
    "a best that is not summed": (
        'best="squared_error"',
        'best="error"',
        "best='error' is no metric that evaluate sums. It sums count, squared_error",
    ),
    "a field that it does not take": (
        "spec, max_degrees)",
        "spec, degrees)",
        "has no such field. Did you mean 'degrees'?",
    ),
    "no task": ("return Task(", "return dict(", "gave a dict, no mnist_flax.tasks.Task"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_a_task_is_told_in_a_line(name: str, tmp_path: Path, monkeypatch) -> None:
    right, wrong, told = FAULTS[name]
    folder = turned_folder(tmp_path)
    text = (folder / "turned.py").read_text()
    assert right in text
    text = text.replace(right, wrong, 1)
    module = f"turned_{len(told)}"  # a module is imported once
    (folder / f"{module}.py").write_text(text)
    monkeypatch.syspath_prepend(str(folder))
    from tiny import get_config

    config = get_config()
    with config.unlocked():
        config.task = {"name": f"{module}:turned", "max_degrees": 45.0}
    spec = Spec((28, 28, 1), tuple("0123456789"), 40)
    with pytest.raises(
        UsageError,
        match=told.replace("turned:turned", f"{module}:turned").replace(
            r"turned\.py", rf"{module}\.py"
        ),
    ) as caught:
        try_task(create_task(config, spec), spec, config.task.name)
    assert "\n" not in str(caught.value)


def test_a_state_that_changes_its_form_is_refused() -> None:
    spec = Spec((8, 8, 1), ("a", "b"), 4)

    def update(variables, opt_state, batch, step, key):
        grown = {"params": variables["params"].astype(jnp.float16)}
        return grown, opt_state, {"loss": jnp.float32(0), "count": jnp.int32(1)}

    task = Task(
        init=lambda key: {"params": jnp.zeros(3)},
        init_opt=lambda variables: (),
        update=update,
        evaluate=lambda variables, batch: ({"loss": jnp.float32(0), "count": jnp.int32(1)}, {}),
        predict=lambda variables, images: {"zeros": jnp.zeros(len(images))},
        metrics={"loss": Metric()},
    )
    with pytest.raises(UsageError, match=r"an update makes float16 \[3\] of \['variables'\]"):
        try_task(task, spec, "mine:task")


def guess(config: ConfigDict, spec: Spec) -> Task:
    """A task that reads nothing of the config: a number that follows the mean pixel."""

    def error(variables, batch):
        mean = batch.images.astype(jnp.float32).mean((1, 2, 3))
        return (mean - variables["params"]) ** 2

    def update(variables, opt_state, batch, step, key):
        errors = error(variables, batch)
        mean = batch.images.astype(jnp.float32).mean()
        moved = variables["params"] + 0.1 * (mean - variables["params"])
        return (
            {"params": moved},
            opt_state,
            {"error": errors.sum(), "count": jnp.int32(len(errors))},
        )

    def evaluate(variables, batch):
        errors = jnp.where(batch.mask, error(variables, batch), 0)
        return {"error": errors.sum(), "count": batch.mask.sum(dtype=jnp.int32)}, {}

    return Task(
        init=lambda key: {"params": jnp.zeros(())},
        init_opt=lambda variables: (),
        update=update,
        evaluate=evaluate,
        predict=lambda variables, images: {"guess": jnp.full(len(images), variables["params"])},
        metrics={"error": Metric(".2f")},
        modes=("eval",),
    )


def test_a_task_of_no_network_and_no_best_trains_and_is_restored(tiny_config, tmp_path) -> None:
    tiny_config.task = ConfigDict({"name": f"{__name__}:guess"})
    with tiny_config.unlocked():  # as they are by default
        tiny_config.model = ConfigDict({"name": "tutorial"})
        tiny_config.optimizer = ConfigDict({"name": "sgd", "learning_rate": 0.001})
    state = train(tiny_config, tmp_path)
    assert rows(tmp_path)[-1]["error"] < rows(tmp_path)[0]["error"] / 2
    assert not list((tmp_path / "checkpoints/best").iterdir())
    found = restore(tmp_path, "latest", {})
    assert float(found.state.params) == float(state.params)
    result = evaluate_restored(found, load(tiny_config.data).eval)
    assert result.means == {"error": pytest.approx(rows(tmp_path)[-1]["error"])}
    assert "learning_rate" not in rows(tmp_path)[0]
    tiny_config.optimizer.learning_rate = 0.5
    with pytest.raises(
        UsageError, match=r"config\.optimizer\.learning_rate=0\.5: the task '.*guess'"
    ):
        train(tiny_config, tmp_path)

"""The two networks that learn from each other: their sizes, a step by hand, and a run."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import ROOT, recipe, rows
from jax import lax
from ml_collections import ConfigDict

from mnist_flax import cpu, restore, train
from mnist_flax.core.state import try_task
from mnist_flax.core.task import Spec, Task
from mnist_flax.data.batch import Batch
from mnist_flax.data.sample import read_sample
from mnist_flax.errors import UsageError
from mnist_flax.keys import rng_key
from mnist_flax.models.dcgan import DCGAN, ResizedConv
from mnist_flax.tasks import create_task

Launch = Callable[..., CompletedProcess[str]]
DIGITS = Spec((28, 28, 1), tuple("0123456789"), 100_300)


def made(**changes: Any) -> Task:
    config = recipe("dcgan")
    config.update_from_flattened_dict(changes)
    return create_task(config, DIGITS)


@pytest.fixture(scope="module")
def variables() -> Any:
    return made().init(rng_key(0, "params", 0))


@pytest.fixture(scope="module")
def batch() -> Batch:
    images = read_sample().splits["train"].images[:6]
    return Batch(images, jnp.zeros(6, jnp.int32), jnp.arange(6))


def test_their_parameters(variables: Any) -> None:
    shapes = jax.tree.map(jnp.shape, variables["params"])
    assert shapes == {
        "generator": {
            "dense": {"kernel": (100, 3136), "bias": (3136,)},
            "norm1": {"bias": (1,)},
            "conv1": {"kernel": (3, 3, 1, 50), "bias": (50,)},
            "norm2": {"bias": (50,)},
            "conv2": {"kernel": (3, 3, 50, 25), "bias": (25,)},
            "norm3": {"bias": (25,)},
            "conv3": {"kernel": (1, 1, 25, 1), "bias": (1,)},
        },
        "discriminator": {
            "conv1": {"kernel": (5, 5, 1, 32), "bias": (32,)},
            "conv2": {"kernel": (5, 5, 32, 64), "bias": (64,)},
            "dense1": {"kernel": (3136, 1024), "bias": (1024,)},
            "dense2": {"kernel": (1024, 1), "bias": (1,)},
        },
    }
    sizes = [sum(map(jnp.size, jax.tree.leaves(part))) for part in variables["params"].values()]
    assert sorted(sizes) == [328_613, 3_265_409]
    assert variables["batch_stats"] == {}


def test_they_start_as_the_tutorials_do(variables: Any) -> None:
    generator, discriminator = (variables["params"][n] for n in ("generator", "discriminator"))
    for leaf in (
        generator["dense"]["kernel"],
        generator["dense"]["bias"],
        generator["conv2"]["kernel"],
        discriminator["dense1"]["kernel"],
    ):
        assert float(jnp.abs(leaf).max()) <= 0.04
        # A normal that is cut at two deviations has 0.8796 of its deviation left.
        assert float(leaf.std()) == pytest.approx(0.8796 * 0.02, rel=0.05)
    for name in ("norm1", "norm2", "norm3"):
        assert not generator[name]["bias"].any()
    assert not any(layer["bias"].any() for layer in discriminator.values())


def resized(x: jax.Array, axis: int) -> jax.Array:
    """TensorFlow 1's bilinear resizing to twice the size: pixel i is the source's i / 2."""
    length = x.shape[axis]
    places = np.arange(2 * length) / 2
    low = np.floor(places).astype(int)
    high = np.minimum(low + 1, length - 1)
    share = (places - low).reshape([-1 if n == axis else 1 for n in range(x.ndim)])
    return (1 - share) * jnp.take(x, low, axis) + share * jnp.take(x, high, axis)


@pytest.mark.parametrize("shape", [(7, 6), (1, 2)])
def test_a_resized_convolution_is_one_after_resizing(shape: tuple[int, int]) -> None:
    x = jnp.asarray(np.random.default_rng(0).standard_normal((3, *shape, 4), np.float32))
    layer = ResizedConv(5)
    params = layer.init(jax.random.key(1), x)

    def plain(params: Any, x: jax.Array) -> jax.Array:
        kernel, bias = params["params"]["kernel"], params["params"]["bias"]
        large = resized(resized(x, 1), 2)
        numbers = ("NHWC", "HWIO", "NHWC")
        return bias + lax.conv_general_dilated(
            large, kernel, (2, 2), "SAME", dimension_numbers=numbers
        )

    def of_sin(fn: Callable) -> Callable:
        return jax.jit(jax.value_and_grad(lambda *args: jnp.sin(fn(*args)).sum(), (0, 1)))

    np.testing.assert_allclose(layer.apply(params, x), plain(params, x), atol=1e-6)
    pairs = (jax.tree.leaves(of_sin(fn)(params, x)) for fn in (layer.apply, plain))
    for ours, theirs in zip(*pairs, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_every_second_pixel_of_a_resized_picture_is_the_pictures() -> None:
    # So the last resizing and the 1×1 convolution with stride 2 after it are left out.
    x = jnp.arange(60.0).reshape(1, 5, 4, 3)
    np.testing.assert_array_equal(resized(resized(x, 1), 2)[:, ::2, ::2], x)


@pytest.mark.parametrize("running", [False, True])
def test_a_picture_depends_on_those_that_are_drawn_with_it(running: bool) -> None:
    task = made(**{"model.running_statistics": running}) if running else made()
    if running:
        config = recipe("dcgan")
        config.model = ConfigDict({"name": "dcgan", "running_statistics": True})
        task = create_task(config, DIGITS)
    variables = task.init(rng_key(0, "params", 0))
    latents = np.random.default_rng(0).standard_normal((3, 100), np.float32)
    first = [
        np.asarray(task.sample(variables, latents[np.array(with_)]))[0]
        for with_ in ([0, 1], [0, 2], [0])
    ]
    assert first[0].min() >= 0
    assert first[0].max() <= 1
    alike = [np.allclose(first[0], other, atol=1e-6) for other in first[1:]]
    assert alike == [running, running]


@pytest.mark.slow
def test_a_step_by_hand(variables: Any, batch: Batch) -> None:
    task, model, key = made(**{"task.first_steps": 0}), DCGAN(), rng_key(0, "dropout", 0)
    state = task.init_opt(variables)
    after, moments, sums = jax.jit(task.update)(variables, state, batch, jnp.int32(0), key)

    def logits(params: Any, images: Any) -> jax.Array:
        return model.apply({"params": params}, images, method="discriminate")

    def drawn(params: Any, n: int) -> jax.Array:
        noise = jax.random.normal(jax.random.fold_in(key, n), (6, 100))
        return model.apply({"params": params}, noise, method="generate")

    def entropy(logits: jax.Array, real: bool) -> jax.Array:  # -log σ(x), -log(1 - σ(x))
        return jnp.logaddexp(0, -logits if real else logits).mean()

    params = variables["params"]
    judge, fake = {"discriminator": params["discriminator"]}, drawn(params, 1)
    real = jnp.asarray(batch.images, jnp.float32) / 255
    optimizer, found = optax.adam(3e-4), {}
    moved = judge
    for name, images, label in (("real", real, True), ("fake", fake, False)):
        loss, grads = jax.value_and_grad(lambda p, i=images, r=label: entropy(logits(p, i), r))(
            judge
        )
        updates, _ = optimizer.update(grads, optimizer.init(judge))
        moved = optax.apply_updates(moved, updates)
        found[f"{name}_loss"] = loss

    def fooled(generator: Any) -> jax.Array:
        return entropy(logits(moved, drawn({"generator": generator}, 2)), True)

    found["generator_loss"], grads = jax.value_and_grad(fooled)(params["generator"])
    updates, _ = optax.adam(1e-4).update(grads, optax.adam(1e-4).init(params["generator"]))
    generator = optax.apply_updates(params["generator"], updates)
    for name, loss in found.items():
        assert float(sums[name]) == pytest.approx(6 * float(loss), rel=1e-4)
    assert int(sums["count"]) == 6
    wanted = {"discriminator": moved["discriminator"], "generator": generator}
    for (path, ours), (_, theirs) in zip(
        jax.tree.leaves_with_path(after["params"]), jax.tree.leaves_with_path(wanted), strict=True
    ):
        # Adam's first step is the rate itself; where a gradient is rounding alone, either way.
        close = np.isclose(ours, theirs, rtol=0, atol=2e-6)
        assert close.mean() > 0.98, path
    assert {int(leaf) for leaf in jax.tree.leaves(moments) if leaf.dtype == jnp.int32} == {1}


def test_each_gradient_reaches_its_own_parameters_alone(variables: Any, batch: Batch) -> None:
    task = made(**{"task.first_steps": 300})
    state = task.init_opt(variables)
    update = jax.jit(task.update)
    key = rng_key(0, "dropout", 0)
    alone, moments, _ = update(variables, state, batch, jnp.int32(299), key)
    for one, other in (
        (alone["params"]["generator"], variables["params"]["generator"]),
        (moments["generator"], state["generator"]),
    ):
        jax.tree.map(np.testing.assert_array_equal, one, other)
    # On the last bias Adam's first steps on images and on drawings cancel.
    changed = [
        not np.array_equal(a, b)
        for a, b in zip(
            jax.tree.leaves(alone["params"]["discriminator"]),
            jax.tree.leaves(variables["params"]["discriminator"]),
            strict=True,
        )
    ]
    assert changed.count(False) <= 1
    both, later, _ = update(variables, state, batch, jnp.int32(300), key)
    # The discriminator goes as before: nothing of the generator's step reaches it.
    jax.tree.map(
        np.testing.assert_array_equal,
        (both["params"]["discriminator"], later["real"], later["fake"]),
        (alone["params"]["discriminator"], moments["real"], moments["fake"]),
    )
    kernels = [p["params"]["generator"]["conv2"]["kernel"] for p in (both, variables)]
    assert not np.array_equal(*kernels)


@pytest.mark.slow
def test_two_draws_of_noise_differ_and_labels_do_not_matter(variables: Any, batch: Batch) -> None:
    task = made()
    update, state = jax.jit(task.update), task.init_opt(variables)

    def losses(key: jax.Array, labels: int) -> Any:
        given = batch.replace(labels=jnp.full(6, labels, jnp.int32))
        return jax.device_get(update(variables, state, given, jnp.int32(0), key)[2])

    one, other, relabelled = (
        losses(rng_key(0, "dropout", step), label) for step, label in ((0, 0), (1, 0), (0, 7))
    )
    assert one == relabelled
    assert one["fake_loss"] != other["fake_loss"]
    assert one["real_loss"] == other["real_loss"]


def test_no_convolution_of_a_step_is_slow_in_a_loop(batch: Batch) -> None:
    task = made()
    form = try_task(task, DIGITS, "gan").form
    key = jax.eval_shape(lambda: jax.random.key(0))
    step = jax.ShapeDtypeStruct((), jnp.int32)
    given = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), batch)
    assert cpu.slow_in_loop(task.update, form.variables, form.opt_state, given, step, key) == []


def test_other_networks_and_data_are_refused() -> None:
    config = recipe("dcgan")
    with pytest.raises(UsageError, match=r"draws \[28, 28, 1\]; the images are \[8, 8, 1\]\. Cho"):
        create_task(config, Spec((8, 8, 1), ("a",), 10))
    config.model = ConfigDict({"name": "vae"})
    with pytest.raises(UsageError, match="has no generate and no discriminate, which the task"):
        create_task(config, DIGITS)


SMALL: dict[str, Any] = {
    "data.name": "mnist_sample",
    "data.train_split": "train[:120]",
    "data.eval_split": "test[:20]",
    "batch_size": 10,
    "num_steps": 6,
    "log_every_steps": 2,
    "eval_every_steps": 3,
    "checkpoint_every_steps": 2,
    "task.first_steps": 2,
}


def small() -> ConfigDict:
    config = recipe("dcgan")
    config.update_from_flattened_dict(SMALL)
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("gan") / "run"
    train(small(), workdir)
    return workdir


@pytest.mark.slow
def test_it_goes_on_to_the_bit_and_to_the_grid(run: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    train(small(), cut, should_stop=lambda: any(row["step"] == 2 for row in rows(cut)))
    assert not (cut / "pictures").exists()
    train(small(), cut)
    states = (restore(workdir, "latest", {}).state for workdir in (cut, run))
    jax.tree.map(np.testing.assert_array_equal, *states)
    assert rows(cut) == rows(run)
    for step in (3, 6):
        one, other = (w / f"pictures/samples/{step:08d}.png" for w in (run, cut))
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.slow
def test_its_rows(run: Path) -> None:
    told = rows(run)
    trained = [row for row in told if row["split"] == "train"]
    losses = {"real_loss", "fake_loss", "generator_loss"}
    assert all(losses <= row.keys() for row in trained)
    for row in trained[1:]:  # of the generator from its first update on
        assert row["learning_rate"] == pytest.approx(1e-4)
        assert row["discriminator_learning_rate"] == pytest.approx(3e-4)
    # At the start, neither network knows anything: each loss is ln 2.
    assert trained[0]["fake_loss"] == pytest.approx(np.log(2), rel=0.05)
    (last,) = (row for row in told if row["split"] == "eval" and row["step"] == 6)
    assert 0 < last["fake_estimate"] < 1
    assert not (run / "checkpoints/best").exists() or not any(
        (run / "checkpoints/best").iterdir()
    )  # nothing is measured that could choose


@pytest.mark.slow
def test_it_is_used(run: Path, launch: Launch, tmp_path: Path) -> None:
    flags = (f"--config={ROOT / 'configs/dcgan.py'}", f"--workdir={run}")
    done = launch(*flags, "--mode=eval")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["fake_estimate"] == rows(run)[-1]["fake_estimate"]
    done = launch(*flags, "--mode=sample", "--count=4", "--output=four.npz")
    assert done.returncode == 0, done.stderr
    assert np.load(tmp_path / "four.npz")["samples"].shape == (4, 28, 28, 1)
    for mode in ("report", "export"):
        done = launch(*flags, f"--mode={mode}")
        assert done.returncode == 0, done.stderr
    assert (run / "export/sampler.stablehlo").exists()

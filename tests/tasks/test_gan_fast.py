"""The small adversaries of configs/dcgan_fast.py: sizes, a step by hand, a run, its export."""

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
from ml_collections import ConfigDict

from mnist_flax import cpu, restore, train
from mnist_flax.core.average import learnt
from mnist_flax.core.state import try_task
from mnist_flax.core.task import Spec, Task
from mnist_flax.data.batch import Batch
from mnist_flax.data.sample import read_sample
from mnist_flax.errors import UsageError
from mnist_flax.export.stablehlo import run_stablehlo
from mnist_flax.keys import rng_key
from mnist_flax.models.dcgan_small import DCGANSmall
from mnist_flax.tasks import create_task

Launch = Callable[..., CompletedProcess[str]]
DIGITS = Spec((28, 28, 1), tuple("0123456789"), 1000)


def made(**model: int) -> Task:
    config = recipe("dcgan_fast")
    config.model.update(model)
    return create_task(config, DIGITS)


@pytest.fixture(scope="module")
def batch() -> Batch:
    images = read_sample().splits["train"].images[:6]
    return Batch(images, jnp.zeros(6, jnp.int32), jnp.arange(6))


def test_their_parameters() -> None:
    variables = jax.eval_shape(made().init, rng_key(0, "params", 0))
    assert variables["average"].keys() == {"params", "batch_stats"}
    shapes = jax.tree.map(lambda leaf: leaf.shape, learnt(variables))
    normed = {"scale": (128,), "bias": (128,)}, {"scale": (64,), "bias": (64,)}
    assert shapes["params"] == {
        "generator": {
            "dense": {"kernel": (64, 49 * 128)},
            "norm1": normed[0],
            "grow1": {"kernel": (4, 4, 128, 64)},
            "norm2": normed[1],
            "grow2": {"kernel": (4, 4, 64, 1), "bias": (1,)},
        },
        "discriminator": {
            "conv1": {"kernel": (5, 5, 1, 32), "bias": (32,)},
            "conv2": {"kernel": (5, 5, 32, 64), "bias": (64,)},
            "norm": {"bias": (64,)},
            "dense": {"kernel": (49 * 64, 1), "bias": (1,)},
        },
    }
    # 64·6272 + 256 + 16·128·64 + 128 + 16·64 + 1; 25·32 + 32 + 25·32·64 + 64 + 64 + 3136 + 1.
    sizes = {
        name: sum(leaf.size for leaf in jax.tree.leaves(part))
        for name, part in variables["params"].items()
    }
    assert sizes == {"generator": 533_889, "discriminator": 55_297}


@pytest.mark.slow
@pytest.mark.promise
def test_estimates_depend_on_those_beside_them_and_drawings_do_not(batch: Batch) -> None:
    task = made(features=4, judge_features=4)
    variables = task.init(rng_key(0, "params", 0))
    latents = np.random.default_rng(0).standard_normal((3, 64), np.float32)
    both = (
        (lambda images: task.predict(variables, images)["real"], batch.images[:3], False),
        (lambda latents: task.sample(variables, latents), latents, True),
    )
    for asked, inputs, alike in both:
        alone = np.concatenate([asked(inputs[n : n + 1]) for n in range(3)])
        assert np.allclose(asked(inputs), alone, atol=1e-6) == alike


@pytest.mark.slow
@pytest.mark.promise
def test_a_step_by_hand(batch: Batch) -> None:
    """One optimizer of the discriminator, on both losses; images' label is 0.9."""
    task, key = made(features=2, judge_features=4), rng_key(0, "dropout", 0)
    model = DCGANSmall(features=2, judge_features=4)
    variables = task.init(rng_key(0, "params", 0))
    after, moments, sums = jax.jit(task.update)(
        variables, task.init_opt(variables), batch, jnp.int32(0), key
    )
    assert moments.keys() == {"discriminator", "generator"}
    before, stats = variables["params"], variables["batch_stats"]

    def drawn(generator: Any, n: int) -> tuple[jax.Array, Any]:
        noise = jax.random.normal(jax.random.fold_in(key, n), (6, 64))
        collections = {"params": {"generator": generator}, "batch_stats": stats}
        return model.apply(
            collections, noise, train=True, method="generate", mutable=["batch_stats"]
        )

    def logits(discriminator: Any, images: Any) -> jax.Array:
        collections = {"params": {"discriminator": discriminator}}
        return model.apply(collections, images, train=True, method="discriminate")

    real, (fake, _) = jnp.asarray(batch.images, jnp.float32) / 255, drawn(before["generator"], 1)

    def told_apart(discriminator: Any) -> tuple[jax.Array, Any]:
        of_real, of_fake = logits(discriminator, real), logits(discriminator, fake)
        # 0.9 · -log σ(x) + 0.1 · -log(1 - σ(x)); -log(1 - σ(x)).
        smooth = 0.9 * jnp.logaddexp(0, -of_real) + 0.1 * jnp.logaddexp(0, of_real)
        losses = smooth.mean(), jnp.logaddexp(0, of_fake).mean()
        return sum(losses), losses

    (_, losses), grads = jax.value_and_grad(told_apart, has_aux=True)(before["discriminator"])
    optimizer = optax.adam(recipe("dcgan_fast").task.discriminator_learning_rate, b1=0.5)
    updates, _ = optimizer.update(grads, optimizer.init(before["discriminator"]))
    discriminator = optax.apply_updates(before["discriminator"], updates)

    def fooled(generator: Any) -> tuple[jax.Array, Any]:
        pictures, changed = drawn(generator, 2)
        return jnp.logaddexp(0, -logits(discriminator, pictures)).mean(), changed

    (loss, changed), grads = jax.value_and_grad(fooled, has_aux=True)(before["generator"])
    optimizer = optax.adam(recipe("dcgan_fast").optimizer.learning_rate, b1=0.5)
    updates, _ = optimizer.update(grads, optimizer.init(before["generator"]))
    generator = optax.apply_updates(before["generator"], updates)
    for name, wanted in zip(("real_loss", "fake_loss"), losses, strict=True):
        assert float(sums[name]) == pytest.approx(6 * float(wanted), rel=1e-4)
    assert float(sums["generator_loss"]) == pytest.approx(6 * float(loss), rel=1e-4)
    ours = after["params"], after["batch_stats"]
    theirs = (
        {"discriminator": discriminator, "generator": generator},
        changed["batch_stats"],
    )
    for (path, one), (_, other) in zip(
        jax.tree.leaves_with_path(ours), jax.tree.leaves_with_path(theirs), strict=True
    ):
        if "'conv2'" in str(path) and "'bias'" in str(path):
            continue  # the batch-norm after it takes it away: its gradient is rounding alone
        # Adam's first step is the rate itself, whatever the size of the gradient.
        assert np.isclose(one, other, rtol=0, atol=1e-5).mean() > 0.95, path
    # After one step, the average is that step's.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
        after["average"]["params"],
        after["params"],
    )


def test_no_convolution_of_a_step_is_slow_in_a_loop(batch: Batch) -> None:
    task = made()
    form = try_task(task, DIGITS, "gan").form
    key = jax.eval_shape(lambda: jax.random.key(0))
    step = jax.ShapeDtypeStruct((), jnp.int32)
    given = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), batch)
    assert cpu.slow_in_loop(task.update, form.variables, form.opt_state, given, step, key) == []


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("features", 0, "=0: must be a positive whole number."),
        ("judge_features", 0, "=0: must be a positive whole number."),
        ("latent_size", 0, "=0: must be a positive whole number."),
    ],
)
def test_widths_that_no_network_has(field: str, value: int, told: str) -> None:
    with pytest.raises(UsageError, match=f"config.model.{field}{told}".replace(".", r"\.")):
        made(**{field: value})


SMALL: dict[str, Any] = {
    "data.name": "mnist_sample",
    "data.train_split": "train[:120]",
    "data.select_split": "",
    "data.eval_split": "test[:20]",
    "model.features": 4,
    "model.judge_features": 4,
    "batch_size": 10,
    "num_steps": 6,
    "log_every_steps": 2,
    "eval_every_steps": 3,
    "checkpoint_every_steps": 2,
}


def small() -> ConfigDict:
    config = recipe("dcgan_fast")
    config.update_from_flattened_dict(SMALL)
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("fast") / "run"
    train(small(), workdir)
    return workdir


@pytest.mark.slow
@pytest.mark.promise
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
def test_it_is_asked_from_python(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    restored = restore(run)
    images = np.zeros((2, 28, 28), np.uint8)
    real = restored.predict(images).outputs["real"]
    assert real.shape == (2,)
    assert restored.sample(3).shape == (3, 28, 28, 1)
    capsys.readouterr()
    (last,) = (row for row in rows(run) if row["split"] == "eval" and row["step"] == 6)
    assert restored.evaluate()["fake_estimate"] == last["fake_estimate"]
    assert capsys.readouterr().err.startswith("No judge: ")


@pytest.mark.slow
@pytest.mark.promise
def test_what_is_exported_is_the_generator(run: Path, launch: Launch) -> None:
    flags = (f"--config={ROOT / 'configs/dcgan_fast.py'}", f"--workdir={run}")
    done = launch(*flags, "--mode=export", "--format=all")
    assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in (run / "export").iterdir())
    assert names == ["MODEL_CARD.md", "sampler.onnx", "sampler.stablehlo", "weights.safetensors"]
    files = [Path(json.loads(line)["file"]).name for line in done.stdout.splitlines()]
    assert files == ["sampler.stablehlo", "sampler.onnx", "MODEL_CARD.md", "weights.safetensors"]
    card = (run / "export/MODEL_CARD.md").read_text()
    assert "| input | `latents` | float32, standard normal | [batch, 64] |" in card
    assert "`sampler` draws pictures out of latents" in card
    assert "prepare" not in card
    assert "It draws what looks like the images it was trained on" in card
    # What draws is the average of the steps.
    restored = restore(run, "latest", {})
    latents = np.random.default_rng(0).standard_normal((2, 64), np.float32)
    content = (run / "export/sampler.stablehlo").read_bytes()
    ours = run_stablehlo(content, ("pictures",), latents, 2)["pictures"]
    average = restored.state.variables["average"]
    model = DCGANSmall(features=4, judge_features=4)
    wanted = model.apply(average, latents, method="generate")
    np.testing.assert_allclose(ours, wanted, atol=1e-6)
    raw = model.apply(learnt(restored.state.variables), latents, method="generate")
    assert not np.allclose(ours, raw, atol=1e-6)

"""The variational autoencoder: its bound and its start by hand, its draws, and a run of it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT, recipe, rows
from exported_files import BLOCKER, card_examples
from made import spec_of
from ml_collections import ConfigDict
from PIL import Image
from report_page import write_and_read

from mnist_flax import restore, train
from mnist_flax.core.chunk import make_eval_chunk
from mnist_flax.core.evaluation import evaluate
from mnist_flax.core.sampling import draw_latents, latents_of, sample
from mnist_flax.core.state import try_task
from mnist_flax.core.task import Spec, Task
from mnist_flax.data.batch import Batch, batch_like
from mnist_flax.data.dataset import Split
from mnist_flax.data.sample import read_sample
from mnist_flax.data.sources import eval_source
from mnist_flax.errors import UsageError
from mnist_flax.keys import rng_key
from mnist_flax.report.drawn import drawn_pictures
from mnist_flax.tasks import create_task
from mnist_flax.tasks.autoencoder import sums_of

Launch = Callable[..., CompletedProcess[str]]
DIGITS = Spec((28, 28, 1), tuple("0123456789"), 4680)
SMALL: dict[str, Any] = {
    "data.name": "mnist_sample",
    "data.train_split": "train[:300]",
    "data.eval_split": "test[:70]",
    "batch_size": 50,
    "num_steps": 12,
    "log_every_steps": 4,
    "eval_every_steps": 5,
    "checkpoint_every_steps": 4,
}


def small(**changes: Any) -> ConfigDict:
    config = recipe("vae")
    config.num_epochs = None
    config.update_from_flattened_dict({**SMALL, **changes})
    return config


@pytest.fixture(scope="module")
def task() -> Task:
    return create_task(recipe("vae"), DIGITS)


@pytest.fixture(scope="module")
def variables(task: Task) -> Any:
    return task.init(rng_key(0, "params", 0))


def test_its_parameters(variables: Any) -> None:
    shapes = {
        name: (layer["kernel"].shape, layer["bias"].shape)
        for name, layer in variables["params"].items()
    }
    assert shapes == {
        "fc1": ((784, 400), (400,)),
        "fc21": ((400, 20), (20,)),
        "fc22": ((400, 20), (20,)),
        "fc3": ((20, 400), (400,)),
        "fc4": ((400, 784), (784,)),
    }
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == 652_824


def test_it_starts_as_pytorch_does(variables: Any) -> None:
    # Uniform within ± 1/√inputs, biases too: the standard deviation is the bound over √3.
    for name, inputs in (("fc1", 784), ("fc21", 400), ("fc3", 20), ("fc4", 400)):
        for leaf in variables["params"][name].values():
            assert float(jnp.abs(leaf).max()) <= inputs**-0.5 * (1 + 1e-6)
            assert float(leaf.std()) == pytest.approx((3 * inputs) ** -0.5, rel=0.25)
    assert float(variables["params"]["fc1"]["kernel"].std()) == pytest.approx(2352**-0.5, rel=0.01)


def test_the_bound_by_hand() -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (4, 3, 2, 1), np.uint8)
    logits = random.normal(size=(4, 3, 2, 1)) * 3
    means, log_variances = random.normal(size=(2, 4, 5))
    pixels, chances = images / 255, 1 / (1 + np.exp(-logits))
    entropy = -(pixels * np.log(chances) + (1 - pixels) * np.log(1 - chances))
    reconstruction = entropy.sum((1, 2, 3))
    kl = 0.5 * (means**2 + np.exp(log_variances) - 1 - log_variances).sum(1)
    mask = np.array([True, True, False, True])
    sums = sums_of(images, *map(jnp.float32, (logits, means, log_variances)), mask=mask)
    assert float(sums["reconstruction"]) == pytest.approx(reconstruction[mask].sum(), rel=1e-5)
    assert float(sums["kl"]) == pytest.approx(kl[mask].sum(), rel=1e-5)
    whole = (reconstruction + kl)[mask].sum()
    assert float(sums["negative_elbo"]) == pytest.approx(whole, rel=1e-5)
    assert int(sums["count"]) == 3


def test_no_information_costs_no_nats() -> None:
    zeros = jnp.zeros((2, 20))
    sums = sums_of(jnp.zeros((2, 28, 28, 1), jnp.uint8), jnp.zeros((2, 28, 28, 1)), zeros, zeros)
    assert float(sums["kl"]) == 0
    assert float(sums["negative_elbo"]) == pytest.approx(2 * 784 * np.log(2), rel=1e-6)


def digits(count: int) -> Split:
    test = read_sample().splits["test"]
    return Split(test.images[:count], test.labels[:count])


def test_an_evaluation_does_not_depend_on_the_batch_size(task: Task, variables: Any) -> None:
    def evaluated(batch_size: int) -> Any:
        source = eval_source(digits(30), batch_size)
        return evaluate(jax.jit(make_eval_chunk(task, source.draw)), variables, source, task)

    one, other = evaluated(7), evaluated(30)
    assert dict(one.means) == pytest.approx(dict(other.means), rel=1e-6)
    assert one.examples == 30
    np.testing.assert_array_equal(one.outputs["images"], digits(30).images)


def test_its_noise_is_each_images_own(task: Task, variables: Any) -> None:
    image = digits(1).images

    def bound(*index: int) -> float:
        batch = Batch(
            np.repeat(image, len(index), 0),
            jnp.zeros(len(index), jnp.int32),
            jnp.array(index),
            jnp.ones(len(index), bool),
        )
        return float(task.evaluate(variables, batch)[0]["negative_elbo"])

    assert bound(3) == bound(3) != bound(4)
    assert bound(3, 4) == pytest.approx(bound(3) + bound(4), rel=1e-6)


def test_training_draws_anew_in_every_step(task: Task, variables: Any) -> None:
    opt_state, update = task.init_opt(variables), jax.jit(task.update)
    batch = Batch(digits(9).images, jnp.zeros(9, jnp.int32), jnp.arange(9))
    zero, again, one = (
        jax.device_get(update(variables, opt_state, batch, step, rng_key(0, "dropout", step))[2])
        for step in (0, 0, 1)
    )
    assert zero == again
    assert zero["kl"] == one["kl"]  # of the means and variances alone
    assert zero["reconstruction"] != one["reconstruction"]


def test_what_it_draws_is_what_it_decodes(task: Task, variables: Any) -> None:
    answer = task.predict(variables, digits(3).images)
    drawn = task.sample(variables, answer["latents"])
    np.testing.assert_allclose(drawn, answer["reconstructions"], rtol=1e-5)


def test_samples_are_the_same_however_many(task: Task, variables: Any) -> None:
    few, many = (sample(task, variables, 0, count, batch_size=8) for count in (5, 20))
    assert few.shape == (5, 28, 28, 1)
    np.testing.assert_array_equal(few, many[:5])
    assert not np.array_equal(many[0], many[8])
    assert not np.array_equal(sample(task, variables, 1, 1, batch_size=8)[0], many[0])


def test_noise_is_a_function_of_seed_and_number() -> None:
    eight, two = latents_of(7, jnp.arange(8), 20), latents_of(7, jnp.array([5, 2]), 20)
    np.testing.assert_array_equal(eight[jnp.array([5, 2])], two)
    assert abs(float(latents_of(0, jnp.arange(500), 20).std()) - 1) < 0.02


def test_data_of_another_form_are_drawn_in_it(tmp_path: Path) -> None:
    spec = spec_of((5, 4, 3))
    made = create_task(recipe("vae"), spec)
    form = try_task(made, spec, "autoencoder").form
    assert form.variables["params"]["fc4"]["kernel"].shape == (400, 60)
    batch = batch_like(2, spec.image_shape)
    assert jax.eval_shape(made.predict, form.variables, batch.images)["reconstructions"].shape == (
        (2, 5, 4, 3)
    )


def test_a_network_without_halves_is_refused() -> None:
    config = recipe("vae")
    config.model = ConfigDict({"name": "lenet"})
    with pytest.raises(UsageError, match="has no encode and no decode and no latent_size, which"):
        create_task(config, DIGITS)


def test_what_samples_must_be(task: Task) -> None:
    wrong = task._replace(sample=lambda variables, latents: task.sample(variables, latents)[:, 1:])
    with pytest.raises(UsageError, match=r"sample draws float32 \[2, 27, 28, 1\] from two latents"):
        try_task(wrong, DIGITS, "mine")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("vae") / "run"
    train(small(tensorboard=True), workdir)
    return workdir


@pytest.mark.slow
@pytest.mark.promise
def test_it_goes_on_to_the_bit_and_to_the_grid(run: Path, tmp_path: Path) -> None:
    cut, config = tmp_path / "cut", small(tensorboard=True)
    train(config, cut, should_stop=lambda: any(row["step"] == 4 for row in rows(cut)))
    assert not (cut / "pictures/samples/00000010.png").exists()
    train(config, cut)
    jax.tree.map(
        np.testing.assert_array_equal,
        *(restore(workdir, "latest", {}).state for workdir in (cut, run)),
    )
    assert rows(cut) == rows(run)
    for name in ("samples", "reconstructions", "walk"):
        files = sorted(path.name for path in (run / "pictures" / name).iterdir())
        assert files == ["00000005.png", "00000010.png", "00000012.png"]
        for file in files:
            one, other = (workdir / "pictures" / name / file for workdir in (run, cut))
            assert one.read_bytes() == other.read_bytes()


def test_its_rows_and_its_best(run: Path) -> None:
    evaluated = [row for row in rows(run) if row["split"] == "eval"]
    for row in rows(run):
        assert row["negative_elbo"] == pytest.approx(row["reconstruction"] + row["kl"], rel=1e-5)
    best = restore(run, "best", {})
    assert int(best.state.step) == min(evaluated, key=lambda row: row["negative_elbo"])["step"]


def test_its_grids_show_what_it_draws(run: Path) -> None:
    restored = restore(run, "latest", {})
    drawn = sample(restored.task, restored.state.variables, 0, 64, 50)
    grid = np.asarray(Image.open(run / "pictures/samples/00000012.png"))
    assert grid.shape == (8 * 58 + 2, 8 * 58 + 2, 3)
    for place in ((0, 0), (0, 7), (6, 3)):
        top, left = (2 + 58 * n for n in place)
        tile = grid[top : top + 56 : 2, left : left + 56 : 2, 0]
        np.testing.assert_array_equal(tile, drawn[8 * place[0] + place[1], :, :, 0])
    pair = np.asarray(Image.open(run / "pictures/reconstructions/00000012.png"))
    original = read_sample().splits["test"].images[3, :, :, 0]
    np.testing.assert_array_equal(pair[2:58:2, 176:232:2, 0], original)


def test_it_is_asked_from_python(run: Path) -> None:
    restored = restore(run)
    images = digits(3).images
    answers = restored.predict(images)
    assert answers.outputs["latents"].shape == (3, 20)
    assert answers[1].outputs["reconstructions"].shape == (28, 28, 1)
    assert repr(answers[0]) == "Prediction(latents [20], reconstructions [28, 28, 1])"
    assert list(answers[0].row()) == ["latents"]  # as the command has it
    with pytest.raises(UsageError, match=r"predicts no classes\. It gives outputs\['latents'\], "):
        _ = answers[0].class_name
    with pytest.raises(UsageError, match="predicts no classes"):
        _ = answers.probabilities
    drawn = sample(restored.task, restored.state.variables, 0, 64, 50)
    np.testing.assert_array_equal(restored.sample(5), drawn[:5])
    np.testing.assert_array_equal(restored.sample(), drawn)
    with pytest.raises(UsageError, match="count=0; draw at least one"):
        restored.sample(0)
    (last,) = (row for row in rows(run) if row["split"] == "eval" and row["step"] == 12)
    assert restored.evaluate()["negative_elbo"] == last["negative_elbo"]


def test_tensorboard_shows_them(run: Path) -> None:
    written = b"".join(path.read_bytes() for path in (run / "tensorboard").iterdir())
    for name in (b"eval/samples", b"eval/reconstructions", b"eval/walk", b"eval/negative_elbo"):
        assert name in written


@pytest.mark.slow
@pytest.mark.promise
def test_it_is_used(run: Path, launch: Launch, tmp_path: Path) -> None:
    flags = (f"--config={ROOT / 'configs/vae.py'}", f"--workdir={run}")
    done = launch(*flags, "--mode=eval")
    assert done.returncode == 0, done.stderr
    last = rows(run)[-1]
    assert json.loads(done.stdout)["negative_elbo"] == pytest.approx(last["negative_elbo"])
    done = launch(*flags, "--mode=sample", "--count=3", "--output=three.npz")
    assert done.returncode == 0, done.stderr
    assert done.stderr.endswith("3 pictures out of the noise of seed 0, in three.npz\n")
    done = launch(*flags, "--mode=sample", "--count=5", "--output=five.png")
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "three.npz") as three:
        assert three["samples"].shape == (3, 28, 28, 1)
        grid = np.asarray(Image.open(tmp_path / "five.png"))  # three in a row, and two below
        np.testing.assert_array_equal(grid[2:58:2, 2:58:2, 0], three["samples"][0, :, :, 0])
        assert grid.shape == (2 * 58 + 2, 3 * 58 + 2, 3)
        assert (grid[60:, 118:] == 255).all()
    digit = read_sample().splits["test"].images[7, :, :, 0]
    Image.fromarray(digit).save(tmp_path / "7.png")
    done = launch(*flags, "--mode=predict", "--center=false", "7.png")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert np.shape(answer["latents"]) == (20,)
    assert "reconstructions" not in answer  # 784 numbers, which nobody reads


def test_its_report_has_the_film(run: Path) -> None:
    page = write_and_read(run)
    told = (
        "Drawn out of noise, at every evaluation out of the same. A film, a picture for each of 3"
    )
    assert told in page.text
    assert "negative ELBO, nats" in page.text or "Negative ELBO" in str(page.images)
    assert sum(source.startswith("data:image/webp;base64,") for source in page.sources) == 3
    for name in ("samples", "reconstructions", "walk"):
        still = (run / f"report/drawn-{name}.png").read_bytes()
        assert still == (run / f"pictures/{name}/00000012.png").read_bytes()
        with Image.open(run / f"report/drawn-{name}.webp") as film:
            assert (film.n_frames, film.info["loop"]) == (3, 0)
            last = np.asarray(film.convert("RGB"), np.int32)
            film.seek(0)
            first = np.asarray(film.convert("RGB"), np.int32)
    kept = run / "pictures/walk/00000005.png"
    shown = np.asarray(Image.open(kept).convert("RGB"), np.int32)
    assert np.abs(first - shown).mean() < 8  # WebP loses a little
    assert last.shape == shown.shape


def test_a_report_of_an_earlier_save_shows_nothing_later(run: Path, tmp_path: Path) -> None:
    restored = restore(run, "8", {})
    told = [title for title, _ in drawn_pictures(run, restored)]
    assert len(told) == 3
    assert all(title.endswith(": step 5.") for title in told)
    assert drawn_pictures(tmp_path, restored) == []


@pytest.mark.slow
def test_it_is_exported_in_halves(run: Path, launch: Launch) -> None:
    done = launch(f"--workdir={run}", "--mode=export", "--format=all")
    assert done.returncode == 0, done.stderr
    rows_of = {Path(row["file"]).name: row for row in map(json.loads, done.stdout.splitlines())}
    assert list(rows_of)[:4] == [
        *("model.stablehlo", "model.onnx", "sampler.stablehlo", "sampler.onnx"),
    ]
    assert rows_of["model.onnx"]["examples"] == 70
    assert rows_of["sampler.onnx"]["examples"] == 1000
    card = (run / "export/MODEL_CARD.md").read_text()
    assert "| output of model | `latents` | float32 | [batch, 20] |" in card
    assert "| output of sampler | `pictures` | float32 | [batch, 28, 28, 1] |" in card
    restored = restore(run, "latest", {})
    latents = np.random.default_rng(0).standard_normal((1, 20), np.float32)
    wanted = draw_latents(restored.task, restored.state.variables, latents)[0, :, :, 0]
    codes = [code for code in card_examples(card) if "sampler" in code]
    assert len(codes) == 2
    for code in codes:  # as a stranger runs it, who has no such package
        command = [sys.executable, "-c", BLOCKER + code]
        asked = subprocess.run(command, cwd=run / "export", capture_output=True, text=True)
        assert asked.returncode == 0, asked.stderr
        drawn = np.asarray(Image.open(run / "export/drawn.png"), np.int32)
        np.testing.assert_allclose(drawn, wanted, atol=1)
        (run / "export/drawn.png").unlink()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ((), "--output is missing: --mode=sample writes a .png or an .npz file."),
        (("--output=x.gif",), "--output=x.gif: name a file that ends in .png or .npz."),
        (("--output=no/x.png",), "--output=no/x.png: name a file in a folder that exists."),
        (("--output=.",), "--output=.: is a folder; name a file."),
        (("--output=",), "--output is missing: --mode=sample writes a .png or an .npz file."),
        (("--output=x.PNG", "--count=10001"), "--count=10001: a .PNG file takes up to 10,000."),
        (("--output=x.npz", "--count=1000000000"), "a .npz file takes up to 1,000,000."),
        (("--output=x.png", "--count=0"), "count"),
        (
            ("--output=x.png", "--split=test"),
            "--split: is for --mode=predict, not for --mode=sample",
        ),
    ],
)
def test_what_cannot_be_drawn_is_told(run: Path, launch: Launch, flags: Any, told: str) -> None:
    done = launch(f"--workdir={run}", "--mode=sample", *flags)
    assert done.returncode == 2
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_task_that_draws_nothing_says_so(
    tiny_config: ConfigDict, launch: Launch, tmp_path: Path
) -> None:
    tiny_config.num_steps = 1
    train(tiny_config, tmp_path / "run")
    done = launch("--workdir=run", "--mode=sample", "--output=x.png")
    assert done.returncode == 2
    assert "--mode=sample: makes no sense for the task 'classification'" in done.stderr

"""--mode=export: what it writes says what the network says, wherever it is run."""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from conftest import TESTS, launch_command, launch_environment, recipe
from exported_files import BLOCKER, card_examples
from flax import linen as nn
from PIL import Image

from mnist_flax import export
from mnist_flax.core.state import create_state
from mnist_flax.data import load
from mnist_flax.data.dataset import CLASS_NAMES, Dataset
from mnist_flax.data.sample import read_sample
from mnist_flax.errors import UserError
from mnist_flax.export import export_network
from mnist_flax.export.licences import data_licence
from mnist_flax.export.model_card import model_card
from mnist_flax.export.network import trace_network
from mnist_flax.export.onnx import run_onnx, to_onnx
from mnist_flax.export.stablehlo import run_stablehlo, to_stablehlo
from mnist_flax.models import create_model
from mnist_flax.tasks import Spec, create_task
from mnist_flax.tasks.classification import predict_step
from mnist_flax.tasks.networks import init_variables
from mnist_flax.use.evaluation import evaluate_restored
from mnist_flax.use.prediction import predict
from mnist_flax.use.restore import Restored, restore

Launch = Callable[..., CompletedProcess[str]]
PROBABILITIES = ("probabilities",)
RECIPES = ("tutorial", "adam", "lenet", "lenet_augmented", "rmsprop", "speedrun", "fast995", "best")


@pytest.fixture(scope="module")
def trained(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a finished run of 40 steps."""
    from tiny import get_config

    from mnist_flax.training import train

    config = get_config()
    config.data.data_dir = str(digits)
    workdir = tmp_path_factory.mktemp("trained")
    train(config, workdir)
    return workdir


@pytest.fixture(scope="module")
def exported(trained: Path) -> CompletedProcess[str]:
    """What launch.py printed while it wrote every format."""
    if version("jax2onnx") == "0.13.0" and jax.__version_info__ >= (0, 12):
        pytest.skip("jax2onnx 0.13.0, which pip takes, does not load with jax 0.12")
    done = subprocess.run(
        launch_command(f"--workdir={trained}", "--mode=export", "--format=all"),
        cwd=trained.parent,
        env=launch_environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture
def opened(trained: Path) -> tuple[Restored, Dataset]:
    restored = restore(trained, "latest", {})
    return restored, load(restored.config.data)


def untrained(model: nn.Module, image_shape: tuple[int, int, int]) -> Restored:
    """A network in place of one that was saved: no weight or statistic is zero or one."""
    task = create_task(recipe("tutorial"), Spec(image_shape, CLASS_NAMES["mnist"], 1))._replace(
        init=partial(init_variables, model, image_shape),
        predict=partial(predict_step, model),
        model=model,
    )
    state = create_state(task, {"count": jnp.int32(0)}, seed=0)
    random = np.random.default_rng(0)
    params, batch_stats = jax.tree.map(
        lambda leaf: random.uniform(0.9, 1.1, leaf.shape).astype(np.float32) * (leaf + 0.01),
        (state.params, state.batch_stats),
    )
    state = state.replace(variables={"params": params, "batch_stats": batch_stats})
    return Restored(recipe("tutorial"), task, state, Path("nowhere"), {}, (), image_shape)


def test_a_class_whose_name_is_not_utf8(opened: tuple[Restored, Dataset], tmp_path: Path) -> None:
    restored, dataset = opened
    names = (os.fsdecode(b"caf\xe9"), *restored.class_names[1:])
    shutil.copy(restored.checkpoint.parents[2] / "config.json", tmp_path)
    renamed = dataclasses.replace(restored, class_names=names)
    export_network(tmp_path, renamed, dataset, ["stablehlo"], print)
    assert '["caf\\udce9", "1", ' in (tmp_path / "export/MODEL_CARD.md").read_text()


@pytest.mark.slow
@pytest.mark.promise
def test_stdout_holds_a_json_line_for_each_file(trained: Path, exported) -> None:
    rows = [json.loads(line) for line in exported.stdout.splitlines()]
    assert [Path(row["file"]).name for row in rows] == [
        "model.stablehlo",
        "model.onnx",
        "prepare.py",
        "MODEL_CARD.md",
        "weights.safetensors",
    ]
    for row in rows:
        content = Path(row["file"]).read_bytes()
        assert row["bytes"] == len(content)
        assert row["sha256"] == hashlib.sha256(content).hexdigest()
    assert [row.get("examples") for row in rows] == [37, 37, None, None, None]
    assert rows[0]["max_abs_difference"] <= 1e-6
    assert rows[1]["max_abs_difference"] <= 1e-5
    assert sorted(path.name for path in (trained / "export").iterdir()) == [
        "MODEL_CARD.md",
        "model.onnx",
        "model.stablehlo",
        "prepare.py",
        "weights.safetensors",
    ]
    told = exported.stderr.splitlines()
    assert told[0].startswith("Restored step 40 from ")
    assert [line.partition(":")[0] for line in told[1:]] == ["model.stablehlo", "model.onnx"]
    assert all(line.endswith("over the probabilities of 37 images.") for line in told[1:])


@pytest.mark.slow
@pytest.mark.promise
def test_the_cards_examples_run_without_this_package(
    exported, trained: Path, tmp_path: Path
) -> None:
    card = (trained / "export/MODEL_CARD.md").read_text()
    examples = card_examples(card)
    assert len(examples) == 2
    image = np.arange(0, 256, 4, dtype=np.uint8).reshape(8, 8, 1)
    expected = predict(restore(trained, "latest", {}), image[None])["probabilities"][0]
    for file in (trained / "export").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    Image.fromarray(image[..., 0]).save(tmp_path / "picture.png")
    for code in examples:
        done = subprocess.run(
            [sys.executable, "-c", BLOCKER + code], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        best, probability = done.stdout.split()
        assert int(best) == expected.argmax()
        assert float(probability) == pytest.approx(expected.max(), abs=1e-5)


def test_the_blocker_blocks() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKER + "import mnist_flax"], capture_output=True, text=True
    )
    assert "mnist_flax is blocked" in done.stderr


def test_the_card_says_what_an_evaluation_says(trained: Path, digits: Path, exported) -> None:
    card = (trained / "export/MODEL_CARD.md").read_text()
    restored = restore(trained, "latest", {})
    dataset = load(restored.config.data)
    result = evaluate_restored(restored, dataset.eval)
    assert (
        f"| accuracy | {result.means['accuracy']:.4f} |\n"
        f"| loss, softmax cross-entropy in nats | {result.means['loss']:.4f} |\n"
        "| expected calibration error, 15 bins (Guo et al. 2017) | "
    ) in card
    assert card.startswith("# tiny:TinyNet, trained on data of the user's own, called 'mnist'\n")
    assert "MNIST is light ink on black" not in card  # these are 8×8
    assert "37 images, the run's own data" in card
    assert dataset.fingerprint in card
    assert str(digits) not in card  # a card travels
    assert str(trained) not in card
    # convolution 3·3·1·4 + 4, batch-norm 4 + 4, dense 3·3·4·10 + 10; a mean and a variance for 4
    assert "418 parameters and 8 running statistics" in card
    assert "| input | `images` | uint8, 0 to 255 | [batch, 8, 8, 1] |" in card
    assert "| output | `probabilities` | float32 | [batch, 10] |" in card
    for row in map(json.loads, exported.stdout.splitlines()[:2]):
        assert f"| `{row['sha256']}` |" in card
    config = json.loads(re.findall(r"```json\n(.*?)```", card, re.DOTALL)[1])
    assert (config["seed"], config["optimizer"]["name"]) == (0, "adam")
    assert importlib.metadata.version("onnxruntime") in card


def test_other_images_are_named_as_such(trained: Path, tmp_path: Path) -> None:
    restored = restore(trained, "latest", {"data.eval_split": "train[:9]", "batch_size": 4})
    dataset = load(restored.config.data)
    row = {"file": "export/model.onnx", "bytes": 1, "sha256": "0", "max_abs_difference": 0.0}
    result = evaluate_restored(restored, dataset.eval)
    recorded = json.loads((trained / "config.json").read_text())
    network, rows = trace_network(restored), [row | {"examples": 9}]
    card = model_card(restored, [network], dataset, recorded, result, 0.5, rows)
    assert "On `train[:9]` of mnist: 9 images, other data or splits than the run's own" in card
    assert "| kept for evaluation | `test` |" in card
    assert "calibration error, 15 bins (Guo et al. 2017) | 0.5000 |" in card


def test_a_fallback_stands_in_the_card(trained: Path, opened) -> None:
    restored, dataset = opened
    restored = replace(restored, trained_on=restored.trained_on | {"name": "mnist_sample"})
    recorded = json.loads((trained / "config.json").read_text())
    recorded["config"]["data"]["train_split"] = "train[5000:]"
    result = evaluate_restored(restored, dataset.eval)
    network = trace_network(restored)
    card = model_card(restored, [network], dataset, recorded, result, 0.0, [])
    assert "| fallback | mnist was asked for and was not to be had" in card
    assert "| trained on | `train`, 105 images |" in card  # whole, whatever the recipe cut
    assert "MNIST is light ink on black" in card
    assert "CC BY-SA 3.0, Yann LeCun and Corinna Cortes (5,000 digits of MNIST)" in card


def test_mixed_and_extended_data_stand_in_the_card(trained: Path, opened) -> None:
    restored, dataset = opened
    recorded = json.loads((trained / "config.json").read_text())
    result, network = evaluate_restored(restored, dataset.eval), trace_network(restored)
    plain = model_card(restored, [network], dataset, recorded, result, 0.0, [])
    assert "| mixed |" not in plain
    assert "| extended |" not in plain
    assert "chose the best save" not in plain
    recorded["config"]["data"] |= {"resplit": 7, "extended": True, "select_split": "train[9:]"}
    card = model_card(restored, [network], dataset, recorded, result, 0.0, [])
    assert "| chose the best save | `train[9:]` |" in card
    assert "| mixed | the two were put together, mixed, and cut at their sizes again, with" in card
    assert "with the seed 7: neither is the split of that name |" in card
    assert "| extended | 6 times as many images to train on: each image as it is, shifted" in card


@pytest.mark.parametrize(
    ("name", "shape", "source", "expected"),
    [
        ("mnist", [28, 28, 1], "IDX files in data", "CC BY-SA 3.0, Yann LeCun and Corinna Cortes"),
        ("fashion_mnist", [28, 28, 1], "IDX files in data", "MIT, Zalando SE"),
        ("mnist", [8, 8, 1], "IDX files in data", "unknown"),
        ("mnist", [28, 28, 1], "picture folders in data", "unknown"),
        ("coins", [28, 28, 1], "IDX files in data", "unknown"),
    ],
)
def test_the_licence_is_that_of_known_data(name, shape, source, expected) -> None:
    classes = list(CLASS_NAMES.get(name, CLASS_NAMES["mnist"]))
    trained_on = {"name": name, "image_shape": shape, "source": source, "class_names": classes}
    assert data_licence(trained_on).startswith(expected)


@pytest.mark.slow
@pytest.mark.promise
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipes_network_is_the_same_in_both_formats(name: str) -> None:
    restored = untrained(create_model(recipe(name).model, 10), (28, 28, 1))
    images = read_sample().splits["test"].images[:100]
    expected = predict(restored, images)["probabilities"]
    network = trace_network(restored)
    content = to_stablehlo(network)
    got = run_stablehlo(content, PROBABILITIES, images, 100)
    np.testing.assert_array_equal(got["probabilities"], expected)
    # Batches of 7 and a last one of 2: their number is free, but rounding depends on it.
    got = run_stablehlo(content, PROBABILITIES, images, 7)
    np.testing.assert_allclose(got["probabilities"], expected, rtol=0, atol=1e-5)
    content = to_onnx(network)
    got = run_onnx(content, PROBABILITIES, images, 7)
    np.testing.assert_allclose(got["probabilities"], expected, rtol=0, atol=1e-5)

    graph = onnx.load_from_string(content).graph
    kinds = {node.op_type for node in graph.node}
    assert {"Conv", "MaxPool", "Softmax"} <= kinds
    assert not kinds & {"Loop", "Scan", "If"}
    pools = [node for node in graph.node if node.op_type == "MaxPool"]
    assert len(pools) == {"rmsprop": 3, "fast995": 3, "best": 3}.get(name, 2)
    shapes = {node.output[0] for node in graph.node if node.op_type == "Shape"}
    gathered = [node.input[0] for node in graph.node if node.op_type == "Gather"]
    assert set(gathered) <= shapes  # sizes alone, no pixels
    (taken,), (given,) = graph.input, graph.output
    assert taken.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert given.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    dims = [
        [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (taken, given)
    ]
    assert dims == [["batch", 28, 28, 1], ["batch", 10]]


class Pooled(nn.Module):
    """A network of a user's own, with a pool of any padding."""

    padding: Any

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        del train
        # Values below zero: a pool that pads with zeros would show.
        x = nn.max_pool(
            nn.Conv(5, (3, 3))(images) - 9, (3, 2), strides=(2, 3), padding=self.padding
        )
        x = nn.avg_pool(x, (2, 2), strides=(2, 2))
        return nn.Dense(4)(x.reshape(x.shape[0], -1))


@pytest.mark.slow
@pytest.mark.promise
@pytest.mark.parametrize("padding", ["VALID", "SAME", ((1, 0), (0, 1)), ((2, 2), (1, 1))])
def test_a_users_own_network_of_other_images_is_exported(padding) -> None:
    restored = untrained(Pooled(padding), (17, 12, 3))
    images = np.random.default_rng(0).integers(0, 256, (11, 17, 12, 3), np.uint8)
    expected = predict(restored, images)["probabilities"]
    network = trace_network(restored)
    for got in (
        run_stablehlo(to_stablehlo(network), PROBABILITIES, images, 4),
        run_onnx(to_onnx(network), PROBABILITIES, images, 4),
    ):
        np.testing.assert_allclose(got["probabilities"], expected, rtol=0, atol=1e-5)


def test_stablehlo_is_written_for_every_kind_of_device() -> None:
    content = to_stablehlo(trace_network(untrained(Pooled("SAME"), (17, 12, 3))))
    read = jax.export.deserialize(bytearray(content))
    assert read.platforms == ("cpu", "cuda", "tpu")
    assert str(read.in_avals[0]) == "uint8[batch,17,12,3]"
    assert str(read.out_avals[0]) == "float32[batch,4]"


class Transformed(nn.Module):
    """Uses an operation that ONNX has and jax2onnx has not."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        del train
        spectrum = jnp.linalg.svd(images[..., 0], compute_uv=False)
        return nn.Dense(4)(spectrum)


def test_what_the_converter_does_not_know_is_one_line() -> None:
    restored = untrained(Transformed(), (6, 6, 1))
    images = np.random.default_rng(0).integers(0, 256, (5, 6, 6, 1), np.uint8)
    network = trace_network(restored)
    with pytest.raises(UserError, match=r"^format=onnx: jax2onnx .* as stablehlo\.$") as told:
        to_onnx(network)
    assert len(str(told.value)) < 300
    expected = predict(restored, images)["probabilities"]
    got = run_stablehlo(to_stablehlo(network), PROBABILITIES, images, 5)
    np.testing.assert_array_equal(got["probabilities"], expected)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [(lambda values: values + 2e-6, "2.0e-06"), (lambda values: values * np.nan, "nan")],
)
def test_a_file_that_differs_is_not_written(
    opened, trained: Path, tmp_path: Path, monkeypatch, spoil, told: str
) -> None:
    def run(*arguments: Any) -> dict[str, np.ndarray]:
        return {name: spoil(values) for name, values in run_stablehlo(*arguments).items()}

    monkeypatch.setitem(export._RUNNERS, "stablehlo", run)
    (tmp_path / "config.json").write_text((trained / "config.json").read_text())
    with pytest.raises(UserError, match=r"^format=stablehlo: over 37 images") as caught:
        export_network(tmp_path, *opened, ["stablehlo"], print)
    assert f"by up to {told}, more than the 1e-06 that is allowed" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_file_of_an_earlier_export_is_named(opened, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((trained / "config.json").read_text())
    (tmp_path / "export").mkdir()
    (tmp_path / "export/model.onnx").write_bytes(b"old")
    told: list[str] = []
    export_network(tmp_path, *opened, ["stablehlo"], told.append)
    assert "model.onnx is an earlier export's" in told[-1]
    assert "model.onnx" not in (tmp_path / "export/MODEL_CARD.md").read_text()


def test_a_missing_extra_is_told_before_anything_else(opened, tmp_path: Path, monkeypatch) -> None:
    def version(name: str) -> str:
        if name == "jax2onnx":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(export, "trace_network", None)  # would be called first
    with pytest.raises(UserError, match=r"jax2onnx is not installed.*pip install -e '\.\[onnx\]'"):
        export_network(tmp_path, *opened, ["onnx"], print)


def test_format_belongs_to_export(launch: Launch, trained: Path) -> None:
    for mode in ("eval", "predict"):
        done = launch(f"--workdir={trained}", f"--mode={mode}", "--format=onnx")
        assert done.returncode == 2
        assert f"--format: is for --mode=export, not for --mode={mode}" in done.stderr
    done = launch(f"--config={TESTS / 'tiny.py'}", "--mode=export", "--format=tflite")
    assert done.returncode == 2
    assert "stablehlo" in done.stderr

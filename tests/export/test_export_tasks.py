"""--mode=export of tasks that know no classes: any outputs, each as the network gives it."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from exported_files import BLOCKER
from flax import linen as nn
from jax.experimental import io_callback
from ml_collections import ConfigDict
from PIL import Image
from tiny import get_config

from mnist_flax import export
from mnist_flax.core.optimizers import optimizer_of
from mnist_flax.core.state import create_state
from mnist_flax.core.task import Metric, Spec, Task
from mnist_flax.core.update import gradient_update
from mnist_flax.data.dataset import CLASS_NAMES
from mnist_flax.errors import UsageError, UserError
from mnist_flax.export import FORMATS, export_network
from mnist_flax.export.network import trace_network
from mnist_flax.export.onnx import run_onnx, to_onnx
from mnist_flax.export.stablehlo import run_stablehlo, to_stablehlo
from mnist_flax.models import create_model
from mnist_flax.tasks import create_task
from mnist_flax.tasks.networks import apply_eval, init_variables
from mnist_flax.training import train
from mnist_flax.use.evaluation import evaluate_restored
from mnist_flax.use.prediction import predict
from mnist_flax.use.restore import Restored, restore
from mnist_flax.use.run_data import load_data

SHAPE = (8, 8, 1)
IMAGES = np.random.default_rng(0).integers(0, 256, (11, *SHAPE), np.uint8)

# Kinds of equations, in their order.
SOFTMAX = "reduce_max max broadcast_in_dim stop_gradient sub exp reduce_sum broadcast_in_dim div"


class Line(nn.Module):
    num_classes: int = 1

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        del train
        return nn.Dense(self.num_classes)(images.reshape(images.shape[0], -1))


def turned(config: ConfigDict, spec: Spec, exported: tuple[str, ...] = ()) -> Task:
    """By how many degrees is a thing turned? A class counts as 36."""
    model = create_model(config.model, 1)
    optimizer, rates = optimizer_of(config, spec.num_steps)

    def init(key: jax.Array) -> dict:
        # What only `singular` needs is large, and it goes through what jax2onnx does not know.
        return {**init_variables(model, spec.image_shape, key), "unused": jnp.ones((100, 8))}

    def degrees(variables: dict, images: jax.Array) -> jax.Array:
        weights = {"params": variables["params"]}
        return 90 + 180 * apply_eval(model, weights, images)[:, 0]

    def sums(variables: dict, batch: Any, mask: jax.Array) -> dict:
        error = degrees(variables, batch.images) - 36.0 * batch.labels
        of_each = {"error": jnp.abs(error), "loss": (error / 360) ** 2}
        kept = {name: jnp.where(mask, values, 0).sum() for name, values in of_each.items()}
        return {**kept, "count": mask.sum(dtype=jnp.int32)}

    def loss(variables: dict, batch: Any, key: jax.Array) -> tuple:
        got = sums(variables, batch, jnp.ones(len(batch.labels), bool))
        return got["loss"] / got["count"], ({}, got)

    def answers(variables: dict, images: jax.Array) -> dict:
        angle = degrees(variables, images)
        squares = images[..., 0].astype(jnp.float32)
        return {
            "degrees": angle,
            "quarter": jnp.floor(angle / 90).astype(jnp.int32),
            "upright": jnp.abs(angle) < 90,
            "halves": jnp.stack([angle, angle / 2], -1),
            "coarse": angle.astype(jnp.bfloat16),
            "singular": jnp.linalg.svd(variables["unused"] @ squares, compute_uv=False),
        }

    return Task(
        init=init,
        init_opt=lambda variables: optimizer.init(variables["params"]),
        update=gradient_update(loss, optimizer),
        evaluate=lambda variables, batch: (
            sums(variables, batch, batch.mask),
            {"labels": batch.labels},
        ),
        predict=answers,
        rates=rates,
        model=model,
        metrics={"loss": Metric(".6f"), "error": Metric(".1f")},
        exported=tuple(exported),
    )


def recipe_of(exported: tuple[str, ...]) -> ConfigDict:
    config = get_config()
    config.task = ConfigDict({"name": "test_export_tasks:turned", "exported": exported})
    config.model = ConfigDict({"name": "test_export_tasks:Line"})
    return config


def untrained(*exported: str, **changes: Any) -> Restored:
    config = recipe_of(exported)
    task = create_task(config, Spec(SHAPE, CLASS_NAMES["mnist"], 40))._replace(**changes)
    state = create_state(task, {"count": jnp.int32(0)}, 0)
    return Restored(config, task, state, Path("nowhere"), {}, CLASS_NAMES["mnist"], SHAPE)


def graph_of(content: bytes) -> Any:
    return onnx.load_from_string(content).graph


@pytest.mark.slow
@pytest.mark.promise
@pytest.mark.parametrize(
    "names", [("degrees",), ("upright",), ("degrees", "quarter"), ("upright", "halves", "degrees")]
)
def test_each_output_is_what_the_network_gives(names: tuple[str, ...]) -> None:
    restored = untrained(*names)
    network = trace_network(restored)
    assert network.names == names
    expected = predict(restored, IMAGES)
    assert expected["upright"].any()
    assert not expected["upright"].all()
    content = to_stablehlo(network)
    got = run_stablehlo(content, names, IMAGES, len(IMAGES))
    for name in names:  # jax 0.12 rounds them another way than predict's
        np.testing.assert_allclose(got[name], expected[name].astype(got[name].dtype), rtol=1e-6)
    raw = jax.export.deserialize(bytearray(content)).call(IMAGES)
    assert (sorted(raw) == sorted(names)) if len(names) > 1 else (raw.shape == (11,))

    content = to_onnx(network)
    got_onnx = run_onnx(content, names, IMAGES, 4)
    assert [value.name for value in graph_of(content).output] == list(names)
    for name in names:
        assert got_onnx[name].dtype == got[name].dtype
        np.testing.assert_allclose(got_onnx[name], got[name], rtol=1e-5, atol=1e-4)


def test_all_outputs_are_exported_where_none_is_named() -> None:
    restored = untrained()
    network = trace_network(restored)
    assert network.names == ("coarse", "degrees", "halves", "quarter", "singular", "upright")
    shapes = {name: str((*form.shape, form.dtype.name)) for name, form in network.outputs.items()}
    assert shapes == {
        "coarse": "(batch, 'float32')",
        "degrees": "(batch, 'float32')",
        "halves": "(batch, 2, 'float32')",
        "quarter": "(batch, 'int32')",
        "singular": "(batch, 8, 'float32')",
        "upright": "(batch, 'bool')",
    }
    got = run_stablehlo(to_stablehlo(network), network.names, IMAGES, len(IMAGES))
    for name, values in predict(restored, IMAGES).items():
        np.testing.assert_allclose(got[name], values.astype(got[name].dtype), rtol=1e-6)


def test_what_no_exported_output_needs_is_left_out() -> None:
    weights = [np.shape(value) for value in trace_network(untrained("degrees")).equations.consts]
    assert sorted(weights) == [(1,), (64, 1)]
    with pytest.raises(UserError, match=r"jax2onnx .* cannot convert this network"):
        to_onnx(trace_network(untrained("singular")))


def test_a_task_that_asks_for_the_number_of_images_is_exported() -> None:
    def mean(variables: dict, images: jax.Array) -> dict:
        pixels = jnp.reshape(images, (len(images), -1)).astype(jnp.float32)
        return {"ink": pixels.mean(-1), "shares": jax.nn.softmax(pixels[:, :5] / 255)}

    restored = untrained("ink", "shares", predict=mean)
    network = trace_network(restored)
    content = to_onnx(network)
    assert "Softmax" in {node.op_type for node in graph_of(content).node}
    expected = predict(restored, IMAGES)
    for got in (
        run_stablehlo(to_stablehlo(network), network.names, IMAGES, 4),
        run_onnx(content, network.names, IMAGES, 4),
    ):
        for name, values in expected.items():
            np.testing.assert_allclose(got[name], values, rtol=1e-5)


def test_an_almost_softmax_stays_what_it_is() -> None:
    def almost(variables: dict, images: jax.Array) -> dict:
        x, y = (images[:, row, :, 0].astype(jnp.float32) / 100 for row in (0, 1))
        top = jax.lax.stop_gradient(jnp.max(x, -1, keepdims=True, initial=-jnp.inf))
        grown, mixed = jnp.exp(x - top), jnp.exp(y - top)  # of y as far as x is large
        return {
            "squared": grown / jnp.sum(grown**2, -1, keepdims=True),
            "mixed": mixed / jnp.sum(mixed, -1, keepdims=True),
            "grown": grown,
            "true": jax.nn.softmax(x),
        }

    for name in ("squared", "mixed", "grown", "true"):
        restored = untrained(name, predict=almost)
        network = trace_network(restored)
        primitives = " ".join(eqn.primitive.name for eqn in network.equations.eqns)
        assert (SOFTMAX in primitives) == (name in ("mixed", "true"))
        content = to_onnx(network)
        kinds = [node.op_type for node in graph_of(content).node]
        assert kinds.count("Softmax") == (name == "true")
        got = run_onnx(content, (name,), IMAGES, 4)
        np.testing.assert_allclose(got[name], predict(restored, IMAGES)[name], rtol=1e-5)


def test_an_output_that_predict_does_not_give_is_one_line() -> None:
    with pytest.raises(UsageError) as told:
        trace_network(untrained("degrees", "radians"))
    assert str(told.value) == (
        "config.task.name='test_export_tasks:turned': its predict gives no 'radians', which its "
        "`exported` names. It gives: coarse, degrees, halves, quarter, singular, upright."
    )


def test_a_task_that_is_traced_in_no_way_is_one_line() -> None:
    def talkative(variables: dict, images: jax.Array) -> dict:
        io_callback(print, None, images, ordered=True)  # not side by side
        return {"ink": jnp.zeros(len(images))}

    with pytest.raises(
        UserError,
        match=r"^config\.task\.name='test_export_tasks:turned': cannot be exported for any number "
        r"of images: .*test_export_tasks\.py, line \d+: ",
    ):
        trace_network(untrained("ink", predict=talkative))


@pytest.fixture(scope="module")
def trained(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a finished run that exports two outputs."""
    config = recipe_of(("degrees", "quarter"))
    config.data.data_dir = str(digits)
    config.data.name = "turned_digits"
    config.num_steps = 8
    workdir = tmp_path_factory.mktemp("trained")
    train(config, workdir)
    return workdir


def exported_again(trained: Path, folder: Path, *names: str) -> list[str]:
    """Exports the run, with these outputs, into another folder; returns what was told."""
    restored = restore(trained, "latest", {})
    restored = replace(restored, task=restored.task._replace(exported=names))
    (folder / "config.json").write_text((trained / "config.json").read_text())
    told: list[str] = []
    export_network(folder, restored, load_data(restored, print), list(FORMATS), told.append)
    return told


@pytest.mark.parametrize("names", [("degrees",), ("degrees", "quarter")])
def test_the_files_and_their_card(trained: Path, tmp_path: Path, names: tuple[str, ...]) -> None:
    told = exported_again(trained, tmp_path, *names)
    what = " and ".join(names)
    assert told[0] == f"model.stablehlo: equal to the bit, over the {what} of 37 images."
    assert told[1].endswith(f"over the {what} of 37 images.")

    card = (tmp_path / "export/MODEL_CARD.md").read_text()
    answers = " and ".join(f"`{name}`" for name in names)
    assert card.startswith(
        "# test_export_tasks:turned, trained on data of the user's own, called 'turned_digits'\n\n"
        f"It answers an image with {answers}, as the task `test_export_tasks:turned` has it. "
        "865 parameters, as they were after step 8 of a run of mnist_flax "
    )
    assert "| output | `degrees` | float32 | [batch] |\n" in card
    assert ("| output | `quarter` | int32 | [batch] |\n" in card) == (len(names) == 2)
    assert ("gives a dict of the outputs" in card) == (len(names) == 2)
    restored = restore(trained, "latest", {})
    means = evaluate_restored(restored, load_data(restored, print).eval).means
    table = f"| loss | {means['loss']:.6f} |\n| error | {means['error']:.1f} |\n\n"
    assert f"| measure | value |\n| --- | --- |\n{table}" in card
    before_config = card.partition("## Training")[0]
    assert not re.search("class|probabilit|calibration|entropy", before_config)

    image = np.arange(0, 256, 4, dtype=np.uint8).reshape(SHAPE)
    expected = predict(restored, image[None])
    Image.fromarray(image[..., 0]).save(tmp_path / "export/picture.png")
    examples = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(examples) == 2
    for code in examples:
        done = subprocess.run(
            [sys.executable, "-c", BLOCKER + code],
            cwd=tmp_path / "export",
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        lines = [line.split() for line in done.stdout.splitlines()]
        got = {name: float(value) for name, value in lines} if len(names) > 1 else {}
        got = got or {names[0]: float(lines[0][0])}
        assert got == {name: pytest.approx(float(expected[name][0])) for name in names}


@pytest.mark.parametrize(
    ("name", "spoil", "told"),
    [
        # Up to a few hundred degrees: a millionth of the largest is allowed.
        (
            "degrees",
            lambda v: v + np.float32(2e-6) * np.abs(v).max(),
            "'degrees' differs from the network's by",
        ),
        ("degrees", lambda v: v * np.nan, "'degrees' differs from the network's by up to nan"),
        (
            "degrees",
            lambda v: v[:, None],
            "'degrees' is float32 [37, 1], the network's float32 [37]",
        ),
        (
            "quarter",
            lambda v: v + np.int32(np.arange(37) > 34),
            "'quarter' differs from the network's in 2 ",
        ),
        ("quarter", lambda v: v.astype(np.int64), "'quarter' is int64 [37], the network's int32"),
    ],
)
def test_any_output_that_differs_stops_it(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, spoil: Any, told: str
) -> None:
    def run(*arguments: Any) -> dict[str, np.ndarray]:
        got = run_stablehlo(*arguments)
        return got | {name: spoil(got[name])}

    monkeypatch.setitem(export._RUNNERS, "stablehlo", run)
    with pytest.raises(UserError, match=r"^format=stablehlo: over 37 images the file's ") as caught:
        exported_again(trained, tmp_path, "degrees", "quarter")
    assert told in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_what_is_allowed_grows_with_the_values(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*arguments: Any) -> dict[str, np.ndarray]:
        got = run_stablehlo(*arguments)
        largest = np.abs(got["degrees"]).max()
        assert largest > 50
        return got | {"degrees": got["degrees"] + np.float32(0.5e-6 * largest)}

    monkeypatch.setitem(export._RUNNERS, "stablehlo", run)
    told = exported_again(trained, tmp_path, "degrees")
    assert told[0].startswith("model.stablehlo: largest difference ")

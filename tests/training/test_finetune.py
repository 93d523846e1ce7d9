"""A new run from another run's parameters."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import TESTS, events
from flax import linen as nn
from ml_collections import ConfigDict
from safetensors import safe_open
from safetensors.numpy import save
from tiny import TinyNet, get_config

from mnist_flax.core.state import TrainState
from mnist_flax.errors import UsageError, UserError
from mnist_flax.export import export_weights
from mnist_flax.training import train
from mnist_flax.training.finetune import InitFrom
from mnist_flax.use.restore import restore
from mnist_flax.workdir.weights import read_weights


@pytest.fixture(scope="module")
def source(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainState]:
    config, workdir = get_config(), tmp_path_factory.mktemp("source")
    config.data.data_dir, config.num_steps = str(digits), 16
    return workdir, jax.device_get(train(config, workdir))


def started(config: ConfigDict, workdir: Path, source: Path, which: str = "latest") -> TrainState:
    """The state that a run starts from: a learning rate that changes nothing shows it."""
    config.optimizer = ConfigDict({"name": "sgd", "learning_rate": 1e-30})
    config.num_steps = 1
    return jax.device_get(train(config, workdir, init_from=(source, which)))


def test_the_parameters_are_the_other_runs(tiny_config, tmp_path, source):
    state = started(tiny_config, tmp_path, source[0])
    jax.tree.map(np.testing.assert_array_equal, state.params, source[1].params)
    assert int(state.step) == 1  # not 17
    told = events(tmp_path, "init_from")[0]["message"]
    # A kernel and a bias of conv and logits, scale and bias of norm, and its mean and variance.
    assert told == f"Arrays taken from {source[0]}/checkpoints/latest/16: 8."


def test_running_statistics_are_taken_too(tiny_config, tmp_path, source):
    still = jax.tree.map(lambda a, b: 0.9 * a, source[1].batch_stats, source[1].batch_stats)
    state = started(tiny_config, tmp_path, source[0])
    # A step's momentum of 0.9 leaves nine tenths of them, beside a tenth of the batch's.
    assert (state.batch_stats["norm"]["var"] > still["norm"]["var"]).all()
    assert not np.allclose(state.batch_stats["norm"]["var"], 0.9, atol=0.1)


def test_what_does_not_fit_is_new_and_named(tiny_config, tmp_path, source):
    tiny_config.model = ConfigDict({"name": "tiny:TinyHead"})
    state = started(tiny_config, tmp_path, source[0])
    np.testing.assert_array_equal(
        state.params["conv"]["kernel"], source[1].params["conv"]["kernel"]
    )
    told = events(tmp_path, "init_from")[0]["message"]
    assert "checkpoints/latest/16: 6. New, or left behind: " in told
    assert "params/head/kernel is float32[36, 10], there nothing" in told
    assert "params/logits/bias is nothing, there float32[10]" in told


def test_another_shape_does_not_fit(tiny_config, tmp_path, source):
    tiny_config.model = ConfigDict({"name": "tiny:TinyNet", "features": 5})
    started(tiny_config, tmp_path, source[0])
    told = events(tmp_path, "init_from")[0]["message"]
    assert "checkpoints/latest/16: 1. New" in told  # the bias of the logits
    assert "params/conv/kernel is float32[3, 3, 1, 5], there float32[3, 3, 1, 4]" in told


def test_where_nothing_fits_the_run_is_refused(tiny_config, tmp_path, source):
    tiny_config.model = ConfigDict({"name": "tiny:DeadNet"})
    with pytest.raises(UserError, match=r"nothing in it fits this model:\n  params/Dense_0/bias"):
        started(tiny_config, tmp_path, source[0])
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_run_that_goes_on_does_not_look_at_it(tiny_config, tmp_path, source, capsys):
    tiny_config.num_steps = 4
    train(tiny_config, tmp_path, init_from=(source[0], "best"))
    tiny_config.num_steps = 8
    train(tiny_config, tmp_path, init_from=InitFrom(tmp_path / "gone"))
    assert "gone is left: the run goes on from its own save." in capsys.readouterr().err
    assert len(events(tmp_path, "init_from")) == 1


def test_a_place_without_a_run_is_refused_and_nothing_is_begun(tiny_config, tmp_path, source):
    with pytest.raises(UserError, match=r"^init_from=.*nowhere: holds no run"):
        started(tiny_config, tmp_path / "run", tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"checkpoint=3: no such checkpoint .* Saved steps: "):
        started(tiny_config, tmp_path / "run", source[0], "3")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    assert int(restore(source[0], "latest", {}).state.step) == 16


def test_from_the_command_line(launch, tmp_path, source, digits):
    run = launch(
        "--config=" + str(TESTS / "tiny.py"),
        f"--config.data.data_dir={digits}",
        "--config.num_steps=4",
        f"--workdir={tmp_path}/new",
        f"--init_from={source[0]}",
        "--checkpoint=best",
    )
    assert run.returncode == 0, run.stderr
    assert f"Arrays taken from {source[0]}/checkpoints/best/16: 8." in run.stderr


class WithBackbone(nn.Module):
    """TinyNet inside another module, and a head of its own."""

    num_classes: int = 10

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        x = TinyNet(self.num_classes, name="backbone")(images, train=train)
        return nn.Dense(self.num_classes, name="head")(x)


@pytest.fixture(scope="module")
def weights(source, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("exported") / "run"
    shutil.copytree(source[0], workdir)
    row = export_weights(workdir, restore(workdir, "latest", {}))
    assert (row["arrays"], row["file"]) == (8, str(workdir / "export/weights.safetensors"))
    return Path(row["file"])


def test_a_file_of_weights_is_what_anybody_reads(weights, source):
    with safe_open(weights, framework="numpy") as file:
        names, about = sorted(file.keys()), file.metadata()
        kernel = file.get_tensor("params/conv/kernel")
    assert names == [
        *("batch_stats/norm/mean", "batch_stats/norm/var", "params/conv/bias"),
        *("params/conv/kernel", "params/logits/bias", "params/logits/kernel"),
        *("params/norm/bias", "params/norm/scale"),
    ]
    about = json.loads(about["mnist_flax"])
    assert (about["model"], about["step"]) == ({"name": "tiny:TinyNet"}, 16)
    np.testing.assert_array_equal(kernel, source[1].params["conv"]["kernel"])


@pytest.mark.parametrize("kind", ["run", "file"])
def test_names_there_and_here(tiny_config, tmp_path, source, weights, kind):
    tiny_config.model = ConfigDict({"name": f"{__name__}:WithBackbone"})
    place = source[0] if kind == "run" else weights
    tiny_config.optimizer = ConfigDict({"name": "sgd", "learning_rate": 1e-30})
    tiny_config.num_steps = 1
    rules = ("logits/.*=>", r"(.*)=>backbone/\1")
    state = train(tiny_config, tmp_path, init_from=InitFrom(place, renamed=rules))
    ours, theirs = state.params["backbone"], source[1].params
    for layer in ("conv", "norm"):
        jax.tree.map(np.testing.assert_array_equal, ours[layer], theirs[layer])
    assert not np.array_equal(ours["logits"]["kernel"], theirs["logits"]["kernel"])
    (told,) = [row["message"] for row in events(tmp_path, "init_from")]
    assert ": 6. They are conv/bias as backbone/conv/bias, conv/kernel as backbone/conv" in told
    assert " Left behind by renaming: logits/bias, logits/kernel. New, or" in told
    assert "params/backbone/logits/kernel is float32[36, 10], there nothing" in told
    assert "params/head/kernel is float32[10, 10], there nothing" in told


def test_a_files_names_come_in_one_order(weights):
    names = list(read_weights(weights))  # which safetensors gives in another order each time
    assert names == sorted(names)
    assert len(names) > 6


def test_a_strangers_file_names_no_collections(tiny_config, tmp_path):
    arrays = {"net.conv.weight": np.full((3, 3, 1, 4), 2, np.float32), "other": np.ones(3)}
    (tmp_path / "theirs.safetensors").write_bytes(save(arrays))
    rules = (r"net\.conv\.weight=>conv/kernel",)
    place = tmp_path / "theirs.safetensors"
    tiny_config.optimizer = ConfigDict({"name": "sgd", "learning_rate": 1e-30})
    tiny_config.num_steps = 1
    state = train(tiny_config, tmp_path / "run", init_from=InitFrom(place, renamed=rules))
    np.testing.assert_array_equal(state.params["conv"]["kernel"], arrays["net.conv.weight"])
    (told,) = [row["message"] for row in events(tmp_path / "run", "init_from")]
    assert "theirs.safetensors: 1. They are net.conv.weight as conv/kernel. New, or left" in told
    assert told.endswith("; other is nothing, there float64[3].")


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("conv", r"init_from: renaming conv: must be PATTERN=>NAME, such as 'backbone/\(\.\*\)=>"),
        ("conv(=>x", r"init_from: renaming conv\(=>x: missing \)"),
        (r"conv.*=>\1", r"init_from: renaming conv\.\*=>\\1: invalid group reference 1"),
        ("cov/.*=>x", r"init_from: renaming cov/\.\*=>x: matches the whole of no name\. There"),
        ("conv/=>x", r"init_from: renaming conv/=>x: matches the whole of no name"),
        (".*=>x", r"init_from: renaming: conv/bias and conv/kernel would both be called x\."),
    ],
)
def test_what_is_wrong_with_a_rule(tiny_config, tmp_path, source, rule, told):
    with pytest.raises(UsageError, match=told):
        train(tiny_config, tmp_path / "run", init_from=InitFrom(source[0], renamed=(rule,)))
    assert not (tmp_path / "run/metrics.jsonl").exists()


def test_a_file_that_is_no_such_file(tiny_config, tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"PK and more")
    with pytest.raises(UserError, match=r"x\.safetensors: is no whole safetensors file \("):
        train(tiny_config, tmp_path / "run", init_from=(tmp_path / "x.safetensors",))


def test_a_file_from_the_command_line(launch, tmp_path, weights, digits):
    exported = launch(f"--workdir={weights.parents[1]}", "--mode=export", "--format=safetensors")
    assert exported.returncode == 0, exported.stderr
    assert json.loads(exported.stdout)["arrays"] == 8
    run = launch(
        *("--config=" + str(TESTS / "tiny.py"), f"--config.data.data_dir={digits}"),
        *("--config.num_steps=4", "--workdir=new", f"--init_from={weights}"),
        *("--init_map=logits/.*=>", r"--init_map=conv/(.*)=>conv/\1"),
    )
    assert run.returncode == 0, run.stderr
    assert f"Arrays taken from {weights}: 6. They are" in run.stderr
    refused = launch(
        *("--config=" + str(TESTS / "tiny.py"), f"--config.data.data_dir={digits}"),
        *("--workdir=other", f"--init_from={weights}", "--checkpoint=best"),
    )
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "--checkpoint: --init_from=" in refused.stderr

"""A new run from another run's parameters."""

from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import TESTS, events
from ml_collections import ConfigDict
from tiny import get_config

from mnist_flax.core.state import TrainState
from mnist_flax.errors import UsageError, UserError
from mnist_flax.training import train
from mnist_flax.use.restore import restore


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
    assert "params.head.kernel is float32[36, 10], there nothing" in told
    assert "params.logits.bias is nothing, there float32[10]" in told


def test_another_shape_does_not_fit(tiny_config, tmp_path, source):
    tiny_config.model = ConfigDict({"name": "tiny:TinyNet", "features": 5})
    started(tiny_config, tmp_path, source[0])
    told = events(tmp_path, "init_from")[0]["message"]
    assert "checkpoints/latest/16: 1. New" in told  # the bias of the logits
    assert "params.conv.kernel is float32[3, 3, 1, 5], there float32[3, 3, 1, 4]" in told


def test_where_nothing_fits_the_run_is_refused(tiny_config, tmp_path, source):
    tiny_config.model = ConfigDict({"name": "tiny:DeadNet"})
    with pytest.raises(UserError, match=r"nothing in it fits this model:\n  params\.Dense_0\.bias"):
        started(tiny_config, tmp_path, source[0])
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_run_that_goes_on_does_not_look_at_it(tiny_config, tmp_path, source, capsys):
    tiny_config.num_steps = 4
    train(tiny_config, tmp_path, init_from=(source[0], "best"))
    tiny_config.num_steps = 8
    train(tiny_config, tmp_path, init_from=(tmp_path / "gone", "latest"))
    assert "gone is left: the run goes on from its own save." in capsys.readouterr().err
    assert len(events(tmp_path, "init_from")) == 1


def test_a_place_without_a_run_is_refused_and_nothing_is_begun(tiny_config, tmp_path, source):
    with pytest.raises(UserError, match=r"^--init_from=.*nowhere: holds no run"):
        started(tiny_config, tmp_path / "run", tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"--checkpoint=3: no such checkpoint .* Saved steps: "):
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

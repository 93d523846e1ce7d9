"""What decides bits is recorded and compared, and a step is traced once."""

import jax
import pytest
from conftest import events
from flax import linen as nn
from tiny import TinyNet

from mnist_flax.errors import UserError
from mnist_flax.training import train
from mnist_flax.workdir.environment import DRAWS, changes, environment

pytestmark = pytest.mark.compiles


def test_processor_flags_and_precision_are_recorded(monkeypatch):
    jax.devices()  # XLA reads the variable once, and would end the process
    monkeypatch.setenv("XLA_FLAGS", "--xla_b=2 --xla_a=1 --xla_dump_to=/home/me/dump")
    with jax.default_matmul_precision("highest"):
        found = environment()
    assert found["XLA_FLAGS"] == "--xla_a=1 --xla_b=2"  # no folder of this machine
    assert found["jax_default_matmul_precision"] == "highest"
    assert environment()["jax_default_matmul_precision"] == "default"
    assert found["processor"]


def test_the_device_is_the_one_that_is_used(monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda: [*jax.local_devices()] * 2)
    assert environment()["device"] == "1 × cpu"
    assert environment(devices=8)["device"] == "8 × cpu"  # of a run


def test_what_an_older_run_did_not_keep_is_not_compared():
    assert changes({"cores": 2, "jax": "0.9"}, {"cores": 1, "processor": "Z80"}) == {
        "cores": (2, 1)
    }


@pytest.mark.slow
@pytest.mark.promise
def test_another_precision_is_named_on_resume(tiny_config, tmp_path):
    tiny_config.num_steps = 1
    train(tiny_config, tmp_path)
    tiny_config.num_steps = 2
    with jax.default_matmul_precision("highest"):
        train(tiny_config, tmp_path)
    (told,) = events(tmp_path, "resumed")
    assert "jax_default_matmul_precision was default, is highest. The bits may" in told["message"]


@pytest.mark.parametrize(
    ("name", "other", "there", "here"),
    [
        ("jax_default_prng_impl", lambda: jax.default_prng_impl("rbg"), "threefry2x32", "rbg"),
        ("jax_threefry_partitionable", lambda: jax.threefry_partitionable(False), "True", "False"),
        ("jax_enable_x64", lambda: jax.enable_x64(True), "False", "True"),
    ],
)
def test_other_random_numbers_are_refused(tiny_config, tmp_path, name, other, there, here):
    tiny_config.num_steps = 1
    train(tiny_config, tmp_path)
    tiny_config.num_steps = 2
    with other(), pytest.raises(UserError) as error:
        train(tiny_config, tmp_path)
    told = f"random numbers with {name}={there}; here it is {here}. Set {DRAWS[name]}={there}"
    assert told in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.slow
@pytest.mark.promise
def test_a_run_that_did_not_keep_them_goes_on(tiny_config, tmp_path, monkeypatch):
    tiny_config.num_steps = 1
    old = {
        key: value
        for key, value in environment().items()
        if not key.lower().startswith(("jax_", "xla", "proc"))
    }
    for module in ("training.resume", "workdir.metadata"):
        monkeypatch.setattr(f"mnist_flax.{module}.environment", lambda *asked: old)
    train(tiny_config, tmp_path)
    monkeypatch.undo()
    tiny_config.num_steps = 2
    train(tiny_config, tmp_path)
    (told,) = events(tmp_path, "resumed")
    assert "bits" not in told["message"]


class CountedNet(TinyNet):
    """TinyNet, which notes each time it is traced in training."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        if train:
            traced.append(images.shape)
        return super().__call__(images, train=train)


traced: list[tuple[int, ...]] = []


def test_a_step_is_traced_once(tiny_config, tmp_path):
    tiny_config.model.name = f"{__name__}:CountedNet"
    tiny_config.num_steps, tiny_config.batch_size = 20, 5  # an epoch has 21
    traced.clear()
    train(tiny_config, tmp_path)
    assert traced == [(5, 8, 8, 1)]

"""What the layers of a step compute and hold, by hand: a classification, and more than one call."""

import functools

import jax
import jax.numpy as jnp
import optax
import pytest
import tiny_nnx
from conftest import ROOT, TAKING, recipe
from flax import linen as nn
from made import spec_of, task_of
from ml_collections import ConfigDict
from tiny import ShapedNet, TinyNet, own_convolution

from mnist_flax.config import default_config
from mnist_flax.core.layers import OUTSIDE, Layer, layers_of_step, num_bytes
from mnist_flax.core.state import try_task
from mnist_flax.core.task import Spec
from mnist_flax.tasks import create_task

DIGITS = Spec((28, 28, 1), tuple("0123456789"), 1000)


def layers(task, spec=None, batch_size: int = 6) -> dict[str, Layer]:
    spec = spec or spec_of()
    form = try_task(task, spec, "mine", batch_size).form
    return {each.name: each for each in layers_of_step(task, form, spec, batch_size)}


def made(config: ConfigDict, spec: Spec = DIGITS) -> dict[str, Layer]:
    # A task of its own for each: one that was traced tells nothing more.
    form = try_task(create_task(config, spec), spec, "mine", config.batch_size).form
    found = layers_of_step(create_task(config, spec), form, spec, config.batch_size)
    return {each.name: each for each in found}


def test_a_convolution_and_a_dense_layer_by_hand() -> None:
    found = layers(task_of(TinyNet(), optax.adam(0.01)))
    assert list(found) == ["conv", "norm", "dropout", "logits"]
    inside = (8 * 3 - 2) ** 2  # 8×8 outputs of 3×3, without what hangs over the edge
    assert found["conv"] == Layer(
        name="conv",
        kind="Conv",
        outputs=((6, 8, 8, 4),),
        calls=1,
        parameters=3 * 3 * 4 + 4,
        parameter_bytes=4 * 40,
        output_bytes=4 * 6 * 8 * 8 * 4,
        flops=2 * (2 * 6 * inside * 1 * 4),  # forward, and the kernel's gradient
    )
    # 3×3 pixels of four channels are left by the pool; forward, the kernel's, the input's.
    assert found["logits"].flops == 3 * (2 * 6 * 36 * 10)
    assert found["norm"].flops == found["dropout"].flops == 0
    assert found["norm"].parameters == 8


def test_a_batch_in_parts_computes_as_much_and_holds_a_part() -> None:
    config = default_config()
    config.model = ConfigDict({"name": "tiny:TinyNet"})
    config.batch_size = 6
    whole = made(config)
    config.accumulate_steps = 3
    parts = made(config)
    assert {name: each.flops for name, each in parts.items()} == {
        name: each.flops for name, each in whole.items()
    }
    assert parts["conv"].outputs == ((2, 28, 28, 4),)
    assert parts["conv"].output_bytes * 3 == whole["conv"].output_bytes


def test_layers_that_a_step_calls_more_than_once() -> None:
    config = recipe("dcgan_fast")
    found, size = made(config), config.batch_size
    names = {"generator": ("dense", "norm1", "grow1", "norm2", "grow2")}
    names |= {"discriminator": ("conv1", "conv2", "norm", "dense")}
    assert list(found) == [f"{part}/{name}" for part in names for name in names[part]]
    calls = {"generator": 2, "discriminator": 3}
    assert all(each.calls == calls[name.split("/")[0]] for name, each in found.items())
    # Twice drawn; once learnt from, and its input, which is noise, has no gradient.
    assert found["generator/dense"].flops == 3 * (2 * size * 64 * 6272)
    # Three times asked; its gradient twice for itself, once for the generator; always beyond it.
    assert found["discriminator/dense"].flops == (3 + 2 + 3) * (2 * size * 3136)
    assert sum(each.parameters for each in found.values()) == 533_889 + 55_297


def test_the_halves_of_an_autoencoder() -> None:
    found = made(recipe("vae"))
    assert list(found) == ["fc1", "fc21", "fc22", "fc3", "fc4"]
    assert found["fc1"].flops == 2 * (2 * 128 * 784 * 400)  # no gradient of the images
    assert found["fc4"].flops == 3 * (2 * 128 * 784 * 400)
    assert sum(each.parameters for each in found.values()) == 652_824


class Nested(nn.Module):
    """A layer in a block, and a convolution of the network's own."""

    num_classes: int = 10

    @nn.compact
    def __call__(self, images, *, train=False):
        kernel = self.param("own", nn.initializers.ones, (3, 3, 1, 2))
        inner = ShapedNet(self.num_classes, kernels=((1, 1),), name="block")
        return inner(own_convolution(images, kernel), train=train)


def test_what_a_module_computes_itself_is_told_apart_from_its_layers() -> None:
    found = layers(task_of(Nested(), optax.sgd(0.1)))
    assert set(found) == {"", "block/Conv_0", "block/Dense_0"}  # the block itself has nothing
    assert (found[""].kind, found[""].parameters, found[""].outputs) == ("Nested", 18, ())
    assert found[""].flops > 0
    assert found["block/Dense_0"].parameters == (8 * 8 * 2 + 1) * 10


def test_a_task_without_modules_has_one_part() -> None:
    task = task_of(TinyNet(), optax.sgd(0.1))

    def update(variables, opt_state, batch, step, key):
        product = batch.images.reshape(6, -1) @ jnp.ones((64, 5))
        sums = {"loss": product.sum(), "accuracy": jnp.int32(0), "count": jnp.int32(6)}
        return variables, opt_state, sums

    found = layers(task._replace(update=update))
    assert list(found) == [OUTSIDE]
    assert found[OUTSIDE].kind == ""
    assert found[OUTSIDE].flops == 2 * 6 * 64 * 5
    assert found[OUTSIDE].parameters == 36 + 4 + 8 + 360 + 10


@pytest.mark.parametrize("count", [0, 3])
def test_bytes(count: int) -> None:
    form = functools.partial(jax.ShapeDtypeStruct, (2, count))
    assert num_bytes({"a": form(jnp.float32), "b": [form(jnp.bfloat16)]}) == 12 * count


@pytest.mark.parametrize(
    "name", sorted({path.stem for path in (ROOT / "configs").glob("*.py")} - {*TAKING})
)
def test_layers_do_all_that_a_step_of_a_recipe_computes(name: str) -> None:
    found = made(recipe(name))
    assert sum(each.flops for each in found.values()) > 1e8
    assert all(found)  # the network itself adds nothing
    if outside := found.get(OUTSIDE):
        assert outside.flops < 10  # a schedule has a product of two numbers
        assert outside.parameters == 0


def test_a_module_of_nnx_is_one_layer() -> None:
    found = made(tiny_nnx.get_config(), spec_of())
    assert list(found) == [""]
    whole, parts = found[""], layers(task_of(TinyNet(), optax.adam(0.01)))
    assert (whole.kind, whole.outputs, whole.calls) == ("Net", ((6, 10),), 1)
    assert whole.flops == sum(each.flops for each in parts.values())
    assert whole.parameters == sum(each.parameters for each in parts.values())

"""config.compute_dtype: the layers compute in bfloat16, and what must not, does not."""

import importlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from conftest import recipe
from ml_collections import ConfigDict

from mnist_flax.core.task import Spec
from mnist_flax.data.batch import batch_like
from mnist_flax.errors import UsageError
from mnist_flax.models import MODELS, create_model
from mnist_flax.tasks import create_task

RECIPES = {
    "compact": "speedrun",
    "tutorial": "tutorial",
    "lenet": "lenet_augmented",
    "dcgan": "dcgan",
    "dcgan_small": "dcgan_fast",
    "vae": "vae",
    "threeconv": "rmsprop",
}
SPEC = Spec((28, 28, 1), tuple("0123456789"), 100)
# In StableHLO's text: 'stablehlo.convolution(%1, %2) … : (tensor<4x28x28x1xbf16>, tensor<…>) -> …'.
PRODUCT = r"stablehlo\.(?:convolution|dot_general).*: \((tensor<.*?>), (tensor<.*?>)\)"


def test_there_is_a_recipe_for_each_of_them() -> None:
    # The members of an ensemble are some of these, each with a dtype of its own.
    assert RECIPES.keys() == MODELS.keys() - {"ensemble"}
    for model, name in RECIPES.items():
        assert recipe(name).model.name == model


@pytest.mark.parametrize("name", RECIPES.values())
def test_every_product_is_of_bfloat16_and_every_variable_float32(name: str) -> None:
    config = recipe(name)
    config.compute_dtype = "bfloat16"
    if "judge" in config.task:
        config.task.judge = ""
    task, key = create_task(config, SPEC), jax.eval_shape(lambda: jax.random.key(0))
    variables = jax.eval_shape(task.init, key)
    opt_state = jax.eval_shape(task.init_opt, variables)
    batch = batch_like(4, SPEC.image_shape)
    text = jax.jit(task.update).lower(variables, opt_state, batch, jnp.int32(0), key).as_text()
    found = re.findall(PRODUCT, text)
    products = [pair for pair in found if pair[0].count("x") > 1]  # not of two vectors
    assert len(products) > 5
    assert [pair for pair in products if not all(kind.endswith("xbf16>") for kind in pair)] == []
    after, _, sums = jax.eval_shape(task.update, variables, opt_state, batch, jnp.int32(0), key)
    floats = [leaf.dtype for leaf in jax.tree.leaves((variables, after, opt_state, sums))]
    assert set(floats) <= {jnp.dtype("float32"), jnp.dtype("int32"), jnp.dtype("bool")}
    answers = jax.eval_shape(task.predict, variables, batch.images)
    assert jnp.dtype("bfloat16") not in {leaf.dtype for leaf in jax.tree.leaves(answers)}
    assert not re.search(r"stablehlo\.(exponential|log|log_plus_one) .*xbf16", text)  # softmax


@pytest.mark.parametrize(("name", "dtype"), [("float32", None), ("bfloat16", jnp.bfloat16)])
def test_a_module_of_ones_own_is_given_it_where_it_has_the_field(name: str, dtype: Any) -> None:
    model = create_model(ConfigDict({"name": "tiny:TinyNet"}), 10, compute_dtype=name)
    assert model.dtype == dtype
    own = create_model(ConfigDict({"name": "tiny:HalfNet"}), 10, compute_dtype="float32")
    assert own.dtype == jnp.bfloat16


def test_one_without_the_field_is_told() -> None:
    with pytest.raises(UsageError, match=r"'bfloat16': 'tiny:DeadNet' has no field dtype. Give it"):
        create_model(ConfigDict({"name": "tiny:DeadNet"}), 10, compute_dtype="bfloat16")


@pytest.mark.parametrize("name", ["speedrun", "fast995", "best"])
def test_a_variant_of_a_recipe_computes_in_bfloat16(name):
    module = importlib.import_module(f"configs.{name}")
    half, whole = module.get_config("bfloat16"), module.get_config()
    assert whole.compute_dtype == "float32"
    assert {field for field, value in half.items() if value != whole[field]} == {"compute_dtype"}
    with pytest.raises(UsageError, match=f"--config={name}:half: the .* 'bfloat16'"):
        module.get_config("half")

"""config.optimizer.rates: what it multiplies, what it freezes, what is wrong with it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from mnist_flax.config import default_config
from mnist_flax.core.optimizers import optimizer_of
from mnist_flax.errors import UsageError

PARAMS = {
    "stem": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
    "conv1": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
    "logits": {"kernel": jnp.ones((2, 2))},
}
GRADS = jax.tree.map(lambda leaf: 2 * leaf, PARAMS)


def updates_of(rates: Any, name: str = "sgd", clip: float | None = None, **more: Any) -> tuple:
    config = default_config()
    config.optimizer = ConfigDict({"name": name, "learning_rate": 0.5, "rates": rates, **more})
    config.clip_by_global_norm = clip
    optimizer, known = optimizer_of(config, 10)
    state = optimizer.init(PARAMS)
    updates, state = jax.jit(optimizer.update)(GRADS, state, PARAMS)
    return updates, state, known["learning_rate"]({"params": PARAMS}, state, 0)


def test_the_first_expression_that_matches_the_whole_path_decides() -> None:
    updates, _, rate = updates_of((("conv.*/kernel", 0.1), ("conv.*", 0.5), ("stem.*", 0.0)))
    wanted = {
        "stem": {"kernel": 0.0, "bias": 0.0},
        "conv1": {"kernel": -0.1, "bias": -0.5},
        "logits": {"kernel": -1.0},
    }
    for path, leaf in jax.tree_util.tree_leaves_with_path(updates):
        layer, part = (key.key for key in path)
        np.testing.assert_allclose(leaf, wanted[layer][part], rtol=1e-6)
    assert rate == 0.5


def test_what_is_frozen_has_no_state_no_decay_and_no_part_in_the_clipped_norm() -> None:
    rates = (("(stem|conv1)/.*", 0.0),)
    updates, state, _ = updates_of(rates, "adamw", weight_decay=0.1)
    assert sum(leaf.size for leaf in jax.tree.leaves(state) if leaf.ndim) == 2 * 4  # two moments
    for layer in ("stem", "conv1"):
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(updates[layer]))
    # The gradient of logits alone has a norm of 4: it is clipped to 1, and then multiplied by 0.5.
    updates, _, _ = updates_of(rates, clip=1.0)
    np.testing.assert_allclose(updates["logits"]["kernel"], -0.5 * 2 / 4)


def test_the_gradient_of_what_is_frozen_is_not_computed() -> None:
    config = default_config()
    rates = (("stem/.*", 0.0),)
    config.optimizer = ConfigDict({"name": "sgd", "learning_rate": 0.5, "rates": rates})
    optimizer, _ = optimizer_of(config, 10)

    def loss(params: Any, x: jax.Array) -> jax.Array:
        hidden = jnp.sin(x @ params["stem"]["kernel"]) @ params["conv1"]["kernel"]
        return jnp.square(hidden @ params["logits"]["kernel"]).sum()

    def step(params: Any, x: jax.Array) -> Any:
        grads = jax.grad(loss)(params, x)
        return optax.apply_updates(
            params, optimizer.update(grads, optimizer.init(params), params)[0]
        )

    compiled = jax.jit(step).lower(PARAMS, jnp.ones((3, 2))).compile().as_text()
    assert "sine" in compiled
    assert "cosine" not in compiled  # the derivative that leads to the stem's kernel alone


@pytest.mark.parametrize(
    ("rates", "told"),
    [
        ("conv.*", "config.optimizer.rates='conv.*': must be pairs of a regular expression and a"),
        ((("conv.*",),), "config.optimizer.rates=(('conv.*',),): must be pairs of a regular"),
        ((("conv.*", -1),), "config.optimizer.rates: -1, for 'conv.*', must be a number, at least"),
        ((("conv.*", True),), "config.optimizer.rates: True, for 'conv.*', must be a number"),
        ((("conv(", 1.0),), "config.optimizer.rates: 'conv(' is no regular expression: missing )"),
        (
            (("conv", 0.1),),  # not the whole path
            "config.optimizer.rates: 'conv' matches the whole of no parameter's path. There are "
            "conv1/bias, conv1/kernel, logits/kernel, stem/bias, stem/kernel.",
        ),
        (
            ((".*", 0.1), ("conv.*", 0.2)),
            "config.optimizer.rates: 'conv.*' matches the whole of no parameter's path that none "
            "before it matches. Left are none.",
        ),
    ],
)
def test_what_is_wrong_is_told(rates: Any, told: str) -> None:
    with pytest.raises(UsageError) as error:
        updates_of(rates)
    assert str(error.value).startswith(told)


def test_another_optimizer_keeps_them_and_a_gan_has_none() -> None:
    from conftest import recipe

    from mnist_flax.config import overridden
    from mnist_flax.training import check

    config = default_config()
    rates = [["conv1/.*", 0.1]]
    config.optimizer = ConfigDict({"name": "sgd", "learning_rate": 0.1, "rates": rates})
    new, notes = overridden(config, {"optimizer.name": "adam"})
    assert (new.optimizer.rates, notes) == ([["conv1/.*", 0.1]], [])
    drawing = recipe("dcgan_fast")
    with drawing.unlocked():
        drawing.optimizer.rates = rates
    with pytest.raises(UsageError, match=r"config.optimizer.rates: the task 'gan' does not use it"):
        check(drawing)

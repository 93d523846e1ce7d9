"""Small parameters are updated as one vector: the same numbers, the same form of state."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from mnist_flax.core import packing
from mnist_flax.core.optimizers import _ELEMENTWISE, create_optimizer
from mnist_flax.core.packing import packed


def tree(seed: int) -> dict:
    """Parameters of three layers, one of them large."""
    shapes = {"stem": {"bias": (3,), "kernel": (2, 5)}, "top": {"kernel": (300, 300)}, "w": (1,)}
    keys = iter(jax.random.split(jax.random.key(seed), 4))
    is_shape = lambda node: isinstance(node, tuple)  # noqa: E731
    return jax.tree.map(lambda s: jax.random.normal(next(keys), s), shapes, is_leaf=is_shape)


def three_steps(optimizer: optax.GradientTransformation) -> tuple:
    params, opt_state = tree(0), optimizer.init(tree(0))
    for step in range(1, 4):
        updates, opt_state = optimizer.update(tree(step), opt_state, params)
        params = optax.apply_updates(params, updates)
    return params, opt_state


@pytest.mark.parametrize("name", sorted(_ELEMENTWISE))
def test_each_of_these_optimizers_does_what_it_does_array_by_array(name):
    plain = getattr(optax, name)(0.1)
    theirs, ours = three_steps(plain), three_steps(packed(plain))
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


def arrays_seen(optimizer: optax.GradientTransformation, params: dict) -> list[tuple[int, ...]]:
    """The shapes that it is given gradients of."""
    seen: list[tuple[int, ...]] = []

    def update(grads, opt_state, params=None):
        seen.extend(leaf.shape for leaf in jax.tree.leaves(grads))
        return optimizer.update(grads, opt_state, params)

    wrapped = packed(optax.GradientTransformation(optimizer.init, update))
    jax.eval_shape(wrapped.update, params, optimizer.init(params), params)
    return seen


def test_small_arrays_are_one_and_large_ones_stay():
    assert arrays_seen(optax.adam(0.1), tree(0)) == [(300, 300), (14,)]


def test_what_it_does_not_help_it_leaves_alone():
    one = {"kernel": jnp.ones((2, 3))}
    assert arrays_seen(optax.adam(0.1), one) == [(2, 3)]
    mixed = {"a": jnp.ones(2), "b": jnp.ones(3, jnp.bfloat16)}
    assert arrays_seen(optax.adam(0.1), mixed) == [(2,), (3,)]


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        ({"name": "adamw"}, 1),
        ({"name": "adamw", "mask": "kernels"}, 0),  # which looks at each array's form
        ({"name": "lamb"}, 0),  # which looks at each array's norm
        ({"name": "sgd"}, 0),
    ],
)
def test_which_optimizers_are_packed(fields, count, monkeypatch):
    made = []
    monkeypatch.setattr(
        "mnist_flax.core.optimizers.packed",
        lambda optimizer: made.append(1) or packing.packed(optimizer),
    )
    config = ConfigDict({"learning_rate": 0.1, **fields})
    create_optimizer(config, optax.constant_schedule(0.1))
    assert len(made) == count

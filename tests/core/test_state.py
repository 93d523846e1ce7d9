"""What a run carries, and where its random numbers come from."""

from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from made import spec_of, state_of, task_of

from mnist_flax.core.chunk import all_finite
from mnist_flax.core.state import TrainState, try_task
from mnist_flax.errors import UsageError
from mnist_flax.keys import rng_key


class Normed(nn.Module):
    collection: str = ""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        if self.collection:
            self.variable(self.collection, "seen", jnp.zeros, ())
        x = nn.Dense(3)(images.reshape(len(images), -1))
        return nn.BatchNorm(use_running_average=not train)(x)


class Nothing(nn.Module):
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        return images.reshape(len(images), -1)


def create(seed: int = 0, optimizer: str = "adam") -> TrainState:
    return state_of(Normed(), getattr(optax, optimizer)(0.1), (2, 2, 1), seed)


def bits(key: jax.Array) -> tuple[int, ...]:
    return tuple(jax.random.key_data(key).tolist())


def test_keys_differ_between_seeds_purposes_and_steps() -> None:
    keys = {
        (seed, purpose, step): bits(rng_key(seed, purpose, step))
        for seed in (0, 1)
        for purpose in ("params", "dropout", "shuffle")
        for step in (0, 1, 2)
    }
    for one, other in combinations(keys, 2):
        assert keys[one] != keys[other], (one, other)


def test_a_key_is_the_same_in_every_process_for_ever() -> None:
    # Other numbers here mean that no run can be repeated with a newer version.
    assert bits(rng_key(7, "dropout", 3)) == (245445875, 2893619023)


def test_a_traced_step_gives_the_same_key() -> None:
    traced = jax.jit(lambda step: rng_key(7, "dropout", step))(jnp.int32(3))
    assert bits(traced) == bits(rng_key(7, "dropout", 3))


def test_the_state_is_a_function_of_the_seed() -> None:
    kernels = [create(seed).params["Dense_0"]["kernel"] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert not np.array_equal(kernels[0], kernels[2])


def test_what_the_state_holds() -> None:
    state = create()
    assert int(state.step) == 0
    assert state.params["Dense_0"]["kernel"].shape == (4, 3)
    assert set(state.batch_stats["BatchNorm_0"]) == {"mean", "var"}
    assert [int(leaf) for leaf in jax.tree.leaves(state.window)] == [0, 0, 0]


@pytest.mark.parametrize("part", ["params", "batch_stats", "opt_state", "window", "epoch"])
@pytest.mark.parametrize("value", [jnp.inf, jnp.nan])
def test_no_run_goes_on_from_a_number_that_is_none(part: str, value: float) -> None:
    state = create()
    assert bool(all_finite(state))
    parts = {**state.variables, "opt_state": state.opt_state}
    parts |= {"window": state.window, "epoch": state.epoch}
    leaves, treedef = jax.tree.flatten(parts[part])
    place = next(n for n, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.floating))
    leaves[place] = leaves[place].at[(0,) * leaves[place].ndim].set(value)
    parts[part] = jax.tree.unflatten(treedef, leaves)
    variables = {name: parts.pop(name) for name in state.variables}
    assert not bool(all_finite(state.replace(variables=variables, **parts)))


def test_a_model_without_parameters_or_statistics() -> None:
    state = state_of(Nothing(), optax.sgd(0.1), (2, 2, 1), seed=0)
    assert (state.params, state.batch_stats) == ({}, {})


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "rmsprop", "adagrad", "yogi", "lion"])
def test_every_leaf_is_strongly_typed(optimizer: str) -> None:
    for leaf in jax.tree.leaves(create(optimizer=optimizer)):
        assert isinstance(leaf, jax.Array)
        assert not leaf.weak_type


def test_a_weakly_typed_start_is_made_strong() -> None:
    weak = jnp.asarray(1.0)
    assert weak.weak_type
    optimizer = optax.GradientTransformation(lambda params: {"scale": weak}, lambda *args: args[:2])
    (leaf,) = jax.tree.leaves(state_of(Nothing(), optimizer, (2, 2, 1), 0).opt_state)
    assert (leaf.weak_type, leaf.dtype) == (False, jnp.float32)


def test_variables_that_a_run_does_not_carry_are_refused() -> None:
    with pytest.raises(UsageError, match=r"Normed keeps the variables \['memory'\]"):
        state_of(Normed(collection="memory"), optax.sgd(0.1), (2, 2, 1), seed=0)


class Thin(nn.Module):
    num_classes: int = 10

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        thin = nn.Dense(0, kernel_init=nn.initializers.zeros, name="thin")
        x = thin(images.reshape(len(images), -1))
        return nn.Dense(self.num_classes, kernel_init=nn.initializers.zeros, name="logits")(x)


def test_a_layer_of_no_width_is_found_before_anything_is_saved() -> None:
    # Orbax refuses such arrays, after the first steps.
    task = task_of(Thin(), optax.sgd(0.1))
    with pytest.raises(
        UsageError, match=r"config\.model: params\.[\w.]+, float32\[\d+, \d+\], has no"
    ):
        try_task(task, spec_of(), "classification")

"""A bias's gradient is summed image by image: the same sums as autodiff's."""

import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from mnist_flax import cpu


def primitives_of(fn, *args) -> list[str]:
    def walk(jaxpr):
        for eqn in jaxpr.eqns:
            yield eqn.primitive.name
            for body in jaxprs_in_params(eqn.params):
                yield from walk(body)

    return list(walk(jax.make_jaxpr(fn)(*args).jaxpr))


def gradients(fn, x, b):
    return jax.grad(lambda x, b: jnp.sin(fn(x, b)).sum(), (0, 1))(x, b)


@pytest.mark.parametrize("operation", [operator.add, operator.sub, operator.mul])
@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (2, 20, 3), (2, 4, 4, 2, 3)])
def test_gradients_are_autodiffs_and_values_equal_to_the_bit(operation, shape):
    x = jax.random.normal(jax.random.key(0), shape)
    b = jax.random.normal(jax.random.key(1), (1,) * (len(shape) - 1) + shape[-1:])
    ours = cpu.rewrite(operation)
    np.testing.assert_array_equal(ours(x, b), operation(x, b))
    for one, other in zip(gradients(ours, x, b), gradients(operation, x, b), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    found = primitives_of(lambda x, b: gradients(ours, x, b), x, b)
    assert found.count("optimization_barrier") == 1


@pytest.mark.parametrize(
    ("x", "b"),
    [
        ((3, 4, 5, 6), (3, 4, 5, 6)),
        ((3, 4, 5, 6), (1, 4, 1, 6)),
        ((3, 4, 5, 6), (1, 1, 1, 1)),
        ((3, 5, 6), (1, 1, 6)),  # few positions
        ((64, 6), (1, 6)),
    ],
)
def test_what_is_no_vector_for_every_position_stays(x, b):
    ours = cpu.rewrite(operator.add)
    found = primitives_of(lambda x, b: gradients(ours, x, b), jnp.ones(x), jnp.ones(b))
    assert "optimization_barrier" not in found


def test_half_precision_is_summed_in_float32():
    """Of 4,096 ones a sum in bfloat16 would stay at 256."""
    x, b = jnp.ones((4, 32, 32, 2), jnp.bfloat16), jnp.zeros((1, 1, 1, 2), jnp.bfloat16)
    found = jax.grad(lambda b: cpu.rewrite(operator.add)(x, b).astype(jnp.float32).sum())(b)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found.astype(np.float32), np.full((1, 1, 1, 2), 4096))

"""FLOPs of convolutions and products by hand, and of their gradients."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from mnist_flax.core.flops import count_flops


def flops(fn, *args) -> int:
    return count_flops(jax.make_jaxpr(fn)(*args).jaxpr).total()


def test_a_product() -> None:
    a, b = jnp.ones((3, 5)), jnp.ones((5, 7))
    assert flops(jnp.dot, a, b) == 2 * 3 * 5 * 7
    assert flops(jax.vmap(jnp.dot), jnp.ones((4, 3, 5)), jnp.ones((4, 5, 7))) == 4 * 2 * 3 * 5 * 7


def convolve(x, w, strides=(1, 1), padding="SAME", **more):
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=numbers, **more)


def test_a_convolution_without_the_products_of_its_padding() -> None:
    x, w = jnp.ones((2, 8, 6, 3)), jnp.ones((3, 3, 3, 5))
    inside = (8 * 3 - 2) * (6 * 3 - 2)  # at each edge one place of the kernel hangs over
    assert flops(convolve, x, w) == 2 * 2 * inside * 3 * 5
    assert flops(lambda x, w: convolve(x, w, padding="VALID"), x, w) == 2 * 2 * 6 * 4 * 9 * 3 * 5


WAYS = {
    "same": {},
    "strides": {"strides": (2, 2)},
    "valid, strides": {"strides": (2, 1), "padding": "VALID"},
    "dilated kernel": {"rhs_dilation": (2, 2)},
    "transposed": {"lhs_dilation": (2, 2), "padding": [(2, 2), (2, 2)]},
    "groups": {"feature_group_count": 2},
    "depthwise": {"feature_group_count": 4},
}


@pytest.mark.parametrize("way", WAYS)
def test_each_gradient_has_as_many_as_the_convolution(way: str) -> None:
    channels = 4 // WAYS[way].get("feature_group_count", 1)
    x, w = jnp.ones((3, 9, 8, 4)), jnp.ones((4, 3, channels, 8))
    forward = flops(lambda x, w: convolve(x, w, **WAYS[way]), x, w)
    assert forward > 0
    both = jax.grad(lambda x, w: convolve(x, w, **WAYS[way]).sum(), argnums=(0, 1))
    assert flops(both, x, w) == 3 * forward


def test_what_comes_again_and_what_may_not_come() -> None:
    a = jnp.ones((3, 3))
    one = 2 * 3 * 3 * 3
    assert flops(lambda a: lax.while_loop(lambda x: x[0, 0] < 9, lambda x: x @ x, a), a) == one
    assert flops(lambda a: lax.scan(lambda x, _: (x @ a, None), a, length=5)[0], a) == 5 * one
    branches = (lambda a: a, lambda a: a @ a @ a, lambda a: a @ a)
    assert flops(lambda a: lax.switch(1, branches, a), a) == 2 * one
    assert flops(lambda a: lax.switch(a[0, 0].astype(int), branches, a), a) == 2 * one
    assert flops(jax.jit(lambda a: jax.checkpoint(jnp.dot)(a, a)), a) == one
    assert flops(lambda a: a + jnp.exp(a), a) == 0


def test_by_the_scope_that_they_stand_in() -> None:
    def both(a):
        with jax.named_scope("first"):
            b = jax.jit(jnp.dot)(a, a)
        with jax.named_scope("second"):
            return b @ a @ a

    a = jnp.ones((2, 2))
    found = count_flops(jax.make_jaxpr(both)(a).jaxpr, lambda scope: scope.split("/")[0])
    assert found == {"first": 16, "second": 32}

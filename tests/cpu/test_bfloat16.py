"""bfloat16 on a CPU: asked of XLA where it is fast, and said where it is not."""

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
import pytest
from conftest import events
from jax.extend.core import jaxprs_in_params

from mnist_flax import cpu
from mnist_flax.cpu import half_precision, processor
from mnist_flax.training import train
from mnist_flax.workdir.environment import environment

OPTIONS = {half_precision.OPTION: True}


@pytest.fixture
def fast(monkeypatch):
    """As on a processor with AMX and a jaxlib that uses it."""
    monkeypatch.setattr(processor, "fields", lambda: {"flags": "fpu amx_bf16 amx_tile"})
    monkeypatch.setattr(jaxlib.version, "__version_info__", (0, 12, 0))
    monkeypatch.delenv("XLA_FLAGS", raising=False)


def test_it_is_asked_for_where_it_helps(fast):
    assert half_precision.options("bfloat16") == OPTIONS
    assert half_precision.options("float32") == {}
    assert "oneDNN's kernels on the processor's amx_bf16" in half_precision.told("bfloat16")
    assert half_precision.told("float32") == ""


def test_another_processor_has_no_such_units(fast, monkeypatch):
    monkeypatch.setattr(processor, "fields", lambda: {"flags": "fpu amx_bf16_not_quite"})
    assert half_precision.options("bfloat16") == {}
    assert "slow here, for the processor has no amx_bf16" in half_precision.told("bfloat16")


def test_an_older_jaxlib_gains_nothing(fast, monkeypatch):
    monkeypatch.setattr(jaxlib.version, "__version_info__", (0, 11, 9))
    assert half_precision.options("bfloat16") == {}
    assert "slow here, for jaxlib" in half_precision.told("bfloat16")


def test_a_flag_of_the_users_own_stays(fast, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", f"--xla_a=1 --{half_precision.OPTION}=false")
    assert half_precision.options("bfloat16") == {}
    assert "XLA_FLAGS sets" in half_precision.told("bfloat16")


def test_an_accelerator_needs_none(fast, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert half_precision.options("bfloat16") == {}
    assert half_precision.told("bfloat16") == ""


def test_a_program_for_another_platform_needs_none(fast):
    with cpu.lowered_for("cpu"):
        assert half_precision.options("bfloat16") == OPTIONS
    with cpu.lowered_for("cuda"):
        assert half_precision.options("bfloat16") == {}
        assert half_precision.told("bfloat16") == ""


def test_it_is_recorded_with_what_decides_bits(fast):
    assert environment("bfloat16")["compiler_options"] == half_precision.OPTION
    assert environment()["compiler_options"] == "none"


# jax 0.12 cannot write such a program to the cache that the tests share.
@pytest.mark.filterwarnings("ignore:Error writing persistent compilation cache entry")
def test_a_run_says_how_it_is_computed(tiny_config, tmp_path):
    tiny_config.compute_dtype, tiny_config.num_steps = "bfloat16", 1
    train(tiny_config, tmp_path)
    (said,) = [row["message"] for row in events(tmp_path, "bfloat16")]
    assert said == half_precision.told("bfloat16")


def test_xla_knows_the_option_and_products_stay_what_they_are():
    """Whatever jaxlib is installed, and whether or not this processor has such units."""

    def product(x, y):
        return jnp.matmul(x, y, preferred_element_type=jnp.float32)

    x, y = (jax.random.normal(jax.random.key(n), (64, 64), jnp.bfloat16) for n in (0, 1))
    ours = jax.jit(product, compiler_options=OPTIONS)(x, y)
    exact = np.asarray(x, np.float64) @ np.asarray(y, np.float64)
    np.testing.assert_allclose(ours, exact, rtol=1e-2, atol=1e-2)


def equations(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn
        for body in jaxprs_in_params(eqn.params):
            yield from equations(body)


NHWC, NHC = ("NHWC", "HWIO", "NHWC"), ("NHC", "HIO", "NHC")
CONVOLUTIONS = {  # images, kernel, numbers, the rest
    "5x5": ((3, 9, 8, 4), (5, 5, 4, 6), NHWC, {"padding": "SAME"}),
    "strided": ((3, 9, 8, 4), (3, 2, 4, 6), NHWC, {"padding": "VALID", "window_strides": (2, 3)}),
    "dilated": ((3, 9, 8, 4), (3, 3, 4, 6), NHWC, {"padding": "SAME", "rhs_dilation": (2, 1)}),
    "cut": ((3, 9, 8, 4), (3, 3, 4, 6), NHWC, {"padding": ((1, -2), (0, 2))}),
    "one channel": ((3, 9, 8, 1), (5, 5, 1, 6), NHWC, {"padding": "SAME"}),
    "one, strided": (
        (3, 9, 8, 1),
        (5, 4, 1, 6),
        NHWC,
        {"padding": "SAME", "window_strides": (2, 2)},
    ),
    "one, dilated": (
        (3, 9, 8, 1),
        (2, 3, 1, 6),
        NHWC,
        {"padding": "VALID", "rhs_dilation": (2, 2)},
    ),
    "a line": ((3, 9, 4), (3, 4, 6), NHC, {"padding": "SAME", "window_strides": (2,)}),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_kernel_gradients_are_autodiffs(name, fast):
    image, kernel, numbers, settings = CONVOLUTIONS[name]
    settings = {"window_strides": (1,) * (len(image) - 2), **settings}
    x, w = (jax.random.normal(jax.random.key(n), shape) for n, shape in enumerate((image, kernel)))
    x, w = x.astype(jnp.bfloat16), w.astype(jnp.bfloat16)

    def convolve(x, w):
        return jax.lax.conv_general_dilated(x, w, dimension_numbers=numbers, **settings)

    def gradient(convolve, x, w):
        return jax.grad(lambda w: (convolve(x, w).astype(jnp.float32) ** 2).sum())(w)

    ours = gradient(cpu.rewrite(convolve), x, w)
    exact = gradient(convolve, x.astype(jnp.float32), w.astype(jnp.float32))
    assert (ours.shape, ours.dtype) == (w.shape, jnp.bfloat16)
    scale = float(jnp.abs(exact).max())
    np.testing.assert_allclose(ours.astype(np.float32), exact, atol=0.02 * scale)


def test_they_are_used_where_they_are_fast_alone(fast, monkeypatch):
    def ranks():
        def loss(w):
            return cpu.rewrite(convolve)(x, w).astype(jnp.float32).sum()

        jaxpr = jax.make_jaxpr(jax.grad(loss))(w).jaxpr
        return [
            eqn.invars[0].aval.ndim
            for eqn in equations(jaxpr)
            if eqn.primitive.name == "conv_general_dilated"
        ]

    def convolve(x, w):
        return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=NHWC)

    x, w = jnp.ones((3, 9, 8, 4), jnp.bfloat16), jnp.ones((3, 3, 4, 6), jnp.bfloat16)
    assert 5 in ranks()
    x, w = x.astype(jnp.float32), w.astype(jnp.float32)
    assert 5 not in ranks()
    x, w = x.astype(jnp.bfloat16), w.astype(jnp.bfloat16)
    monkeypatch.setattr(processor, "fields", dict)
    assert 5 not in ranks()

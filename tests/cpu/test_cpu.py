"""cpu/: values to the bit, gradients to rounding, and a jaxpr without the slow equations."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import jaxprs_in_params

from mnist_flax import cpu
from mnist_flax.cpu import convolution

pytestmark = pytest.mark.compiles

NHWC = ("NHWC", "HWIO", "NHWC")


def normal(seed: int, *shape: int) -> jax.Array:
    # From NumPy: jax.random.normal compiles for a second or two for each new shape.
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def variables_of(model: nn.Module, *args, **kwargs):
    """Small random parameters for the model, without compiling its initialisers."""
    init = functools.partial(model.init, **kwargs)
    shapes, tree = jax.tree.flatten(jax.eval_shape(init, jax.random.key(0), *args))
    return tree.unflatten([normal(i, *leaf.shape) / 4 for i, leaf in enumerate(shapes)])


def assert_same_bits(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert (a.shape, a.dtype, a.weak_type) == (b.shape, b.dtype, b.weak_type)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def assert_close(actual, expected, rtol=2e-6):
    """Each array to rtol of its own largest entry."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * max(np.abs(b).max(), 1e-30))


def equations(jaxpr) -> Iterator:
    for eqn in jaxpr.eqns:
        yield eqn
        for body in jaxprs_in_params(eqn.params):
            yield from equations(body)


def gradient_equations(fn: Callable, *args) -> dict[str, list]:
    """The equations of the gradients of sum(sin(fn)) by all args, by primitive."""
    wrt = tuple(range(len(args)))
    jaxpr = jax.make_jaxpr(jax.grad(lambda *a: jnp.sin(fn(*a)).sum(), wrt))(*args)
    found: dict[str, list] = {}
    for eqn in equations(jaxpr.jaxpr):
        found.setdefault(eqn.primitive.name, []).append(eqn)
    return found


def is_canonical(conv) -> bool:
    lhs, rhs, out = conv.params["dimension_numbers"]
    last = len(lhs) - 1
    channels_last = (0, last, *range(1, last))
    return lhs == out == channels_last and rhs == (last, last - 1, *range(last - 1))


def value_and_gradients(fn: Callable, dy: jax.Array, *args):
    y, pull = jax.vjp(fn, *args)
    return y, pull(dy.astype(y.dtype))


def check(fn: Callable, *args, rtol=2e-6, canonical=True):
    """fn rewritten has fn's value and gradients, none of them from a slow equation."""
    dy = normal(9, *jax.eval_shape(fn, *args).shape)
    y, gradients = jax.jit(functools.partial(value_and_gradients, fn))(dy, *args)
    rewritten = cpu.rewrite(fn)
    y2, gradients2 = jax.jit(functools.partial(value_and_gradients, rewritten))(dy, *args)
    assert_same_bits(y2, y)
    assert_close(gradients2, gradients, rtol)
    found = gradient_equations(rewritten, *args)
    assert all(map(is_canonical, found.get("conv_general_dilated", []))) == canonical
    assert not [name for name in found if name.startswith("select_and_")]


# --- Convolutions -----------------------------------------------------------------------------

# image [H,W,I], kernel [h,w,O], then what nn.Conv takes.
CONVOLUTIONS = {
    "1x1": ((6, 5, 3), (1, 1, 8), {}),
    "5x5 same": ((9, 7, 3), (5, 5, 8), {}),
    "5x5 valid": ((9, 7, 1), (5, 5, 8), {"padding": "VALID"}),
    "even kernel": ((9, 7, 3), (4, 2, 8), {}),
    "even kernel valid": ((9, 7, 3), (2, 4, 8), {"padding": "VALID"}),
    "one channel out": ((6, 7, 8), (3, 3, 1), {}),
    "stride 2 same": ((8, 7, 3), (3, 3, 8), {"strides": 2}),
    "stride 2, last rows unused": ((8, 9, 3), (3, 4, 8), {"strides": 2, "padding": "VALID"}),
    "stride 3, last rows unused": ((12, 13, 3), (5, 4, 8), {"strides": 3, "padding": "VALID"}),
    "strides 3 and 1": ((9, 7, 3), (2, 3, 8), {"strides": (3, 1)}),
    "1x1 stride 2": ((8, 7, 3), (1, 1, 8), {"strides": 2}),
    "dilation 2": ((9, 8, 3), (3, 2, 8), {"kernel_dilation": 2}),
    "dilation 2 valid": ((9, 8, 3), (3, 2, 8), {"kernel_dilation": 2, "padding": "VALID"}),
    "stride and dilation": (
        (11, 10, 3),
        (3, 3, 8),
        {"strides": 2, "kernel_dilation": (2, 3), "padding": "VALID"},
    ),
    "uneven padding": ((6, 7, 3), (3, 3, 8), {"padding": ((0, 2), (1, 0))}),
    "padding past the kernel": ((6, 7, 3), (1, 2, 8), {"padding": 3, "strides": 2}),
    "negative padding": ((9, 8, 3), (3, 3, 8), {"padding": ((-1, 2), (0, -2))}),
    "circular": ((6, 7, 3), (3, 3, 8), {"padding": "CIRCULAR"}),
    "1-D": ((9, 3), (4, 8), {"strides": 2}),
    "1-D causal": ((9, 3), (3, 8), {"padding": "CAUSAL", "kernel_dilation": 2}),
    "3-D": ((5, 4, 6, 2), (3, 2, 3, 4), {"strides": (1, 2, 1)}),
    "groups": ((7, 6, 6), (3, 3, 4), {"feature_group_count": 2, "strides": 2}),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution_agrees_with_autodiff(name):
    image, kernel, settings = CONVOLUTIONS[name]
    layer = nn.Conv(kernel[-1], kernel[:-1], use_bias=False, **settings)
    x = normal(0, 4, *image)
    params = variables_of(layer, x)
    check(layer.apply, params, x)


def test_depthwise_convolution_agrees_with_autodiff():
    # The gradient of its input stays autodiff's own, which is the fast one here.
    layer = nn.Conv(6, (3, 3), strides=2, feature_group_count=3)
    x = normal(0, 4, 7, 6, 3)
    check(layer.apply, variables_of(layer, x), x, canonical=False)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_transposed_convolution_agrees_with_autodiff(padding):
    layer = nn.ConvTranspose(4, (3, 2), strides=(2, 3), padding=padding)
    x = normal(0, 4, 5, 4, 3)
    check(layer.apply, variables_of(layer, x), x)


def _resized(shape: tuple[int, int], method: str) -> Callable:
    return lambda x: jax.image.resize(x, (len(x), *shape, x.shape[-1]), method)


# What networks that draw are made of, each between a convolution and another: [4, 6, 4, 3] -> more.
DRAWING_LAYERS = {
    "transposed 4x4/2": nn.ConvTranspose(4, (4, 4), strides=(2, 2)),
    "transposed 5x5/2": nn.ConvTranspose(4, (5, 5), strides=(2, 2), padding="VALID"),
    "transposed 3x3/3": nn.ConvTranspose(2, (3, 3), strides=(3, 3)),
    "transposed 2x2/2 to one channel": nn.ConvTranspose(1, (2, 2), strides=(2, 2)),
    "strided 3x3/2": nn.Conv(5, (3, 3), strides=2),
    "strided 5x5/2": nn.Conv(5, (5, 5), strides=2),
    "strided 1x1/2": nn.Conv(2, (1, 1), strides=2),
    "average pool 2x2/2": lambda x: nn.avg_pool(x, (2, 2), (2, 2)),
    "average pool 3x3/2 same": lambda x: nn.avg_pool(x, (3, 3), (2, 2), "SAME"),
    "resized, bilinear": _resized((12, 8), "bilinear"),
    "resized, nearest": _resized((12, 8), "nearest"),
    "made smaller, bilinear": _resized((3, 2), "bilinear"),
    "normalised by groups": nn.GroupNorm(1),  # of more, a bias before it has no gradient
}


class Between(nn.Module):
    """A layer between two convolutions, whose gradients it sees."""

    layer: Any

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(3, (3, 3), name="before")(x)
        return nn.Conv(2, (3, 3), name="after")(self.layer(x))


@pytest.mark.parametrize("name", DRAWING_LAYERS)
def test_what_drawing_networks_are_made_of_is_slow_nowhere(name):
    model, x = Between(DRAWING_LAYERS[name]), normal(0, 4, 6, 4, 3)
    variables = variables_of(model, x)
    check(model.apply, variables, x, rtol=1e-5)

    def gradient(variables, x):
        return jax.grad(lambda v: jnp.sin(cpu.rewrite(model.apply)(v, x)).sum())(variables)

    assert cpu.slow_in_loop(gradient, variables, x) == []


# image [H,W,I], kernel [h,w,I/G,O], then what lax.conv_general_dilated takes.
WITH_GAPS = {
    "4x4/2 to one channel": ((5, 4, 6), (4, 4, 6, 1), {"padding": ((2, 2), (1, 2))}),
    "5x5/2": ((4, 5, 3), (5, 5, 3, 4), {"padding": ((3, 2), (2, 3))}),
    "gaps of two sizes": (
        (4, 5, 3),
        (3, 2, 3, 4),
        {"padding": ((2, 2), (1, 2)), "lhs_dilation": (3, 2)},
    ),
    "on one axis alone": (
        (4, 5, 3),
        (3, 3, 3, 4),
        {"padding": ((2, 2), (1, 2)), "lhs_dilation": (1, 2)},
    ),
    "and a stride": (
        (6, 5, 3),
        (3, 4, 3, 4),
        {"window_strides": (3, 2), "padding": ((2, 2), (1, 2))},
    ),
    "and a dilated kernel": (
        (5, 4, 3),
        (2, 3, 3, 4),
        {"rhs_dilation": (2, 3), "padding": ((2, 2), (1, 2))},
    ),
    "all three": (
        (6, 5, 3),
        (2, 3, 3, 4),
        {"rhs_dilation": (2, 3), "window_strides": (2, 3), "padding": ((4, 1), (2, 5))},
    ),
    "groups": ((4, 5, 6), (3, 3, 3, 4), {"padding": ((0, 0), (0, 0)), "feature_group_count": 2}),
    "negative padding": ((5, 6, 3), (3, 3, 3, 4), {"padding": ((-1, 2), (0, -2))}),
}


@pytest.mark.parametrize("name", WITH_GAPS)
def test_convolution_of_an_image_with_gaps_agrees_with_autodiff(name):
    image, kernel, settings = WITH_GAPS[name]
    settings = {"window_strides": (1, 1), "lhs_dilation": (2, 2), **settings}
    x, w = normal(0, 4, *image), normal(1, *kernel)
    check(functools.partial(lax.conv_general_dilated, dimension_numbers=NHWC, **settings), x, w)


def test_gaps_are_stepped_over_and_not_summed(monkeypatch):
    monkeypatch.setattr(convolution, "_BLOCK_BYTES", 1)
    x, w = normal(0, 20, 5, 4, 2), normal(1, 3, 3, 2, 4)
    fn = cpu.rewrite(lambda w: lax.conv_transpose(x, w, (2, 2), "SAME", dimension_numbers=NHWC))
    found = convolutions_of(jax.grad(lambda w: jnp.sin(fn(w)).sum()), w)[1:-1]
    assert [eqn.params["rhs_dilation"] for eqn in found] == [(2, 2)] * 3  # blocks of 8 images
    assert {eqn.params["lhs_dilation"] for eqn in found} == {(1, 1)}


def test_half_precision_convolution_agrees_with_autodiff():
    layer = nn.Conv(8, (3, 3), strides=2, dtype=jnp.bfloat16)
    x = normal(0, 4, 7, 6, 3)
    check(layer.apply, variables_of(layer, x), x, rtol=2e-2)


def test_kernel_gradient_by_hand():
    # Stride 2 without padding reads pixels 0 and 2 of four; the last one reaches nothing.
    fn = cpu.rewrite(lambda w, x: nn.Conv(1, (1,), 2, "VALID").apply({"params": w}, x))
    w = {"kernel": jnp.full((1, 1, 1), 3.0), "bias": jnp.zeros(1)}
    x = jnp.array([1.0, 10.0, 100.0, 1000.0]).reshape(1, 4, 1)
    dw, dx = jax.grad(lambda w, x: fn(w, x).sum(), (0, 1))(w, x)
    assert dw["kernel"].item() == 101.0
    assert dx.ravel().tolist() == [3.0, 0.0, 3.0, 0.0]


# --- Max-pools --------------------------------------------------------------------------------

POOLS = {
    "2x2/2": ((8, 6), {"window_shape": (2, 2), "strides": (2, 2)}),
    "2x2/2, last row unused": ((7, 5), {"window_shape": (2, 2), "strides": (2, 2)}),
    "2x2/2 same": ((7, 5), {"window_shape": (2, 2), "strides": (2, 2), "padding": "SAME"}),
    "3x3/2": ((8, 7), {"window_shape": (3, 3), "strides": (2, 2)}),
    "3x3/2 same": ((8, 7), {"window_shape": (3, 3), "strides": (2, 2), "padding": "SAME"}),
    "3x2/1": ((5, 6), {"window_shape": (3, 2)}),
    "2x2/3": ((8, 7), {"window_shape": (2, 2), "strides": (3, 3)}),
    "uneven padding": (
        (6, 7),
        {"window_shape": (3, 3), "strides": (2, 1), "padding": ((0, 2), (1, 0))},
    ),
    "1-D": ((9,), {"window_shape": (3,), "strides": (2,), "padding": "SAME"}),
}


@pytest.mark.parametrize("name", POOLS)
def test_max_pool_agrees_with_autodiff(name):
    image, settings = POOLS[name]
    x = normal(0, 3, *image, 2)
    # In the first picture nearly every window holds ties, of zeros with either sign too.
    x = x.at[0].set(jnp.trunc(x[0]))
    check(lambda x: nn.max_pool(x, **settings), x)


def test_first_of_tied_maxima_gets_the_gradient():
    pool = cpu.rewrite(lambda x: nn.max_pool(x, (2, 2), (2, 2)))
    x = jnp.array([[5, 5, 1, 2], [5, 5, 2, 2]], jnp.float32).reshape(1, 2, 4, 1)
    dx = jax.grad(lambda x: pool(x).sum())(x)
    assert dx.reshape(2, 4).tolist() == [[1, 0, 0, 1], [0, 0, 0, 0]]


def test_a_nan_is_the_maximum_of_its_windows():
    x = jnp.array([1.0, jnp.nan, 4.0, 2.0, 3.0, -jnp.inf]).reshape(1, 6, 1)
    pool = cpu.rewrite(lambda x: nn.max_pool(x, (3,), (3,)))
    np.testing.assert_array_equal(pool(x).ravel(), [np.nan, 3.0])
    assert jax.grad(lambda x: pool(x).sum())(x).ravel().tolist() == [0, 0, 0, 0, 1, 0]


def test_overlapping_windows_add_their_gradients():
    pool = cpu.rewrite(lambda x: nn.max_pool(x, (3,), (1,)))
    x = jnp.array([0.0, 1.0, 4.0, 2.0, 3.0]).reshape(1, 5, 1)
    assert jax.grad(lambda x: pool(x).sum())(x).ravel().tolist() == [0, 0, 3, 0, 0]


def test_a_large_window_is_left_alone():
    for side, ours in ((5, 1), (6, 0)):
        pool = cpu.rewrite(lambda x: nn.max_pool(x, (side, side)))  # noqa: B023
        program = str(jax.make_jaxpr(pool)(normal(0, 1, 6, 6, 1)))
        assert program.count("custom_vjp_call") == ours


@pytest.mark.parametrize("dilation", ["base_dilation", "window_dilation"])
def test_dilated_and_integer_pools_are_left_alone(dilation):
    window, strides = (1, 2, 2, 1), (1, 1, 1, 1)

    def pool(x):
        dilations = {dilation: (1, 2, 1, 1)}
        return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, "VALID", **dilations)

    x = normal(0, 2, 6, 5, 3)
    assert "custom_vjp_call" not in str(jax.make_jaxpr(cpu.rewrite(pool))(x))
    assert_same_bits(cpu.rewrite(pool)(x), pool(x))
    whole = (x * 9).astype(int)

    def count(x):
        return nn.max_pool(x, (2, 2))

    assert "custom_vjp_call" not in str(jax.make_jaxpr(cpu.rewrite(count))(whole))
    assert_same_bits(cpu.rewrite(count)(whole), count(whole))


# --- Whole functions --------------------------------------------------------------------------


class Network(nn.Module):
    """A bit of everything: strides, groups, batch norm, dropout, relu and gelu, pools, jit."""

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.Conv(8, (3, 3), strides=2, use_bias=False, name="stem")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        x = nn.max_pool(x, (3, 3), (2, 2), padding="SAME")
        x = nn.gelu(nn.jit(nn.Conv)(8, (2, 2), feature_group_count=2)(x))
        x = nn.Dropout(0.4, deterministic=not train)(x)
        return nn.Dense(3)(x.reshape(x.shape[0], -1))


def make_loss(rewrite: Callable):
    """Returns loss(params, batch_stats, x, key) -> (loss, new batch_stats), and its arguments."""
    model, x = Network(), normal(0, 4, 13, 11, 1)
    variables = variables_of(model, x, train=False)

    def forward(variables, x, rngs, nothing):
        assert nothing is None
        return model.apply(variables, x, train=True, mutable=["batch_stats"], rngs=rngs)

    def loss_fn(params, batch_stats, x, key):
        variables = {"params": params, "batch_stats": batch_stats}
        logits, updates = rewrite(forward)(variables, x, {"dropout": key}, nothing=None)
        return (logits**2).sum(), updates["batch_stats"]

    return loss_fn, (variables["params"], variables["batch_stats"], x, jax.random.key(2))


@pytest.fixture(scope="module")
def compiled():
    """value_and_grad of the network's loss, compiled: (plain, rewritten), and the arguments."""
    programs = []
    for rewrite in (lambda fn: fn, cpu.rewrite):
        loss_fn, args = make_loss(rewrite)
        gradient = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))
        programs.append(gradient.lower(*args).compile())
    return (*programs, args)


def test_whole_network_agrees_with_autodiff(compiled):
    plain, rewritten, args = compiled
    expected, gradients = plain(*args)
    actual, gradients2 = rewritten(*args)
    assert_same_bits(actual, expected)
    assert_close(gradients2, gradients, rtol=1e-5)


def test_first_layers_input_gradient_is_not_computed(compiled):
    _, rewritten, _ = compiled
    assert rewritten.as_text().count(" convolution(") == 2 + 3  # forward, backward


def test_layers_keep_their_names_in_the_compiled_program(compiled):
    _, rewritten, _ = compiled
    assert "transpose(jvp(Network/stem))/conv_general_dilated" in rewritten.as_text()


def test_training_in_a_loop_agrees_with_autodiff():
    def train(rewrite, steps):
        loss_fn, (params, batch_stats, x, key) = make_loss(rewrite)

        def step(i, carry):
            params, batch_stats = carry
            gradients, batch_stats = jax.grad(loss_fn, has_aux=True)(
                params, batch_stats, x, jax.random.fold_in(key, i)
            )
            return jax.tree.map(lambda p, g: p - 1e-3 * g, params, gradients), batch_stats

        return lax.fori_loop(0, steps, step, (params, batch_stats))

    expected = jax.jit(functools.partial(train, lambda fn: fn))(3)
    assert_close(jax.jit(functools.partial(train, cpu.rewrite))(3), expected, rtol=1e-5)


def test_no_slow_equation_is_left_in_the_networks_gradient():
    counts = []
    for rewrite in (lambda fn: fn, cpu.rewrite):
        loss_fn, args = make_loss(rewrite)
        jaxpr = jax.make_jaxpr(jax.grad(loss_fn, has_aux=True))(*args)
        found = list(equations(jaxpr.jaxpr))
        convs = [eqn for eqn in found if eqn.primitive.name == "conv_general_dilated"]
        pools = [eqn for eqn in found if eqn.primitive.name.startswith("select_and_")]
        counts.append((sum(not is_canonical(conv) for conv in convs), len(pools)))
    assert counts == [(3, 1), (0, 0)]  # plain: no gradient for the images, hence 3 and not 4


def test_custom_rules_survive():
    @jax.custom_vjp
    def double_gradient(x):
        return x

    double_gradient.defvjp(lambda x: (x, None), lambda _, dy: (2 * dy,))
    fn = cpu.rewrite(lambda x: double_gradient(nn.relu(x)).sum())
    assert jax.grad(fn)(jnp.array([-1.0, 0.0, 3.0])).tolist() == [0.0, 0.0, 2.0]  # relu'(0) = 0


def test_traced_values_may_be_closed_over():
    x, w = normal(0, 2, 5, 5, 3), normal(1, 3, 3, 3, 4)

    def loss(rewrite, w):
        def conv(x):
            return lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=NHWC)

        return (rewrite(conv)(x) ** 2).sum()

    rewritten = jax.jit(jax.grad(functools.partial(loss, cpu.rewrite)))(w)
    assert_close(rewritten, jax.grad(functools.partial(loss, lambda fn: fn))(w))


def test_outputs_of_any_structure():
    def fn(x, scale):
        return {"a": (x * scale, None), "n": 3, "key": jax.random.key(1), "x": x}

    out = cpu.rewrite(fn)(jnp.ones(2), 2.0)
    assert out["a"][0].tolist() == [2.0, 2.0]
    assert out["a"][1] is None
    assert out["n"] == 3
    assert jax.random.key_data(out["key"]).tolist() == [0, 1]


def test_only_the_cpu_is_rewritten():
    def fn(x):
        return nn.max_pool(x, (2, 2))

    x = jax.ShapeDtypeStruct((1, 4, 4, 1), jnp.float32)
    ours = cpu.for_backend(fn)
    with cpu.lowered_for("cpu"):
        assert "custom_vjp_call" in str(jax.make_jaxpr(ours)(x))
    for platform in ("cuda", "rocm", "tpu"):
        with cpu.lowered_for(platform):
            assert str(jax.make_jaxpr(ours)(x)) == str(jax.make_jaxpr(fn)(x))


# --- Inside loops, branches and remat ----------------------------------------------------------


class Repeated(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return nn.tanh(nn.jit(nn.Conv)(4, (5, 1), name="inner")(x)), None


class Nested(nn.Module):
    """A convolution remembered, one in a scan and in a jit, one in a branch; a pool in a remat."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3))(x)
        x = nn.remat(nn.Conv)(4, (3, 3), name="remembered")(x)
        scan = nn.scan(Repeated, variable_axes={"params": 0}, split_rngs={"params": True}, length=2)
        x = scan(name="repeated")(x, None)[0]
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (3, 3, 4, 4))
        x = jax.lax.cond(x.sum() > 1e6, jnp.negative, lambda x: convolve(x, kernel), x)
        return jax.checkpoint(lambda x: nn.max_pool(x, (2, 2), (2, 2)))(x)


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=NHWC)


def test_bodies_of_scan_cond_and_remat_are_rewritten():
    x = normal(0, 2, 6, 6, 3)
    model = Nested()
    variables = variables_of(model, x)
    check(model.apply, variables, x)
    assert cpu.slow_in_loop(cpu.rewrite(model.apply), variables, x) == []
    # The loop and the remat are still what the user asked for.
    found = gradient_equations(cpu.rewrite(model.apply), variables, x)
    assert {"scan", "remat2", "cond"} <= found.keys()


def test_body_without_anything_slow_is_left_as_it_is():
    def fn(x):
        return lax.scan(lambda c, y: (c + y, c), jnp.zeros(3), x)[1]

    x = jax.ShapeDtypeStruct((5, 3), jnp.float32)
    assert str(jax.make_jaxpr(cpu.rewrite(fn))(x)) == str(jax.make_jaxpr(fn)(x))


# --- The tricks of speed ----------------------------------------------------------------------


def convolutions_of(fn: Callable, *args) -> list:
    jaxpr = jax.make_jaxpr(fn)(*args).jaxpr
    return [eqn for eqn in equations(jaxpr) if eqn.primitive.name == "conv_general_dilated"]


@pytest.mark.parametrize(
    ("side", "channels", "blocks"),
    [
        (28, 32, [8] * 3),  # 103 kB an image and its gradient: eight of them stay in the cache
        (14, 16, [24]),  # 12.5 kB: all of them do
        (28, 12, [15, 9]),  # 40.8 kB
    ],
)
def test_blocks_are_as_many_images_as_stay_in_the_cache(side, channels, blocks):
    x, w = jnp.zeros((24, side, side, 1)), jnp.zeros((3, 3, 1, channels))
    gradient = jax.grad(lambda w: jnp.sin(cpu.rewrite(convolve)(x, w)).sum())
    found = convolutions_of(gradient, w)[1:-1]
    assert [eqn.invars[0].aval.shape[-1] for eqn in found] == blocks


# 8 images at a time; 20 leave a rest of 4; of 1,000 at most 32 blocks are made, of 32 images.
@pytest.mark.parametrize(("images", "blocks"), [(1, [1]), (20, [8, 8, 4]), (1000, [32] * 31 + [8])])
def test_kernel_gradient_is_summed_over_blocks_of_images(images, blocks, monkeypatch):
    monkeypatch.setattr(convolution, "_BLOCK_BYTES", 1)
    x, w = normal(0, images, 5, 4, 2), normal(1, 3, 3, 2, 4)
    gradient = jax.grad(lambda w: jnp.sin(cpu.rewrite(convolve)(x, w)).sum())
    # The first is the forward pass, the last one the input's gradient, which is not asked for.
    found = convolutions_of(gradient, w)[1:-1]
    assert [eqn.invars[0].aval.shape[-1] for eqn in found] == blocks
    expected = jax.grad(lambda w: jnp.sin(convolve(x, w)).sum())(w)
    assert_close(gradient(w), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("outputs", "computed"), [(1, 1), (2, 24), (12, 24), (23, 24), (24, 24), (32, 32)]
)
def test_few_outputs_of_one_channel_are_filled_up(outputs, computed):
    x, w = normal(0, 3, 9, 8, 1), normal(1, 3, 3, 1, outputs)
    (forward,) = convolutions_of(cpu.rewrite(convolve), x, w)
    assert forward.outvars[0].aval.shape == (3, 9, 8, computed)
    check(convolve, x, w)


def test_channels_may_stand_anywhere():
    x, w = normal(0, 4, 3, 8, 7), normal(1, 2, 3, 3, 3)  # NCHW, OIHW: lax.conv's own
    check(lambda x, w: lax.conv(x, w, (2, 1), "SAME"), x, w)


# --- What stays slow --------------------------------------------------------------------------


class Hidden(nn.Module):
    """A convolution with a derivative of its own, where the rewriting must not go."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3))(x)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (5, 1, 4, 4))
        own = jax.custom_jvp(convolve)
        own.defjvp(lambda primals, tangents: (convolve(*primals), convolve(*tangents)))
        return own(x, kernel)


def test_slow_convolutions_are_found_and_still_right():
    x = normal(0, 2, 6, 6, 3)
    model = Hidden()
    variables = variables_of(model, x)
    abstract = jax.eval_shape(lambda: (variables, x))
    (hidden,) = cpu.slow_in_loop(cpu.rewrite(model.apply), *abstract)
    assert hidden == "convolution 5x1, 4 to 4 channels, in Hidden: inside custom_jvp_call"
    assert_same_bits(
        jax.jit(cpu.rewrite(model.apply))(variables, x), jax.jit(model.apply)(variables, x)
    )


def test_unusual_convolutions_are_declined_and_still_right():
    def grouped(x, w):
        return lax.conv_general_dilated(
            x, w, (1, 1), "SAME", dimension_numbers=NHWC, batch_group_count=2
        )

    args = normal(0, 4, 8, 8, 3), normal(1, 3, 3, 3, 2)
    assert cpu.slow_in_loop(cpu.rewrite(grouped), *args)[0].endswith("grouped over the batch")
    assert_same_bits(cpu.rewrite(grouped)(*args), grouped(*args))


def test_fast_network_has_no_slow_convolutions():
    model = Network()
    x = jax.ShapeDtypeStruct((4, 13, 11, 1), jnp.float32)
    forward = functools.partial(model.apply, train=False)
    variables = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), x)
    assert cpu.slow_in_loop(cpu.rewrite(forward), variables, x) == []


def test_a_step_that_rewrites_nothing_is_told_what_autodiff_has_written():
    x, w = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 4))

    def convolve(w, x):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=numbers)

    def loss(w, x, apply):
        return apply(w, x).sum()

    assert cpu.slow_in_loop(functools.partial(loss, apply=convolve), w, x) == []  # no gradient
    plain = jax.grad(functools.partial(loss, apply=convolve))
    (told,) = cpu.slow_in_loop(plain, w, x)
    assert "put mnist_flax.cpu.for_backend around what is differentiated" in told
    assert (
        cpu.slow_in_loop(jax.grad(functools.partial(loss, apply=cpu.rewrite(convolve))), w, x) == []
    )

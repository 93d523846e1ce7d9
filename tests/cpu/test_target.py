"""The platform that a program is lowered for: said, read, and never mistaken for another."""

import concurrent.futures
import contextlib

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import linen as nn
from made import spec_of
from tiny import SlowNet, TinyNet

from mnist_flax import cpu
from mnist_flax.core.state import traced_once, try_task
from mnist_flax.data.batch import batch_like
from mnist_flax.errors import UsageError
from mnist_flax.tasks.classification import classifier

IMAGES = jax.ShapeDtypeStruct((2, 4, 4, 1), jnp.float32)


@cpu.for_backend
def pool(images: jax.Array) -> jax.Array:
    return nn.max_pool(images, (2, 2))


def rewritten(fn, *args) -> bool:
    return "custom_vjp_call" in str(jax.make_jaxpr(fn)(*args))


def test_by_default_it_is_the_one_at_hand(monkeypatch):
    assert cpu.target() == jax.default_backend()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert cpu.target() == "gpu"
    assert not rewritten(pool, IMAGES)
    with cpu.lowered_for("cpu"):
        assert rewritten(pool, IMAGES)


def test_the_innermost_counts_and_then_the_one_before():
    with cpu.lowered_for("cuda"):
        with cpu.lowered_for("tpu"):
            assert cpu.target() == "tpu"
        assert cpu.target() == "cuda"
        with contextlib.suppress(ZeroDivisionError), cpu.lowered_for("cpu"):
            raise ZeroDivisionError
        assert cpu.target() == "cuda"
    assert cpu.target() == jax.default_backend()


def test_another_thread_is_not_concerned():
    with cpu.lowered_for("cuda"), concurrent.futures.ThreadPoolExecutor(1) as other:
        assert other.submit(cpu.target).result() == jax.default_backend()


def test_a_platform_that_nobody_knows_is_told():
    told = "platform='gpu': must be one of cpu, cuda, rocm, tpu."
    with pytest.raises(UsageError) as error, cpu.lowered_for("gpu"):
        pass
    assert str(error.value) == told


def test_a_program_that_runs_once_is_optimized_elsewhere():
    with cpu.lowered_for("cpu"):
        assert cpu.unoptimized() == {"xla_backend_optimization_level": "0"}
    with cpu.lowered_for("cuda"):
        assert cpu.unoptimized() == {}


def test_no_layer_is_slow_elsewhere():
    task = classifier(SlowNet(), optax.sgd(0.1), spec_of())
    with cpu.lowered_for("cpu"):
        assert len(try_task(task, spec_of(), "classification").slow_layers) > 0
    with cpu.lowered_for("tpu"):
        assert try_task(task, spec_of(), "classification").slow_layers == ()


@pytest.mark.parametrize("first", ["cpu", "cuda"])
def test_a_task_that_was_traced_for_one_is_traced_anew_for_another(first):
    task = traced_once(classifier(TinyNet(), optax.sgd(0.1), spec_of()))
    step, key = jax.eval_shape(lambda: (jnp.int32(0), jax.random.key(0)))
    variables = jax.eval_shape(task.init, key)
    state = jax.eval_shape(task.init_opt, variables)
    jitted = jax.jit(task.update)  # made once, as a caller may

    def scatters(platform: str) -> int:
        with cpu.lowered_for(platform):
            lowered = jitted.lower(variables, state, batch_like(2, (8, 8, 1)), step, key)
        return lowered.as_text().count('"stablehlo.select_and_scatter"')

    order = [first, *({"cpu", "cuda"} - {first})] * 2
    assert {platform: scatters(platform) for platform in order} == {"cpu": 0, "cuda": 1}

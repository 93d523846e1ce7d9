"""Whether any model is fast in our loop: a dozen small ones, each trained in three ways.

    python benchmarks/any_model.py --output=FILE
    python benchmarks/any_model.py --only=resnet,scanned --quick

`ours` is what a run compiles, with the rewriting of mnist_flax.cpu; `plain` the model as Flax has
it, its jitted step called from a Python loop; and `trapped` that same step in a `lax.fori_loop`: on
a CPU up to hundreds of times slower, hence its own --trap_steps. Batches of 64 made-up images of
28×28×1. Figures are medians over rounds, with the lowest and the highest; `named` are the layers of
which a run warns as slow, and which it does not train in a compiled loop. On other devices nothing
is rewritten, and `ours` and `trapped` are alike.
"""

import argparse
import functools
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import machine
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict
from throughput import make_plain_step, our_step, plain_step, timed

from mnist_flax.config import default_config
from mnist_flax.core.state import TrainState
from mnist_flax.data.idx import write_idx
from mnist_flax.data.sources import Feed
from mnist_flax.training.compilation import init_state
from mnist_flax.training.gather import Plan, gather

BATCH_SIZE = 64
SHAPE = (28, 28, 1)
WAYS = ("ours", "plain", "trapped")

Array = jax.Array


class Network(nn.Module):
    """One of MODELS, and a dense layer that makes logits of what it gives."""

    body: str

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        """Maps images float32 [B, H, W, C] to logits float32 [B, 10]."""
        x = MODELS[self.body](images, train)
        return nn.Dense(10, name="logits")(x.reshape(len(x), -1))


class Block(nn.Module):
    """A convolution that keeps its input's form; called as `nn.scan` wants it."""

    @nn.compact
    def __call__(self, x: Array, _: None = None) -> tuple[Array, None]:
        """Maps [B, H, W, C] to the same, and nothing."""
        return nn.relu(nn.Conv(x.shape[-1], (3, 3))(x)), None


def _plain(x: Array, _train: bool) -> Array:
    for features in (32, 64):
        x = nn.max_pool(nn.relu(nn.Conv(features, (3, 3))(x)), (2, 2), (2, 2))
    return nn.relu(nn.Dense(128)(x.reshape(len(x), -1)))


def _strided(x: Array, _train: bool) -> Array:
    for features in (32, 64, 64):
        x = nn.relu(nn.Conv(features, (3, 3), strides=(2, 2))(x))
    return x


def _dilated(x: Array, _train: bool) -> Array:
    for dilation in (1, 2, 4):
        x = nn.relu(nn.Conv(24, (3, 3), kernel_dilation=(dilation, dilation))(x))
    return x.mean((1, 2))


def _one_dimensional(x: Array, _train: bool) -> Array:
    x = x.reshape(*x.shape[:2], -1)  # a picture's rows, one after another
    for features in (64, 128):
        x = nn.max_pool(nn.relu(nn.Conv(features, (5,))(x)), (2,), (2,))
    return x


def _transposed(x: Array, _train: bool) -> Array:
    for features in (16, 32):
        x = nn.relu(nn.Conv(features, (3, 3), strides=(2, 2))(x))
    for features in (32, 16):
        x = nn.relu(nn.ConvTranspose(features, (3, 3), strides=(2, 2))(x))
    return x.mean((1, 2))


def _average_pooled(x: Array, _train: bool) -> Array:
    for features in (32, 64):
        x = nn.avg_pool(nn.relu(nn.Conv(features, (5, 5))(x)), (2, 2), (2, 2))
    return x


def _resnet(x: Array, train: bool) -> Array:
    norm = functools.partial(nn.BatchNorm, use_running_average=not train)
    x = nn.relu(norm()(nn.Conv(16, (3, 3), use_bias=False)(x)))
    for features, stride in ((16, 1), (32, 2), (64, 2)):
        conv = functools.partial(nn.Conv, features, use_bias=False)
        y = nn.relu(norm()(conv((3, 3), strides=(stride, stride))(x)))
        y = norm()(conv((3, 3))(y))
        if x.shape != y.shape:
            x = norm()(conv((1, 1), strides=(stride, stride))(x))
        x = nn.relu(x + y)
    return x.mean((1, 2))


def _separable(x: Array, train: bool) -> Array:
    x = nn.Conv(32, (3, 3), strides=(2, 2))(x)
    for features in (64, 128):
        for kernel, outputs, groups in ((3, x.shape[-1], x.shape[-1]), (1, features, 1)):
            x = nn.Conv(outputs, (kernel, kernel), feature_group_count=groups, use_bias=False)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
    return x.mean((1, 2))


def _scanned(x: Array, _train: bool) -> Array:
    x = nn.Conv(24, (3, 3), strides=(2, 2))(x)
    blocks = nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
    return blocks()(x, None)[0]


def _rematerialized(x: Array, _train: bool) -> Array:
    x = nn.Conv(24, (3, 3), strides=(2, 2))(x)
    for _ in range(3):
        x, _none = nn.remat(Block)()(x)
    return x


def _grouped(x: Array, _train: bool) -> Array:
    x = nn.relu(nn.Conv(32, (3, 3), strides=(2, 2))(x))
    for features in (64, 64):
        x = nn.relu(nn.Conv(features, (3, 3), feature_group_count=4)(x))
    return x.mean((1, 2))


def _mlp(x: Array, train: bool) -> Array:
    x = x.reshape(len(x), -1)
    for features in (512, 256):
        x = nn.Dropout(0.2, deterministic=not train)(nn.relu(nn.Dense(features)(x)))
    return x


def _attention(x: Array, _train: bool) -> Array:
    x = nn.Conv(64, (7, 7), strides=(7, 7))(x)  # 16 patches
    x = x.reshape(len(x), -1, 64)
    for _ in range(2):
        x = x + nn.MultiHeadDotProductAttention(num_heads=4)(nn.LayerNorm()(x))
        x = x + nn.Dense(64)(nn.gelu(nn.Dense(128)(nn.LayerNorm()(x))))
    return x.mean(1)


MODELS = {
    body.__name__.removeprefix("_"): body
    for body in (
        *(_plain, _strided, _dilated, _one_dimensional, _transposed, _average_pooled, _resnet),
        *(_separable, _scanned, _rematerialized, _grouped, _mlp, _attention),
    )
}


def main() -> int:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default=",".join(MODELS), help=f"of {', '.join(MODELS)}")
    parser.add_argument("--trap_steps", type=machine.positive, default=2, help="default: 2")
    arguments = machine.parse(parser, steps=20)
    names = machine.choose(parser, arguments.only, list(MODELS))
    results: dict[str, Any] = {"conditions": machine.conditions(), "models": {}}
    machine.print_conditions(results["conditions"])
    with tempfile.TemporaryDirectory() as folder:
        make_up(Path(folder), 20 * BATCH_SIZE)
        for name in names:
            results["models"][name] = _measure(plan_of(name, folder), arguments)
            print(f"{name} is measured", flush=True)
    print()
    _show(results["models"])
    machine.write(results, arguments.output)
    return 0


def make_up(folder: Path, count: int) -> None:
    """Writes noise and labels as MNIST's four files."""
    images = np.random.default_rng(0).integers(0, 256, (count, *SHAPE[:2]), np.uint8)
    labels = np.arange(count, dtype=np.uint8) % 10
    for prefix in ("train", "t10k"):
        write_idx(folder / f"{prefix}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", labels)


def plan_of(name: str, data_dir: str) -> Plan:
    """Returns a run of one of MODELS, as a recipe of a user's own would name it."""
    config = default_config()
    config.data.data_dir = data_dir
    config.batch_size, config.num_epochs = BATCH_SIZE, 1
    config.model = ConfigDict({"name": f"{__name__}:{Network.__name__}", "body": name})
    config.optimizer = ConfigDict({"name": "sgd", "learning_rate": 0.01, "momentum": 0.9})
    return gather(config, print)


def _measure(plan: Plan, arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the seconds per step of each way, round by round, and what is named as slow."""
    steps = {"ours": our_step(plan), "plain": plain_step(plan), "trapped": trapped_step(plan)}
    counts = {"trapped": arguments.trap_steps}
    measures = {
        way: functools.partial(step, counts.get(way, arguments.steps))
        for way, step in steps.items()
    }
    taken = machine.interleave({**measures, "product": machine.matrix_product()}, arguments.rounds)
    return {
        "product_flops_per_second": taken.pop("product"),
        "seconds_per_step": taken,
        "named": list(plan.tried.slow_layers),
    }


def trapped_step(plan: Plan) -> Callable[[int], float]:
    """Returns run(count) -> seconds per step of plain Flax in a compiled loop."""
    step = make_plain_step(plan)

    @functools.partial(jax.jit, donate_argnums=0)
    def loop(state: TrainState, feed: Feed, count: int) -> TrainState:
        return jax.lax.fori_loop(0, count, lambda _, state: step(state, feed)[0], state)

    return timed(plan.source, init_state(plan), loop, warm_up=1)


def _show(models: dict[str, dict[str, Any]]) -> None:
    head = (
        "model",
        *(f"{way}, ms/step" for way in WAYS),
        "plain / ours",
        "trapped / ours",
        "named",
    )
    rows = []
    for name, measured in models.items():
        times = measured["seconds_per_step"]
        shown = [machine.spread(times[way], ".2f", 1e3) for way in WAYS]
        shown += [machine.spread(machine.ratios(times[way], times["ours"])) for way in WAYS[1:]]
        rows.append((name, *shown, "; ".join(measured["named"]) or "none"))
    machine.print_table(head, rows)


if __name__ == "__main__":
    sys.exit(main())

"""The networks of the recipes that classify, in PyTorch: what a step takes, how soon one is good.

    python benchmarks/peers/classification.py throughput --recipe=tutorial
    python benchmarks/peers/classification.py throughput --recipe=lenet --dtype=bfloat16 --way=all
    python benchmarks/peers/classification.py accuracy --target=0.99 --data_dir=FOLDER

`throughput` times steps on batches that lie ready in memory; nothing is augmented. A way is the
layout of the images, compiled or not: --way=all tries each, and the fastest counts. torch.compile
needs a C++ compiler. `accuracy` trains as configs/speedrun.py does (network, optimizer, schedule,
label smoothing, batches), evaluates the test digits, and says how many seconds after the start of
the process they were classified; FOLDER holds MNIST's four IDX files. In bfloat16 layers compute
under autocast, the loss in float32.

The last line is JSON. It needs PyTorch and NumPy, which may lie in an environment of their own:
nothing of JAX is imported.
"""

import time

START = time.perf_counter()

import argparse  # noqa: E402
import gzip  # noqa: E402
import json  # noqa: E402
import statistics  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

Step = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

_READY, _REPEATS = 20, 3  # batches in memory; timings, of which the median counts
_TEST_BATCH = 1000


class Tutorial(nn.Module):
    """Two 5×5 convolutions, pooled, and 1,024 units: configs/tutorial.py, and adam.py's."""

    def __init__(self, dropout: float) -> None:
        """Makes the layers, which start as PyTorch has it."""
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(i, o, 5, padding=2) for i, o in ((1, 32), (32, 64)))
        self.dense1, self.logits = nn.Linear(3136, 1024), nn.Linear(1024, 10)
        self.dropout = nn.Dropout(dropout)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Maps [B, 1, 28, 28] to logits [B, 10]."""
        x = F.max_pool2d(F.relu(self.conv1(images)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2).flatten(1)
        return self.logits(self.dropout(F.relu(self.dense1(x))))


class LeNet(nn.Module):
    """Two 3×3 convolutions with 3×3/2 pools, three dense layers: lenet.py, lenet_augmented.py."""

    def __init__(self, batch_norm: bool, dropout: float) -> None:
        """Makes the layers."""
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(i, o, 3, padding=1) for i, o in ((1, 12), (12, 16)))
        norms = (nn.BatchNorm2d(n, eps=1e-3) if batch_norm else nn.Identity() for n in (12, 16))
        self.norm1, self.norm2 = norms
        self.dropout = nn.Dropout(dropout)
        self.dense1, self.dense2 = nn.Linear(576, 256), nn.Linear(256, 100)
        self.logits = nn.Linear(100, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Maps [B, 1, 28, 28] to logits [B, 10], which pass through a ReLU as published."""
        x = self.norm1(F.max_pool2d(self.conv1(images), 3, 2))
        x = self.dropout(self.norm2(F.max_pool2d(self.conv2(x), 3, 2))).flatten(1)
        return F.relu(self.logits(F.relu(self.dense2(F.relu(self.dense1(x))))))


class ThreeConv(nn.Module):
    """Three 3×3 convolutions, pooled and dropped from, no biases: configs/rmsprop.py."""

    def __init__(self) -> None:
        """Makes the layers."""
        super().__init__()
        sizes = ((1, 32), (32, 64), (64, 128))
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1, bias=False) for i, o in sizes)
        self.drop, self.drop_dense = nn.Dropout(0.2), nn.Dropout(0.5)
        self.dense1, self.logits = nn.Linear(2048, 625, bias=False), nn.Linear(625, 10, bias=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Maps [B, 1, 28, 28] to logits [B, 10]."""
        x = images
        for conv in self.convs:
            x = self.drop(F.max_pool2d(F.relu(conv(x)), 2, ceil_mode=True))
        return self.logits(self.drop_dense(F.relu(self.dense1(x.flatten(1)))))


class Compact(nn.Module):
    """Convolutions, pooled, normalised, then a ReLU: configs/speedrun.py, fast995.py, best.py."""

    def __init__(
        self,
        strided_stem: bool,
        features: tuple[int, ...] = (16, 32, 64),
        convolutions: tuple[int, ...] = (1, 1, 1),
    ) -> None:
        """Makes the layers; each of `convolutions` is a stage's, whose last one is pooled."""
        super().__init__()
        sizes = [n for n, count in zip(features, convolutions, strict=True) for _ in range(count)]
        entering = [1, *sizes[:-1]]
        self.convs = nn.ModuleList(
            nn.Conv2d(i, o, 3, padding=1, bias=False) for i, o in zip(entering, sizes, strict=True)
        )
        if strided_stem:
            self.convs[0] = nn.Conv2d(1, features[0], 5, 2, 2, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(n) for n in sizes)
        self.pooled = {sum(convolutions[: stage + 1]) for stage in range(len(features))}
        self.pooled -= {1} if strided_stem else set()
        self.logits = nn.Linear(16 * features[-1], 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Maps [B, 1, 28, 28] to logits [B, 10]."""
        x = images
        for number, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True), start=1):
            x = conv(x)
            if number in self.pooled:
                x = F.max_pool2d(x, 2, ceil_mode=True)
            x = F.relu(norm(x))
        return self.logits(x.flatten(1))


def _adam(parameters: object) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-3)


def _adamw(parameters: object) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=0.02, weight_decay=1e-4)


RECIPES = {  # network, optimizer, batch size, label smoothing
    "tutorial": (lambda: Tutorial(0.4), lambda p: torch.optim.SGD(p, lr=1e-3), 100, 0.0),
    "adam": (lambda: Tutorial(0.2), _adam, 128, 0.0),
    "rmsprop": (ThreeConv, lambda p: torch.optim.RMSprop(p, lr=1e-3, alpha=0.9), 128, 0.0),
    "lenet": (lambda: LeNet(False, 0.0), _adam, 128, 0.0),
    "lenet_augmented": (lambda: LeNet(True, 0.5), _adam, 128, 0.0),
    "speedrun": (lambda: Compact(True), _adamw, 64, 0.05),
    "fast995": (lambda: Compact(False), _adamw, 128, 0.05),
    "best": (lambda: Compact(False, (32, 64, 128), (1, 2, 2)), _adamw, 128, 0.05),
}
WAYS = ("channels_first", "channels_last", "channels_first_compiled", "channels_last_compiled")


def laid_out(part: torch.Tensor | nn.Module, way: str) -> torch.Tensor | nn.Module:
    """Returns images or a network in the layout of a way."""
    last = way.startswith("channels_last")
    return part.to(memory_format=torch.channels_last if last else torch.contiguous_format)


def step_of(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    dtype: torch.dtype,
    smoothing: float,
    schedule: torch.optim.lr_scheduler.LRScheduler | None = None,
) -> Step:
    """Returns step(images, labels) -> loss: one update."""

    def step(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
            logits = network(images)
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=smoothing)
        loss.backward()
        optimizer.step()
        if schedule is not None:
            schedule.step()
        return loss

    return step


def milliseconds(recipe: str, dtype: torch.dtype, way: str, steps: int) -> float:
    """Returns the milliseconds of a step, the median of some timings after a warm-up."""
    make, make_optimizer, batch, smoothing = RECIPES[recipe]
    network = laid_out(make(), way)
    optimizer = make_optimizer(network.parameters())
    network = torch.compile(network) if way.endswith("compiled") else network
    step = step_of(network, optimizer, dtype, smoothing)
    images = [laid_out(torch.rand(batch, 1, 28, 28), way) for _ in range(_READY)]
    labels = [torch.randint(0, 10, (batch,)) for _ in range(_READY)]
    for index in range(5):
        step(images[index], labels[index])
    timings = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        for index in range(steps):
            loss = step(images[index % _READY], labels[index % _READY])
        loss.item()
        timings.append(1000 * (time.perf_counter() - started) / steps)
    return statistics.median(timings)


def throughput(arguments: argparse.Namespace) -> dict[str, object]:
    """Times one way, or each."""
    dtype, tried = getattr(torch, arguments.dtype), {}
    for way in WAYS if arguments.way == "all" else [arguments.way]:
        try:
            tried[way] = milliseconds(arguments.recipe, dtype, way, arguments.steps)
        except Exception as error:  # torch.compile has many of its own; one way of several
            if arguments.way != "all" or not way.endswith("compiled"):
                raise
            print(f"{way}: {type(error).__name__}: {str(error)[:160]}", file=sys.stderr)
    way = min(tried, key=tried.__getitem__)
    return {"way": way, "ms_per_step": tried[way], "tried": tried}


def read(folder: Path, prefix: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Reads images float32 [N, 1, 28, 28] in [0, 1] and labels int64 [N]."""
    content = gzip.decompress((folder / f"{prefix}-images-idx3-ubyte.gz").read_bytes())
    pixels = np.frombuffer(content, np.uint8, offset=16).reshape(-1, 1, 28, 28)
    content = gzip.decompress((folder / f"{prefix}-labels-idx1-ubyte.gz").read_bytes())
    labels = np.frombuffer(content, np.uint8, offset=8)
    images = torch.from_numpy(pixels.astype(np.float32) / 255)
    return images, torch.from_numpy(labels.astype(np.int64))


def accuracy(arguments: argparse.Namespace) -> dict[str, object]:
    """Trains speedrun's network once, and evaluates it."""
    torch.manual_seed(arguments.seed)
    make, make_optimizer, batch, smoothing = RECIPES["speedrun"]
    way, steps, dtype = "channels_last", arguments.steps, getattr(torch, arguments.dtype)
    images, labels = read(arguments.data_dir, "train")
    tests, answers = read(arguments.data_dir, "t10k")
    images, tests, network = (laid_out(part, way) for part in (images, tests, make()))
    optimizer = make_optimizer(network.parameters())
    one_cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.02, steps, pct_start=0.3)
    step = step_of(network, optimizer, dtype, smoothing, one_cycle)
    order = torch.cat([torch.randperm(len(images)) for _ in range(1 + steps * batch // 60_000)])
    for start in range(0, steps * batch, batch):
        taken = order[start : start + batch]
        step(images[taken], labels[taken])
    network.eval()
    right = 0
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        for start in range(0, len(tests), _TEST_BATCH):
            part = slice(start, start + _TEST_BATCH)
            right += int((network(tests[part]).argmax(1) == answers[part]).sum())
    reached, seconds = right / len(tests), time.perf_counter() - START
    return {
        "accuracy": reached,
        "reached": reached >= arguments.target,
        "seconds": seconds,
        "history": [[steps * batch / len(images), reached, seconds]],
    }


def main() -> None:
    """Measures, and prints JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=["throughput", "accuracy"])
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="speedrun")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--way", choices=["all", *WAYS], default="channels_last")
    parser.add_argument("--steps", type=int, help="60 of throughput, 700 of accuracy")
    parser.add_argument("--target", type=float, default=0.99)
    parser.add_argument("--data_dir", type=Path, help="for accuracy")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.what == "accuracy" and (arguments.recipe != "speedrun" or not arguments.data_dir):
        parser.error("accuracy: of --recipe=speedrun alone, and with a --data_dir")
    arguments.steps = arguments.steps or {"throughput": 60, "accuracy": 700}[arguments.what]
    told = {"throughput": throughput, "accuracy": accuracy}[arguments.what](arguments)
    print(json.dumps({"peer": f"torch {torch.__version__.partition('+')[0]}", **told}))


if __name__ == "__main__":
    main()

"""The network and recipe of configs/vae.py in PyTorch: how it ends, and what a step takes.

    python benchmarks/peers/vae.py --data_dir=FOLDER               ten epochs, and the test digits
    python benchmarks/peers/vae.py --data_dir=FOLDER --time        milliseconds a step

FOLDER holds MNIST's four IDX files. It needs PyTorch and NumPy, which may lie in an environment of
their own: nothing of JAX is imported. All images are in memory and a batch is gathered from them;
the last batch of an epoch, which is smaller, is left out, as it is there.
"""

import argparse
import gzip
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

BATCH_SIZE, LATENT_SIZE = 128, 20
_STEPS, _ROUNDS = 200, 5  # of --time


class VAE(nn.Module):
    """784 → 400 → 20 and back."""

    def __init__(self) -> None:
        """Makes five linear layers, which start as PyTorch has it."""
        super().__init__()
        self.fc1 = nn.Linear(784, 400)
        self.fc21 = nn.Linear(400, LATENT_SIZE)
        self.fc22 = nn.Linear(400, LATENT_SIZE)
        self.fc3 = nn.Linear(LATENT_SIZE, 400)
        self.fc4 = nn.Linear(400, 784)

    def forward(
        self, images: torch.Tensor, noise: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Maps images [B, 784] and noise [B, 20] to logits, means and log variances."""
        hidden = F.relu(self.fc1(images))
        means, log_variances = self.fc21(hidden), self.fc22(hidden)
        latents = means + noise * torch.exp(log_variances / 2)
        return self.fc4(F.relu(self.fc3(latents))), means, log_variances


def negative_elbo(model: nn.Module, images: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Returns the sum over a batch, in nats."""
    logits, means, log_variances = model(images, noise)
    entropy = F.binary_cross_entropy_with_logits(logits, images, reduction="sum")
    return entropy + 0.5 * (means**2 + log_variances.exp() - 1 - log_variances).sum()


def read(folder: Path, prefix: str) -> torch.Tensor:
    """Reads images as float32 [N, 784] in [0, 1]."""
    path = folder / f"{prefix}-images-idx3-ubyte.gz"
    pixels = np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=16)
    return torch.from_numpy(pixels.reshape(-1, 784).astype(np.float32) / 255)


def step_of(model: nn.Module) -> Callable[[torch.Tensor, torch.Tensor], None]:
    """Returns step(images, noise): one update by Adam at 1e-3, of the mean over the batch."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step(images: torch.Tensor, noise: torch.Tensor) -> None:
        optimizer.zero_grad()
        (negative_elbo(model, images, noise) / len(images)).backward()
        optimizer.step()

    return step


def train(images: torch.Tensor, epochs: int, seed: int) -> nn.Module:
    """Trains from a seed."""
    torch.manual_seed(seed)
    model = VAE()
    step = step_of(model)
    for _ in range(epochs):
        order = torch.randperm(len(images))
        for start in range(0, len(images) - BATCH_SIZE + 1, BATCH_SIZE):
            batch = images[order[start : start + BATCH_SIZE]]
            step(batch, torch.randn(len(batch), LATENT_SIZE))
    return model


def evaluate(model: nn.Module, images: torch.Tensor) -> float:
    """Returns the mean over all images, in nats."""
    with torch.no_grad():
        noise = torch.randn(len(images), LATENT_SIZE, generator=torch.Generator().manual_seed(0))
        return float(negative_elbo(model, images, noise)) / len(images)


def milliseconds(images: torch.Tensor, compiled: bool) -> float:
    """Returns the lowest of some rounds' means a step."""
    model = VAE()
    step = step_of(torch.compile(model) if compiled else model)
    rounds = []
    for _ in range(_ROUNDS + 1):  # the first one compiles and warms up
        started = time.perf_counter()
        for _ in range(_STEPS):
            batch = images[torch.randint(len(images), (BATCH_SIZE,))]
            step(batch, torch.randn(BATCH_SIZE, LATENT_SIZE))
        rounds.append(1000 * (time.perf_counter() - started) / _STEPS)
    print(f"compiled={compiled}: {statistics.median(rounds[1:]):.2f} ms, median of {_ROUNDS}")
    return min(rounds[1:])


def main() -> None:
    """Trains and evaluates, or takes the time."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--time", action="store_true", help="milliseconds a step instead")
    parser.add_argument("--compiled", action="store_true", help="with --time: torch.compile, too")
    arguments = parser.parse_args()
    told = {"torch": torch.__version__, "threads": torch.get_num_threads()}
    images = read(arguments.data_dir, "train")
    if arguments.time:
        ways = (False, True) if arguments.compiled else (False,)
        told |= {f"milliseconds_compiled_{way}".lower(): milliseconds(images, way) for way in ways}
    else:
        started = time.perf_counter()
        model = train(images, arguments.epochs, arguments.seed)
        told |= {"seed": arguments.seed, "seconds": time.perf_counter() - started}
        told |= {"negative_elbo": evaluate(model, read(arguments.data_dir, "t10k"))}
    print(json.dumps(told))


if __name__ == "__main__":
    main()

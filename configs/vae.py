"""A variational autoencoder: digits drawn again from twenty numbers, and new ones from noise.

    python launch.py --config=configs/vae.py

The network and the recipe of PyTorch's own example (pytorch/examples, vae/main.py): 784 → 400 → 20
→ 400 → 784, 652,824 parameters, cross-entropy of the pixels plus KL divergence, Adam at 1e-3,
batches of 128, 10 epochs. Pixels are probabilities in [0, 1], as there; the mean over a batch is
minimised instead of the sum, which Adam does not see.
"""

from ml_collections import ConfigDict

from mnist_flax.config import default_config


def get_config() -> ConfigDict:
    """Returns the recipe."""
    config = default_config()
    config.task = ConfigDict({"name": "autoencoder"})
    config.model = ConfigDict({"name": "vae"})
    config.optimizer = ConfigDict({"name": "adam", "learning_rate": 1e-3})
    config.batch_size = 128
    config.num_epochs = 10
    return config

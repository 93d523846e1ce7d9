"""Digits out of noise, as "Generative Adversarial Networks for Beginners" has them drawn.

    python launch.py --config=configs/dcgan.py

Jon Bruner's and Adit Deshpande's DCGAN (O'Reilly, June 2017), which the first tutorials point to:
3,594,022 parameters, three Adam optimizers (the discriminator's on images and on drawings, at 3e-4
each, the generator's at 1e-4), batches of 50 of the 55,000, 300 steps that train the discriminator
alone, then 100,000 in which the two take turns. Labels are not used.

As published, the generator normalises by the batch at hand, when it draws, too. The order of the
discriminator's two updates, which is not defined there, is images first.
"""

from ml_collections import ConfigDict

from mnist_flax.config import default_config


def get_config() -> ConfigDict:
    """Returns the recipe."""
    config = default_config()
    config.task = ConfigDict(
        {"name": "gan", "discriminator_learning_rate": 3e-4, "first_steps": 300, "judge": ""}
    )
    config.model = ConfigDict({"name": "dcgan"})
    config.optimizer = ConfigDict({"name": "adam", "learning_rate": 1e-4})
    config.data.train_split = "train[5000:]"
    config.batch_size = 50
    config.num_steps = 100_300
    config.eval_every_steps = 1000
    config.checkpoint_every_steps = 1000
    return config

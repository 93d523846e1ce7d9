"""The network of "Stepping Into Neural Networks", after TensorFlow's "A Guide to TF Layers".

    python launch.py --config=configs/tutorial.py

conv 5×5×32, ReLU → 28×28×32 → max-pool 2×2 → 14×14×32 → conv 5×5×64, ReLU → 14×14×64 → max-pool 2×2
→ 7×7×64 → dense 1024, ReLU → dropout 0.4 → dense 10: 3,274,634 parameters. SGD at 0.001, batches
of 100, 20,000 shuffled steps over 60,000 images. 25 minutes on two cores; test accuracy 0.975.

    python launch.py --config=configs/tutorial.py:quick

is the same network at a learning rate of 0.1 for 500 steps, for a first look.
"""

from ml_collections import ConfigDict

from mnist_flax.config import default_config
from mnist_flax.errors import UsageError


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; `variant` is what follows the colon, '' or 'quick'."""
    config = default_config()
    # The published log fits the fan-in uniform start that tf.layers had before TensorFlow 1.2;
    # 'glorot_uniform' is what a later TensorFlow would draw.
    config.model = ConfigDict(
        {"name": "tutorial", "dropout_rate": 0.4, "kernel_init": "lecun_uniform"}
    )
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.001
    config.batch_size = 100
    config.num_steps = 20_000
    config.log_every_steps = 100
    config.eval_every_steps = 1000
    config.checkpoint_every_steps = 1000
    if variant == "quick":
        config.optimizer.learning_rate = 0.1
        config.num_steps = 500
        config.log_every_steps = 50
        config.eval_every_steps = 100
    elif variant:
        raise UsageError(f"--config=tutorial:{variant}: the only variant is 'quick'.")
    return config

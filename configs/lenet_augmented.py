"""The network of "Convolutional Neural Net in Tensorflow" with batch-norm and more images.

    python launch.py --config=configs/lenet_augmented.py

conv 3×3×12 → max-pool 3×3/2 → batch-norm → 13×13×12 → conv 3×3×16 → max-pool 3×3/2 → batch-norm →
dropout 0.5 → 6×6×16 → 576 → dense 256, ReLU → dense 100, ReLU → dense 10, ReLU: 176,342 parameters.
Each training image is there six times: as it is, shifted by a pixel to four sides, and flipped.
Adam at 0.001, batches of 128, 30 epochs of 2,812 steps over 360,000 images made of 60,000 of all
70,000, drawn at random; evaluated on the other 10,000. About 25 minutes on two cores.

As published, seeds 0 to 2 end at 0.9946, 0.8964 and 0.9943: seeds 0 and 1 lose a class in their
first epoch, and seed 0 finds it again in its 22nd (see configs/lenet.py for the cause). 3 of 10
starts had lost a class or two after 300 steps. With --config.model.relu_logits=false none is lost,
and it reaches 0.995.
"""

from ml_collections import ConfigDict

from mnist_flax.config import default_config


def get_config() -> ConfigDict:
    """Returns the recipe."""
    config = default_config()
    config.model = ConfigDict(
        {
            "name": "lenet",
            "batch_norm": True,  # momentum 0.9, epsilon 1e-3
            "dropout_rate": 0.5,
            # Odd as published: a dropout follows the first batch-norm, too, but the second
            # convolution reads what lies before it.
            "first_dropout": False,
            # Odd as published: see configs/lenet.py.
            "relu_logits": True,
        }
    )
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 0.001
    config.batch_size = 128
    config.num_epochs = 30
    config.data.resplit = 0
    # Odd as published: flipped digits keep their labels, and most of them are no digits.
    config.data.extended = True
    return config

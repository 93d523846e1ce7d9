"""A small folder of pictures, and a TFDS directory of the same. Not a test itself."""

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from mnist_flax.config import default_config
from mnist_flax.data import folder, tfds_source

TRAIN, TEST = 47, 13  # pictures, of three classes


def made(folder: Path, side: int = 8) -> Path:
    """Writes train/<class>/*.png and test/<class>/*.png in grey, and returns the folder.

    The classes have 25, 14 and 8 pictures to train on.
    """
    random = np.random.default_rng(0)
    for split, counts in (("train", (25, 14, 8)), ("test", (6, 4, 3))):
        for label, count in enumerate(counts):
            place = folder / split / "abc"[label]
            place.mkdir(parents=True)
            for number in range(count):
                image = random.integers(0, 120, (side, side), np.uint8)
                image[2 * label : 2 * label + 2, 2:4] = 255
                Image.fromarray(image).save(place / f"{number:02}.png")
    return folder


def prepared(pictures: Path, root: Path) -> Path:
    """Writes the same pictures as a TFDS directory, and returns its root."""
    raw = folder.read_directory(pictures)
    assert raw is not None
    root.mkdir()
    tfds_source._write(raw, "abc", root)
    return root


def config_of(data_dir: Path, *, stream: bool, **fields: object) -> ConfigDict:
    """A config of these data; fields of `data` are given by name, batch_size is 6."""
    config: ConfigDict = default_config()
    config.batch_size = 6
    config.data.update(name="abc", data_dir=str(data_dir), stream=stream, **fields)
    return config

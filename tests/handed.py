"""Made data sets that may be handed in, as other libraries have them. Not a test itself."""

from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

NAMES = ["ankle", "boot", "coat", "dress"]


class Torch:
    """As torchvision's: (picture, label), with .classes."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, classes: Any = NAMES):
        self.images, self.labels, self.classes = images, labels, classes

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        return Image.fromarray(self.images[index]), int(self.labels[index])


class Face(Torch):
    """As Hugging Face's: {'image': …, 'label': …}, with .features."""

    key = "image"

    def __init__(self, images: np.ndarray, labels: np.ndarray, classes: Any = NAMES):
        super().__init__(images, labels, None)
        self.features = {self.key: "Image", "label": SimpleNamespace(names=classes)}

    def __getitem__(self, index: int) -> Any:
        picture, label = super().__getitem__(index)
        return {self.key: picture, "label": label}


class Cifar(Face):
    key = "img"


class Plain:
    """A sequence of whatever is given."""

    def __init__(self, *given: Any):
        self.given = given

    def __len__(self) -> int:
        return len(self.given)

    def __getitem__(self, index: int) -> Any:
        return self.given[index]

"""How a foreign picture is brought into the form of the training data: that follows from them.

MNIST's digits are laid out in one way, and a network trained on them knows no other; ink.py does
the same to any picture. What other data look like a layout of ours would spoil: it moves what tells
by its place, scales what tells by its size, and makes dark ink on white what they are not.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from mnist_flax.data.streamed_images import Images
from mnist_flax.errors import UserError

LAYOUTS = ("digit", "size", "none")
GROUNDS = ("dark", "light", "any")
_LAID_OUT_BY_NAME = ("mnist", "mnist_sample")  # in runs that did not keep a preparation
_LOOKED_AT = 1000  # images, evenly over the split
_NEAR = 32  # grey levels


class Preparation(NamedTuple):
    """What is done to a picture before a network is asked of it.

    Attributes:
      layout: 'digit': found, scaled into 20×20 and centred by mass in 28×28, light on black, as
        ink.py does; 'size': scaled to the network's size; 'none': taken as it is.
      ground: 'dark' or 'light': a picture on a plain ground of the other kind is inverted; 'any':
        none is.
    """

    layout: str
    ground: str = "any"


DIGIT = Preparation("digit", "dark")
AS_IS = Preparation("none")


def derive(images: Images) -> Preparation:
    """Returns how pictures become like these: uint8 [N, H, W, C], the images of training.

    'digit' where nearly all are laid out as MNIST's. Otherwise 'size', on the ground that at least
    half of them have and at most one in a hundred has the other way round.
    """
    grey = _grey(images[:: -(-len(images) // _LOOKED_AT)])
    if images.shape[1:] == (28, 28, 1) and _are_laid_out(grey).mean() >= 0.95:
        return DIGIT
    grounds = _grounds(grey)
    dark, light = (grounds < 0).mean(), (grounds > 0).mean()
    if dark >= 0.5 and light <= 0.01:
        return Preparation("size", "dark")
    if light >= 0.5 and dark <= 0.01:
        return Preparation("size", "light")
    return Preparation("size", "any")


def on_its_ground(image: np.ndarray, ground: str) -> np.ndarray:
    """Inverts uint8 [H, W, C] if it lies on a plain ground of the other kind."""
    return 255 - image if on_the_other(image[None], ground)[0] else image


def on_the_other(images: np.ndarray, ground: str) -> np.ndarray:
    """Says which of uint8 [N, H, W, C] lie on a plain ground of the other kind: bool [N]."""
    other = {"dark": 1, "light": -1}.get(ground)
    return np.asarray(_grounds(_grey(images)) == other)


def of_run(trained_on: Mapping[str, Any]) -> Preparation:
    """Returns the preparation that a run kept; of one that kept none, what its data's name says.

    Args:
      trained_on: as workdir/metadata.py describes the data.

    Raises:
      UserError: it is none of ours.
    """
    if not is_kept(trained_on):
        mnist = trained_on.get("name") in _LAID_OUT_BY_NAME
        mnist = mnist and list(trained_on.get("image_shape", ())) == [28, 28, 1]
        return DIGIT if mnist else Preparation("size")
    kept = trained_on["preparation"]
    layout, ground = (kept.get(name) for name in Preparation._fields)
    if layout not in LAYOUTS or ground not in GROUNDS:
        raise UserError(
            f"dataset.preparation={kept} of the save: a layout is {', '.join(LAYOUTS)}, a ground "
            f"{', '.join(GROUNDS)}; another version of this package wrote it. Say what is to be "
            "done: DIGIT (center=true) or AS_IS (center=false)."
        )
    return Preparation(layout, ground)


def is_kept(trained_on: Mapping[str, Any]) -> bool:
    """Says whether a run kept its preparation; those of older versions did not."""
    return isinstance(trained_on.get("preparation"), Mapping)


def told(preparation: Preparation, shape: tuple[int, int, int]) -> str:
    """Returns a preparation in words, for a network that takes [H, W, C]."""
    form = f"{shape[1]}×{shape[0]} pixels in {'grey' if shape[2] == 1 else 'colour'}"
    if preparation.layout == "digit":
        return "the ink is found, scaled into 20×20, centred by mass in 28×28, light on black"
    if preparation.layout == "none":
        return f"taken as they are, {form}"
    ground = {"any": "", "dark": ", on a dark ground", "light": ", on a light ground"}
    return f"scaled to {form}{ground[preparation.ground]}"


def _grey(images: np.ndarray) -> np.ndarray:
    """uint8 [N, H, W, C] -> float32 [N, H, W]."""
    return images.mean(-1, dtype=np.float32)


def _grounds(grey: np.ndarray) -> np.ndarray:
    """Whether images lie on a plain dark ground (-1), a light one (1) or none (0): int [N].

    Plain: three quarters of the border are near its median, which is in the outer quarter of grey.
    """
    sides = (grey[:, 0], grey[:, -1], grey[:, :, 0], grey[:, :, -1])
    border = np.concatenate(sides, -1)
    level = np.median(border, -1)
    plain = (np.abs(border - level[:, None]) <= _NEAR).mean(-1) >= 0.75
    return plain * ((level > 191).astype(int) - (level < 64))


def _are_laid_out(grey: np.ndarray) -> np.ndarray:
    """Which of these lie as MNIST's digits do: float32 [N, 28, 28] -> bool [N].

    Light on black, the longer side of the ink about 20, the centre of mass at (14, 14).
    """
    ink: np.ndarray = grey > 51  # a fifth, as in ink.py
    heights, widths = _extents(ink.max(2)), _extents(ink.max(1))
    longer = np.maximum(heights, widths)
    mass = np.maximum(grey.sum((1, 2)), 1)
    steps = np.arange(28, dtype=np.float32)
    centres = np.stack([grey.sum(2) @ steps, grey.sum(1) @ steps]) / mass
    return (longer >= 17) & (longer <= 20) & (np.abs(centres - 14) <= 1).all(0)


def _extents(marked: np.ndarray) -> np.ndarray:
    """From the first mark to the last: bool [N, n] -> int [N]."""
    first, last = marked.argmax(1), marked.shape[1] - 1 - marked[:, ::-1].argmax(1)
    return np.where(marked.any(1), last - first + 1, 0)

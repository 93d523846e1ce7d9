"""A photograph or a drawing of a digit -> the layout of MNIST's pictures.

A network trained on MNIST has seen one kind of picture only: light ink on a black ground, the
digit scaled to a box of 20×20 and laid by its centre of mass into 28×28. laid_out() does the same
to any picture; whatever is left undone here, the network answers for. Sizes and centring: LeCun,
Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", Proc. IEEE 86
(1998), section III.A.

PIL and SciPy are imported inside the functions: a run without pictures does not load them.
"""

from typing import NamedTuple

import numpy as np

BOX = 20  # longer side of the ink in an MNIST picture
SIDE = 28
_WORKING_SIDE = 640  # a larger picture is averaged down to this before its ink is looked for

_POWERS = ((0, 0), (0, 1), (1, 0), (0, 2), (1, 1), (2, 0))  # of y and x in a quadratic


class Ink(NamedTuple):
    """What stands out from the ground of a picture.

    Attributes:
      amount: how much ink each pixel holds, 0 to 1: float32 [h, w], cut to the ink.
      light: whether it is lighter than the ground.
      edge: the share of the picture's outermost pixels that are ink.
      size: (height, width) of the picture that amount was cut from.
    """

    amount: np.ndarray
    light: bool
    edge: float
    size: tuple[int, int]


class NoInkError(ValueError):
    """Nothing in a picture stands out from its ground."""


def find_ink(pixels: np.ndarray) -> Ink:
    """Finds what stands out from the ground of uint8 [h, w] to one side.

    That is by more than the noise and a speck of dust. A large picture is averaged down before.

    Raises:
        NoInkError: nothing does.
    """
    from PIL import Image

    factor = -(-max(pixels.shape) // _WORKING_SIDE)
    grey = np.asarray(Image.fromarray(pixels).reduce(factor), np.float32)
    ground, noise = _ground(grey)
    ink = grey - ground
    sign = np.sign(ink.mean())
    ink *= sign  # the bare ground averages 0, so the sign is that of the ink
    ink[ink < max(4 * noise, 0.2 * ink.max())] = 0  # a fifth: blur and JPEG's ripples
    ink[~_large_pieces(ink > 0)] = 0
    # MNIST's strokes are flat and full; the upper quartile is a stroke's inside, without its noise.
    full = float(np.percentile(ink[ink > 0], 75)) if ink.any() else 0.0
    if full < 6 * noise:  # on bare paper too a pixel in 30,000 passes the 4 sigma above
        raise NoInkError("no ink stands out")
    edge = np.concatenate([ink[0], ink[-1], ink[:, 0], ink[:, -1]]) > 0
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    cut = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Ink(np.minimum(cut / full, 1), bool(sign > 0), float(edge.mean()), ink.shape)


def _ground(grey: np.ndarray) -> tuple[np.ndarray, float]:
    """The light of the bare ground, a quadratic in x and y, and its noise: [h, w] -> [h, w], sigma.

    Begins with the median of the border, which may have ink on it here and there, and is fitted
    again and again to all pixels that agree with the last fit.
    """
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in grey.shape)
    few = tuple(slice(None, None, max(1, n // 64)) for n in grey.shape)  # enough for six numbers
    sample = grey[few]
    rows, columns = np.meshgrid(y[few[0]], x[few[1]], indexing="ij")
    terms = np.stack([rows**i * columns**j for i, j in _POWERS], -1)
    border = np.maximum(np.abs(rows), np.abs(columns)) > 0.9
    agrees = _near(np.abs(sample - np.median(sample[border])), border, sample)
    for _ in range(10):
        # By the normal equations, which are conditioned well for terms between -1 and 1: an SVD of
        # thousands of rows would take longer than all the rest.
        fitted = terms[agrees].astype(np.float64)
        normal, right = fitted.T @ fitted, fitted.T @ sample[agrees]
        weights = np.linalg.lstsq(normal, right, rcond=None)[0].astype(np.float32)
        error = np.abs(sample - terms @ weights)
        before, agrees = agrees, _near(error, agrees, sample)
        if (agrees == before).all():
            break
    # 1.4826: from the median of |error| to a normal sigma. At least 1: grey levels are rounded.
    noise = max(1.0, 1.4826 * float(np.median(error[agrees])))
    coefficients = np.zeros((3, 3), np.float32)
    coefficients[tuple(zip(*_POWERS, strict=True))] = weights
    return np.polynomial.polynomial.polygrid2d(y, x, coefficients), noise


def _near(error: np.ndarray, agrees: np.ndarray, sample: np.ndarray) -> np.ndarray:
    """Which pixels are ground, as far as those that agreed tell: [h, w] each -> bool [h, w]."""
    return error <= 4 * np.median(error[agrees]) + 0.05 * np.ptp(sample)


def _large_pieces(mask: np.ndarray) -> np.ndarray:
    """Drops the pieces smaller than a twentieth of the largest: bool [h, w] -> bool [h, w].

    Pieces are seen on a grid of at most 64×64 blocks, on which blocks that touch are one.
    """
    from scipy import ndimage

    block = -(-max(mask.shape) // 64)
    height, width = (-(-n // block) for n in mask.shape)
    padded = np.pad(mask, [(0, -n % block) for n in mask.shape])
    area = padded.reshape(height, block, width, block).sum((1, 3))
    piece, _ = ndimage.label(area, structure=np.ones((3, 3)))
    areas = np.bincount(piece.ravel(), area.ravel())
    large = (areas >= areas.max() / 20)[piece]
    return mask & large.repeat(block, 0).repeat(block, 1)[: mask.shape[0], : mask.shape[1]]


def laid_out(found: Ink) -> np.ndarray:
    """Scales the ink into 20×20 and centres it: uint8 [28, 28], the brightest ink 255 on 0.

    In MNIST the centre of mass lies within half a pixel of pixel (14, 14), counted from 0.
    """
    from PIL import Image

    ink = found.amount
    height, width = (max(1, round(n * BOX / max(ink.shape))) for n in ink.shape)
    small = Image.fromarray(ink).resize((width, height), Image.Resampling.LANCZOS)
    digit = np.clip(np.asarray(small), 0, 1)
    output = np.zeros((SIDE, SIDE), np.float32)
    window = []
    for axis, n in enumerate(digit.shape):
        mass = digit.sum(1 - axis)
        centre = (mass * np.arange(n)).sum() / mass.sum()
        start = min(max(round(14 - centre), 0), SIDE - n)  # a lopsided one must not leave the frame
        window.append(slice(start, start + n))
    output[tuple(window)] = digit * (255 / digit.max())
    return output.round().astype(np.uint8)

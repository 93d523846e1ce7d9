"""What may be wrong with a picture of one digit that could be read: several digits, or no ink.

SciPy is imported inside the functions: a run without pictures does not load it.
"""

import itertools

import numpy as np

from mnist_flax.data.ink import Ink

_PHOTOGRAPH = 64  # pixels a side; what is smaller was made by hand or by a program
_SEVERAL = "several drawings stand side by side, where one is expected; cut it to one of them"
_AREA = "a whole area was taken for ink, as of paper on a table; cut it to the bare paper"


def doubt(found: Ink) -> str:
    """Returns in a line what makes a picture unlike one digit on a ground; '' for nothing.

    The limits were measured on MNIST's 10,000 test digits on clean paper, of which they doubt less
    than one in a thousand, most of them broken in two; see tests/data/test_doubts.py.
    """
    mask = found.amount > 0
    if found.edge >= 0.1 or (found.light and max(found.size) >= _PHOTOGRAPH and _is_area(mask)):
        return _AREA
    return _SEVERAL if _are_several(mask) else ""


def _are_several(mask: np.ndarray) -> bool:
    """Whether two large pieces stand clear of each other: bool [h, w], cut to the ink.

    Large: a fifth of the largest one's area and three fifths of its length. The parts of a digit
    that broke in two lie over each other more often than side by side, where less is asked.
    """
    from scipy import ndimage

    piece, count = ndimage.label(mask, structure=np.ones((3, 3)))
    if count < 2:
        return False
    areas = np.bincount(piece.ravel())[1:]
    boxes = [
        [(side.start, side.stop) for side in box]
        for box, area in zip(ndimage.find_objects(piece), areas, strict=True)
        if area >= areas.max() / 5
    ]
    lengths = [max(stop - start for start, stop in box) for box in boxes]
    longest = max(lengths)
    large = [box for box, length in zip(boxes, lengths, strict=True) if length >= 0.6 * longest]
    for one, other in itertools.combinations(large, 2):
        down, across = (
            max(one[axis][0], other[axis][0]) - min(one[axis][1], other[axis][1]) for axis in (0, 1)
        )
        if across >= -0.05 * longest or down >= 0.1 * longest:
            return True
    return False


def _is_area(mask: np.ndarray) -> bool:
    """Whether ink is no strokes but one area with a few holes: bool [h, w], cut to the ink.

    An area fills its box, and somewhere it is a third as thick as it is long.
    """
    from scipy import ndimage

    step = -(-max(mask.shape) // 128)
    small = np.pad(mask[::step, ::step], 1)
    filled = ndimage.binary_fill_holes(small)
    thick = 2 * ndimage.distance_transform_edt(small).max() / max(small.shape)
    box = small[1:-1, 1:-1].size
    return bool(thick >= 0.34 and filled.sum() >= 0.65 * box and small.sum() >= 0.7 * filled.sum())

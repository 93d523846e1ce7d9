"""Images and values -> tiles, and many tiles -> one picture: pixels, without a figure.

The colours of values stand in show/palette.py.
"""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib import image
from matplotlib.colors import LinearSegmentedColormap

from mnist_flax.show.palette import AMOUNT, SIGNED

TILE = 56  # pixels: twice the side of an MNIST image
_GAP = 4
_SIGNED = LinearSegmentedColormap.from_list("signed", SIGNED)
_AMOUNT = LinearSegmentedColormap.from_list("amount", AMOUNT)


def photo(pixels: np.ndarray) -> np.ndarray:
    """Shows an image, uint8 [H, W, C], as RGBA: grey unless it has three channels."""
    if pixels.shape[2] != 3:
        pixels = np.repeat(pixels.mean(-1, keepdims=True).astype(np.uint8), 3, axis=2)
    return np.concatenate([pixels, np.full_like(pixels[..., :1], 255)], axis=2)


def heat(values: np.ndarray) -> np.ndarray:
    """Shows values [h, w] from their smallest (black) to their largest (bright): RGBA [h, w, 4]."""
    span = np.ptp(values)
    level = (values - values.min()) / (span if span > 0 else 1)
    return _AMOUNT(level, bytes=True)


def signed(values: np.ndarray, largest: float) -> np.ndarray:
    """Shows values [h, w] from -largest (blue) through 0 (grey) to largest (red): RGBA."""
    return _SIGNED(0.5 + values / (2 * max(largest, 1e-30)), bytes=True)


def mosaic(tiles: Sequence[np.ndarray], columns: int, side: int = TILE) -> np.ndarray:
    """Lays tiles, each RGBA [h, w, 4], out in rows: uint8 [h', w', 4], nothing between them.

    Each is scaled to `side` pixels along its longer side, by repeating or leaving out pixels.
    """
    rows = -(-len(tiles) // columns)
    columns = min(columns, len(tiles))
    step = side + _GAP
    sheet = np.zeros((rows * step - _GAP, columns * step - _GAP, 4), np.uint8)
    for index, tile in enumerate(tiles):
        top, left = step * (index // columns), step * (index % columns)
        longer = max(tile.shape[:2])
        height, width = (max(1, side * pixels // longer) for pixels in tile.shape[:2])
        chosen_rows = np.arange(height) * tile.shape[0] // height
        chosen_columns = np.arange(width) * tile.shape[1] // width
        sheet[top : top + height, left : left + width] = tile[chosen_rows][:, chosen_columns]
    return sheet


def picture_png(pixels: np.ndarray) -> bytes:
    """Encodes pixels uint8 [h, w, 4] as they are."""
    buffer = io.BytesIO()
    image.imsave(buffer, np.ascontiguousarray(pixels), format="png")
    return buffer.getvalue()

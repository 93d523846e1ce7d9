"""Arrays drawn as pictures without a plotting library: what is shown of an evaluation.

Pure NumPy; every image is uint8 [height, width, 3].
"""

import math

import numpy as np

from mnist_flax.show.palette import SCHEMES, rgb

_SIDE = 320  # pixels, about, of a whole confusion matrix
_FILTER_SIDE = 40  # pixels, about, of a filter
_LIGHT = SCHEMES["light"]  # TensorBoard's page may be dark, but a picture has its own ground
_WHITE, _RIGHT, _WRONG = (
    np.array(rgb(colour), np.float32) for colour in (_LIGHT.page, _LIGHT.first, _LIGHT.second)
)


def draw_evaluation(
    labels: np.ndarray,
    classes: np.ndarray,
    num_classes: int,
    filters: tuple[str, np.ndarray] | None,
) -> dict[str, np.ndarray]:
    """Draws the confusion matrix and, if the network has any, the filters of its first layer.

    Args:
      labels: int32 [N].
      classes: int32 [N], predicted.
      num_classes: K.
      filters: the layer's name and its kernel float32 [h, w, C, F].

    Returns:
      {'confusion_matrix': …, 'filters/conv1': …}.
    """
    images = {"confusion_matrix": confusion_image(labels, classes, num_classes)}
    if filters is not None:
        name, kernel = filters
        images[f"filters/{name}"] = filters_image(kernel)
    return images


def confusion_image(labels: np.ndarray, classes: np.ndarray, num_classes: int) -> np.ndarray:
    """Draws which classes are taken for which: a row of squares for each label.

    The square in column k is the darker, the larger the share of the label's images that is taken
    for k: violet on the diagonal, amber elsewhere. Darkness is the share's cube root, so that
    mistakes are seen: one in a thousand has a tenth of the full colour.

    Args:
      labels: int32 [N].
      classes: int32 [N], predicted.
      num_classes: K; a square is of 320 / K pixels, at least one.
    """
    counts = np.zeros((num_classes, num_classes), np.float32)
    np.add.at(counts, (labels, classes), 1)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    colours = np.where(np.eye(num_classes, dtype=bool)[..., None], _RIGHT, _WRONG)
    cells = _WHITE + np.cbrt(shares)[..., None] * (colours - _WHITE)
    squares = cells.round().astype(np.uint8)[:, :, None, None, :]
    return _mosaic(squares, _SIDE // num_classes, gap=1, ground=224)


def filters_image(kernel: np.ndarray) -> np.ndarray:
    """Draws the filters of a convolution side by side, in the order of their features.

    Grey is 0, white and black are plus and minus the largest weight of all. A kernel that takes
    three channels is drawn in colours, one of another number as the mean over them.

    Args:
      kernel: float32 [h, w, C, F].
    """
    height, width, channels, features = kernel.shape
    values = kernel if channels == 3 else np.repeat(kernel.mean(2, keepdims=True), 3, axis=2)
    limit = np.abs(values).max() or 1.0
    tiles = (127.5 + 127.5 * values / limit).round().astype(np.uint8).transpose(3, 0, 1, 2)
    columns = math.ceil(math.sqrt(features))
    rows = math.ceil(features / columns)
    blank = np.full((rows * columns - features, height, width, 3), 255, np.uint8)
    grid = np.concatenate([tiles, blank]).reshape(rows, columns, height, width, 3)
    return _mosaic(grid, _FILTER_SIDE // max(height, width), gap=4, ground=255)


def grid_image(pictures: np.ndarray, columns: int) -> np.ndarray:
    """Lays pictures side by side, row after row, twice as large.

    Args:
      pictures: uint8 [N, H, W, C]; one of other than three channels is drawn as their mean.
      columns: how many stand in a row; the last row is filled up with white.
    """
    count, height, width, channels = pictures.shape
    if channels not in (1, 3):
        pictures = pictures.mean(-1, keepdims=True).round().astype(np.uint8)
    pictures = np.broadcast_to(pictures, (count, height, width, 3))
    rows = math.ceil(count / columns)
    blank = np.full((rows * columns - count, height, width, 3), 255, np.uint8)
    grid = np.concatenate([pictures, blank]).reshape(rows, columns, height, width, 3)
    return _mosaic(grid, magnification=2, gap=2, ground=255)


def _mosaic(tiles: np.ndarray, magnification: int, gap: int, ground: int) -> np.ndarray:
    """Lays tiles [R, S, h, w, 3] out in a grid, with gaps between and about them."""
    n = max(1, magnification)
    large = tiles.repeat(n, 2).repeat(n, 3)
    framed = np.pad(large, ((0, 0), (0, 0), (gap, 0), (gap, 0), (0, 0)), constant_values=ground)
    rows, columns, height, width, _ = framed.shape
    picture = framed.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, 3)
    return np.pad(picture, ((0, gap), (0, gap), (0, 0)), constant_values=ground)

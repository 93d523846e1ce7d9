"""Pictures -> the bytes of a PNG or WebP file. PIL is imported inside the functions."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np


def png(picture: np.ndarray) -> bytes:
    """Returns a picture uint8 [H, W, 3] as a PNG file's bytes."""
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(picture).save(content, "PNG")
    return content.getvalue()


def film(frames: Sequence[Path], milliseconds: int = 250) -> bytes:
    """Returns an animated WebP, repeated for ever, that stays on its last frame for a while.

    Args:
      frames: PNG files, all of one size; at least one.
      milliseconds: that a frame is shown for.
    """
    from PIL import Image

    pictures = [Image.open(path).convert("RGB") for path in frames]
    shown = [milliseconds] * (len(pictures) - 1) + [8 * milliseconds]
    content = io.BytesIO()
    pictures[0].save(
        content,
        "WEBP",
        save_all=True,
        append_images=pictures[1:],
        duration=shown,
        loop=0,
        quality=50,
    )
    return content.getvalue()

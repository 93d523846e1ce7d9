"""A user's own pictures: `train/<class>/*.png` and `test/<class>/*.png` (or .jpg, .jpeg).

The only importer of Pillow among the sources, where it is used.
"""

import contextlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mnist_flax.data.dataset import LARGEST, Raw, Split
from mnist_flax.data.pictures import PictureError, opened
from mnist_flax.errors import UserError

if TYPE_CHECKING:
    from PIL import Image, ImageFile

SUFFIXES = (".png", ".jpg", ".jpeg")
_ON_A_CANVAS = 100  # pictures that are decoded side by side
_LITTER = ("thumbs.db", "desktop.ini")  # what Windows leaves; names with a dot are hidden anyway


def read_directory(directory: Path) -> Raw | None:
    """Reads `train/<class>/*` and, where it is there, `test/<class>/*`: uint8 [N, H, W, C].

    The classes are the folders of train, sorted, as numbers when all are whole numbers; their
    pictures follow class by class, by name, the same on every machine. So a slice such as
    `train[:100]` holds few classes, and training needs `shuffle`. All pictures have one size
    and are all grey (C = 1) or all colour (C = 3), see `pixels`. Hidden files are ignored.

    Returns None without a folder `train`; raises UserError, naming the file, otherwise.
    """
    if not (directory / "train").is_dir():
        return None
    train = _class_folders(directory / "train")
    class_names = sorted(train, key=_class_order(list(train)))
    splits, first = {}, None
    for split in ("train", "test"):
        if not (directory / split).is_dir():
            continue
        folders = _class_folders(directory / split)
        unknown = sorted(set(folders) - set(train))
        if unknown:
            raise UserError(f"{folders[unknown[0]]}: train has no class {unknown[0]!r}. Add it.")
        pictures = [
            (path, label)
            for label, name in enumerate(class_names)
            if name in folders
            for path in _pictures(folders[name])
        ]
        first = first or pictures[0][0]
        splits[split] = _read(pictures, first)
    return Raw(splits, tuple(class_names), f"picture folders in {directory}")


def _class_order(names: list[str]) -> Callable[[str], tuple[int, str]] | None:
    if all(name.isdecimal() for name in names):
        return lambda name: (int(name), name)
    return None


def _visible(folder: Path) -> list[Path]:
    paths = sorted(folder.iterdir(), key=lambda path: path.name)
    return [p for p in paths if not p.name.startswith(".") and p.name.lower() not in _LITTER]


def _class_folders(folder: Path) -> dict[str, Path]:
    paths = _visible(folder)
    for path in paths:
        if not path.is_dir():
            raise UserError(f"{path} is no folder. Put pictures into one folder for each class.")
    if not paths:
        raise UserError(f"{folder} is empty. Put pictures into one folder for each class in it.")
    return {path.name: path for path in paths}


def _pictures(folder: Path) -> list[Path]:
    paths = _visible(folder)
    for path in paths:
        if path.suffix.lower() not in SUFFIXES or not path.is_file():
            raise UserError(f"{path} is not a picture: want {', '.join(SUFFIXES)}. Move it away.")
    if not paths:
        raise UserError(f"{folder} holds no pictures ({', '.join(SUFFIXES)}). Add some.")
    return paths


def _read(pictures: list[tuple[Path, int]], first: Path) -> Split:
    expected = read_picture(first)
    if len(pictures) * expected.size > LARGEST:
        got = f"{len(pictures):,} pictures of {_describe(expected)}"
        raise UserError(
            f"{pictures[0][0].parent.parent}: {got} unpack into more than {LARGEST:,} bytes. "
            "Scale them down."
        )
    images = np.empty((len(pictures), *expected.shape), np.uint8)
    for index, (path, _) in enumerate(pictures):
        image = read_picture(path)
        if image.shape != expected.shape:
            got, want = _describe(image), _describe(expected)
            alike = "/".join(first.parts[-3:])
            raise UserError(f"{path} is {got}, but {alike} is {want}. Make all alike.")
        images[index] = image
    return Split(images, np.array([label for _, label in pictures], np.int32))


def _describe(image: np.ndarray) -> str:
    height, width, channels = image.shape
    return f"{width}x{height} {'grey' if channels == 1 else 'colour'}"


def read_picture(path: Path) -> np.ndarray:
    """Returns a PNG or JPEG file, upright, as uint8 [H, W, C]; UserError, naming it, if it is none.

    An EXIF orientation is applied; of an animation the first frame is taken.
    """
    try:
        with path.open("rb") as file, opened(file) as image:
            return pixels(image, upright=True)
    except PictureError as error:
        raise UserError(f"{path} cannot be read: {error}.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}. Check the file.") from None


def pixels(file: "ImageFile.ImageFile", *, upright: bool = False) -> np.ndarray:
    """Returns a picture as uint8 [H, W, 1] when grey or black-and-white (0, 255), else [H, W, 3].

    A palette is resolved to colour. An alpha channel is dropped where it is opaque all over;
    raises PictureError where it is not, and for more than 8 bits or other colour models. With
    `upright` an EXIF orientation is applied.
    """
    from PIL import ImageOps

    image: Image.Image = file
    mode = image.mode
    # Pillow cuts 16-bit colour to 8 bits without a word; only the decoder's name tells.
    if mode.startswith("I") or any(";16" in str(tile.args) for tile in file.tile):
        raise PictureError("it has 16 bits a channel; save it with 8")
    if upright:
        ImageOps.exif_transpose(image, in_place=True)
    if mode in ("L", "P", "RGB") and "transparency" in image.info:
        image = image.convert("LA" if mode == "L" else "RGBA")
    elif mode in ("1", "P"):
        image = image.convert("L" if mode == "1" else "RGB")
    if image.mode in ("LA", "RGBA"):
        if image.getchannel("A").getextrema() != (255, 255):
            raise PictureError("it is transparent in places; flatten it onto a background first")
        image = image.convert(image.mode[:-1])
    if image.mode not in ("L", "RGB"):
        raise PictureError(f"its mode is {mode}; save it as 8-bit grey (L) or colour (RGB)")
    array = np.asarray(image)
    return array[..., np.newaxis] if array.ndim == 2 else array


def decode(data: Sequence[bytes], images: np.ndarray, first: int = 0) -> None:
    """Decodes PNG or JPEG pictures, as they lie in a record file, into images uint8 [N, H, W, C].

    Such files have checksums of their own. Raises PictureError, a ValueError, for other bytes, and
    for pictures of another size or number of channels.
    """
    for start in range(0, len(data), _ON_A_CANVAS):
        block = slice(start, start + _ON_A_CANVAS)
        _decode_block(data[block], images[block], first + start)


def _decode_block(data: Sequence[bytes], images: np.ndarray, first: int) -> None:
    """Decodes a few pictures on one canvas: an array of its own for each takes a fifth longer."""
    from PIL import Image

    height, width, channels = shape = images.shape[1:]
    plain = "L" if channels == 1 else "RGB", (width, height)
    canvas, others = Image.new(plain[0], (width, height * len(data))), []
    for index, one in enumerate(data):
        # Most pictures are what they should be; `opened` takes half as long again, and tells of
        # the others what is wrong with them.
        with contextlib.suppress(Exception):
            image = Image.open(io.BytesIO(one), formats=("PNG", "JPEG"))
            if (image.mode, image.size) == plain and "transparency" not in image.info:
                canvas.paste(image, (0, height * index))
                continue
        others.append(index)
    images[:] = np.asarray(canvas).reshape(images.shape)
    for index in others:
        with opened(io.BytesIO(data[index]), verify=False) as image:
            picture = pixels(image)
        if picture.shape != shape:  # NumPy would stretch a grey picture over three channels
            raise PictureError(
                f"picture {first + index} is {list(picture.shape)}, not {list(shape)}"
            )
        images[index] = picture


def encode(image: np.ndarray) -> bytes:
    """Returns a picture, uint8 [H, W, C] with C = 1 or 3, as the bytes of a PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "PNG")
    return buffer.getvalue()

"""Data sets of other libraries, read item by item: torchvision's, Hugging Face's, TFDS's sources.

Whatever has __len__ and __getitem__. An item is (image, label), or a mapping with the keys 'image'
('img' in Hugging Face's CIFAR-10) and 'label'. Nothing of these libraries is imported.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mnist_flax.data import picture_files
from mnist_flax.data.dataset import LARGEST, Split
from mnist_flax.data.decoding import PictureError
from mnist_flax.data.scaling import scaled_note, sized
from mnist_flax.errors import UsageError, where_it_failed

_KEYS = ("image", "img")
_MOST = 2**31 - 1  # what a label may be, as int32 holds it


def read_items(
    items: Any, which: str, side: int | None, report: Callable[[str], None]
) -> tuple[Split, tuple[str, ...]]:
    """Returns all items: images uint8 [N, H, W, C] with C = 1 or 3, labels int32 [N]; and notes.

    Images are of Pillow, or arrays uint8 [H, W] or [H, W, C]; labels are whole numbers.

    Args:
      items: with __len__ and __getitem__, asked for 0, 1, …, once each.
      which: 'train' or 'eval', for messages.
      side: scales every image to side × side pixels; None refuses different sizes.
      report: gets a line before they are read.

    Raises:
      UsageError: an item is something else, or unlike the first, or cannot be had; its index is
        named.
    """
    count = _length(items, which)
    report(f"Reading the {count:,} items of data: {which}.")
    images, labels, sizes = np.empty(0, np.uint8), np.empty(count, np.int32), set()
    for index in range(count):
        where = f"data: {which}[{index}]"
        image, labels[index] = _item(items, index, where)
        sizes.add(image.shape[:2])
        image = sized(image, side)
        if index == 0:
            images = _room(count, image.shape, which)
        if image.shape != images.shape[1:]:
            sizes_differ = image.shape[:2] != images.shape[1:3]
            raise UsageError(
                f"{where}: its image is {list(image.shape)}, but that of {which}[0] is "
                f"{list(images.shape[1:])}. Make all alike"
                f"{'; config.data.resize=28 scales them' if sizes_differ else ''}."
            )
        images[index] = image
    scaled = sizes - {(side, side)} if side is not None else ()
    notes = (scaled_note(set(scaled), side),) if side is not None and scaled else ()
    return Split(images, labels), notes


def class_names(items: Any, which: str) -> tuple[str, ...]:
    """Returns the class names that a data set offers; () for none.

    As torchvision's `.classes`, or Hugging Face's `.features['label'].names`.

    Raises:
      UsageError: what it offers are no names.
    """
    names, features = getattr(items, "classes", None), getattr(items, "features", None)
    offered = "classes"
    if names is None and isinstance(features, Mapping):
        names, offered = getattr(features.get("label"), "names", None), "features['label'].names"
    if names is None:
        return ()
    are_names = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    if not are_names or not names or len({*names}) < len(names):
        shown = repr(names)[:80]
        raise UsageError(
            f"data: {which}.{offered} is {shown}: want a list of different names, one a class."
        )
    return tuple(names)


def _length(items: Any, which: str) -> int:
    if not (hasattr(items, "__len__") and hasattr(items, "__getitem__")):
        raise UsageError(
            f"data: {which} is a {type(items).__name__}, which has no length or no items by number "
            "(__len__, __getitem__). Give a data set that has, or arrays."
        )
    try:
        count = len(items)
    except Exception as error:  # whatever somebody's own data set raises
        reason = where_it_failed(error, __file__)
        raise UsageError(f"data: the length of {which} fails: {reason}") from error
    if count == 0:
        raise UsageError(f"data: {which} has no items.")
    return count


def _item(items: Any, index: int, where: str) -> tuple[np.ndarray, int]:
    """Returns an item as uint8 [H, W, C] and its label."""
    try:
        item = items[index]
    except Exception as error:  # whatever somebody's own data set raises
        raise UsageError(f"{where}: fails: {where_it_failed(error, __file__)}") from error
    if isinstance(item, Mapping):
        key = next((key for key in _KEYS if key in item), None)
        if key is None or "label" not in item:
            raise UsageError(
                f"{where}: has the keys {', '.join(map(repr, item))}: want 'image' (or 'img') and "
                "'label'. Give those these names."
            )
        return _image(item[key], where), _label(item["label"], where)
    if not isinstance(item, tuple | list) or len(item) != 2:
        size = f" of {len(item)}" if isinstance(item, tuple | list) else ""
        raise UsageError(
            f"{where}: is of the type {type(item).__name__}{size}: "
            "want (image, label), or a mapping with 'image' and 'label'. Of arrays give four, "
            "(images, labels, eval_images, eval_labels)."
        )
    return _image(item[0], where), _label(item[1], where)


def _image(image: Any, where: str) -> np.ndarray:
    if not isinstance(image, np.ndarray) and picture_files.is_picture(image):
        try:
            return picture_files.taken(image)
        except PictureError as error:
            raise UsageError(f"{where}: its image cannot be taken: {error}.") from error
    array = as_uint8(image, f"{where}: its image")
    if array.ndim == 2:
        array = array[..., np.newaxis]
    if array.ndim != 3 or array.shape[-1] not in (1, 3) or not array.size:
        raise UsageError(
            f"{where}: its image has the shape {list(np.shape(image))}: want [H, W], or [H, W, C] "
            "with C = 1 (grey) or 3 (colour), channels last."
        )
    return array


def as_array(value: Any, what: str) -> np.ndarray:
    """Returns what NumPy makes an array of, not copied. Raises UsageError where it makes none."""
    try:
        return np.asarray(value)
    except Exception as error:  # of whatever library it is
        reason = where_it_failed(error, __file__)
        raise UsageError(f"{what} cannot be made an array: {reason}") from error


def as_uint8(value: Any, what: str) -> np.ndarray:
    """Returns it as an array uint8. Raises UsageError for any other type: nothing is converted."""
    array = as_array(value, what)
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind == "f" and array.size and array.min() >= 0 and array.max() <= 1:
        raise UsageError(
            f"{what} is {array.dtype}, from 0 to 1: want uint8, from 0 to 255. Give it as it was "
            "before it was divided, or np.rint(255 * x).astype(np.uint8)."
        )
    raise UsageError(
        f"{what} is {array.dtype}: want uint8, from 0 to 255. If it has that range, give "
        "x.astype(np.uint8)."
    )


def _label(label: Any, where: str) -> int:
    array = as_array(label, f"{where}: its label")
    if array.ndim or not np.issubdtype(array.dtype, np.integer):
        raise UsageError(f"{where}: its label is {label!r:.80}: want a whole number.")
    if not 0 <= array <= _MOST:
        raise UsageError(f"{where}: its label is {array}: want a class's number, from 0 on.")
    return int(array)


def _room(count: int, shape: tuple[int, ...], which: str) -> np.ndarray:
    """Returns an array for all images. Raises UsageError if they are too many."""
    if count * int(np.prod(shape)) > LARGEST:
        raise UsageError(
            f"data: {count:,} images {list(shape)} of {which} take more than {LARGEST:,} bytes. "
            "Give fewer, or put them into files: config.data.stream=true reads those as it goes."
        )
    return np.empty((count, *shape), np.uint8)

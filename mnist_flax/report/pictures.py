"""The report's pictures of images: samples, filters and feature maps."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mnist_flax.data.augment import EXTENDED_PARTS, create_augment, extend
from mnist_flax.data.dataset import Split
from mnist_flax.data.streamed_images import Images
from mnist_flax.keys import rng_key
from mnist_flax.models import summary
from mnist_flax.report import pixels
from mnist_flax.report.page import Picture
from mnist_flax.use.features import feature_maps
from mnist_flax.use.filters import first_filters
from mnist_flax.use.restore import Restored

CLASSES = 10  # of more classes, so many have samples
DIGITS = 5  # images whose feature maps are shown
MAPS = 16  # of one layer
LAYERS = 24
_SAMPLES = 5  # in a row
_ROWS = 2  # of samples that are not sorted by class
_LARGEST = 224  # pixels a side; a larger image is shown smaller


@dataclass(frozen=True)
class Layers:
    """What there is to see in a linen module.

    Attributes:
      summary: the table of its layers.
      filters: those of its first convolution; None if it has none.
      filters_text: what they are, or why there are none.
      maps: what each layer makes of a few images, with a title.
      notes: what of it is not shown.
    """

    summary: str
    filters: Picture | None
    filters_text: str
    maps: list[tuple[str, Picture]]
    notes: list[str]

    def pictures(self) -> list[Picture]:
        """Returns all its pictures."""
        filters = [] if self.filters is None else [self.filters]
        return filters + [picture for _, picture in self.maps]


def samples(
    restored: Restored, split: Split, *, by_class: bool
) -> tuple[list[tuple[str, Picture]], str]:
    """Returns the first images, below them versions of the very first; and what they are.

    The versions are the parts of the extended set, if the config has it, and five draws of the
    config's augmentations, if it has any.

    Args:
      restored: its config says what training sees.
      split: of training.
      by_class: whether each class has its own.
    """
    if by_class:
        text = f"The first {_SAMPLES} images of each class, as they are"
        if len(restored.class_names) > CLASSES:
            text = f"Of the first {CLASSES} classes the first {_SAMPLES} images, as they are"
        shown = range(min(CLASSES, len(restored.class_names)))
        groups = {
            restored.class_names[k]: (k, np.flatnonzero(split.labels == k)[:_SAMPLES])
            for k in shown
        }
        some = {name: (k, places) for name, (k, places) in groups.items() if len(places)}
    else:
        places = np.arange(min(_ROWS * _SAMPLES, len(split.labels)))
        text = f"The first {len(places)} training images, as they are"
        some = {"": (0, places)}
    firsts = jnp.asarray(split.images[[places[0] for _, places in some.values()]])
    versions, told = _versions(restored, firsts)
    made = []
    for row, (name, (number, places)) in enumerate(some.items()):
        tiles = [pixels.photo(split.images[place]) for place in places]
        blank = np.zeros((*split.images.shape[1:3], 4), np.uint8)
        tiles += [blank] * (-len(places) % _SAMPLES if versions else 0)
        tiles += [pixels.photo(np.asarray(version[row])) for version in versions]
        alt = f"{len(places)} training images" + (f" of class {name}" if by_class else "")
        alt += ", and versions of the first" * bool(versions)
        made.append((name, sheet(f"sample-{number}", tiles, _SAMPLES, alt, side(split.images))))
    return made, f"{text}{told}."


def _versions(restored: Restored, images: jax.Array) -> tuple[list[jax.Array], str]:
    """Returns what training makes of images uint8 [B, H, W, C], each [B, H, W, C]; and in words."""
    config, versions, text = restored.config, [], ""
    if config.data.extended:
        parts = range(1, EXTENDED_PARTS)
        versions += [extend(images, jnp.full(len(images), part)) for part in parts]
        text += "; below them the other parts of the extended set: the first image shifted by a "
        text += "pixel down, up, right and left, and flipped"
    if config.augment.order:
        augment = jax.jit(create_augment(config.augment))
        keys = [rng_key(config.seed, "augment", step) for step in range(_SAMPLES)]
        versions += [augment(key, images) for key in keys]
        text += f"; in the last row five draws of {', '.join(config.augment.order)} on "
        text += "the first image, which training draws anew for each image and step"
    if not versions:
        text += ". This run trains on them as they are: its config names no augmentation"
    return versions, text


def layers(restored: Restored, split: Split) -> Layers | None:
    """Looks into the task's linen module, with images of a split; None where it names none."""
    model = restored.task.model
    if model is None:
        return None
    filters, filters_text = _filters(restored, model)
    maps, notes = _feature_maps(restored, model, split)
    return Layers(summary(model, restored.image_shape), filters, filters_text, maps, notes)


def _filters(restored: Restored, model: nn.Module) -> tuple[Picture | None, str]:
    """Returns the first filters, or None; and what they are, or why there are none."""
    found = first_filters(model, restored.variables, restored.image_shape)
    if found is None:
        return None, "No layer is a convolution of the images: there are no filters to show."
    layer, kernel = found[0], np.asarray(found[1], np.float32)
    height, width, channels, count = kernel.shape
    largest = float(np.abs(kernel).max())
    tiles = [
        pixels.signed(kernel[:, :, channel, place], largest)
        for channel in range(channels)
        for place in range(count)
    ]
    text = (
        f"{layer}: {count} filters of {height}×{width} pixels. Red and lighter is "
        f"positive, grey zero, blue and darker negative; the strongest colour is {largest:.2g}."
    )
    if channels > 1:
        text += f" All of the first of {channels} channels come first, then those of the next."
    return sheet("filters", tiles, MAPS, f"The {count} filters of {layer}"), text


def _feature_maps(
    restored: Restored, model: nn.Module, split: Split
) -> tuple[list[tuple[str, Picture]], list[str]]:
    """Returns each layer's feature maps of a few images, and what is not shown, a line each."""
    places = [np.flatnonzero(split.labels == k)[:1] for k in range(len(restored.class_names))]
    chosen = np.concatenate(places)[:DIGITS]
    images = split.images[chosen]
    look = functools.partial(feature_maps, model)
    maps = jax.jit(look, compiler_options=restored.compiler_options)(restored.variables, images)
    made = []
    for number, (layer, values) in enumerate(list(maps.items())[:LAYERS], start=1):
        shown = np.asarray(values[..., :MAPS], np.float32)
        tiles = [
            tile
            for image, of_image in zip(images, shown, strict=True)
            for tile in (pixels.photo(image), *map(_map, np.moveaxis(of_image, -1, 0)))
        ]
        height, width, count = values.shape[1:]
        first = f", the first {MAPS} shown" if count > MAPS else ""
        title = f"{layer}: {count} maps of {height}×{width}{first}"
        columns = 1 + shown.shape[-1]
        name = f"features-{number:02}"
        alt = f"Feature maps of {layer}: a row for each of {len(images)} images, {columns - 1} maps"
        made.append((title, sheet(name, tiles, columns, alt)))
    return made, _not_shown(restored, list(maps))


def _map(values: np.ndarray) -> np.ndarray:
    return pixels.signed(values, float(np.abs(values).max()))


def _not_shown(restored: Restored, layers: list[str]) -> list[str]:
    notes = []
    if len(layers) > LAYERS:
        notes.append(f"The first {LAYERS} of {len(layers)} layers with maps are shown.")
    with_maps = {layer.partition("/")[0].partition("#")[0] for layer in layers}
    if without := [name for name in restored.state.params if name not in with_maps]:
        notes.append(f"Layers that do not give one map for each image: {', '.join(without)}.")
    return notes


def side(images: Images) -> int:
    """Returns how many pixels a side images uint8 [N, H, W, C] are shown with."""
    return min(max(pixels.TILE, *images.shape[1:3]), _LARGEST)


def sheet(
    name: str, tiles: Sequence[np.ndarray], columns: int, alt: str, side: int = pixels.TILE
) -> Picture:
    """Lays tiles, each RGBA [h, w, 4], out in rows, as pixels.mosaic does."""
    return Picture(name, pixels.picture_png(pixels.mosaic(tiles, columns, side)), alt)

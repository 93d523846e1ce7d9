"""The report's pictures of images: mistakes, samples, filters and feature maps."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from mnist_flax.data.augment import EXTENDED_PARTS, create_augment, extend
from mnist_flax.data.dataset import Split
from mnist_flax.keys import rng_key
from mnist_flax.report import plots
from mnist_flax.report.page import Picture
from mnist_flax.report.saliency import saliency
from mnist_flax.report.scores import Predictions
from mnist_flax.use.features import feature_maps
from mnist_flax.use.filters import first_filters
from mnist_flax.use.restore import Restored

MISTAKES = 24
CLASSES = 10  # of more classes, so many have samples
DIGITS = 5  # images whose feature maps are shown
MAPS = 16  # of one layer
LAYERS = 24
_SAMPLES = 5  # in a row
_LARGEST = 224  # pixels a side; a larger image is shown smaller


@dataclass(frozen=True)
class Mistake:
    """An image that the network is wrong on; `index` is its place in the split."""

    index: int
    label: str
    predicted: str
    probability: float
    picture: Picture


def mistakes(restored: Restored, split: Split, predictions: Predictions) -> list[Mistake]:
    """Returns the most confident mistakes, each beside its saliency map."""
    wrong = np.flatnonzero(predictions.classes != predictions.labels)
    confidence = predictions.probabilities.max(-1)
    chosen = wrong[np.argsort(-confidence[wrong], kind="stable")][:MISTAKES]
    if not len(chosen):
        return []
    look = jax.jit(functools.partial(saliency, restored.model))
    maps = look(restored.state, split.images[chosen], predictions.classes[chosen])
    made = []
    for place, (index, heat) in enumerate(zip(chosen, np.asarray(maps), strict=True), start=1):
        label = restored.class_names[predictions.labels[index]]
        predicted = restored.class_names[predictions.classes[index]]
        tiles = [plots.photo(split.images[index]), plots.heat(heat)]
        alt = f"Image {index} of class {label}, taken for {predicted}; and its saliency map"
        picture = _sheet(f"mistake-{place:02}", tiles, 2, alt, _side(split.images))
        made.append(Mistake(int(index), label, predicted, float(confidence[index]), picture))
    return made


def samples(restored: Restored, split: Split) -> tuple[list[tuple[str, Picture]], str]:
    """Returns for each class its first images, below them versions of the first; and what they are.

    The versions are the parts of the extended set, if the config has it, and five draws of the
    config's augmentations, if it has any.
    """
    versions, text = [], f"The first {_SAMPLES} images of each class, as they are"
    if len(restored.class_names) > CLASSES:
        text = f"Of the first {CLASSES} classes the first {_SAMPLES} images, as they are"
    firsts = [np.flatnonzero(split.labels == k)[:_SAMPLES] for k in range(_shown(restored))]
    some = [places for places in firsts if len(places)]
    images = jnp.asarray(split.images[[places[0] for places in some]])
    if restored.config.data.extended:
        parts = range(1, EXTENDED_PARTS)
        versions += [extend(images, jnp.full(len(images), part)) for part in parts]
        text += "; below them the other parts of the extended set: the first image shifted by a "
        text += "pixel down, up, right and left, and flipped"
    if restored.config.augment.order:
        augment = jax.jit(create_augment(restored.config.augment))
        keys = [rng_key(restored.config.seed, "augment", step) for step in range(_SAMPLES)]
        versions += [augment(key, images) for key in keys]
        text += f"; in the last row five draws of {', '.join(restored.config.augment.order)} on "
        text += "the first image, which training draws anew for each image and step"
    if not versions:
        text += ". This run trains on them as they are: its config names no augmentation"
    made = []
    for place, raw in enumerate(some):
        label = int(split.labels[raw[0]])
        name = restored.class_names[label]
        tiles = [plots.photo(split.images[index]) for index in raw]
        blank = np.zeros((*split.images.shape[1:3], 4), np.uint8)
        tiles += [blank] * (_SAMPLES - len(raw) if versions else 0)
        tiles += [plots.photo(np.asarray(version[place])) for version in versions]
        alt = f"Training images of class {name}" + (", and versions of the first" * bool(versions))
        sheet = _sheet(f"sample-{label}", tiles, _SAMPLES, alt, _side(split.images))
        made.append((name, sheet))
    return made, text + "."


def filters(restored: Restored) -> tuple[str, Picture | None]:
    """Returns what the first filters are, or why there are none; and they, or None."""
    found = first_filters(restored.model, restored.state, restored.image_shape)
    if found is None:
        return "No layer is a convolution of the images: there are no filters to show.", None
    layer, kernel = found[0], np.asarray(found[1], np.float32)
    height, width, channels, count = kernel.shape
    largest = float(np.abs(kernel).max())
    tiles = [
        plots.signed(kernel[:, :, channel, place], largest)
        for channel in range(channels)
        for place in range(count)
    ]
    text = (
        f"{layer}: {count} filters of {height}×{width} pixels. Blue is negative, white zero, red "
        f"positive; the strongest colour is {largest:.2g}."
    )
    if channels > 1:
        text += f" All of the first of {channels} channels come first, then those of the next."
    return text, _sheet("filters", tiles, MAPS, f"The filters of {layer}")


def features(restored: Restored, split: Split) -> tuple[list[tuple[str, Picture]], list[str]]:
    """Returns each layer's feature maps of a few images, and what is not shown, a line each."""
    places = [np.flatnonzero(split.labels == k)[:1] for k in range(len(restored.class_names))]
    chosen = np.concatenate(places)[:DIGITS]
    images = split.images[chosen]
    maps = jax.jit(functools.partial(feature_maps, restored.model))(restored.state, images)
    made = []
    for number, (layer, values) in enumerate(list(maps.items())[:LAYERS], start=1):
        shown = np.asarray(values[..., :MAPS], np.float32)
        tiles = [
            tile
            for image, of_image in zip(images, shown, strict=True)
            for tile in (plots.photo(image), *map(plots.heat, np.moveaxis(of_image, -1, 0)))
        ]
        height, width, count = values.shape[1:]
        first = f", the first {MAPS} shown" if count > MAPS else ""
        title = f"{layer}: {count} maps of {height}×{width}{first}"
        columns = 1 + shown.shape[-1]
        name = f"features-{number:02}"
        made.append((title, _sheet(name, tiles, columns, f"Feature maps of {layer}")))
    return made, _not_shown(restored, list(maps))


def _not_shown(restored: Restored, layers: list[str]) -> list[str]:
    notes = []
    if len(layers) > LAYERS:
        notes.append(f"The first {LAYERS} of {len(layers)} layers with maps are shown.")
    with_maps = {layer.partition("/")[0].partition("#")[0] for layer in layers}
    if without := [name for name in restored.state.params if name not in with_maps]:
        notes.append(f"Layers that do not give one map for each image: {', '.join(without)}.")
    return notes


def _shown(restored: Restored) -> int:
    return min(CLASSES, len(restored.class_names))


def _side(images: np.ndarray) -> int:
    return min(max(plots.TILE, *images.shape[1:3]), _LARGEST)


def _sheet(
    name: str, tiles: Sequence[np.ndarray], columns: int, alt: str, side: int = plots.TILE
) -> Picture:
    return Picture(name, plots.picture_png(plots.mosaic(tiles, columns, side)), alt)

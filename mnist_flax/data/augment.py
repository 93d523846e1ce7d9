"""Pure functions on batches of images, inside the jitted step.

An augmentation takes a key and images uint8 [B, H, W, C] and returns images of the same shape and
type; its further parameters come from the config. Random ones draw anew for every image. One whose
second parameter is called `batch` sees and changes labels, too (mix.py): it takes and returns a
Batch, with soft_labels float32 [B, K].
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from mnist_flax.config import registry
from mnist_flax.data.batch import Batch, batch_like
from mnist_flax.errors import UsageError, where_it_failed

Augment = Callable[[jax.Array, jax.Array], jax.Array]
BatchAugment = Callable[[jax.Array, Batch], Batch]

AUGMENTATIONS = {
    name: f"mnist_flax.data.{module}:{name}"
    for module, names in (
        ("distort", ("elastic_distortion", "random_erasing")),
        ("distort", ("random_rotation", "random_scaling", "random_shift")),
        ("mix", ("cutmix", "mixup")),
    )
    for name in names
}
# As it is; down, up, right and left by a pixel; flipped left to right.
EXTENDED_PARTS = 6
_SHIFTS = ((1, 0), (-1, 0), (0, 1), (0, -1))


def normalize(images: jax.Array) -> jax.Array:
    """Maps uint8 [B, H, W, C] in 0…255 to float32 in [0, 1].

    The one place where pixels become numbers: training, evaluation and prediction all pass here.
    """
    return images.astype(jnp.float32) / 255.0


def extend(images: jax.Array, parts: jax.Array) -> jax.Array:
    """Makes of each image the part of the extended set that is asked for.

    Args:
      images: uint8 [B, H, W, C].
      parts: int32 [B], 0 for the image as it is; 1 to 4 for a shift by one pixel down, up, right,
        left, with zeros where nothing comes from; 5 for the image flipped left to right.

    Returns:
      uint8 [B, H, W, C].
    """
    shifted = [_shift(images, down, right) for down, right in _SHIFTS]
    versions = [images, *shifted, jnp.flip(images, axis=2)]
    chosen = [(parts == part)[:, None, None, None] for part in range(EXTENDED_PARTS)]
    return jnp.select(chosen, versions)


def _shift(images: jax.Array, down: int, right: int) -> jax.Array:
    height, width = images.shape[1:3]
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return padded[:, 1 - down : 1 - down + height, 1 - right : 1 - right + width]


def create_augment(config: ConfigDict) -> Augment:
    """Builds augment(key, images) -> images from config.augment, as create_batch_augment does."""
    augment = create_batch_augment(config, 1)

    def of_images(key: jax.Array, images: jax.Array) -> jax.Array:
        nothing = jnp.zeros(len(images), jnp.int32)
        return augment(key, Batch(images, labels=nothing, index=nothing)).images

    return of_images


def create_batch_augment(config: ConfigDict, num_classes: int) -> BatchAugment:
    """Builds augment(key, batch) -> batch from config.augment: its functions one after another.

    Args:
      config: `order`, names of AUGMENTATIONS or 'package.module:function'; and under the name of
        each function its parameters.
      num_classes: of the labels.

    Raises:
      UsageError: an unknown name, or parameters that the function does not take or still lacks.
    """
    _check_sections(config)
    functions = [_bound(name, config) for name in config.order]

    def augment(key: jax.Array, batch: Batch) -> Batch:
        if any(_sees_labels(function) for function in functions):
            batch = batch.replace(soft_labels=jax.nn.one_hot(batch.labels, num_classes))
        for place, function in enumerate(functions):
            own = jax.random.fold_in(key, place)
            if _sees_labels(function):
                batch = function(own, batch)
            else:
                batch = batch.replace(images=function(own, batch.images))
        return batch

    return augment


def _sees_labels(function: Callable[..., Any]) -> bool:
    return list(inspect.signature(function).parameters)[1:2] == ["batch"]


def _check_sections(config: ConfigDict) -> None:
    """Raises UsageError for what stands in the section and would never be read."""
    order = config.order
    if not isinstance(order, tuple | list):
        raise UsageError(
            f"config.augment.order={order!r}: must be a tuple of names, such as ('random_shift',)."
        )
    named = {str(name).rpartition(":")[2] for name in order} | AUGMENTATIONS.keys() | {"order"}
    if unread := sorted(set(config) - named):
        raise UsageError(
            f"config.augment.{unread[0]}: config.augment.order names no such function."
            f"{registry.nearest(unread[0], named)}"
        )
    for section, parameters in config.items():
        if section != "order" and not isinstance(parameters, ConfigDict | dict):
            raise UsageError(
                f"config.augment.{section}={parameters!r}: must be a section of parameters by name."
            )


def _bound(name: Any, config: ConfigDict) -> Callable[..., Any]:
    field = "config.augment.order"
    if not isinstance(name, str):
        raise UsageError(f"{field}: {name!r} is no name. {_known()}")
    if "," in name:  # what the command line's parser makes of names without quotes
        quoted = ",".join(repr(part.strip()) for part in name.split(","))
        raise UsageError(f'{field}={name!r}: several names are quoted, each by itself: "{quoted}".')
    function = registry.resolve(name, AUGMENTATIONS, field)
    if not callable(function):
        raise UsageError(f"{field}: {name!r} is no function, but {function!r}.")
    section = name.rpartition(":")[2]
    parameters = {} if section == "order" else dict(config.get(section, {}))
    try:
        inspect.signature(function).bind(None, None, **parameters)
    except (TypeError, ValueError) as error:  # ValueError: in C, without a signature
        given = ", ".join(f"{key}={value!r}" for key, value in parameters.items()) or "nothing"
        raise UsageError(
            f"config.augment.{section}: {name!r} is called with (key, images) and {given}: {error}."
        ) from error

    return functools.partial(function, **parameters)


def _known() -> str:
    return f"Known: {', '.join(AUGMENTATIONS)}; or 'package.module:function' for your own."


def check_augment(config: ConfigDict, image_shape: tuple[int, ...]) -> None:
    """Traces each augmentation once and checks what comes out.

    Raises:
      UsageError: one fails, with the line where it does, or it changes the images' shape or type.
    """
    create_augment(config)  # raises for what needs no images
    batch = batch_like(2, image_shape)
    images, soft = batch.images, jax.ShapeDtypeStruct((2, 10), jnp.float32)
    for name in config.order:
        function = _bound(name, config)
        given = batch.replace(soft_labels=soft) if _sees_labels(function) else images
        try:
            result = jax.eval_shape(function, jax.random.key(0), given)
        except UsageError:
            raise
        except Exception as error:
            raise UsageError(
                f"config.augment.order: {name!r} fails on images {list(images.shape)}: "
                f"{where_it_failed(error, __file__)}"
            ) from error
        if _sees_labels(function):
            _require_soft_labels(name, result, soft)
            result = result.images
        shape, dtype = getattr(result, "shape", None), getattr(result, "dtype", None)
        if shape != images.shape or dtype != images.dtype:
            got = "no array" if shape is None else f"{dtype} {list(shape)}"
            raise UsageError(
                f"config.augment.order: {name!r} makes {got} of uint8 {list(images.shape)}; it "
                "must keep shape and type."
            )


def _require_soft_labels(name: str, result: Any, soft: jax.ShapeDtypeStruct) -> None:
    got = result.soft_labels if isinstance(result, Batch) else None
    if got is None or (got.shape, got.dtype) != (soft.shape, soft.dtype):
        raise UsageError(
            f"config.augment.order: {name!r} takes a batch and must return one, with images and "
            "soft_labels of the same shape and type."
        )

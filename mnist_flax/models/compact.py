"""A small network with batch-norm, for the shortest way to a good accuracy."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mnist_flax.errors import UsageError
from mnist_flax.models.blocks import check_rate, flatten


class Compact(nn.Module):
    """Convolutions without bias, each pooled, normalised and only then put through the ReLU.

    Pooling first leaves a quarter of the values to normalise; a maximum and a ReLU may change
    places. With features (16, 32, 64): 28×28×1 → 14×14×16 → 7×7×32 → 4×4×64 → 1,024 → 10. Where a
    stage has several convolutions, its last one is pooled.

    Attributes:
      num_classes: number of logits.
      features: of the 3×3 convolutions of each stage.
      convolutions: how many each stage has; () for one each.
      strided_stem: whether the first convolution is one of 5×5 with stride 2, instead of one of
        3×3, and the first stage is not pooled: less than half the work.
      dropout_rate: the share that is dropped before the last layer.
      shifted_views: whether, when it is not training, it answers with the mean of the logits of
        five views: the image, and the same shifted by a pixel down, up, right and left. After
        Krizhevsky et al., "ImageNet classification with deep convolutional neural networks" (2012),
        section 4.1.
      dtype: that the layers compute in; None for that of their parameters, float32.
    """

    num_classes: int = 10
    features: tuple[int, ...] = (16, 32, 64)
    convolutions: tuple[int, ...] = ()
    strided_stem: bool = False
    dropout_rate: float = 0.0
    shifted_views: bool = False
    dtype: Any = None

    def __post_init__(self) -> None:
        """Raises UsageError for values that no network can have."""
        sizes = self.features if isinstance(self.features, tuple | list) else ()
        if not sizes or not all(isinstance(size, int) and size > 0 for size in sizes):
            raise UsageError(
                f"config.model.features={self.features!r}: must be a tuple of positive whole "
                "numbers, such as (16, 32, 64)."
            )
        counts = self.convolutions if isinstance(self.convolutions, tuple | list) else (0,)
        if counts and not (
            len(counts) == len(sizes)
            and all(isinstance(count, int) and count > 0 for count in counts)
        ):
            raise UsageError(
                f"config.model.convolutions={self.convolutions!r}: must be a positive whole number "
                f"for each of the {len(sizes)} of config.model.features, such as "
                f"{(1, *[2] * (len(sizes) - 1))}, or () for one each."
            )
        check_rate(self.dropout_rate, "dropout_rate")
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps images float32 [B, H, W, C] in [0, 1] to logits float32 [B, num_classes]."""
        shifted = self.shifted_views and not train
        x = _views(images) if shifted else images
        conv = functools.partial(nn.Conv, use_bias=False, dtype=self.dtype)
        norm = functools.partial(nn.BatchNorm, momentum=0.9, dtype=self.dtype)
        for number, (features, pooled) in enumerate(self._layers(), start=1):
            strided = self.strided_stem and number == 1
            kernel, stride = ((5, 5), 2) if strided else ((3, 3), 1)
            x = conv(features, kernel, strides=stride, name=f"conv{number}")(x)
            if pooled:
                x = nn.max_pool(x, (2, 2), strides=(2, 2), padding="SAME")
            x = nn.relu(norm(use_running_average=not train, name=f"norm{number}")(x))
        x = nn.Dropout(self.dropout_rate, deterministic=not train, name="dropout")(flatten(x))
        logits = nn.Dense(self.num_classes, dtype=self.dtype, name="logits")(x)
        return logits.reshape(5, -1, self.num_classes).mean(axis=0) if shifted else logits

    def _layers(self) -> list[tuple[int, bool]]:
        """Returns, for each convolution, its features and whether it is pooled."""
        counts = self.convolutions or (1,) * len(self.features)
        return [
            (features, place == count and not (stage == 0 and self.strided_stem))
            for stage, (features, count) in enumerate(zip(self.features, counts, strict=True))
            for place in range(1, count + 1)
        ]


def _views(images: jax.Array) -> jax.Array:
    """Returns [5·B, H, W, C]: all images, and all shifted down, up, right and left over black."""
    height, width = images.shape[1:3]
    wide = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    corners = ((1, 1), (0, 1), (2, 1), (1, 0), (1, 2))
    return jnp.concatenate([wide[:, y : y + height, x : x + width] for y, x in corners])

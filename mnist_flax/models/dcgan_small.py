"""A DCGAN of a sixth of the tutorial's size, whose convolutions cost little on a CPU.

After Radford, Metz and Chintala, "Unsupervised representation learning with deep convolutional
generative adversarial networks" (arXiv 1511.06434): transposed convolutions, strides instead of
pools, leaky ReLUs, no dense layer but at the ends.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mnist_flax.errors import UsageError
from mnist_flax.models.dcgan import BatchNorm, require_digits

_NORMAL = nn.initializers.normal(0.02)


class Generator(nn.Module):
    """64 → 7×7×128 → 14×14×64 → 28×28×1, with 64 features: 533,889 parameters.

    Attributes:
      features: of the 14×14 pixels; the 7×7 have twice as many.
    """

    features: int
    dtype: Any = None

    @nn.compact
    def __call__(self, latents: jax.Array, train: bool = False) -> jax.Array:
        """Maps latents float32 [B, latent_size] to pictures [B, 28, 28, 1] in [0, 1]."""

        def norm(x: jax.Array, name: str) -> jax.Array:
            layer = functools.partial(nn.BatchNorm, momentum=0.9, epsilon=1e-5, dtype=self.dtype)
            return nn.relu(layer(use_running_average=not train, name=name)(x))

        grow = functools.partial(
            nn.ConvTranspose,
            kernel_size=(4, 4),
            strides=(2, 2),
            kernel_init=_NORMAL,
            dtype=self.dtype,
        )
        wide = 2 * self.features
        dense = nn.Dense(
            7 * 7 * wide, use_bias=False, kernel_init=_NORMAL, dtype=self.dtype, name="dense"
        )
        x = norm(dense(latents).reshape(-1, 7, 7, wide), "norm1")
        x = norm(grow(self.features, use_bias=False, name="grow1")(x), "norm2")
        return nn.sigmoid(grow(1, name="grow2")(x).astype(jnp.float32))


class Discriminator(nn.Module):
    """28×28×1 → 14×14×32 → 7×7×64 → 1, with 32 features: 55,297 parameters.

    It normalises by the batch at hand, of images or of drawings, at rest, too: so it sees when
    drawings are too much alike, and an estimate depends on what is looked at next to it.

    Attributes:
      features: of the 14×14 pixels; the 7×7 have twice as many.
    """

    features: int
    dtype: Any = None

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images float32 [B, 28, 28, 1] in [0, 1] to logits [B]: how real each looks."""
        shrink = functools.partial(
            nn.Conv, kernel_size=(5, 5), strides=(2, 2), kernel_init=_NORMAL, dtype=self.dtype
        )
        x = nn.leaky_relu(shrink(self.features, name="conv1")(2 * images - 1), 0.2)
        x = shrink(2 * self.features, name="conv2")(x)
        x = nn.leaky_relu(BatchNorm(dtype=self.dtype, name="norm")(x, train=False), 0.2)
        dense = nn.Dense(1, kernel_init=_NORMAL, dtype=self.dtype, name="dense")
        return dense(x.reshape(len(x), -1))[:, 0]


class DCGANSmall(nn.Module):
    """A generator and a discriminator, small and fast: 589,186 parameters.

    Attributes:
      features: of the generator's 14×14 pixels; its 7×7 have twice as many.
      judge_features: of the discriminator's, likewise.
      latent_size: of what is drawn from.
      image_shape: of the images; it draws those of MNIST's form alone.
      dtype: that the layers compute in; None for that of their parameters, float32.
    """

    features: int = 64
    judge_features: int = 32
    latent_size: int = 64
    image_shape: tuple[int, int, int] = (28, 28, 1)
    dtype: Any = None

    def __post_init__(self) -> None:
        """Raises UsageError for images that it does not draw, and for widths it cannot have."""
        require_digits(self.image_shape, "dcgan_small")
        for field in ("features", "judge_features", "latent_size"):
            value = getattr(self, field)
            if not isinstance(value, int) or value < 1:
                raise UsageError(
                    f"config.model.{field}={value!r}: must be a positive whole number."
                )
        super().__post_init__()

    def setup(self) -> None:
        """Makes the two."""
        self.generator = Generator(self.features, self.dtype)
        self.discriminator = Discriminator(self.judge_features, self.dtype)

    def generate(self, latents: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps latents float32 [B, latent_size] to pictures [B, 28, 28, 1] in [0, 1]."""
        return self.generator(latents, train)

    def discriminate(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps images float32 [B, 28, 28, 1] in [0, 1] to logits [B]: how real each looks."""
        return self.discriminator(images)

    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps images float32 [B, 28, 28, 1] to logits; makes the generator's variables, too."""
        self.generate(jnp.zeros((1, self.latent_size), images.dtype), train=train)
        return self.discriminate(images, train=train)

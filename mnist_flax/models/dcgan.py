"""The DCGAN of "Generative Adversarial Networks for Beginners" (O'Reilly, June 2017).

Jon Bruner and Adit Deshpande's networks, as their published notebook has them; the first two
tutorials point to it.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from mnist_flax.errors import UsageError

_SPREAD = 0.02
_SIDE = 28


def truncated(stddev: float = _SPREAD) -> nn.initializers.Initializer:
    """TensorFlow's truncated_normal: a normal's draws beyond two deviations are drawn again."""

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        return stddev * jax.random.truncated_normal(key, -2.0, 2.0, shape, dtype)

    return draw


class BatchNorm(nn.Module):
    """A batch-norm with a learnt offset and no scale, as tf.contrib.layers.batch_norm's default.

    Attributes:
      running: whether running statistics are kept, and used at rest. The tutorial never updates
        its own: it normalises by the batch at hand, when pictures are drawn, too, so that a picture
        depends on those that are drawn with it.
      dtype: of what it gives; None for that of x. Means and variances are at least float32.
    """

    running: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps float32 [B, H, W, C] to the same."""
        if self.running:
            return nn.BatchNorm(
                use_running_average=not train,
                momentum=0.9,
                epsilon=1e-5,
                use_scale=False,
                dtype=self.dtype,
            )(x)
        offset = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        given, x = x.dtype, x.astype(jnp.promote_types(x.dtype, jnp.float32))
        axes = tuple(range(x.ndim - 1))
        mean = x.mean(axes)
        variance = jnp.square(x - mean).mean(axes)
        normed = (x - mean) * lax.rsqrt(variance + 1e-5) + offset
        return normed.astype(self.dtype or given)


class ResizedConv(nn.Module):
    """Pictures resized to twice their size, then a 3×3 convolution with stride 2: their old size.

    The resizing is TensorFlow 1's bilinear one: row 2k is row k, row 2k + 1 the mean of the rows k
    and k + 1, and the last one is repeated. So the convolution sees nothing but the rows k and
    k + 1, and is computed as one of 2×2 with stride 1, its kernel made of the 3×3 one: a quarter of
    the values are never made, and four taps stand for nine. What the borders have otherwise (a
    repeated row, and zeros beyond it) is added to the last row and column. Equal but for rounding.
    """

    features: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps float32 [B, H, W, C] to [B, H, W, features]."""
        kernel = self.param("kernel", truncated(), (3, 3, x.shape[-1], self.features))
        bias = self.param("bias", truncated(), (self.features,))
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        # What the rows k and k + 1 have of the three taps at 2k, 2k + 1 and 2k + 2.
        share = jnp.array([[1, 0.5, 0], [0, 0.5, 1]], x.dtype)
        square = jnp.einsum("ia,jb,abcf->ijcf", share, share, kernel)
        numbers = ("NHWC", "HWIO", "NHWC")
        y = lax.conv_general_dilated(x, square, (1, 1), ((0, 1), (0, 1)), dimension_numbers=numbers)
        # Beyond the last row the middle tap sees that row again, where zeros were taken.
        below = self._line(x[:, -1], jnp.einsum("jb,bcf->jcf", share, kernel[1] / 2))
        beside = self._line(x[:, :, -1], jnp.einsum("ia,acf->icf", share, kernel[:, 1] / 2))
        corner = x[:, -1, -1] @ (kernel[1, 1] / 4)
        height, width = x.shape[1:3]
        y += jnp.pad(below[:, None], ((0, 0), (height - 1, 0), (0, 0), (0, 0)))
        y += jnp.pad(beside[:, :, None], ((0, 0), (0, 0), (width - 1, 0), (0, 0)))
        y += jnp.pad(corner[:, None, None], ((0, 0), (height - 1, 0), (width - 1, 0), (0, 0)))
        return y + bias

    def _line(self, x: jax.Array, taps: jax.Array) -> jax.Array:
        """Convolves lines [B, L, C] with two taps [2, C, F], a zero beyond their end."""
        following = jnp.pad(x[:, 1:], ((0, 0), (0, 1), (0, 0)))
        return x @ taps[0] + following @ taps[1]


class Generator(nn.Module):
    """100 → 56×56×1 → 28×28×50 → 28×28×25 → 28×28×1: 328,613 parameters.

    Two of its three convolutions follow a resizing to 56×56 (see ResizedConv). After the second one
    a 1×1 convolution with stride 2 takes every second row and column, which are those of before:
    it is computed without either.
    """

    running_statistics: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, latents: jax.Array, train: bool = False) -> jax.Array:
        """Maps latents float32 [B, 100] to pictures [B, 28, 28, 1] in [0, 1]."""

        def norm(x: jax.Array, name: str) -> jax.Array:
            return nn.relu(BatchNorm(self.running_statistics, self.dtype, name=name)(x, train))

        dense = functools.partial(
            nn.Dense, kernel_init=truncated(), bias_init=truncated(), dtype=self.dtype
        )
        conv = functools.partial(
            nn.Conv, kernel_init=truncated(), bias_init=truncated(), dtype=self.dtype
        )
        side = 2 * _SIDE
        x = dense(side * side, name="dense")(latents).reshape(-1, side, side, 1)
        x = conv(50, (3, 3), strides=(2, 2), name="conv1")(norm(x, "norm1"))
        x = ResizedConv(25, self.dtype, name="conv2")(norm(x, "norm2"))
        return nn.sigmoid(conv(1, (1, 1), name="conv3")(norm(x, "norm3")).astype(jnp.float32))


class Discriminator(nn.Module):
    """28×28×1 → 14×14×32 → 7×7×64 → 1024 → 1: 3,265,409 parameters."""

    dtype: Any = None

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images float32 [B, 28, 28, 1] in [0, 1] to logits [B]: how real each looks."""
        conv = functools.partial(nn.Conv, kernel_init=truncated(), dtype=self.dtype)
        dense = functools.partial(nn.Dense, kernel_init=truncated(), dtype=self.dtype)
        x = images
        for features, name in ((32, "conv1"), (64, "conv2")):
            x = nn.relu(conv(features, (5, 5), name=name)(x))
            x = nn.avg_pool(x, (2, 2), strides=(2, 2))
        x = dense(1024, name="dense1")(x.reshape(len(x), -1))
        return dense(1, name="dense2")(nn.relu(x))[:, 0]


class DCGAN(nn.Module):
    """A generator and a discriminator, as they were published: 3,594,022 parameters.

    Attributes:
      running_statistics: whether the generator's batch-norms keep running statistics and draw with
        them; as published they do not (see BatchNorm).
      latent_size: of what is drawn from.
      image_shape: of the images; it draws those of MNIST's form alone.
      dtype: that the layers compute in; None for that of their parameters, float32.
    """

    running_statistics: bool = False
    latent_size: int = 100
    image_shape: tuple[int, int, int] = (_SIDE, _SIDE, 1)
    dtype: Any = None

    def __post_init__(self) -> None:
        """Raises UsageError for images that it does not draw."""
        require_digits(self.image_shape, "dcgan")
        super().__post_init__()

    def setup(self) -> None:
        """Makes the two."""
        self.generator = Generator(self.running_statistics, self.dtype)
        self.discriminator = Discriminator(self.dtype)

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


def require_digits(image_shape: tuple[int, ...], name: str) -> None:
    """Raises UsageError unless images have the form of MNIST's, which model `name` draws."""
    if tuple(image_shape) != (_SIDE, _SIDE, 1):
        raise UsageError(
            f"config.model.name={name!r} draws [28, 28, 1]; the images are {list(image_shape)}. "
            "Choose other data, or a model of your own; config.data.resize=28 scales grey ones."
        )

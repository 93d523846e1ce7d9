"""The variational autoencoder of PyTorch's examples (pytorch/examples, vae/main.py)."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mnist_flax.models.blocks import at_least_float32


class VAE(nn.Module):
    """784 → 400 → 20 and back, with ReLU: 652,824 parameters.

    The encoder gives a normal distribution for each image, the decoder the probability of each
    pixel (Kingma and Welling, arXiv 1312.6114). Weights and biases start as PyTorch's do, uniform
    within ± 1/√(inputs): from lecun_normal and zeros it ends half a nat worse.

    Attributes:
      image_shape: (H, W, C), that the decoder draws.
      hidden: width of the one hidden layer of each half.
      latent_size: width of what lies between the halves.
      dtype: that the layers compute in; None for that of their parameters, float32.
    """

    image_shape: tuple[int, int, int] = (28, 28, 1)
    hidden: int = 400
    latent_size: int = 20
    dtype: Any = None

    def setup(self) -> None:
        """Makes the five layers, under the names that they have there."""
        pixels = math.prod(self.image_shape)
        dense = functools.partial(_dense, self.dtype)
        self.fc1 = dense(pixels, self.hidden)
        self.fc21 = dense(self.hidden, self.latent_size)
        self.fc22 = dense(self.hidden, self.latent_size)
        self.fc3 = dense(self.latent_size, self.hidden)
        self.fc4 = dense(self.hidden, pixels)

    def encode(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Maps images float32 [B, H, W, C] in [0, 1] to means and log variances [B, latent]."""
        x = nn.relu(self.fc1(images.reshape(len(images), -1)))
        # What is sampled and summed is float32 where the layers compute in less.
        return at_least_float32(self.fc21(x)), at_least_float32(self.fc22(x))

    def decode(self, latents: jax.Array) -> jax.Array:
        """Maps latents float32 [B, latent] to the logit of each pixel, [B, H, W, C]."""
        logits = self.fc4(nn.relu(self.fc3(latents)))
        return logits.reshape(len(latents), *self.image_shape)

    def __call__(
        self, images: jax.Array, noise: jax.Array | None = None, *, train: bool = False
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Maps images float32 [B, H, W, C] in [0, 1] to logits, means and log variances.

        Args:
          images: to be drawn again.
          noise: standard normal, float32 [B, latent]; None draws from the means.
          train: changes nothing here.
        """
        means, log_variances = self.encode(images)
        latents = means if noise is None else means + noise * jnp.exp(log_variances / 2)
        return self.decode(latents), means, log_variances


def _dense(computed_in: Any, inputs: int, outputs: int) -> nn.Dense:
    """A layer that starts as torch.nn.Linear does."""
    bound = inputs**-0.5

    def uniform(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return nn.Dense(outputs, dtype=computed_in, kernel_init=uniform, bias_init=uniform)

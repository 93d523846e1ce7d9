"""The variational autoencoder's network, by hand in NumPy."""

from typing import Any

import jax
import numpy as np

from mnist_flax.models.vae import VAE


def dense(params: Any, name: str, x: np.ndarray) -> np.ndarray:
    return x @ np.asarray(params[name]["kernel"]) + np.asarray(params[name]["bias"])


def test_the_whole_network_by_hand() -> None:
    """The noise is scaled by a deviation, half of the logarithm of its variance."""
    model = VAE(image_shape=(4, 3, 1), hidden=7, latent_size=2)
    random = np.random.default_rng(0)
    images = random.random((5, 4, 3, 1), np.float32)
    noise = random.standard_normal((5, 2)).astype(np.float32)
    variables = model.init(jax.random.key(0), images)
    # Widened: at the start the variances lie too near 1 to tell a root from its square.
    params = jax.tree.map(lambda leaf: 4 * leaf, variables["params"])
    hidden = np.maximum(dense(params, "fc1", images.reshape(5, 12)), 0)
    means, log_variances = dense(params, "fc21", hidden), dense(params, "fc22", hidden)
    assert np.ptp(log_variances) > 1

    def drawn(latents: np.ndarray) -> np.ndarray:
        seen = np.maximum(dense(params, "fc3", latents), 0)
        return dense(params, "fc4", seen).reshape(5, 4, 3, 1)

    told = model.apply({"params": params}, images, noise)
    expected = drawn(means + noise * np.sqrt(np.exp(log_variances))), means, log_variances
    for given, by_hand in zip(told, expected, strict=True):
        np.testing.assert_allclose(given, by_hand, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        model.apply({"params": params}, images)[0], drawn(means), rtol=1e-5, atol=1e-5
    )

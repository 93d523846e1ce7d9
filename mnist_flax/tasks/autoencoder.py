"""Draw an image again from a few numbers, and new ones from noise: the evidence lower bound."""

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from ml_collections import ConfigDict

from mnist_flax.core.optimizers import optimizer_of
from mnist_flax.core.sums import Sums
from mnist_flax.core.task import Metric, Spec, Task, Variables
from mnist_flax.data.augment import normalize
from mnist_flax.data.batch import Batch
from mnist_flax.errors import UsageError, together
from mnist_flax.keys import rng_key
from mnist_flax.models import create_model
from mnist_flax.tasks.networks import apply_eval, apply_train, one_network, single_precision

# In nats an image: the smaller, the better each of them.
METRICS = {name: Metric(".2f") for name in ("negative_elbo", "reconstruction", "kl")}


def autoencoder(config: ConfigDict, spec: Spec) -> Task:
    """Builds the task of a variational autoencoder from what a config names.

    Args:
      config: model, compute_dtype, optimizer, schedule, clip_by_global_norm, accumulate_steps,
        log_norms and seed are read. The model has
        encode, decode and latent_size, as models/vae.py has them.
      spec: of the data.

    Raises:
      UsageError: the model, the optimizer or the schedule; every fault at once.
    """
    model, (optimizer, rates) = together(
        lambda: _with_halves(config, spec),
        lambda: optimizer_of(config, spec.num_steps),
    )
    seed, size = config.seed, model.latent_size

    def loss_fn(
        variables: Variables, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, tuple[Variables, Sums]]:
        noise = jax.random.normal(key, (len(batch.images), size))
        outputs, changed = apply_train(model, variables, batch.images, key, noise)
        sums = sums_of(batch.images, *outputs)
        return sums["negative_elbo"] / sums["count"], (changed, sums)

    def evaluate(variables: Variables, batch: Batch) -> tuple[Sums, dict[str, jax.Array]]:
        def draw(index: jax.Array) -> jax.Array:
            return jax.random.normal(rng_key(seed, "noise", index), (size,))

        noise = jax.vmap(draw)(batch.index)
        logits, means, log_variances = apply_eval(model, variables, batch.images, noise)
        drawn = jnp.rint(255 * nn.sigmoid(logits)).astype(jnp.uint8)
        shown = {"images": batch.images, "reconstructions": drawn, "latents": means}
        return sums_of(batch.images, logits, means, log_variances, batch.mask), shown

    def predict(variables: Variables, images: jax.Array) -> dict[str, jax.Array]:
        logits, means, _ = apply_eval(model, variables, images)
        return {"latents": means, "reconstructions": nn.sigmoid(logits)}

    def sample(variables: Variables, latents: jax.Array) -> jax.Array:
        return nn.sigmoid(single_precision(model.apply(variables, latents, method="decode")))

    return Task(
        **one_network(model, optimizer, spec, loss_fn, config.accumulate_steps, config.log_norms),
        evaluate=evaluate,
        predict=predict,
        metrics=METRICS,
        best="negative_elbo",
        observers=("autoencoder_pictures",),
        rates=rates,
        sample=sample,
        latent_size=size,
        exported=("latents",),
        modes=("eval", "predict", "report", "serve", "export", "sample"),
    )


def sums_of(
    images: jax.Array,
    logits: jax.Array,
    means: jax.Array,
    log_variances: jax.Array,
    mask: jax.Array | None = None,
) -> Sums:
    """Sums one batch: the negative evidence lower bound and its two parts, in nats.

    Args:
      images: uint8 [B, H, W, C]; a pixel in [0, 1] is the probability that it is light.
      logits: float32 [B, H, W, C].
      means: float32 [B, latent], of the latents' normal distributions.
      log_variances: likewise.
      mask: bool [B], False for padding; None counts all.

    Returns:
      {'negative_elbo', 'reconstruction', 'kl': float32 [], 'count': int32 []}: cross-entropy of all
      pixels, and KL divergence from the standard normal (arXiv 1312.6114, appendix B).
    """
    mask = jnp.ones(len(images), bool) if mask is None else mask
    pixels = optax.sigmoid_binary_cross_entropy(logits, normalize(images))
    reconstruction = pixels.sum(range(1, pixels.ndim))
    kl = (jnp.square(means) + jnp.exp(log_variances) - 1 - log_variances).sum(-1) / 2
    each = {"negative_elbo": reconstruction + kl, "reconstruction": reconstruction, "kl": kl}
    sums = {name: jnp.where(mask, values, 0.0).sum() for name, values in each.items()}
    return {**sums, "count": jnp.sum(mask, dtype=jnp.int32)}


def _with_halves(config: ConfigDict, spec: Spec) -> nn.Module:
    model = create_model(
        config.model, len(spec.class_names), spec.image_shape, config.compute_dtype
    )
    if lacking := [n for n in ("encode", "decode", "latent_size") if not hasattr(model, n)]:
        raise UsageError(
            f"config.model.name={config.model.name!r}: has no {' and no '.join(lacking)}, which "
            "the task 'autoencoder' needs. Name 'vae', or a module of your own that has."
        )
    return model

"""Two networks, one of which draws and one of which judges: a step of both, and what each gives.

Pure functions of the model, which has `generate` and `discriminate`; gan.py makes a task of them.
"""

from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from mnist_flax import cpu
from mnist_flax.core.sums import Sums
from mnist_flax.core.task import OptState, Variables
from mnist_flax.data.augment import normalize
from mnist_flax.data.batch import Batch
from mnist_flax.data.placement import beside_batch
from mnist_flax.keys import rng_key
from mnist_flax.tasks.networks import single_precision


def update(
    model: nn.Module,
    other: optax.GradientTransformation,
    optimizer: optax.GradientTransformation,
    first_steps: int,
    real_label: float,
    variables: Variables,
    opt_state: OptState,
    batch: Batch,
    step: jax.Array,
    key: jax.Array,
) -> tuple[Variables, OptState, Sums]:
    """Takes one step: the discriminator's two updates, then the generator's; see gan()."""
    count, size = len(batch.images), model.latent_size
    noise = [
        beside_batch(jax.random.normal(jax.random.fold_in(key, n), (count, size))) for n in (1, 2)
    ]
    before, stats = variables["params"], variables["batch_stats"]
    fake, _ = _apply(model, "generate", "generator", before["generator"], stats, noise[0])
    images = {"real": normalize(batch.images), "fake": fake}
    judge, moments, losses = _teach_discriminator(
        model, other, before["discriminator"], stats, opt_state, images, real_label
    )

    def fooled(params: Any) -> tuple[jax.Array, Any]:
        drawn, changed = _apply(model, "generate", "generator", params, stats, noise[1])
        logits, _ = _apply(model, "discriminate", "discriminator", judge, stats, drawn)
        return _cross_entropy(logits, 1.0), changed

    gradient = jax.value_and_grad(fooled, has_aux=True)
    (losses["generator_loss"], changed), grads = gradient(before["generator"])
    updates, state = optimizer.update(grads, opt_state["generator"], before["generator"])
    after = optax.apply_updates(before["generator"], updates), state, changed
    generator, state, stats = jax.tree.map(
        lambda new, old: jnp.where(step < first_steps, old, new),
        after,
        (before["generator"], opt_state["generator"], stats),
    )
    params = {"generator": generator, "discriminator": judge}
    sums = {name: count * loss for name, loss in losses.items()}
    return (
        {**variables, "params": params, "batch_stats": stats},
        {**moments, "generator": state},
        {**sums, "count": jnp.int32(count)},
    )


def _teach_discriminator(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    judge: Any,
    stats: Any,
    opt_state: OptState,
    images: dict[str, jax.Array],
    real_label: float,
) -> tuple[Any, OptState, dict[str, jax.Array]]:
    """Both gradients at the parameters before either update; of two updates images' is first."""
    losses, grads, moments = {}, {}, dict(opt_state)
    for name, label in (("real", real_label), ("fake", 0.0)):

        def loss(params: Any, name: str = name, label: float = label) -> jax.Array:
            logits, _ = _apply(model, "discriminate", "discriminator", params, stats, images[name])
            return _cross_entropy(logits, label)

        losses[f"{name}_loss"], grads[name] = jax.value_and_grad(loss)(judge)
    if "discriminator" in moments:
        grads = {"discriminator": jax.tree.map(jnp.add, grads["real"], grads["fake"])}
    for name in grads:
        updates, moments[name] = optimizer.update(grads[name], moments[name], judge)
        judge = optax.apply_updates(judge, updates)
    return judge, moments, losses


def evaluate(
    model: nn.Module, seed: int, variables: Variables, batch: Batch
) -> tuple[Sums, dict[str, jax.Array]]:
    """The discriminator's estimates of images, and of drawings of noise of (seed, index)."""

    def draw(index: jax.Array) -> jax.Array:
        return jax.random.normal(rng_key(seed, "noise", index), (model.latent_size,))

    drawn = sample(model, variables, jax.vmap(draw)(batch.index))
    estimates = {
        "real_estimate": estimate(model, variables, normalize(batch.images)),
        "fake_estimate": estimate(model, variables, drawn),
    }
    mask = batch.mask if batch.mask is not None else jnp.ones(len(batch.images), bool)
    sums = {name: jnp.where(mask, each, 0.0).sum() for name, each in estimates.items()}
    samples = jnp.rint(255 * drawn).astype(jnp.uint8)
    sums["count"] = jnp.sum(mask, dtype=jnp.int32)
    return sums, {**estimates, "samples": samples}


def estimate(model: nn.Module, variables: Variables, images: jax.Array) -> jax.Array:
    """Returns the discriminator's probability that each of images [B, H, W, C] is one: [B]."""
    logits = model.apply(variables, images, method="discriminate")
    return nn.sigmoid(cast(jax.Array, single_precision(logits)))


def sample(model: nn.Module, variables: Variables, latents: jax.Array) -> jax.Array:
    """Returns what the generator draws of latents [B, L]: float32 [B, H, W, C] in [0, 1]."""
    drawn = model.apply(variables, latents, method="generate")
    return cast(jax.Array, single_precision(drawn))


def _apply(
    model: nn.Module, method: str, part: str, params: Any, stats: Any, inputs: jax.Array
) -> tuple[jax.Array, Any]:
    """Applies one of the two in training; returns what it gives, and the batch statistics."""

    def forward(params: Any, inputs: jax.Array) -> tuple[jax.Array, Any]:
        outputs, updates = model.apply(
            {"params": {part: params}, "batch_stats": stats},
            inputs,
            train=True,
            method=method,
            mutable=["batch_stats"],
        )
        return outputs, updates.get("batch_stats", {})

    outputs, changed = cpu.for_backend(forward)(params, inputs)
    return single_precision(outputs), changed


def _cross_entropy(logits: jax.Array, label: float) -> jax.Array:
    """Returns the mean over a batch, in nats."""
    labels = jnp.full(logits.shape, label)
    return optax.sigmoid_binary_cross_entropy(logits, labels).mean()

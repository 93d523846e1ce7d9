"""Draw so that a second network cannot tell the drawings from images: a generative adversary."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from ml_collections import ConfigDict

from mnist_flax import cpu
from mnist_flax.core.optimizers import optimizer_of
from mnist_flax.core.sums import Sums
from mnist_flax.core.task import Metric, OptState, Rate, Spec, Task, Variables
from mnist_flax.data.augment import normalize
from mnist_flax.data.sources import Batch
from mnist_flax.errors import UsageError, together
from mnist_flax.keys import rng_key
from mnist_flax.models import create_model
from mnist_flax.tasks.networks import init_variables

METRICS = {
    # Of training: binary cross-entropies, in nats.
    "real_loss": Metric(),
    "fake_loss": Metric(),
    "generator_loss": Metric(),
    # Of evaluations: the discriminator's probability that it is an image.
    "real_estimate": Metric(),
    "fake_estimate": Metric(),
}
_NEEDED = ("generate", "discriminate", "latent_size")


def gan(
    config: ConfigDict,
    spec: Spec,
    discriminator_learning_rate: float,
    first_steps: int = 0,
) -> Task:
    """Builds the task of two networks, each of which learns from the other.

    A step takes the discriminator's gradients on images (→ 1) and on drawings (→ 0), both at the
    parameters before either, and applies them by an optimizer each, images first; then the
    generator's, on drawings of fresh noise, against the discriminator as it is then (Goodfellow et
    al., arXiv 1406.2661, with the loss that does not saturate). Labels are not used.

    Args:
      config: model, optimizer, schedule, clip_by_global_norm and seed are read. The optimizer and
        its rate are the generator's.
      spec: of the data.
      discriminator_learning_rate: of the two optimizers of that name, otherwise the same.
      first_steps: that train the discriminator alone.

    Raises:
      UsageError: the model, the optimizer or the schedule; every fault at once.
    """
    model, (optimizer, rates), (other, other_rates) = together(
        lambda: _with_both(config, spec),
        lambda: optimizer_of(config, spec.num_steps),
        lambda: optimizer_of(_at_rate(config, discriminator_learning_rate), spec.num_steps),
    )
    seed, size = config.seed, model.latent_size
    generate = functools.partial(_apply, model, "generate", "generator")
    discriminate = functools.partial(_apply, model, "discriminate", "discriminator")

    def init_opt(variables: Variables) -> OptState:
        params = variables["params"]
        return {
            "real": other.init(params["discriminator"]),
            "fake": other.init(params["discriminator"]),
            "generator": optimizer.init(params["generator"]),
        }

    def update(
        variables: Variables, opt_state: OptState, batch: Batch, step: jax.Array, key: jax.Array
    ) -> tuple[Variables, OptState, Sums]:
        noise = [
            jax.random.normal(jax.random.fold_in(key, n), (len(batch.images), size)) for n in (1, 2)
        ]
        params, stats = variables["params"], variables["batch_stats"]
        real = normalize(batch.images)
        fake, _ = generate(params["generator"], stats, noise[0])

        def on(images: jax.Array, label: float, params: Any) -> jax.Array:
            return _cross_entropy(discriminate(params, stats, images)[0], label)

        def fooled(params: Any, judge: Any) -> tuple[jax.Array, Any]:
            images, changed = generate(params, stats, noise[1])
            return _cross_entropy(discriminate(judge, stats, images)[0], 1.0), changed

        judge, opt_state, losses, grads = params["discriminator"], dict(opt_state), {}, {}
        for name, images, label in (("real", real, 1.0), ("fake", fake, 0.0)):
            loss = functools.partial(on, images, label)
            losses[f"{name}_loss"], grads[name] = jax.value_and_grad(loss)(judge)
        for name in ("real", "fake"):
            updates, opt_state[name] = other.update(grads[name], opt_state[name], judge)
            judge = optax.apply_updates(judge, updates)
        gradient = jax.value_and_grad(fooled, has_aux=True)
        (losses["generator_loss"], changed), grad = gradient(params["generator"], judge)
        updates, moments = optimizer.update(grad, opt_state["generator"], params["generator"])
        drawn = optax.apply_updates(params["generator"], updates), moments, changed
        before = params["generator"], opt_state["generator"], stats
        generator, opt_state["generator"], stats = jax.tree.map(
            lambda new, old: jnp.where(step < first_steps, old, new), drawn, before
        )
        count = len(batch.images)
        sums = {name: count * loss for name, loss in losses.items()}
        variables = {
            **variables,
            "params": {"generator": generator, "discriminator": judge},
            "batch_stats": stats,
        }
        return variables, opt_state, {**sums, "count": jnp.int32(count)}

    def evaluate(variables: Variables, batch: Batch) -> tuple[Sums, dict[str, jax.Array]]:
        def draw(index: jax.Array) -> jax.Array:
            return jax.random.normal(rng_key(seed, "noise", index), (size,))

        drawn = sample(variables, jax.vmap(draw)(batch.index))
        estimates = {
            "real_estimate": estimate(variables, normalize(batch.images)),
            "fake_estimate": estimate(variables, drawn),
        }
        mask = batch.mask if batch.mask is not None else jnp.ones(len(batch.images), bool)
        sums = {name: jnp.where(mask, each, 0.0).sum() for name, each in estimates.items()}
        return {**sums, "count": jnp.sum(mask, dtype=jnp.int32)}, estimates

    def estimate(variables: Variables, images: jax.Array) -> jax.Array:
        return nn.sigmoid(model.apply(variables, images, method="discriminate"))

    def sample(variables: Variables, latents: jax.Array) -> jax.Array:
        return model.apply(variables, latents, method="generate")

    return Task(
        init=functools.partial(init_variables, model, spec.image_shape),
        init_opt=init_opt,
        update=update,
        evaluate=evaluate,
        predict=lambda variables, images: {"real": estimate(variables, normalize(images))},
        metrics=METRICS,
        observers=("samples",),
        rates={
            "learning_rate": _rate_of(rates["learning_rate"], "generator", "generator"),
            "discriminator_learning_rate": _rate_of(
                other_rates["learning_rate"], "discriminator", "real"
            ),
        },
        model=model,
        sample=sample,
        latent_size=size,
        modes=("eval", "predict", "report", "export", "sample"),
    )


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
    return outputs, changed


def _cross_entropy(logits: jax.Array, label: float) -> jax.Array:
    """Returns the mean over a batch, in nats."""
    labels = jnp.full(logits.shape, label)
    return optax.sigmoid_binary_cross_entropy(logits, labels).mean()


def _at_rate(config: ConfigDict, learning_rate: float) -> ConfigDict:
    """Returns what optimizer_of() reads, with another learning rate."""
    optimizer = config.optimizer.copy_and_resolve_references()
    optimizer.learning_rate = learning_rate
    return ConfigDict(
        {
            "optimizer": optimizer,
            "schedule": config.schedule,
            "clip_by_global_norm": config.clip_by_global_norm,
        }
    )


def _rate_of(rate: Rate, part: str, optimizer: str) -> Rate:
    """A rate of one of the optimizers, asked with the run's own state."""

    def asked(variables: Variables, opt_state: OptState, step: int) -> float | None:
        return rate({"params": variables["params"][part]}, opt_state[optimizer], step)

    return asked


def _with_both(config: ConfigDict, spec: Spec) -> nn.Module:
    model = create_model(config.model, len(spec.class_names), spec.image_shape)
    if lacking := [name for name in _NEEDED if not hasattr(model, name)]:
        raise UsageError(
            f"config.model.name={config.model.name!r}: has no {' and no '.join(lacking)}, which "
            "the task 'gan' needs. Name 'dcgan', or a module of your own that has."
        )
    return model

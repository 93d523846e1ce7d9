"""Draw so that a second network cannot tell the drawings from images: a generative adversary."""

import functools
from typing import Any, cast

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
from mnist_flax.data.batch import Batch
from mnist_flax.data.placement import beside_batch
from mnist_flax.errors import UsageError, together
from mnist_flax.keys import rng_key
from mnist_flax.models import create_model
from mnist_flax.tasks.networks import init_variables, single_precision

# What a judge says of drawings (use/judge.py), where the config names one.
_JUDGED = {
    "frechet_distance": Metric(".2f"),
    "confident_share": Metric(larger_is_better=True, bounds=(0, 1)),
    "nearest_train": Metric(".2f", larger_is_better=True),
}
METRICS = {
    # Of training: binary cross-entropies, in nats.
    "real_loss": Metric(),
    "fake_loss": Metric(),
    "generator_loss": Metric(),
    # Of evaluations: the discriminator's probability that it is an image.
    "real_estimate": Metric(bounds=(0, 1)),
    "fake_estimate": Metric(bounds=(0, 1)),
}
_NEEDED = ("generate", "discriminate", "latent_size")


def gan(
    config: ConfigDict,
    spec: Spec,
    discriminator_learning_rate: float,
    first_steps: int = 0,
    real_label: float = 1.0,
    joint: bool = False,
    judge: str = "",
) -> Task:
    """Builds the task of two networks, each of which learns from the other.

    A step takes the discriminator's gradients on images (→ 1) and on drawings (→ 0), both at the
    parameters before either, and applies them by an optimizer each, images first; then the
    generator's, on drawings of fresh noise, against the discriminator as it is then (Goodfellow et
    al., arXiv 1406.2661, with the loss that does not saturate). Labels are not used.

    Args:
      config: model, compute_dtype, optimizer, schedule, clip_by_global_norm and seed are read. The
        optimizer, which has no rates by path, and its rate are the generator's.
      spec: of the data.
      discriminator_learning_rate: of the two optimizers of that name, otherwise the same.
      first_steps: that train the discriminator alone.
      real_label: what the discriminator is to say of images; a little less than 1 keeps it from
        being certain (Salimans et al., arXiv 1606.03498, section 3.4).
      joint: whether the discriminator's two gradients are added and applied by one optimizer, as is
        usual; the tutorial has one for each, and Adam makes a large step of the smallest gradient.
      judge: the workdir of a classification, which says how good drawings are and chooses the best
        save: that of the lowest Fréchet distance; '' for none.

    Raises:
      UsageError: the model, the optimizer or the schedule; every fault at once.
    """
    _check(joint, real_label, judge)
    model, (optimizer, rates), (other, other_rates) = together(
        lambda: _with_both(config, spec),
        lambda: optimizer_of(_of_one_rate(config), spec.num_steps),
        lambda: optimizer_of(_at_rate(config, discriminator_learning_rate), spec.num_steps),
    )

    parts = ("discriminator",) if joint else ("real", "fake")

    def init_opt(variables: Variables) -> OptState:
        params = variables["params"]
        moments = {name: other.init(params["discriminator"]) for name in parts}
        return {**moments, "generator": optimizer.init(params["generator"])}

    return Task(
        init=functools.partial(init_variables, model, spec.image_shape),
        init_opt=init_opt,
        update=functools.partial(_update, model, other, optimizer, first_steps, real_label),
        evaluate=functools.partial(_evaluate, model, config.seed),
        predict=lambda variables, images: {"real": _estimate(model, variables, normalize(images))},
        metrics={**METRICS, **_JUDGED} if judge else METRICS,
        measure="mnist_flax.use.judge:judge_drawings",
        measured=tuple(_JUDGED) if judge else (),
        best="frechet_distance" if judge else "",
        observers=("samples",),
        rates={
            "learning_rate": _rate_of(rates["learning_rate"], "generator", "generator"),
            "discriminator_learning_rate": _rate_of(
                other_rates["learning_rate"], "discriminator", parts[0]
            ),
        },
        model=model,
        sample=functools.partial(_sample, model),
        latent_size=model.latent_size,
        exported=None,  # whoever wants to draw has no use for the discriminator
        modes=("eval", "predict", "report", "serve", "export", "sample"),
    )


def _check(joint: Any, real_label: Any, judge: Any) -> None:
    """Raises UsageError for fields of another kind: a flag may have added them as text."""
    number = isinstance(real_label, int | float) and not isinstance(real_label, bool)
    for field, value, fits, want in (
        ("joint", joint, isinstance(joint, bool), "true or false"),
        ("real_label", real_label, number and 0 < real_label <= 1, "above 0 and at most 1"),
        ("judge", judge, isinstance(judge, str), "a folder's name, or empty"),
    ):
        if not fits:
            raise UsageError(f"config.task.{field}={value!r}: must be {want}.")


def _of_one_rate(config: ConfigDict) -> ConfigDict:
    if "rates" in config.optimizer:
        raise UsageError(
            "config.optimizer.rates: the task 'gan' does not use it; its two networks have a "
            "learning rate each. Leave it out."
        )
    return config


def _update(
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
    """One step: the discriminator's two updates, then the generator's; see gan()."""
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


def _evaluate(
    model: nn.Module, seed: int, variables: Variables, batch: Batch
) -> tuple[Sums, dict[str, jax.Array]]:
    """The discriminator's estimates of images, and of drawings of noise of (seed, index)."""

    def draw(index: jax.Array) -> jax.Array:
        return jax.random.normal(rng_key(seed, "noise", index), (model.latent_size,))

    drawn = _sample(model, variables, jax.vmap(draw)(batch.index))
    estimates = {
        "real_estimate": _estimate(model, variables, normalize(batch.images)),
        "fake_estimate": _estimate(model, variables, drawn),
    }
    mask = batch.mask if batch.mask is not None else jnp.ones(len(batch.images), bool)
    sums = {name: jnp.where(mask, each, 0.0).sum() for name, each in estimates.items()}
    samples = jnp.rint(255 * drawn).astype(jnp.uint8)
    sums["count"] = jnp.sum(mask, dtype=jnp.int32)
    return sums, {**estimates, "samples": samples}


def _estimate(model: nn.Module, variables: Variables, images: jax.Array) -> jax.Array:
    logits = model.apply(variables, images, method="discriminate")
    return nn.sigmoid(cast(jax.Array, single_precision(logits)))


def _sample(model: nn.Module, variables: Variables, latents: jax.Array) -> jax.Array:
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
    model = create_model(
        config.model, len(spec.class_names), spec.image_shape, config.compute_dtype
    )
    if lacking := [name for name in _NEEDED if not hasattr(model, name)]:
        raise UsageError(
            f"config.model.name={config.model.name!r}: has no {' and no '.join(lacking)}, which "
            "the task 'gan' needs. Name 'dcgan', or a module of your own that has."
        )
    return model

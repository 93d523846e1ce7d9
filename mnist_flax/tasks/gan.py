"""Draw so that a second network cannot tell the drawings from images: a generative adversary.

The task, its fields and its optimizers; adversaries.py has what a step computes.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import optax
from flax import linen as nn
from ml_collections import ConfigDict

from mnist_flax.core.optimizers import optimizer_of
from mnist_flax.core.task import Metric, OptState, Rate, Spec, Task, Variables
from mnist_flax.data.augment import normalize
from mnist_flax.errors import UsageError, together
from mnist_flax.models import create_model
from mnist_flax.tasks import adversaries
from mnist_flax.tasks.networks import init_variables

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
    task = Task(
        init=functools.partial(init_variables, model, spec.image_shape),
        init_opt=functools.partial(_init_opt, other, optimizer, parts),
        update=functools.partial(
            adversaries.update, model, other, optimizer, first_steps, real_label
        ),
        evaluate=functools.partial(adversaries.evaluate, model, config.seed),
        predict=functools.partial(_predict, model),
        metrics=METRICS,
        measure="mnist_flax.use.judge:judge_drawings",
        observers=("samples",),
        rates=_rates(rates, other_rates, parts),
        model=model,
        sample=functools.partial(adversaries.sample, model),
        latent_size=model.latent_size,
        exported=None,  # whoever wants to draw has no use for the discriminator
        modes=("eval", "predict", "report", "serve", "export", "sample"),
    )
    return _judged(task) if judge else task


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


def _init_opt(
    other: optax.GradientTransformation,
    optimizer: optax.GradientTransformation,
    parts: Sequence[str],
    variables: Variables,
) -> OptState:
    params = variables["params"]
    moments = {name: other.init(params["discriminator"]) for name in parts}
    return {**moments, "generator": optimizer.init(params["generator"])}


def _predict(model: nn.Module, variables: Variables, images: jax.Array) -> dict[str, jax.Array]:
    return {"real": adversaries.estimate(model, variables, normalize(images))}


def _judged(task: Task) -> Task:
    """Returns the task with what its judge measures, which chooses the best save."""
    return task._replace(
        metrics={**METRICS, **_JUDGED}, measured=tuple(_JUDGED), best="frechet_distance"
    )


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


def _rates(
    rates: Mapping[str, Rate], other_rates: Mapping[str, Rate], parts: Sequence[str]
) -> dict[str, Rate]:
    """Returns the generator's rate, and the discriminator's: that of its first optimizer."""
    return {
        "learning_rate": _rate_of(rates["learning_rate"], "generator", "generator"),
        "discriminator_learning_rate": _rate_of(
            other_rates["learning_rate"], "discriminator", parts[0]
        ),
    }


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

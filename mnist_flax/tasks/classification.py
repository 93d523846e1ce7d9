"""Which class is an image of? Softmax cross-entropy, and the share that is right."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from ml_collections import ConfigDict

from mnist_flax.core.optimizers import optimizer_of
from mnist_flax.core.sums import Sums
from mnist_flax.core.task import Metric, Spec, Task, Variables
from mnist_flax.data.batch import Batch
from mnist_flax.errors import UsageError, together
from mnist_flax.models import create_model
from mnist_flax.tasks.networks import apply_eval, apply_train, one_network, require_width

METRICS = {"loss": Metric(), "accuracy": Metric(larger_is_better=True, bounds=(0, 1))}
OBSERVERS = ("evaluation_pictures", "lost_classes", "first_predictions", "flat_loss")


def classification(config: ConfigDict, spec: Spec) -> Task:
    """Builds the task of the tutorials from what a config names.

    Args:
      config: model, compute_dtype, optimizer, schedule, clip_by_global_norm, label_smoothing,
        class_weights, accumulate_steps, log_norms and log_probabilities are read.
      spec: of the data.

    Raises:
      UsageError: the model, the optimizer or the schedule; every fault at once.
    """
    return classifying(config, spec, loss_fn)


def classifying(config: ConfigDict, spec: Spec, loss: Callable[..., Any]) -> Task:
    """Builds the same task, learnt by a loss with the arguments of loss_fn()."""
    num_classes = len(spec.class_names)
    model, (optimizer, rates), weights = together(
        lambda: create_model(config.model, num_classes, compute_dtype=config.compute_dtype),
        lambda: optimizer_of(config, spec.num_steps),
        lambda: _one_a_class(config.class_weights, spec),
    )
    task = classifier(
        model,
        optimizer,
        spec,
        config.label_smoothing,
        weights,
        loss,
        accumulate_steps=config.accumulate_steps,
        log_norms=config.log_norms,
    )
    observers = (*task.observers, *(("probabilities",) if config.log_probabilities else ()))
    return task._replace(rates=rates, observers=observers)


def classifier(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    spec: Spec,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] = (),
    loss: Callable[..., Any] | None = None,
    **steps: Any,
) -> Task:
    """Puts a linen module and an optimizer together to the task of telling spec.class_names apart.

    The module takes float32 [B, H, W, C] in [0, 1] and gives logits [B, K] (see models/). What is
    learnt by is `loss`, with the arguments of loss_fn(), which is the default. `steps` are the
    accumulate_steps and log_norms of core/update.py.
    """
    num_classes, own = len(spec.class_names), loss or loss_fn
    learnt_by = functools.partial(own, model, num_classes, label_smoothing, tuple(class_weights))
    return Task(
        **one_network(model, optimizer, spec, learnt_by, **steps),
        evaluate=functools.partial(eval_step, model, num_classes),
        predict=functools.partial(predict_step, model),
        metrics=METRICS,
        best="accuracy",
        observers=OBSERVERS,
        in_training=functools.partial(_in_training, model),
        exported=("probabilities",),
        modes=("eval", "predict", "report", "serve", "export"),
    )


def _one_a_class(weights: Sequence[float], spec: Spec) -> Sequence[float]:
    if weights and len(weights) != len(spec.class_names):
        raise UsageError(
            f"config.class_weights={tuple(weights)}: {len(weights)} for {len(spec.class_names)} "
            f"classes; give one for each of {', '.join(spec.class_names[:12])}"
            f"{', …' if len(spec.class_names) > 12 else ''}."
        )
    return weights


def sums_of(logits: jax.Array, labels: jax.Array, mask: jax.Array | None = None) -> Sums:
    """Sums one batch: {'loss': float32 [], 'accuracy': int32 [], 'count': int32 []}.

    Args:
      logits: float32 [B, K].
      labels: int32 [B].
      mask: bool [B], False for padding; None counts all.
    """
    mask = jnp.ones(labels.shape, bool) if mask is None else mask
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return {
        # where, not a product: a NaN in the padding must not reach the sum.
        "loss": jnp.where(mask, losses, 0.0).sum(),
        "accuracy": jnp.sum(mask & (logits.argmax(-1) == labels), dtype=jnp.int32),
        "count": jnp.sum(mask, dtype=jnp.int32),
    }


def loss_fn(
    model: nn.Module,
    num_classes: int,
    label_smoothing: float,
    class_weights: tuple[float, ...],
    variables: Variables,
    batch: Batch,
    key: jax.Array,
) -> tuple[jax.Array, tuple[dict[str, Any], Sums]]:
    """Mean softmax cross-entropy of a batch; next to it the new batch statistics and the sums.

    With label smoothing a, the labels that the loss is computed from are 1 - a + a / K at their own
    class and a / K at the others (arXiv 1512.00567). What a label adds to the loss is multiplied by
    its class's weight. Where images are mixed, batch.soft_labels are learnt. The sums are those of
    the labels as they are.
    """
    logits, changed = apply_train(model, variables, batch.images, key)
    require_width(model, logits, batch.images, num_classes, "")
    loss, sums = label_loss(logits, batch, label_smoothing, class_weights)
    return loss, (changed, sums)


def label_loss(
    logits: jax.Array, batch: Batch, label_smoothing: float, class_weights: tuple[float, ...]
) -> tuple[jax.Array, Sums]:
    """Returns what loss_fn() makes of logits float32 [B, K], and the sums of the batch."""
    num_classes = logits.shape[-1]
    sums = sums_of(logits, batch.labels)
    if not (label_smoothing or class_weights or batch.soft_labels is not None):
        return sums["loss"] / sums["count"], sums
    targets = batch.soft_labels
    if targets is None:
        targets = jax.nn.one_hot(batch.labels, num_classes)
    if label_smoothing:
        targets = optax.smooth_labels(targets, label_smoothing)
    if class_weights:
        targets *= jnp.array(class_weights, targets.dtype)
    return optax.softmax_cross_entropy(logits, targets).mean(), sums


def eval_step(
    model: nn.Module, num_classes: int, variables: Variables, batch: Batch
) -> tuple[Sums, dict[str, jax.Array]]:
    """Returns sums over what the mask lets pass; {'classes': int32 [B], 'labels': int32 [B]}."""
    logits = apply_eval(model, variables, batch.images)
    require_width(model, logits, batch.images, num_classes, " with train=False")
    classes = logits.argmax(-1).astype(jnp.int32)
    return sums_of(logits, batch.labels, batch.mask), {"classes": classes, "labels": batch.labels}


def predict_step(model: nn.Module, variables: Variables, images: jax.Array) -> dict[str, jax.Array]:
    """Returns {'classes': int32 [B], 'probabilities': float32 [B, K]} for images uint8 [B, …]."""
    logits = apply_eval(model, variables, images)
    return {"classes": logits.argmax(-1).astype(jnp.int32), "probabilities": nn.softmax(logits)}


def _in_training(
    model: nn.Module, variables: Variables, batch: Batch, key: jax.Array
) -> dict[str, jax.Array]:
    return {"probabilities": nn.softmax(apply_train(model, variables, batch.images, key)[0])}

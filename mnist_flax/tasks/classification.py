"""Which class is an image of? Softmax cross-entropy, and the share that is right."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from ml_collections import ConfigDict

from mnist_flax.core.optimizers import optimizer_of
from mnist_flax.core.sums import Sums
from mnist_flax.core.task import Metric, Spec, Task, Variables
from mnist_flax.data.sources import Batch
from mnist_flax.errors import together
from mnist_flax.models import create_model
from mnist_flax.tasks.networks import apply_eval, apply_train, one_network, require_width

METRICS = {"loss": Metric(), "accuracy": Metric(larger_is_better=True)}
OBSERVERS = ("evaluation_pictures", "lost_classes", "first_predictions", "flat_loss")


def classification(config: ConfigDict, spec: Spec) -> Task:
    """Builds the task of the tutorials from what a config names.

    Args:
      config: model, optimizer, schedule, clip_by_global_norm, label_smoothing and log_probabilities
        are read.
      spec: of the data.

    Raises:
      UsageError: the model, the optimizer or the schedule; every fault at once.
    """
    num_classes = len(spec.class_names)
    model, (optimizer, rates) = together(
        lambda: create_model(config.model, num_classes),
        lambda: optimizer_of(config, spec.num_steps),
    )
    task = classifier(model, optimizer, spec, config.label_smoothing)
    observers = (*task.observers, *(("probabilities",) if config.log_probabilities else ()))
    return task._replace(rates=rates, observers=observers)


def classifier(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    spec: Spec,
    label_smoothing: float = 0.0,
) -> Task:
    """Puts a linen module and an optimizer together to the task of telling spec.class_names apart.

    The module takes float32 [B, H, W, C] in [0, 1] and gives logits [B, K] (see models/).
    """
    num_classes = len(spec.class_names)
    loss = functools.partial(loss_fn, model, num_classes, label_smoothing)
    return Task(
        **one_network(model, optimizer, spec, loss),
        evaluate=functools.partial(eval_step, model, num_classes),
        predict=functools.partial(predict_step, model),
        metrics=METRICS,
        best="accuracy",
        observers=OBSERVERS,
        in_training=functools.partial(_in_training, model),
        exported=("probabilities",),
        modes=("eval", "predict", "report", "serve", "export"),
    )


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
    variables: Variables,
    batch: Batch,
    key: jax.Array,
) -> tuple[jax.Array, tuple[dict[str, Any], Sums]]:
    """Mean softmax cross-entropy of a batch; beside it the new batch statistics and the sums.

    With label smoothing a, the labels that the loss is computed from are 1 - a + a / K at their own
    class and a / K at the others (arXiv 1512.00567). The sums are those of the labels as they are.
    """
    logits, changed = apply_train(model, variables, batch.images, key)
    require_width(model, logits, batch.images, num_classes, "")
    sums = sums_of(logits, batch.labels)
    if label_smoothing:
        one_hot = jax.nn.one_hot(batch.labels, logits.shape[-1])
        smooth = optax.smooth_labels(one_hot, label_smoothing)
        return optax.softmax_cross_entropy(logits, smooth).mean(), (changed, sums)
    return sums["loss"] / sums["count"], (changed, sums)


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

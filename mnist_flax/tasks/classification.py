"""The pure steps, undecorated: programs.py loops them, compilation.py jits."""

from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from mnist_flax import cpu
from mnist_flax.core.metrics import Metrics
from mnist_flax.core.state import PyTree, TrainState
from mnist_flax.core.trees import first_change
from mnist_flax.data.augment import normalize
from mnist_flax.data.pipeline import Batch
from mnist_flax.errors import UsageError, where_it_failed


def apply_train(
    model: nn.Module, params: PyTree, batch_stats: PyTree, images: jax.Array, key: jax.Array
) -> tuple[jax.Array, PyTree]:
    """The model in training: images uint8 [B, H, W, C] -> logits [B, K], new batch statistics."""
    logits, updates = model.apply(
        {"params": params, "batch_stats": batch_stats},
        normalize(images),
        train=True,
        rngs={"dropout": key},
        mutable=["batch_stats"],
    )
    return logits, updates.get("batch_stats", {})


def loss_fn(
    model: nn.Module,
    params: PyTree,
    batch_stats: PyTree,
    batch: Batch,
    key: jax.Array,
    label_smoothing: float = 0.0,
) -> tuple[jax.Array, tuple[PyTree, Metrics]]:
    """Mean softmax cross-entropy of a batch; beside it the new batch statistics and the sums.

    With label smoothing a, the labels that the loss is computed from are 1 - a + a / K at their own
    class and a / K at the others. The sums are those of the labels as they are.
    """

    def forward(params: PyTree, images: jax.Array) -> tuple[jax.Array, PyTree]:
        return apply_train(model, params, batch_stats, images, key)

    logits, batch_stats = cpu.for_backend(forward)(params, batch.images)
    metrics = Metrics.from_logits(logits, batch.labels)
    if label_smoothing:
        one_hot = jax.nn.one_hot(batch.labels, logits.shape[-1])
        smooth = optax.smooth_labels(one_hot, label_smoothing)
        return optax.softmax_cross_entropy(logits, smooth).mean(), (batch_stats, metrics)
    return metrics.loss_sum / metrics.count, (batch_stats, metrics)


def train_step(
    state: TrainState,
    batch: Batch,
    dropout_key: jax.Array,
    *,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    label_smoothing: float = 0.0,
) -> tuple[TrainState, Metrics]:
    """One update. The metrics are those of the batch before it, with dropout on."""
    grads, (batch_stats, metrics) = jax.grad(loss_fn, argnums=1, has_aux=True)(
        model, state.params, state.batch_stats, batch, dropout_key, label_smoothing
    )
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    state = state.replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=batch_stats,
        opt_state=opt_state,
        window=state.window.merge(metrics),
        epoch=state.epoch.merge(metrics),
    )
    return state, metrics


def apply_eval(model: nn.Module, state: TrainState, images: jax.Array) -> jax.Array:
    """The model at rest, running statistics and no dropout: uint8 [B, H, W, C] -> logits [B, K]."""
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    return cast(jax.Array, model.apply(variables, normalize(images)))


def eval_step(state: TrainState, batch: Batch, *, model: nn.Module) -> tuple[Metrics, jax.Array]:
    """Returns sums over the examples that the mask lets pass, and the class of each: int32 [B]."""
    logits = apply_eval(model, state, batch.images)
    metrics = Metrics.from_logits(logits, batch.labels, batch.mask)
    return metrics, logits.argmax(-1).astype(jnp.int32)


def predict_step(state: TrainState, images: jax.Array, *, model: nn.Module) -> dict[str, jax.Array]:
    """Returns {'classes': int32 [B], 'probabilities': float32 [B, K]} for images uint8 [B, …]."""
    logits = apply_eval(model, state, images)
    return {"classes": logits.argmax(-1).astype(jnp.int32), "probabilities": nn.softmax(logits)}


def check_model(model: nn.Module, image_shape: tuple[int, ...], num_classes: int) -> None:
    """Traces the model as the run will use it, in training and at rest, and checks what comes out.

    Raises:
      UsageError: it fails, with the line where it does; its logits are not [B, num_classes]; or
        its batch statistics change their form.
    """
    images = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)

    def both_modes(images: jax.Array) -> tuple[Any, Any, Any, Any]:
        variables = model.init(jax.random.key(0), images)
        logits, updates = model.apply(
            variables,
            images,
            train=True,
            rngs={"dropout": jax.random.key(1)},
            mutable=["batch_stats"],
        )
        stats = {name: variables[name] for name in updates if name in variables}
        return logits, model.apply(variables, images), stats, updates

    name = f"{type(model).__module__}:{type(model).__name__}"
    try:
        in_training, at_rest, stats, new_stats = jax.eval_shape(both_modes, images)
    except Exception as error:
        raise UsageError(
            f"config.model.name={name!r} fails on images {list(images.shape)}: "
            f"{where_it_failed(error, __file__)}"
        ) from error
    for logits, mode in ((in_training, ""), (at_rest, " with train=False")):
        shape = getattr(logits, "shape", None)
        if shape != (2, num_classes):
            got = "no array" if shape is None else f"logits {list(shape)}"
            raise UsageError(
                f"config.model.name={name!r}{mode} gives {got} for {images.shape[0]} images of "
                f"{num_classes} classes; needed are [{images.shape[0]}, {num_classes}]."
            )
    if change := first_change(stats, new_stats):
        raise UsageError(
            f"config.model.name={name!r}: a step makes {change}; batch statistics must keep their "
            "form."
        )

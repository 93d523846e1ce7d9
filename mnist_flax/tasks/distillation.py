"""Learn from another network: its probabilities, softened, and the labels as well."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from mnist_flax import cpu
from mnist_flax.core.sums import Sums
from mnist_flax.core.task import Spec, Task, Variables
from mnist_flax.data.batch import Batch
from mnist_flax.errors import UsageError
from mnist_flax.models import create_model
from mnist_flax.tasks.classification import classifying, label_loss
from mnist_flax.tasks.ensemble import check_checkpoint, zeros_like
from mnist_flax.tasks.networks import apply_eval, apply_train, init_variables, require_width

TEACHER = "teacher"


def distillation(
    config: ConfigDict,
    spec: Spec,
    teacher: str = "",
    checkpoint: str = "latest",
    temperature: float = 4.0,
    teacher_weight: float = 0.9,
    network: Any = None,
    taken: Any = None,
) -> Task:
    """Builds the task of a classification whose network, the student, learns from a teacher.

    The teacher's variables are carried in the run's own, as variables['teacher'], which no step
    changes: a run that goes on needs the teacher's workdir no longer, and every save is larger by
    the teacher's bytes. Whatever is evaluated, answered, exported and served is the student.
    Before a run starts, training/taken.py puts the teacher's network into config.task.network and
    its arrays into the first state.

    Args:
      config: what classification() reads, of the student.
      spec: of the data.
      teacher: the workdir of a finished classification, an ensemble for one.
      checkpoint: which save of it: 'latest' or 'best'.
      temperature: that both networks' logits are divided by before the softmax that is compared.
      teacher_weight: what the teacher counts, from 0 to 1; the labels count the rest.
      network: the teacher's model and compute_dtype; written by the run itself.
      taken: where the teacher came from; likewise.

    Raises:
      UsageError: a wrong field; every fault of the student's at once.
    """
    del taken
    _check(teacher, temperature, teacher_weight)
    check_checkpoint(checkpoint)
    num_classes = len(spec.class_names)
    model = _network(network, num_classes)
    loss = functools.partial(loss_fn, model, float(temperature), float(teacher_weight))
    task = classifying(config, spec, loss)

    def init(key: jax.Array) -> Variables:
        start = functools.partial(init_variables, _known(model), spec.image_shape)
        return {**task.init(key), TEACHER: zeros_like(start, key)}

    in_training = task.in_training
    return task._replace(
        init=init,
        evaluate=lambda variables, batch: task.evaluate(student(variables), batch),
        predict=lambda variables, images: task.predict(student(variables), images),
        in_training=in_training
        and (lambda variables, batch, key: in_training(student(variables), batch, key)),
        answering=student,
        fixed=(TEACHER,),
    )


def student(variables: Variables) -> Variables:
    """Returns the variables without the teacher's."""
    return {name: value for name, value in variables.items() if name != TEACHER}


def loss_fn(
    teacher: nn.Module | None,
    temperature: float,
    teacher_weight: float,
    model: nn.Module,
    num_classes: int,
    label_smoothing: float,
    class_weights: tuple[float, ...],
    variables: Variables,
    batch: Batch,
    key: jax.Array,
) -> tuple[jax.Array, tuple[dict[str, Any], Sums]]:
    """The labels' loss and the teacher's, weighted; with them the new batch statistics and sums.

    (1 - w) · labels + w · distance, where the labels' is the loss of a classification, with its
    label smoothing, class weights and mixed labels, and the distance is that of
    distance_to_teacher(). The teacher sees the same images, augmented and mixed, at rest. The sums
    are those of the labels as they are.
    """
    logits, changed = apply_train(model, student(variables), batch.images, key)
    require_width(model, logits, batch.images, num_classes, "")
    loss, sums = label_loss(logits, batch, label_smoothing, class_weights)
    if teacher_weight:  # with none, a classification, bit for bit
        # On a CPU a forward pass of another order of axes would be slow in a loop.
        look = cpu.for_backend(functools.partial(apply_eval, _known(teacher)))
        wanted = look(variables[TEACHER], batch.images)
        require_width(_known(teacher), wanted, batch.images, num_classes, " with train=False")
        distance = distance_to_teacher(logits, wanted, temperature)
        loss = (1 - teacher_weight) * loss + teacher_weight * distance
    return loss, (changed, sums)


def distance_to_teacher(logits: jax.Array, wanted: jax.Array, temperature: float) -> jax.Array:
    """Returns T² · KL(softmax(wanted / T) ‖ softmax(logits / T)), its mean over a batch.

    After Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network" (arXiv
    1503.02531), section 2: the factor T² keeps the gradient's size, whatever the temperature. The
    divergence is their cross-entropy less what does not depend on the student.

    Args:
      logits: float32 [B, K], the student's.
      wanted: float32 [B, K], the teacher's.
      temperature: T.
    """
    ours = nn.log_softmax(logits / temperature)
    theirs = nn.log_softmax(jax.lax.stop_gradient(wanted) / temperature)
    return temperature**2 * (jnp.exp(theirs) * (theirs - ours)).sum(axis=-1).mean()


def _network(network: Any, num_classes: int) -> nn.Module | None:
    """Builds the teacher's module; None as long as it is not known."""
    if network is None:
        return None
    return create_model(network.model, num_classes, compute_dtype=network.compute_dtype)


def _known(teacher: nn.Module | None) -> nn.Module:
    if teacher is None:
        raise UsageError(
            "config.task.network: is missing; a run writes it when it starts, from the workdir "
            "that config.task.teacher names."
        )
    return teacher


def _check(teacher: Any, temperature: Any, teacher_weight: Any) -> None:
    """Raises UsageError for fields of another kind: a flag may have added them as text."""

    def number(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool)

    for field, value, fits, want in (
        ("teacher", teacher, isinstance(teacher, str), "a workdir's name"),
        ("temperature", temperature, number(temperature) and 0 < temperature < 1e4, "positive"),
        (
            "teacher_weight",
            teacher_weight,
            number(teacher_weight) and 0 <= teacher_weight <= 1,
            "a number from 0 to 1",
        ),
    ):
        if not fits:
            raise UsageError(f"config.task.{field}={value!r}: must be {want}.")

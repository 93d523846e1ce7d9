"""Learning from a teacher: its loss and gradient by hand; what of it is a classification."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from made import spec_of
from ml_collections import ConfigDict
from tiny import get_config

from mnist_flax.core.task import Task
from mnist_flax.data.batch import Batch
from mnist_flax.errors import UsageError
from mnist_flax.tasks import create_task
from mnist_flax.tasks.distillation import TEACHER, distance_to_teacher, student

NETWORK = {"model": {"name": "tiny:TinyNet", "features": 6}, "compute_dtype": "float32"}


def config_of(**fields: Any) -> ConfigDict:
    config = get_config()
    config.task = ConfigDict({"name": "distillation", "network": NETWORK, **fields})
    return config


def batch() -> Batch:
    images = jax.random.randint(jax.random.key(5), (6, 8, 8, 1), 0, 256, jnp.uint8)
    return Batch(images, jnp.arange(6) % 10, jnp.arange(6))


def start(task: Task) -> tuple[Any, Any]:
    """A first state whose teacher has something to say."""
    variables = task.init(jax.random.key(0))
    if TEACHER in variables:
        variables[TEACHER] = jax.tree.map(
            lambda leaf: jax.random.uniform(jax.random.key(leaf.size), leaf.shape) + 0.1,
            variables[TEACHER],
        )
    return variables, task.init_opt(variables)


def stepped(task: Task, **changes: Any) -> tuple[Any, Any]:
    variables, opt_state = start(task)
    seen = dataclasses.replace(batch(), **changes)
    update = jax.jit(task.update)
    for step in range(3):
        variables, opt_state, _ = update(
            variables, opt_state, seen, jnp.int32(step), jax.random.key(step)
        )
    return variables, opt_state


def softmax(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_distance_and_its_gradient_by_hand(temperature: float) -> None:
    random = np.random.default_rng(0)
    ours, theirs = random.normal(size=(2, 3, 4)) * 3
    p, q = softmax(theirs / temperature), softmax(ours / temperature)
    wanted = temperature**2 * (p * np.log(p / q)).sum(-1).mean()
    found, gradient = jax.value_and_grad(distance_to_teacher)(
        jnp.float32(ours), jnp.float32(theirs), temperature
    )
    assert float(found) == pytest.approx(wanted, rel=1e-5)
    # T² · (q - p) / T of each image, in a mean over three.
    np.testing.assert_allclose(gradient, temperature * (q - p) / 3, rtol=1e-4, atol=1e-6)
    of_teacher = jax.grad(distance_to_teacher, argnums=1)(
        jnp.float32(ours), jnp.float32(theirs), temperature
    )
    assert not of_teacher.any()
    assert float(distance_to_teacher(jnp.float32(ours), jnp.float32(ours), 2.0)) == 0


def test_the_loss_is_the_weighted_sum_of_both() -> None:
    """SGD of rate 1 in its first step shows the gradient, which is linear in the weight."""

    def gradient(weight: float) -> Any:
        config = config_of(temperature=2.0, teacher_weight=weight)
        config.optimizer = ConfigDict({"name": "sgd", "learning_rate": 1.0})
        task = create_task(config, spec_of())
        variables, opt_state = start(task)
        after, _, _ = jax.jit(task.update)(
            variables, opt_state, batch(), jnp.int32(0), jax.random.key(0)
        )
        return jax.tree.map(lambda old, new: old - new, variables["params"], after["params"])

    labels, half, teacher = gradient(0.0), gradient(0.25), gradient(1.0)
    for a, b, c in zip(*map(jax.tree.leaves, (labels, half, teacher)), strict=True):
        np.testing.assert_allclose(b, 0.75 * a + 0.25 * c, rtol=1e-3, atol=2e-6)
    assert abs(labels["logits"]["bias"] - teacher["logits"]["bias"]).max() > 1e-2


def test_without_weight_it_is_a_classification_to_the_bit() -> None:
    ours = stepped(create_task(config_of(temperature=1.0, teacher_weight=0.0), spec_of()))
    theirs = stepped(create_task(get_config(), spec_of()))
    for a, b in zip(
        jax.tree.leaves((student(ours[0]), ours[1])), jax.tree.leaves(theirs), strict=True
    ):
        assert a.tobytes() == b.tobytes()


# In few programs, each of which takes seconds to compile.
@pytest.mark.parametrize(
    "asked",
    [
        {"accumulate_steps": 2, "log_norms": True, "ema_decay": 0.9, "on_bad_step": "skip"},
        {"plateau_patience": 2, "label_smoothing": 0.1, "class_weights": (1.0,) * 9 + (2.0,)},
        {"compute_dtype": "bfloat16"},
    ],
)
def test_nothing_that_a_run_may_ask_for_changes_the_teacher(asked: dict[str, Any]) -> None:
    config = config_of()
    config.update(asked)
    task = create_task(config, spec_of())
    before, _ = start(task)
    after, _ = stepped(task)
    for a, b in zip(*(jax.tree.leaves(one[TEACHER]) for one in (before, after)), strict=True):
        assert a.tobytes() == b.tobytes()
    assert TEACHER not in after.get("average", {})
    assert task.answering(after).keys() == {"params", "batch_stats"}
    assert not np.array_equal(before["params"]["logits"]["bias"], after["params"]["logits"]["bias"])


def test_mixed_labels_are_learnt_and_the_teacher_sees_what_is_mixed() -> None:
    task = create_task(config_of(teacher_weight=0.5), spec_of())
    plain = stepped(task)[0]
    mixed = stepped(task, soft_labels=jnp.full((6, 10), 0.1))[0]
    assert not np.array_equal(plain["params"]["logits"]["bias"], mixed["params"]["logits"]["bias"])


def test_answers_are_the_students_alone() -> None:
    task = create_task(config_of(), spec_of())
    variables, _ = start(task)
    alone = create_task(get_config(), spec_of())
    images = batch().images
    for one, other in (
        (task.predict(variables, images), alone.predict(student(variables), images)),
        (task.evaluate(variables, batch()), alone.evaluate(student(variables), batch())),
    ):
        jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("temperature", 0.0, "=0.0: must be positive."),
        ("temperature", "hot", "='hot': must be positive."),
        ("teacher_weight", 1.5, "=1.5: must be a number from 0 to 1."),
        ("teacher", 3, "=3: must be a workdir's name."),
        ("checkpoint", "newest", "='newest': must be 'latest' or 'best'."),
    ],
)
def test_a_wrong_field_is_one_line(field: str, value: Any, told: str) -> None:
    with pytest.raises(UsageError) as error:
        create_task(config_of(**{field: value}), spec_of())
    assert str(error.value) == f"config.task.{field}{told}"

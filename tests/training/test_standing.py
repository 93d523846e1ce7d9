"""When an evaluation is the best so far."""

import optax
import pytest
from made import task_of
from tiny import TinyNet

from mnist_flax.core.task import Metric
from mnist_flax.training.standing import improves

TASK = task_of(TinyNet(), optax.sgd(0.1))._replace(
    metrics={"accuracy": Metric(".4f", larger_is_better=True), "loss": Metric(".4f")}
)


@pytest.mark.parametrize(
    ("metric", "value", "best", "better"),
    [
        ("accuracy", 0.75, 0.5, True),
        ("accuracy", 0.25, 0.5, False),
        ("accuracy", 0.5, 0.5, False),  # of equals the first stays
        ("loss", 0.25, 0.5, True),
        ("loss", 0.75, 0.5, False),
        ("loss", 0.5, 0.5, False),
        ("accuracy", 0.0, None, True),  # the first is the best so far
        ("", 0.75, 0.5, False),  # no metric chooses
        ("", 0.75, None, False),
    ],
)
def test_better_is_better_and_as_good_is_not(
    metric: str, value: float, best: float | None, better: bool
) -> None:
    assert improves(TASK._replace(best=metric), {metric: value}, best) is better

"""When a run logs, evaluates and saves."""

import itertools

import pytest

from mnist_flax.config import default_config
from mnist_flax.errors import UsageError
from mnist_flax.training.timetable import Timetable

TABLE = {  # (total, epoch, log, eval, checkpoint) -> rows, evaluations, saves
    "intervals": ((10, 100, 4, 5, 10), [1, 4, 8, 10], [5, 10], [10]),
    "each step": ((3, 100, 1, 1, 1), [1, 2, 3], [1, 2, 3], [1, 2, 3]),
    "one step": ((1, 100, 100, 100, 100), [1], [1], [1]),
    "longer than the run": ((7, 3, 50, 60, 70), [1, 7], [7], [7]),
    "the end is no multiple": ((11, 3, 5, 4, 6), [1, 5, 10, 11], [4, 8, 11], [6, 11]),
}


@pytest.mark.parametrize(
    ("numbers", "rows", "evaluations", "saves"), TABLE.values(), ids=TABLE.keys()
)
def test_what_is_due(
    numbers: tuple[int, ...], rows: list[int], evaluations: list[int], saves: list[int]
) -> None:
    times = Timetable(*numbers)
    steps = range(times.total_steps + 1)
    assert [step for step in steps if times.row_due(step)] == rows
    assert [step for step in steps if times.eval_due(step)] == evaluations
    assert [step for step in steps if times.save_due(step)] == saves


def test_next_event_visits_every_event_and_epochs_end_and_nothing_else() -> None:
    for numbers in itertools.product((1, 7, 12), (1, 3, 5), (1, 4, 20), (2, 6), (3, 20)):
        times = Timetable(*numbers)
        visited = [0]
        while visited[-1] < times.total_steps:
            visited.append(times.next_event(visited[-1]))
        assert visited[1:] == [
            step
            for step in range(1, times.total_steps + 1)
            if times.row_due(step)
            or times.eval_due(step)
            or times.save_due(step)
            or step % times.steps_per_epoch == 0
        ], numbers


def test_next_event_from_the_middle_of_an_interval() -> None:
    times = Timetable(100, steps_per_epoch=9, log_every=10, eval_every=25, checkpoint_every=50)
    assert [times.next_event(step) for step in (1, 9, 10, 17, 18, 99)] == [9, 10, 18, 18, 20, 100]


def test_zero_means_once_an_epoch() -> None:
    config = default_config()
    config.update({"num_epochs": 3, "batch_size": 100, "log_every_steps": 0})
    assert Timetable.from_config(config, 1099) == Timetable(
        total_steps=30, steps_per_epoch=10, log_every=10, eval_every=10, checkpoint_every=10
    )


def test_steps_and_intervals_are_taken_as_given() -> None:
    config = default_config()
    config.update({"num_steps": 25, "batch_size": 100})
    config.update({"log_every_steps": 2, "eval_every_steps": 3, "checkpoint_every_steps": 4})
    assert Timetable.from_config(config, 1000) == Timetable(25, 10, 2, 3, 4)


def test_a_batch_may_be_the_whole_data_but_not_more() -> None:
    config = default_config()
    config.update({"num_epochs": 2, "batch_size": 50})
    assert Timetable.from_config(config, 50).total_steps == 2
    with pytest.raises(UsageError) as error:
        Timetable.from_config(config, 49)
    assert str(error.value) == (
        "config.batch_size=50: config.data.train_split='train' has only 49 examples; "
        "take at most so many."
    )

"""Points of a sweep and their names: functions of what was asked for, and of nothing else."""

import pytest

from mnist_flax.config.sweep import grid, log_uniform, point_name, random_points, uniform
from mnist_flax.errors import UsageError

RATE = "optimizer.learning_rate"


def test_a_grid_is_every_combination() -> None:
    assert grid({RATE: (0.1, 0.01), "batch_size": (50, 100)}) == [
        {RATE: 0.1, "batch_size": 50},
        {RATE: 0.1, "batch_size": 100},
        {RATE: 0.01, "batch_size": 50},
        {RATE: 0.01, "batch_size": 100},
    ]
    assert grid({}) == [{}]


def test_random_points_are_a_function_of_the_seed() -> None:
    values = {
        RATE: log_uniform(1e-4, 1e-1),
        "batch_size": (50, 100),
        "label_smoothing": uniform(0, 1),
    }
    # Written out: another version of Python, or of this, must draw them again.
    assert random_points(0, 3, values) == [
        {RATE: 0.00373, "batch_size": 50, "label_smoothing": 0.738},
        {RATE: 0.0544, "batch_size": 100, "label_smoothing": 0.886},
        {RATE: 0.00127, "batch_size": 50, "label_smoothing": 0.84},
    ]
    assert random_points(1, 3, values) != random_points(0, 3, values)


def test_more_points_and_more_fields_keep_those_that_were() -> None:
    values = {RATE: log_uniform(1e-4, 1e-1)}
    few, many = (random_points(0, count, values) for count in (5, 9))
    assert many[:5] == few
    wider = random_points(0, 5, {"label_smoothing": uniform(0.0, 0.5), **values})
    assert [point[RATE] for point in wider] == [point[RATE] for point in few]


def test_ranges_are_drawn_as_they_say() -> None:
    drawn = [p[RATE] for p in random_points(0, 400, {RATE: log_uniform(1e-4, 1e-2)})]
    assert 150 < sum(value < 1e-3 for value in drawn) < 250  # half of it, in the logarithm
    assert min(drawn) >= 1e-4
    assert max(drawn) <= 1e-2
    drawn = [p["ema_decay"] for p in random_points(0, 300, {"ema_decay": uniform(0, 0.9)})]
    assert 110 < sum(value < 0.45 for value in drawn) < 190
    assert all(float(f"{value:.3g}") == value for value in drawn)


def test_no_point_is_drawn_twice() -> None:
    drawn = random_points(0, 6, {"batch_size": (50, 100), "seed": range(3)})
    assert sorted(point_name(point) for point in drawn) == sorted(
        point_name(point) for point in grid({"batch_size": (50, 100), "seed": range(3)})
    )
    with pytest.raises(UsageError, match="count=3: these values give 2 different points"):
        random_points(0, 3, {"batch_size": (50, 100)})


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"seed": 3}, "config.seed=3: a sweep takes a list"),
        ({"seed": ()}, "config.seed=(): a sweep takes a list"),
        ({"model.name": "lenet"}, "config.model.name='lenet': a sweep takes a list"),
    ],
)
def test_what_is_no_list(values: dict, told: str) -> None:
    for make in (grid, lambda values: random_points(0, 1, values)):
        with pytest.raises(UsageError) as error:
            make({**values, "batch_size": 7})
        lines = str(error.value).split("\n")
        assert len(lines) == 2  # every fault at once
        assert lines[0].startswith(told)


@pytest.mark.parametrize(
    ("choices", "told"),
    [
        (uniform(2, 1), "2 to 1 is no range"),
        (uniform(0, float("inf")), "0 to inf is no range"),
        (uniform("a", "b"), "'a' to 'b' is no range"),
        (log_uniform(0, 1), r"log_uniform\(0, 1\): both must be above 0"),
    ],
)
def test_what_is_no_range(choices: object, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        random_points(0, 1, {RATE: choices})
    with pytest.raises(UsageError, match="takes a list"):
        grid({RATE: choices})


@pytest.mark.parametrize("count", [0, 1.5])
def test_how_many_is_a_number(count: object) -> None:
    with pytest.raises(UsageError, match="count="):
        random_points(0, count, {RATE: (1, 2)})


def test_names_are_short_and_fit_for_a_folder() -> None:
    assert point_name({RATE: 0.001, "batch_size": 50}) == "batch_size=50,learning_rate=0.001"
    assert point_name({"batch_size": 50, RATE: 0.001}) == "batch_size=50,learning_rate=0.001"
    assert point_name({"optimizer.name": "adam", "data.shuffle": False}) == (
        "optimizer=adam,shuffle=False"
    )
    assert point_name({"model.rate": 1, "task.rate": 2}) == "model.rate=1,task.rate=2"
    assert point_name({"model.features": (16, 32)}) == "features=16-32"
    assert point_name({}) == ""


def test_values_that_are_spelled_alike_have_names_of_their_own() -> None:
    values = ("mine:Net", "mine/Net", "mine-Net", "mine-net", "..", "ä", "x" * 300, "x" * 301)
    names = [point_name({"model.name": value}) for value in values]
    assert len({name.lower() for name in names}) == len(names)  # on every system
    for name in names:
        assert len(name) <= 100
        assert set(name) <= set(
            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789=.,-_+"
        )
    pairs = [point_name({"optimizer.rates": (("conv.*", rate),)}) for rate in (0.1, 0.2)]
    assert len(set(pairs)) == 2

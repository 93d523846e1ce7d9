"""A sweep's numbers, held against tables and against what can be computed by hand; its files."""

import json
import math
from pathlib import Path

import pytest
from report_page import Page
from swept_runs import ACCURACY, swept_run, swept_runs

from mnist_flax.core.sums import Metric
from mnist_flax.report.sweep_page import write_sweep
from mnist_flax.report.sweep_statistics import paired, summarize
from mnist_flax.report.sweep_table import as_markdown, heads, make_table, notes

# The two-sided 5 % points of Student's t by degrees of freedom, as every printed table has them.
T_TABLE = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 9: 2.262, 29: 2.045}


@pytest.mark.parametrize("degrees", T_TABLE)
def test_the_interval_is_that_of_the_t_table(degrees: int) -> None:
    values = [float(value) for value in range(degrees + 1)]
    n, mean = degrees + 1, degrees / 2
    # The variance of 0 … n-1, divided by n - 1, is n (n + 1) / 12.
    deviation = math.sqrt(n * (n + 1) / 12)
    known = summarize(values)
    assert (known.n, known.mean, known.smallest, known.largest) == (n, mean, 0, degrees)
    assert known.deviation == pytest.approx(deviation)
    half = T_TABLE[degrees] * deviation / math.sqrt(n)
    assert known.interval == pytest.approx((mean - half, mean + half), rel=1e-3, abs=1e-3)


def test_intervals_end_where_the_numbers_do(tmp_path: Path) -> None:
    assert summarize([0.9, 1.0], (0, 1)).interval == pytest.approx((0.95 - 0.6353, 1), rel=1e-3)
    assert summarize([0.0, 0.1], (0, 1)).interval == pytest.approx((0, 0.05 + 0.6353), rel=1e-3)
    of_both = paired({0: 0.9, 1: 0.5}, {0: 0.1, 1: 0.1}, (0, 1))
    assert of_both is not None
    assert of_both.interval == (-1, 1)
    wide = summarize([90.0, 100.0]).interval  # of a loss nobody knows where it ends
    assert wide is not None
    assert wide[1] == pytest.approx(158.53, rel=1e-3)
    known = notes(make_table(swept_runs(tmp_path), "accuracy", ACCURACY))
    assert "by Student's t, cut at 0 and 1, beyond which no accuracy lies. A dash" in known[1]


def test_a_difference_is_named_as_what_it_is(tmp_path: Path) -> None:
    table = make_table(swept_runs(tmp_path), "accuracy", Metric(".4f", larger_is_better=True))
    assert heads(table)[6:] == ["difference from the best", "its 95 % interval", "p"]
    told = notes(table)
    assert "by Student's t. A dash" in told[1]
    assert "the point's accuracy minus that of the point in the first row" in told[2]


def test_one_number_has_no_deviation() -> None:
    known = summarize([0.5])
    assert (known.n, known.mean, known.smallest, known.largest) == (1, 0.5, 0.5, 0.5)
    assert known.deviation is None
    assert known.interval is None


def test_paired_differences_of_two_seeds() -> None:
    # Differences 1 and 3: mean 2, deviation √2, t = 2; one degree of freedom is Cauchy's.
    found = paired({0: 2.0, 1: 5.0}, {0: 1.0, 1: 2.0})
    assert found is not None
    assert (found.n, found.mean) == (2, 2.0)
    assert found.p_value == pytest.approx(2 * (0.5 - math.atan(2) / math.pi))
    assert found.interval == pytest.approx((2 - 12.706, 2 + 12.706), rel=1e-3)


def test_paired_differences_of_three_seeds() -> None:
    # Differences 1, 2, 3: mean 2, deviation 1, t = 2√3; two degrees have a closed form, too.
    second = {0: 0.9, 1: -0.3, 2: 0.4}
    found = paired({seed: value + seed + 1 for seed, value in second.items()}, second)
    assert found is not None
    t = 2 * math.sqrt(3)
    assert found.p_value == pytest.approx(1 - t / math.sqrt(2 + t * t))
    other = paired(second, {seed: value + seed + 1 for seed, value in second.items()})
    assert other is not None
    assert other.mean == pytest.approx(-2)
    assert other.p_value == pytest.approx(found.p_value)


def test_seeds_are_paired_by_their_numbers() -> None:
    found = paired({2: 3.0, 0: 1.0, 7: 9.0}, {0: 1.0, 1: 8.0, 2: 2.0})
    assert found is not None
    assert (found.n, found.mean) == (2, 0.5)
    assert paired({0: 1.0}, {1: 1.0}) is None


@pytest.mark.parametrize(
    ("first", "second", "mean"),
    [
        ({0: 0.9}, {0: 0.8}, 0.1),  # one seed
        ({0: 0.7, 1: 0.8}, {0: 0.6, 1: 0.7}, 0.1),  # equal, but for rounding
        ({0: 0.7, 1: 0.8}, {0: 0.7, 1: 0.8}, 0.0),
    ],
)
def test_where_there_is_no_test(first: dict, second: dict, mean: float) -> None:
    found = paired(first, second)
    assert found is not None
    assert found.mean == pytest.approx(mean)
    assert found.p_value is None


def test_the_best_point_stands_first_and_others_are_held_against_it(tmp_path: Path) -> None:
    table = make_table(swept_runs(tmp_path), "accuracy", ACCURACY)
    # A point that lacks seeds may be lucky.
    assert [row.point for row in table.rows] == ["rate=0.2", "rate=0.1", "rate=0.3"]
    best, worse, one = table.rows
    assert best.values == {0: 0.6, 1: 0.8, 2: 1.0}  # of the last evaluation, not of the best one
    assert best.difference is None
    assert worse.difference is not None
    assert worse.difference.mean == pytest.approx(-0.2)
    assert worse.difference.n == 3
    assert (len(one.values), one.failed) == (1, 1)
    assert one.difference is not None
    assert one.difference.p_value is None
    text = as_markdown(table).splitlines()
    assert len({len(line) for line in text}) == 1
    assert [cell.strip() for cell in text[2].split("|")[1:-1]] == [
        *("rate=0.2", "3", "0.8000", "0.2", "0.3032 to 1.0000", "0.6000–1.0000", "–", "–", "–"),
    ]
    # Differences -0.1, -0.2, -0.3: t = -2√3, as above.
    assert [cell.strip() for cell in text[3].split("|")[7:-1]] == [
        "-0.2",
        "-0.45 to +0.048",
        "0.074",
    ]
    assert [cell.strip() for cell in text[4].split("|")[2:-1]] == [
        *("1 (1 failed)", "0.9900", "–", "–", "0.9900–0.9900", "+0.39", "–", "–"),
    ]


def test_less_is_better_of_a_loss(tmp_path: Path) -> None:
    runs = swept_runs(tmp_path)[:6]
    table = make_table(runs, "accuracy", Metric(".4f"))
    assert [row.point for row in table.rows] == ["rate=0.1", "rate=0.2"]


def test_a_table_of_seeds_alone_compares_nothing(tmp_path: Path) -> None:
    table = make_table(swept_runs(tmp_path)[:3], "accuracy", ACCURACY)
    assert "difference from the best" not in as_markdown(table)


def test_all_of_it_is_written(tmp_path: Path) -> None:
    text, path = write_sweep(tmp_path, swept_runs(tmp_path), "accuracy", ACCURACY)
    assert path == tmp_path / "sweep.html"
    assert (tmp_path / "sweep.md").read_text() == text
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert "- Failed: rate=0.3,seed=1: The run diverged." in text
    assert "- All runs: Fallback: no mnist." in text  # which no figure may hide
    assert "- Trained with data sample, cores 1, jax 0.1.\n" in text
    assert "config.data.eval_split='test'; larger is better" in text
    assert "data.select_split holds images out" in text
    whole = json.loads((tmp_path / "sweep.json").read_text())
    assert whole["points"][1]["values"] == {"0": 0.5, "1": 0.6, "2": 0.7}
    assert whole["points"][1]["varied"] == {"optimizer.learning_rate": 0.1}
    assert whole["faults"] == {"rate=0.3,seed=1": "The run diverged."}
    page = Page(path)
    assert [row[0] for row in page.tables["points"]] == [
        "point",
        "rate=0.2",
        "rate=0.1",
        "rate=0.3",
    ]
    assert page.tables["configs"] == [
        ["point", "optimizer.learning_rate"],
        *(["rate=0.1", "0.1"], ["rate=0.2", "0.2"], ["rate=0.3", "0.3"]),
    ]
    assert page.tables["faults"] == [["rate=0.3,seed=1", "The run diverged."]]
    assert len(page.images) == 3  # the points, the evaluations, training
    assert all(source.startswith("data:image/") for source in page.sources)  # nothing but itself


def test_what_chose_is_said(tmp_path: Path) -> None:
    runs = [swept_run(tmp_path, f"rate=0.{point}", 0, 0.5, split="select") for point in (1, 2)]
    text, _ = write_sweep(tmp_path, runs, "accuracy", ACCURACY)
    assert "config.data.select_split='train[90%:]'; larger is better" in text
    assert "holds images out" not in text


def test_other_cores_are_named(tmp_path: Path) -> None:
    runs = [
        swept_run(tmp_path, "rate=0.1", 0, 0.5),
        swept_run(tmp_path, "rate=0.2", 0, 0.5, cores=2),
    ]
    text, _ = write_sweep(tmp_path, runs, "accuracy", ACCURACY)
    assert "- Trained with data sample, jax 0.1.\n" in text  # and no number of cores
    told = "- Not all runs have the same cores: 1 (rate=0.1,seed=0); 2 (rate=0.2,seed=0)"
    assert told in text.splitlines()


def test_a_sweep_of_which_every_run_failed(tmp_path: Path) -> None:
    text, path = write_sweep(
        tmp_path, [swept_run(tmp_path, "rate=0.1", 0, None)], "accuracy", ACCURACY
    )
    assert "0 (1 failed)" in text
    assert Page(path).images == []
    assert not (tmp_path / "sweep.png").exists()

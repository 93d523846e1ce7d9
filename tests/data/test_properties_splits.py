"""The split language: any string gives the slice that NumPy gives, or one line on what is wrong.

TFDS's own reading of it is compared in test_data_dataset.py. More examples: see properties.py.
"""

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from properties import assert_told

from mnist_flax.data.splits import parse_split, resolve_split
from mnist_flax.errors import UsageError

FIELD = "config.data.train_split"
SIZES = {"train": 997, "test": 13}
NUMBERS = {
    "train": np.arange(997),
    "test": np.arange(10_000, 10_013),
    "all": np.r_[np.arange(997), np.arange(10_000, 10_013)],
}
Bound = tuple[str, float] | None  # as it is written, and its value

whole = st.integers(-1000, 1000).map(lambda n: (str(n), n))
percent = st.one_of(
    st.integers(-101, 101).map(lambda n: (f"{n}%", n)),
    st.floats(-101, 101).map(lambda x: (f"{x:.3f}%", float(f"{x:.3f}"))),
)


@st.composite
def parts(draw: st.DrawFn) -> tuple[str, np.ndarray | None]:
    """One summand and the numbers it selects; None where nobody means that."""
    name = draw(st.sampled_from(["train", "test", "test", "all", "valid"]))
    if name not in NUMBERS or name == "all" or draw(st.booleans()):
        return name, NUMBERS.get(name)
    unit = draw(st.sampled_from([whole, percent]))
    start, stop = draw(st.none() | unit), draw(st.none() | unit)
    text = f"{name}[{start[0] if start else ''}:{stop[0] if stop else ''}]"
    return text, _selected(NUMBERS[name], start, stop, percent="%" in text)


def _selected(numbers: np.ndarray, start: Bound, stop: Bound, percent: bool) -> np.ndarray | None:
    size = len(numbers)
    ends = []
    for bound in (start, stop):
        if bound is None:
            ends.append(None)
            continue
        # TFDS rounds to the closest.
        ends.append(round(bound[1] * size / 100.0) if percent else int(bound[1]))
        if abs(ends[-1]) > size or (percent and abs(bound[1]) > 100):
            return None
    if start is None and stop is None:
        return None
    chosen = numbers[ends[0] : ends[1]]
    return chosen if len(chosen) else None


def selected(expression: str) -> np.ndarray | None:
    """What we make of it."""
    try:
        ranges = resolve_split(expression, SIZES, FIELD)
    except UsageError as error:
        assert_told(error, f"{FIELD}=")
        return None
    assert all(0 <= start < stop <= SIZES[name] for name, start, stop in ranges)
    return np.concatenate([NUMBERS[name][start:stop] for name, start, stop in ranges])


@given(summands=st.lists(parts(), min_size=1, max_size=3), plus=st.sampled_from(["+", " + "]))
def test_an_expression_selects_what_numpy_does(
    summands: list[tuple[str, np.ndarray | None]], plus: str
) -> None:
    got = selected(plus.join(text for text, _ in summands))
    wanted = [numbers for _, numbers in summands if numbers is not None]
    if len(wanted) < len(summands):
        assert got is None
    else:
        np.testing.assert_array_equal(got, np.concatenate(wanted))


@given(text=st.text(max_size=30) | st.text("train[5:%_-+.1e9 ]all\n", max_size=12))
@example(text="train[:" + "9" * 400 + "]")  # was an OverflowError: float("9" * 400) is infinite
@example(text="train[" + "9" * 5000 + ":]")
@example(text="train[:" + "0" * 400 + "1%]")
@example(text="train[:99999999999999999999]")
@example(text="train[:9_]")
@example(text="train[:1_.5%]")
@example(text="train[٣:]")
@example(text="x" * 1000)  # was told in 1,100 characters
@example(text="train\n")
@example(text="+".join(["train"] * 200 + ["nothing"]))
@example(text="train[nan%:]")
@example(text="train[:1e2%]")
def test_any_text_is_a_selection_or_a_line(text: str) -> None:
    got = selected(text)
    assert got is None or set("".join(text.split())) <= set("trainestll[]:%+-_.0123456789")


@pytest.mark.parametrize("value", [None, 5, 0.5, True, (), ("train",), {}, b"train"])
def test_a_value_of_another_type_is_told(value: Any) -> None:
    with pytest.raises(UsageError) as error:  # None was a TypeError
        parse_split(value, FIELD)
    assert_told(error.value, f"{FIELD}=")

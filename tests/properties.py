"""What the property tests share: hypothesis's profile, damage to files, and the form of a message.

The usual run tries the same few examples each time. After a change to a reader, try more, others
each time: `HYPOTHESIS_EXAMPLES=2000 python -m pytest tests/test_properties_*.py`. What is found
becomes an @example. Not a test itself.
"""

import os
import re
import struct
import tempfile

from hypothesis import HealthCheck, configuration, settings
from hypothesis import strategies as st

EXAMPLES = os.environ.get("HYPOTHESIS_EXAMPLES")
# Nothing of hypothesis's own stays in the checkout.
configuration.set_hypothesis_home_dir(tempfile.gettempdir() + "/hypothesis")
settings.register_profile(
    "mnist_flax",
    max_examples=int(EXAMPLES or 60),
    derandomize=EXAMPLES is None,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("mnist_flax")

_VERBS = (
    *("add", "check", "choose", "convert", "copy", "delete", "flatten", "give", "make", "move"),
    *("put", "rename", "save", "scale", "set", "take", "use", "write"),
)


def assert_line(message: str) -> None:
    """What a terminal shows as one line, or a few where a path is long."""
    assert 0 < len(message) < 300, message
    assert message.isprintable(), message


def assert_told(error: BaseException, name: object) -> None:
    """One line that begins with the thing's name and ends with what to do."""
    message = str(error)
    assert message.startswith(str(name)), message
    assert_line(message)
    advice = re.split(r"[.;:?] ", message.partition(" for example ")[0])[-1]
    assert advice.lower().startswith(_VERBS), message


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """A file with one to three of: cut short, a flipped bit, bytes put in, a part twice, a tail."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        what = draw(st.sampled_from(["cut", "flip", "insert", "number", "twice", "tail"]))
        if what == "cut":
            del data[place:]
        elif what == "flip" and data:
            data[place] ^= 1 << draw(st.integers(0, 7))
        elif what == "insert":
            data[place:place] = draw(st.binary(max_size=5))
        elif what == "number":
            number = draw(st.sampled_from([0, 1, 2, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1]))
            data[place : place + 4] = number.to_bytes(4, "big")
        elif what == "twice":
            data += data[place : place + 1000]
        else:
            data += draw(st.binary(max_size=20))
    return bytes(data)


def idx_bytes(shape: tuple[int, ...], elements: bytes) -> bytes:
    """An IDX file, whole if there are as many elements as the shape has."""
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape) + elements

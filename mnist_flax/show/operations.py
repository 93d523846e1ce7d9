"""The costliest operations of a trace that JAX's profiler wrote, as a table of plain text.

Read with JAX's own reader. An operation is an instruction of the compiled program; its text says
which layer and which operation of JAX it was made of.
"""

import re
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from jax.profiler import ProfileData

from mnist_flax.show.plain_table import aligned

_SHOWN = 10
_WIDEST = 60  # characters of what an operation is
_INSTRUCTION = re.compile(
    r"^\s*(?:ROOT )?%?(?P<name>[\w.-]+) = .*?metadata=\{[^}]*?op_name=\"(?P<what>[^\"]*)\"", re.M
)


class Operation(NamedTuple):
    """An operation of a program, in a trace.

    Attributes:
      name: of the instruction.
      seconds: that it took in all its calls, without those of others inside it.
      calls: how many there were.
    """

    name: str
    seconds: float
    calls: int


def operations_table(trace: Path, program: str, steps: int, seconds: float) -> str:
    """Returns the costliest operations, a line each: name, what it is, share, time, calls.

    Args:
      trace: an .xplane.pb file.
      program: the compiled program, as text, in which they are looked up.
      steps: how many the trace is of.
      seconds: that these took.
    """
    with warnings.catch_warnings():
        # On Python 3.13, of a type in JAX's reader; as an error it would end the process, from C++.
        warnings.filterwarnings("ignore", "builtin type", DeprecationWarning)
        found = operations(ProfileData.from_file(str(trace)), _name_of(program))
    total = sum(each.seconds for each in found)
    each_step = f"{_milliseconds(seconds / steps)} ms a step"
    if not total:
        return f"{each_step}. The trace names no operation of the step; look at it with XProf."
    texts = dict(_INSTRUCTION.findall(program))
    rows = [("operation", "what it is", "share", "ms a step", "calls a step")]
    rows += [
        (
            each.name,
            what_it_is(texts.get(each.name, "")),
            f"{100 * each.seconds / total:.1f} %",
            _milliseconds(each.seconds / steps),
            f"{each.calls / steps:.3g}",
        )
        for each in found[:_SHOWN]
    ]
    share = 100 * sum(each.seconds for each in found[:_SHOWN]) / total
    head = (
        f"{each_step}, traced. The {len(rows) - 1} costliest of {len(found)} operations, which "
        f"took {share:.1f} % of the {_milliseconds(total / steps)} ms a step that all of them "
        "took, added up over threads or streams:"
    )
    return "\n".join([head, *aligned(rows, words=2)])


def _milliseconds(seconds: float) -> str:
    value = 1000 * seconds
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def operations(trace: Any, program: str) -> list[Operation]:
    """Returns the operations of a program in a trace, the costliest first.

    Where a device has lines of its own, those of the host only start what runs there.

    Args:
      trace: jax.profiler.ProfileData, or what looks like it.
      program: its name: those of other programs are not counted.
    """
    planes = list(trace.planes)
    devices = [plane for plane in planes if plane.name.startswith("/device:")]
    nanoseconds, calls = _summed(devices, program)
    if not calls:
        nanoseconds, calls = _summed(planes, program)
    return [Operation(name, time / 1e9, calls[name]) for name, time in nanoseconds.most_common()]


def _summed(planes: Iterable[Any], program: str) -> tuple[Counter[str], Counter[str]]:
    """Sums nanoseconds and calls of each operation, over all lines."""
    nanoseconds: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for plane in planes:
        for line in plane.lines:
            events = []
            for event in line.events:
                stats = dict(event.stats)
                if stats.get("hlo_module") == program and "hlo_op" in stats:
                    start, end = round(event.start_ns), round(event.end_ns)
                    # Of two that begin together the longer one holds the other.
                    events.append((start, -end, str(stats["hlo_op"])))
            for name, own, called in _own_times(sorted(events)):
                nanoseconds[name] += own
                calls[name] += called
    return nanoseconds, calls


def _own_times(events: list[tuple[int, int, str]]) -> Iterable[tuple[str, int, int]]:
    """Gives (name, own nanoseconds, 1) of the events of a line, each without those inside it."""
    open_ones: list[tuple[int, str]] = []
    for start, minus_end, name in events:
        end = -minus_end
        while open_ones and open_ones[-1][0] <= start:
            open_ones.pop()
        if open_ones:
            end = min(end, open_ones[-1][0])
            yield open_ones[-1][1], start - end, 0
        yield name, end - start, 1
        open_ones.append((end, name))


def what_it_is(op_name: str) -> str:
    """Returns 'Net/conv1: conv_general_dilated, backward' of XLA's record of where it comes from.

    That is 'jit(train_chunk)/while/body/transpose(jvp(Net/conv1))/conv_general_dilated'.
    """
    if not op_name:
        return "?"
    backward = ", backward" * ("transpose(" in op_name)
    plain = re.sub(r"\b(?:jvp|transpose|vmap|remat|checkpoint)\(|\)", "", op_name)
    *scopes, what = plain.split("/")
    where = "/".join(
        scope for scope in scopes if scope not in _OF_LOOPS and not scope.startswith("jit(")
    )
    told = f"{where}: {what}{backward}" if where else f"{what}{backward}"
    return told if len(told) <= _WIDEST else f"…{told[1 - _WIDEST :]}"


_OF_LOOPS = ("while", "body", "cond", "closed_call")


def _name_of(program: str) -> str:
    """Returns 'jit_train_chunk' of a text that begins 'HloModule jit_train_chunk, …'."""
    return program.partition(",")[0].removeprefix("HloModule").strip()

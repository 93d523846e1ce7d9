"""Doors for writers: functions of anyone's own that are handed what a run writes, found by name.

A writer is a function of (event, step, row, context), as an observer is, and called in the order of
config.writers. It looks at rows, not at the state: neither the bits of a run nor its rows depend on
it. What it returns is not used, and what it raises is reported and does not end the run, unless
config.on_writer_fault='stop' says so. The events:

    'started'  the run starts, or goes on: once in every start, before all others; the row is {}
    'train'    a training row is on the disk
    'epoch'    an epoch's row is
    'eval'     an evaluation's row is; its row['split'] is 'eval' or 'select'
    'saved'    the state of this step is on the disk; the row is {}
    'ended'    the last one: row['event'] is 'finished' or 'stopped'; 'diverged' or 'failed' where
               an error ends the run, and row['message'] says which

A run writes a row, calls the writers, goes on, and saves the state some time later. So a kill may

  * come between a row and its writers: they have missed it;
  * take back what they have seen. A run goes on from its newest save, and drops the rows after it.
    It writes them again, with the same numbers (clocks aside) unless its intervals were changed
    meanwhile, and the writers see them again.

No kill takes back a row once 'saved' has come for its step or a later one (only a damaged save that
is moved aside does). A writer that must have each row once, such as a database, therefore writes at
'started', 'saved' and 'ended' what context.rows() has beyond what it has written. One that only
shows something may do so at once.

With several processes only the first one calls writers. A run that is finished already calls none.
They are called by the thread that trains, which waits for them.
"""

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ml_collections import FrozenConfigDict

from mnist_flax.config import registry
from mnist_flax.core.task import Spec
from mnist_flax.errors import UserError, where_it_failed


@dataclass(frozen=True)
class Context:
    """What a writer may look at.

    Attributes:
      config: of the run.
      spec: image shape, class names, and the run's last step as num_steps.
      steps_per_epoch: of the training split.
      workdir: the run's folder.
      rows: () -> every row of metrics.jsonl, in order, as it is now.
      memory: a dict of this writer's own, empty at 'started' and the same until 'ended': for what
        it opens and needs again.
    """

    config: FrozenConfigDict
    spec: Spec
    steps_per_epoch: int
    workdir: Path
    rows: Callable[[], list[dict[str, Any]]]
    memory: dict[str, Any]


WriterFunction = Callable[[str, int, Mapping[str, Any], Context], None]
WRITERS = {"wandb": "mnist_flax.show.wandb_view:wandb_view"}


def find_writers(names: Iterable[str]) -> tuple[WriterFunction, ...]:
    """Returns the functions that config.writers names.

    Raises:
      UsageError: a line for each name that there is no such function for.
    """
    called_with = ("event", "step", "row", "context")
    return registry.resolve_functions(names, WRITERS, "config.writers", called_with)


class Writers:
    """The writers of a run, until it ends or they fail."""

    def __init__(
        self,
        functions: Sequence[tuple[str, WriterFunction]],
        context: Context,
        on_fault: str,
        record: Callable[..., None],
        say: Callable[[str], None],
    ):
        """Calls none of them yet.

        Args:
          functions: each with its name in the config.
          context: theirs; each gets a memory of its own.
          on_fault: config.on_writer_fault.
          record: (step, event, message, **values): writes a row.
          say: prints a line.
        """
        self._called = [(name, call, replace(context, memory={})) for name, call in functions]
        self._on_fault, self._record, self._say = on_fault, record, say
        self._left_out: list[str] = []

    def tell(self, event: str, step: int, row: Mapping[str, Any]) -> None:
        """Calls the writers, one after another; after 'ended' there are none.

        Raises:
          UserError: one of them failed, and config.on_writer_fault='stop'. Not where an error ends
            the run: that one is reported.
        """
        called = self._called
        if event == "ended":
            self._called = []
            # Said when it happened, which may be hours ago.
            for message in self._left_out:
                self._say(message)
            self._left_out = []
        for entry in called:
            name, call, context = entry
            try:
                call(event, step, copy.deepcopy(dict(row)), context)
            except (Exception, SystemExit) as error:  # whatever another's function raises
                self._called = [other for other in self._called if other is not entry]
                message = f"config.writers: {name!r} fails at {event!r} of step {step:,}: "
                message += _told(error)
                if self._on_fault == "stop" and row.get("event") not in ("diverged", "failed"):
                    message += " The run stops here and keeps its saves: start again to go on."
                    self._record(step, "writer_fault", message, writer=name)
                    raise UserError(message) from error
                message += " The run goes on without it; the next start calls it again."
                self._record(step, "writer_fault", message, writer=name)
                self._say(message)
                fault = _told(error)
                self._left_out.append(
                    f"config.writers: {name!r} was left out from step {step:,} on: {fault}"
                )

    @contextlib.contextmanager
    def told_of_errors(self, step: Callable[[], int]) -> Iterator[None]:
        """Has an error that ends the run told as 'ended', if that was not told yet.

        Not what ends the process at once, such as a KeyboardInterrupt.

        Args:
          step: () -> the step that the run stands at.
        """
        try:
            yield
        except Exception as error:
            with contextlib.suppress(UserError):  # nothing can be written, which may be the error
                row = {"event": "failed", "message": str(error)}
                self.tell("ended", step(), {"step": step(), **row})
            raise


def _told(error: BaseException) -> str:
    """Says what a writer has raised: a UserError's words are for people as they are."""
    return str(error) if isinstance(error, UserError) else f"{where_it_failed(error, __file__)}."

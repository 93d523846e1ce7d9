"""When a run logs, evaluates and saves: arithmetic on step numbers."""

from dataclasses import dataclass
from typing import NamedTuple

from ml_collections import ConfigDict

from mnist_flax.errors import UsageError


class Times(NamedTuple):
    """How often a run does what costs time apart from its steps."""

    rows: int
    evaluations: int
    saves: int


class Window(NamedTuple):
    """Some steps of a run: those between two of its states.

    Attributes:
      first: the step of the state that they begin with.
      last: the step of the state that they lead to.
    """

    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.first}:{self.last}"

    @property
    def steps(self) -> int:
        """How many there are."""
        return self.last - self.first


@dataclass(frozen=True)
class Timetable:
    """The events of a run. Every interval is in steps.

    Attributes:
      total_steps: the run ends here; every event is due here.
      steps_per_epoch: full batches in the training data, as extended.
      log_every: between training rows; there is one at step 1 as well.
      eval_every: between evaluations.
      checkpoint_every: between saves.
      window: steps that are looked at apart; chunks end at its ends.
    """

    total_steps: int
    steps_per_epoch: int
    log_every: int
    eval_every: int
    checkpoint_every: int
    window: Window | None = None

    @classmethod
    def from_config(cls, config: ConfigDict, num_examples: int) -> "Timetable":
        """Resolves epochs and the interval 0, which means once an epoch.

        Raises:
          UsageError: not even one batch can be filled.
        """
        steps_per_epoch = num_examples // config.batch_size
        if steps_per_epoch == 0:
            raise UsageError(
                f"config.batch_size={config.batch_size}: config.data.train_split="
                f"{config.data.train_split!r} has only {num_examples} examples; take at "
                "most so many."
            )
        total = config.num_steps
        if total is None:
            total = config.num_epochs * steps_per_epoch
        return cls(
            total_steps=total,
            steps_per_epoch=steps_per_epoch,
            log_every=config.log_every_steps or steps_per_epoch,
            eval_every=config.eval_every_steps or steps_per_epoch,
            checkpoint_every=config.checkpoint_every_steps or steps_per_epoch,
        )

    def row_due(self, step: int) -> bool:
        """Says whether a training row ends at this step."""
        return step == 1 or self._due(step, self.log_every)

    def eval_due(self, step: int) -> bool:
        """Says whether the state of this step is evaluated."""
        return self._due(step, self.eval_every) or step == self.total_steps

    def save_due(self, step: int) -> bool:
        """Says whether the state of this step is saved."""
        return self._due(step, self.checkpoint_every)

    def epoch_due(self, step: int) -> bool:
        """Says whether an epoch ends at this step."""
        return step > 0 and step % self.steps_per_epoch == 0

    def next_event(self, step: int) -> int:
        """Returns the first step after this one at which anything happens: a chunk's end."""
        if step == 0:
            return 1
        intervals = (self.log_every, self.eval_every, self.checkpoint_every, self.steps_per_epoch)
        ends = [end for end in self.window or () if end > step]
        return min(self.total_steps, *ends, *(step - step % every + every for every in intervals))

    def require_window(self, step: int) -> None:
        """Raises UsageError where a start that goes on from this step does not run the window."""
        if self.window is None or step <= self.window.first < self.window.last <= self.total_steps:
            return
        ahead = f"the steps {step + 1:,} to {self.total_steps:,}"
        advice = f"Name a window from {step}:{self.total_steps}, or leave it out."
        if step >= self.total_steps:
            ahead, advice = "no steps", "Leave it out."
        raise UsageError(
            f"profile={self.window}: this start runs {ahead}, and the window is of "
            f"{self.window.first + 1:,} to {self.window.last:,}. {advice}"
        )

    def times_after(self, step: int) -> "Times":
        """Returns how often what is due comes after this step, up to the run's end."""

        def count(every: int) -> int:
            return -(-self.total_steps // every) - step // every if step < self.total_steps else 0

        first = step == 0 and not self._due(1, self.log_every)  # the row at step 1
        return Times(
            rows=count(self.log_every) + first,
            evaluations=count(self.eval_every),
            saves=count(self.checkpoint_every),
        )

    def _due(self, step: int, every: int) -> bool:
        return step > 0 and (step % every == 0 or step == self.total_steps)

"""When a run logs, evaluates and saves: arithmetic on step numbers."""

from dataclasses import dataclass

from ml_collections import ConfigDict

from mnist_flax.errors import UsageError


@dataclass(frozen=True)
class Timetable:
    """The events of a run. Every interval is in steps.

    Attributes:
      total_steps: the run ends here; every event is due here.
      steps_per_epoch: full batches in the training data, as extended.
      log_every: between training rows; there is one at step 1 besides.
      eval_every: between evaluations.
      checkpoint_every: between saves.
    """

    total_steps: int
    steps_per_epoch: int
    log_every: int
    eval_every: int
    checkpoint_every: int

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
        total = config.num_steps or config.num_epochs * steps_per_epoch
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
        return self._due(step, self.eval_every)

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
        return min(self.total_steps, *(step - step % every + every for every in intervals))

    def _due(self, step: int, every: int) -> bool:
        return step > 0 and (step % every == 0 or step == self.total_steps)

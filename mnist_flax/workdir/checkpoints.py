"""Which saves there are, which one counts, which one goes; saves.py writes and reads them.

    checkpoints/latest/STEP/   the newest `keep` saves that were due
    checkpoints/best/STEP/     the save with the best evaluation so far, due or not
    checkpoints/damaged/       damaged saves that a run has passed over; nothing reads them

Two folders and no preservation policy of Orbax's: a step in latest/ that was saved in the middle of
its evaluation may later be saved as the best one too, and Orbax's `best_fn` with `max_to_keep`
deletes the newest saves (orbax issue 526). A save counts once it was read back: what it replaces is
deleted after that, and never by Orbax, which looks at nothing.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from mnist_flax.core.state import TrainState
from mnist_flax.errors import UsageError, UserError
from mnist_flax.workdir import old_runs
from mnist_flax.workdir.plain_path import plain_path
from mnist_flax.workdir.save_faults import first_line
from mnist_flax.workdir.saves import NotAsWritten, Saves, sums_form


class DamagedCheckpoint(UserError):
    """A save that is not what was written. `path` is its folder."""

    def __init__(self, message: str, path: Path):
        """Takes the whole message."""
        super().__init__(message)
        self.path = path


class Checkpoints:
    """The saves of one workdir."""

    def __init__(
        self,
        directory: Path,
        *,
        keep: int = 1,
        read_only: bool = False,
        to_train: bool | None = None,
    ):
        """Opens or creates the directory.

        Args:
          directory: workdir/checkpoints; made absolute, since Orbax fails on relative paths.
          keep: how many of the newest saves stay.
          read_only: creates, cleans and deletes nothing; for use next to a run that trains.
          to_train: whether what is said of damage is for a run that goes on; None: unless it is
            read only.
        """
        self._directory = directory.absolute()
        if not read_only:
            self._directory.mkdir(parents=True, exist_ok=True)
        self._stack = contextlib.ExitStack()
        plain = self._stack.enter_context(plain_path(self._directory))
        self._latest, self._best = (
            Saves(self._directory / name, plain / name, read_only=read_only)
            for name in ("latest", "best")
        )
        self._keep = keep
        self._to_train = not read_only if to_train is None else to_train
        self._passed_over: list[Path] = []
        self._order = self._best, self._latest

    def close(self) -> None:
        """Releases Orbax's threads."""
        self._latest.close()
        self._best.close()
        self._stack.close()

    def steps(self) -> list[int]:
        """Returns the saved steps, in order."""
        return sorted({*self._latest.steps(), *self._best.steps()})

    def find(self, which: str) -> int:
        """Returns the step that 'latest', 'best' or a number names; 'latest' is read from latest/.

        Raises:
          UsageError: there is no such save; the message lists those there are.
        """
        steps, best = self.steps(), self._best.steps()
        if which == "latest" and steps:
            self._order = self._latest, self._best
            return steps[-1]
        if which == "best" and best:
            return best[-1]
        if which.isdecimal() and int(which) in steps:
            return int(which)
        saved = ", ".join(map(str, steps)) or "none; train first"
        raise UsageError(
            f"checkpoint={which}: no such checkpoint in {self._directory}. Saved steps: {saved}. "
            "Allowed: latest, best, or one of these steps."
        )

    def save(self, state: TrainState, metadata: dict[str, Any], *, best: bool) -> None:
        """Saves the state under its step, among the latest or as the best, and reads it back.

        Args:
          state: its arrays are copied to the host.
          metadata: of metadata.py; digests are added.
          best: replaces the best save so far.

        Raises:
          UserError: it could not be written, or did not come back as it was.
        """
        state, saves = jax.device_get(state), self._best if best else self._latest
        step = int(state.step)
        try:
            sha256 = saves.write(state, metadata)
        except Exception as error:  # of any kind, by array and by what the disk is short of
            raise self._unwritten(saves.path(step), error) from error
        self._replace_older(saves, step, state, sha256)

    def copy_to_best(self, step: int, like: TrainState) -> None:
        """Copies a save from latest/ to best/, and reads it back: faster than saving it again.

        Args:
          step: of the save.
          like: its state, or one of the same form.

        Raises:
          UserError: it could not be written, or did not come back as it was.
        """
        try:
            self._best.copy_from(self._latest, step)
        except OSError as error:
            raise self._unwritten(self._best.path(step), error) from error
        with self._damage(self._latest, step):
            written = self._latest.metadata(step)["sha256"]
        self._replace_older(self._best, step, jax.device_get(like), written)

    def _replace_older(self, saves: Saves, step: int, like: TrainState, sha256: str) -> None:
        """Reads a save back, and only then deletes those whose place it takes."""
        path = saves.path(step)
        try:
            saves.read(step, like, written=sha256)  # `like` is on the host, so is what is read
        except (NotAsWritten, UserError) as error:
            raise self._spoilt(path, error) from error
        older = sorted(set(saves.steps()) - {step}, reverse=True)
        try:
            for other in older[(self._keep if saves is self._latest else 1) - 1 :]:
                saves.delete(other)
        except OSError as error:
            raise UserError(
                f"{path} is saved, but an older checkpoint beside it could not be deleted "
                f"({first_line(error)}). Mend the folder and start again."
            ) from error

    def _spoilt(self, path: Path, error: Exception) -> UserError:
        """Moves a save aside that is not what was written, so that the next start does not meet it.

        Where that fails, too, the next start says that it is damaged.
        """
        self.pass_over(path)
        where = ""
        with contextlib.suppress(OSError):
            where = f"It was moved to {self.set_aside()[0]}. "
        return UserError(
            f"{path}: the checkpoint does not read back as it was written ({first_line(error)}). "
            f"{where}Older ones were kept. Check the disk and start again: saved so far: "
            f"{self.steps() or 'nothing'}."
        )

    def _unwritten(self, path: Path, error: Exception) -> UserError:
        return UserError(
            f"{path}: the checkpoint could not be written ({first_line(error)}). Make room or mend "
            f"the folder and start again: saved so far: {self.steps() or 'nothing'}."
        )

    def metadata(self, step: int) -> dict[str, Any]:
        """Returns a save's metadata, checked against its digest, in today's form.

        Raises:
          DamagedCheckpoint: they are not those that were written.
        """
        saves = self._holder(step)
        with self._damage(saves, step):
            return old_runs.today_metadata(saves.metadata(step))

    def open_sums(self, step: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Returns the form of the open sums in a save, which only training asks of a task."""
        return sums_form(self.metadata(step)["leaves"])

    def best_evaluation(self) -> dict[str, float] | None:
        """Returns the metrics of the best save's evaluation, None if there is none.

        Raises:
          DamagedCheckpoint: its metadata are not those that were written.
        """
        steps = self._best.steps()
        return self.metadata(steps[-1])["evaluation"] if steps else None

    def restore(self, step: int, like: TrainState) -> TrainState:
        """Returns the state that was saved under a step, bit for bit.

        Args:
          step: one of steps().
          like: a state of the same form, arrays or shapes: today's model and optimizer.

        Raises:
          DamagedCheckpoint: it is not what was written.
          UserError: it belongs to another model or optimizer.
        """
        saves = self._holder(step)
        with self._damage(saves, step):
            return saves.read(step, like)

    def path(self, step: int) -> Path:
        """Returns the folder of a save."""
        return self._holder(step).path(step)

    def _holder(self, step: int) -> Saves:
        """Returns the folder's saves that a step is read from."""
        first, second = self._order
        return first if step in first.steps() else second

    def pass_over(self, path: Path) -> None:
        """Treats a save as if it were not there, until `set_aside` moves it."""
        self._passed_over.append(path)
        saves = self._best if path.parent == self._best.folder else self._latest
        saves.pass_over(int(path.name))

    def set_aside(self) -> list[Path]:
        """Moves the saves that were passed over to damaged/; returns where each is now."""
        aside, moved = self._directory / "damaged", []
        for path in self._passed_over:
            aside.mkdir(exist_ok=True)
            name = f"{path.parent.name}-{path.name}"
            before = len(list(aside.glob(f"{name}*")))
            moved.append(path.rename(aside / (f"{name}-{before + 1}" if before else name)))
        self._passed_over.clear()
        self._latest.look_again()
        self._best.look_again()
        return moved

    @contextlib.contextmanager
    def _damage(self, saves: Saves, step: int) -> Iterator[None]:
        """Says of a save that is not as it was written what can be done."""
        try:
            yield
        except NotAsWritten as error:
            raise self._damaged(saves.path(step), str(error)) from error

    def _damaged(self, path: Path, reason: str) -> UserError:
        if not path.is_dir():  # it was listed a moment ago
            return UserError(f"{path} is gone: a run that trains here has replaced it. Try again.")
        others = [
            step
            for saves in (self._latest, self._best)
            for step in saves.steps()
            if saves.path(step) != path
        ]
        advice = "Start afresh with another workdir."
        if others and self._to_train:
            previous = "config.on_damaged_checkpoint=previous"
            advice = f"To go on from step {max(others)}: {previous}"
        elif others:
            advice = f"Take another: checkpoint={max(others)}"
        return DamagedCheckpoint(
            f"{path}: this checkpoint is damaged ({reason}). Nothing was changed. {advice}", path
        )

"""Checkpoints: Orbax behind save, restore, newest, best. The only importer of orbax.

    checkpoints/latest/STEP/   the newest `keep` saves that were due
    checkpoints/best/STEP/     the save with the best evaluation so far, due or not
    checkpoints/damaged/       damaged saves that a run has passed over; nothing reads them

Two managers and no preservation policy: a step in latest/ that was saved in the middle of its
evaluation may later be saved as the best one too, and Orbax's `best_fn` with `max_to_keep` deletes
the newest saves (orbax issue 526). A save holds the state, and as JSON its metadata with a SHA-256
of both: Orbax itself believes a flipped bit in the tensors. A save counts once it was read back:
what it replaces is deleted after that, and never by Orbax, which looks at nothing.
"""

import contextlib
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from mnist_flax.core.state import TrainState
from mnist_flax.errors import UsageError, UserError
from mnist_flax.workdir import old_runs
from mnist_flax.workdir.digests import describe, json_digest, mismatches, state_digest
from mnist_flax.workdir.plain_path import plain_path
from mnist_flax.workdir.save_faults import first_line, silent_after_failure


class DamagedCheckpoint(UserError):
    """A save that is not what was written. `path` is its folder."""

    def __init__(self, message: str, path: Path, reason: str):
        """Takes the whole message, and the part of it that says what is wrong."""
        super().__init__(message)
        self.path = path
        self.reason = reason


def holds_saves(directory: Path) -> bool:
    """Says whether a save lies in workdir/checkpoints, whole or not; nothing is opened for it."""
    folders = [directory / "latest", directory / "best"]
    return any(p.name.isdecimal() for f in folders if f.is_dir() for p in f.iterdir())


class Checkpoints:
    """The saves of one workdir. Synchronous: an error is an error where it happens."""

    def __init__(self, directory: Path, *, keep: int = 1, read_only: bool = False):
        """Opens or creates the directory.

        Args:
          directory: workdir/checkpoints; made absolute, since Orbax fails on relative paths.
          keep: how many of the newest saves stay.
          read_only: creates, cleans and deletes nothing; for use beside a run that trains.
        """
        self._directory = directory.absolute()
        if not read_only:
            self._directory.mkdir(parents=True, exist_ok=True)
        self._stack = contextlib.ExitStack()
        plain = self._stack.enter_context(plain_path(self._directory))
        self._latest = _manager(plain / "latest", read_only)
        self._best = _manager(plain / "best", read_only)
        self._keep = keep
        self._read_only = read_only
        self._passed_over: list[Path] = []

    def close(self) -> None:
        """Releases Orbax's threads."""
        self._latest.close()
        self._best.close()
        self._stack.close()

    def steps(self) -> list[int]:
        """Returns the saved steps, in order."""
        return sorted({*self._listed(self._latest), *self._listed(self._best)})

    def find(self, which: str) -> int:
        """Returns the step that 'latest', 'best' or a number names.

        Raises:
          UsageError: there is no such save; the message lists those there are.
        """
        steps, best = self.steps(), self._listed(self._best)
        if which == "latest" and steps:
            return steps[-1]
        if which == "best" and best:
            return best[-1]
        if which.isdecimal() and int(which) in steps:
            return int(which)
        saved = ", ".join(map(str, steps)) or "none; train first"
        raise UsageError(
            f"--checkpoint={which}: no such checkpoint in {self._directory}. Saved steps: {saved}. "
            "Allowed: latest, best, or one of these steps."
        )

    def save(self, state: TrainState, metadata: dict[str, Any], *, best: bool) -> None:
        """Saves the state under its step, among the latest or as the best, and reads it back.

        Args:
          state: its arrays are copied to the host.
          metadata: JSON; 'leaves', 'state_sha256' and 'sha256' are added.
          best: replaces the best save so far.

        Raises:
          UserError: it could not be written, or did not come back as it was.
        """
        state = jax.device_get(state)
        metadata = {**metadata, "leaves": describe(state), "state_sha256": state_digest(state)}
        metadata["sha256"] = json_digest(metadata)
        manager, step = self._best if best else self._latest, int(state.step)
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state), metadata=ocp.args.JsonSave(metadata)
        )
        try:
            with silent_after_failure():
                manager.save(step, args=args, force=True)
        except Exception as error:
            raise self._unwritten(self._folder(manager, step), error) from error
        self._replace_older(manager, step, state, metadata["sha256"])

    def copy_to_best(self, step: int, like: TrainState) -> None:
        """Copies a save from latest/ to best/, and reads it back: faster than saving it again.

        Args:
          step: of the save.
          like: its state, or one of the same form.

        Raises:
          UserError: it could not be written, or did not come back as it was.
        """
        target = self._folder(self._best, step)
        # Orbax's name of an unfinished save, which the next start clears away.
        partial = target.with_name(f"{step}.orbax-checkpoint-tmp")
        try:
            shutil.copytree(self._folder(self._latest, step), partial)
            partial.rename(target)
            self._best.reload()
        except OSError as error:
            raise self._unwritten(target, error) from error
        written = self._metadata(self._latest, step)["sha256"]
        self._replace_older(self._best, step, jax.device_get(like), written)

    def _replace_older(
        self, manager: ocp.CheckpointManager, step: int, like: TrainState, sha256: str
    ) -> None:
        """Reads a save back, and only then deletes those whose place it takes."""
        path = self._folder(manager, step)
        try:
            if self._metadata(manager, step)["sha256"] != sha256:
                raise self._damaged(manager, step, "its metadata are not those that were written")
            self._read(manager, step, like)  # `like` is on the host, and so is what is read
        except UserError as error:
            raise self._spoilt(path, error) from error
        older = sorted(set(manager.all_steps()) - {step}, reverse=True)
        try:
            for other in older[(self._keep if manager is self._latest else 1) - 1 :]:
                manager.delete(other)
        except OSError as error:
            raise UserError(
                f"{path} is saved, but an older checkpoint beside it could not be deleted "
                f"({first_line(error)}). Mend the folder and start again."
            ) from error

    def _spoilt(self, path: Path, error: UserError) -> UserError:
        """Moves a save aside that is not what was written, so that the next start does not meet it.

        Where that fails, too, the next start says that it is damaged.
        """
        self.pass_over(path)
        where = ""
        with contextlib.suppress(OSError):
            where = f"It was moved to {self.set_aside()[0]}. "
        reason = error.reason if isinstance(error, DamagedCheckpoint) else first_line(error)
        return UserError(
            f"{path}: the checkpoint does not read back as it was written ({reason}). {where}Older "
            f"ones were kept. Check the disk and start again: saved so far: "
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
        return old_runs.today_metadata(self._metadata(self._holder(step), step))

    def _metadata(self, manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
        """Returns them in the form that they were written in."""
        args = ocp.args.Composite(metadata=ocp.args.JsonRestore())
        metadata = self._restore(manager, step, args)["metadata"]
        rest = {key: value for key, value in metadata.items() if key != "sha256"}
        if metadata.get("sha256") != json_digest(rest):
            raise self._damaged(manager, step, "its metadata are not those that were written")
        return metadata

    def open_sums(self, step: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Returns the form of the open sums in a save, which only training asks of a task."""
        leaves = self.metadata(step)["leaves"]
        if old_runs.is_old(leaves):
            return old_runs.SUMS
        forms = {
            name.removeprefix("window."): form.partition("[")[0]
            for name, form in leaves.items()
            if name.startswith("window.")
        }
        return {name: jax.ShapeDtypeStruct((), dtype) for name, dtype in forms.items()}

    def best_evaluation(self) -> dict[str, float] | None:
        """Returns the metrics of the best save's evaluation, None if there is none.

        Raises:
          DamagedCheckpoint: its metadata are not those that were written.
        """
        steps = self._listed(self._best)
        return self.metadata(steps[-1])["evaluation"] if steps else None

    def restore(self, step: int, like: TrainState) -> TrainState:
        """Returns the state that was saved under a step, to the bit.

        Args:
          step: one of steps().
          like: a state of the same form, arrays or shapes: today's model and optimizer.

        Raises:
          DamagedCheckpoint: it is not what was written.
          UserError: it belongs to another model or optimizer.
        """
        return self._read(self._holder(step), step, like)

    def _read(self, manager: ocp.CheckpointManager, step: int, like: TrainState) -> TrainState:
        """Returns the state in NumPy's arrays if `like` has such, else in JAX's."""
        metadata = self._metadata(manager, step)
        old = old_runs.is_old(metadata["leaves"])
        form = old_runs.old_form(like) if old else like
        if faults := mismatches(metadata["leaves"], describe(form)):
            raise UserError(
                f"{self._folder(manager, step)} belongs to another model or optimizer:\n"
                + "\n".join(faults)
                + "\nUse the code and config that wrote it, or another --workdir."
            )
        target = jax.tree.map(_target, form)
        args = ocp.args.Composite(state=ocp.args.StandardRestore(target))
        state = self._restore(manager, step, args)["state"]
        if state_digest(jax.device_get(state)) != metadata["state_sha256"]:
            raise self._damaged(manager, step, "its arrays are not those that were written")
        return old_runs.today_state(state) if old else state

    def _restore(self, manager: ocp.CheckpointManager, step: int, args: ocp.args.Composite) -> Any:
        try:
            with silent_after_failure():
                return manager.restore(step, args=args)
        except Exception as error:  # damage raises at least six types, from OSError to ValueError
            raise self._damaged(manager, step, first_line(error)) from error

    def path(self, step: int) -> Path:
        """Returns the folder of a save."""
        return self._folder(self._holder(step), step)

    def _holder(self, step: int) -> ocp.CheckpointManager:
        """Returns the manager that a step is read from."""
        return self._best if step in self._listed(self._best) else self._latest

    def pass_over(self, path: Path) -> None:
        """Treats a save as if it were not there, until `set_aside` moves it."""
        self._passed_over.append(path)

    def set_aside(self) -> list[Path]:
        """Moves the saves that were passed over to damaged/; returns where each is now."""
        aside, moved = self._directory / "damaged", []
        for path in self._passed_over:
            aside.mkdir(exist_ok=True)
            name = f"{path.parent.name}-{path.name}"
            before = len(list(aside.glob(f"{name}*")))
            moved.append(path.rename(aside / (f"{name}-{before + 1}" if before else name)))
        self._passed_over.clear()
        self._latest.reload()
        self._best.reload()
        return moved

    def _listed(self, manager: ocp.CheckpointManager) -> list[int]:
        """The steps of a manager, in order, but for those that were passed over."""
        steps = sorted(manager.all_steps())
        return [step for step in steps if self._folder(manager, step) not in self._passed_over]

    def _folder(self, manager: ocp.CheckpointManager, step: int) -> Path:
        return self._directory / ("best" if manager is self._best else "latest") / str(step)

    def _damaged(self, manager: ocp.CheckpointManager, step: int, reason: str) -> UserError:
        path = self._folder(manager, step)
        if not path.is_dir():  # it was listed a moment ago
            return UserError(f"{path} is gone: a run that trains here has replaced it. Try again.")
        others = [
            other
            for one in (self._latest, self._best)
            for other in self._listed(one)
            if self._folder(one, other) != path
        ]
        advice = "Start afresh with another --workdir."
        if others and self._read_only:
            advice = f"Take another: --checkpoint={max(others)}"
        elif others:
            previous = "--config.on_damaged_checkpoint=previous"
            advice = f"To go on from step {max(others)}: {previous}"
        return DamagedCheckpoint(
            f"{path}: this checkpoint is damaged ({reason}). Nothing was changed. {advice}",
            path,
            reason,
        )


def _target(leaf: Any) -> Any:
    """Returns what Orbax is told of a leaf that it restores."""
    return leaf if isinstance(leaf, np.ndarray) else jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def _manager(directory: Path, read_only: bool) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(
        max_to_keep=None,  # it would delete before anything was read back
        enable_async_checkpointing=False,
        read_only=read_only,
        cleanup_tmp_directories=not read_only,  # what a killed save has left
    )
    return ocp.CheckpointManager(directory, options=options)

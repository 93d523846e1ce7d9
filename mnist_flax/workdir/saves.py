"""The saves in one folder, by step: written, read, compared with their digests, deleted.

The only importer of orbax, which takes a quarter of a second: when a save is first written or read.

A save holds the state, and as JSON its metadata with a SHA-256 of both: Orbax itself believes a
flipped bit in the tensors. What a save is good for, and which one goes, is for checkpoints.py to
say.
"""

import functools
import importlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from mnist_flax.core.state import TrainState
from mnist_flax.errors import UserError
from mnist_flax.workdir import old_runs
from mnist_flax.workdir.digests import describe, json_digest, mismatches, state_digest
from mnist_flax.workdir.save_faults import first_line, silent_after_failure, without_advice

if TYPE_CHECKING:
    import orbax.checkpoint as ocp


class NotAsWritten(Exception):
    """A save is not what was written, or is gone; the message says in what."""


def load_library() -> Any:
    """Returns Orbax, imported if it was not yet."""
    return importlib.import_module("orbax.checkpoint")


def saved_steps(directory: Path) -> list[int]:
    """Returns the steps of the saves in workdir/checkpoints, whole or not; nothing is opened."""
    folders = [directory / "latest", directory / "best"]
    paths = [path for folder in folders if folder.is_dir() for path in folder.iterdir()]
    return sorted({int(path.name) for path in paths if path.name.isdecimal()})


class Saves:
    """One folder of saves. Synchronous: an error is an error where it happens."""

    def __init__(self, folder: Path, opened: Path, *, read_only: bool):
        """Opens or creates the folder.

        Args:
          folder: absolute, as messages name it.
          opened: the same folder under a name that Orbax takes for a name; see plain_path.py.
          read_only: creates, cleans and deletes nothing.
        """
        self.folder = folder
        self._opened, self._read_only = opened, read_only
        self._passed_over: set[int] = set()
        if not read_only:
            _clear_away(opened)
            opened.mkdir(parents=True, exist_ok=True)

    @functools.cached_property
    @without_advice()
    def _manager(self) -> "ocp.CheckpointManager":
        library, here = load_library(), jax.process_index()
        options = library.CheckpointManagerOptions(
            create=False,
            max_to_keep=None,  # it would delete before anything was read back
            enable_async_checkpointing=False,
            read_only=self._read_only,
            # One process of a run writes all of it: Orbax is not to wait for the others.
            multiprocessing_options=library.options.MultiprocessingOptions(
                primary_host=here, active_processes={here}, barrier_sync_key_prefix=self.folder.name
            ),
        )
        return library.CheckpointManager(self._opened, options=options)

    @without_advice()
    def close(self) -> None:
        """Releases Orbax's threads."""
        if "_manager" in vars(self):
            self._manager.close()

    @without_advice()
    def steps(self) -> list[int]:
        """Returns the saved steps, in order, but for those that are passed over."""
        if "_manager" not in vars(self) and not any(self._opened.glob("*")):
            return []
        return sorted(set(self._manager.all_steps()) - self._passed_over)

    def path(self, step: int) -> Path:
        """Returns the folder of a save."""
        return self.folder / str(step)

    def pass_over(self, step: int) -> None:
        """Treats a save as if it were not there, until the folder is looked at again."""
        self._passed_over.add(step)

    @without_advice()
    def look_again(self) -> None:
        """Looks at what lies in the folder now."""
        self._passed_over.clear()
        self._manager.reload()

    @without_advice()
    def write(self, state: TrainState, metadata: dict[str, Any]) -> str:
        """Writes a save under the state's step; returns the digest of its metadata.

        Args:
          state: on the host.
          metadata: JSON; 'leaves', 'state_sha256' and 'sha256' are added.

        Raises:
          OSError, ValueError, RuntimeError, …: whatever Orbax raises where it cannot be written.
        """
        metadata = {**metadata, "leaves": describe(state), "state_sha256": state_digest(state)}
        metadata["sha256"] = json_digest(metadata)
        args = load_library().args
        saved = args.Composite(state=args.StandardSave(state), metadata=args.JsonSave(metadata))
        with silent_after_failure():
            self._manager.save(int(state.step), args=saved, force=True)
        return metadata["sha256"]

    @without_advice()
    def copy_from(self, other: "Saves", step: int) -> None:
        """Copies a save of another folder. Raises OSError."""
        target = self.path(step)
        # Orbax's name of an unfinished save, which the next start clears away.
        partial = target.with_name(f"{step}.orbax-checkpoint-tmp")
        shutil.copytree(other.path(step), partial)
        partial.rename(target)
        self._manager.reload()

    @without_advice()
    def delete(self, step: int) -> None:
        """Deletes a save. Raises OSError."""
        self._manager.delete(step)

    def metadata(self, step: int) -> dict[str, Any]:
        """Returns a save's metadata in the form that they were written in.

        Raises:
          NotAsWritten: their digest says so.
        """
        args = load_library().args
        metadata = self._restore(step, args.Composite(metadata=args.JsonRestore()))["metadata"]
        rest = {key: value for key, value in metadata.items() if key != "sha256"}
        if metadata.get("sha256") != json_digest(rest):
            raise NotAsWritten("its metadata are not those that were written")
        return metadata

    def read(self, step: int, like: TrainState, written: str | None = None) -> TrainState:
        """Returns a state bit for bit, in NumPy's arrays if `like` has such, else in JAX's.

        Args:
          step: one of steps().
          like: a state of the same form, arrays or shapes: today's model and optimizer.
          written: the digest of the metadata that must be there, if it is known.

        Raises:
          NotAsWritten: a digest says so.
          UserError: it belongs to another model or optimizer.
        """
        metadata = self.metadata(step)
        if written is not None and metadata["sha256"] != written:
            raise NotAsWritten("its metadata are not those that were written")
        old = old_runs.is_old(metadata["leaves"])
        form = old_runs.old_form(like) if old else like
        if faults := mismatches(metadata["leaves"], describe(form)):
            raise UserError(
                f"{self.path(step)} belongs to another model or optimizer:\n"
                + "\n".join(faults)
                + "\nUse the code and config that wrote it, or another workdir."
            )
        args = load_library().args
        wanted = args.Composite(state=args.StandardRestore(jax.tree.map(_target, form)))
        state = self._restore(step, wanted)["state"]
        if state_digest(jax.device_get(state)) != metadata["state_sha256"]:
            raise NotAsWritten("its arrays are not those that were written")
        return old_runs.today_state(state) if old else state

    @without_advice()
    def _restore(self, step: int, args: "ocp.args.Composite") -> Any:
        try:
            with silent_after_failure():
                return self._manager.restore(step, args=args)
        except Exception as error:  # damage raises at least six types, from OSError to ValueError
            raise NotAsWritten(first_line(error)) from error


def _clear_away(folder: Path) -> None:
    """Removes what a killed save has left. Orbax would do it too, in a thread, at some time."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if ".orbax-checkpoint-tmp" in path.name:
            shutil.rmtree(path)


def _target(leaf: Any) -> Any:
    """Returns what Orbax is given for a leaf that it restores."""
    return leaf if isinstance(leaf, np.ndarray) else jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def sums_form(leaves: Mapping[str, str]) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the form of the open sums among the leaves of a save."""
    if old_runs.is_old(leaves):
        return old_runs.SUMS
    forms = {
        name.removeprefix("window."): form.partition("[")[0]
        for name, form in leaves.items()
        if name.startswith("window.")
    }
    return {name: jax.ShapeDtypeStruct((), dtype) for name, dtype in forms.items()}

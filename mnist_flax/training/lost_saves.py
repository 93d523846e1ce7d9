"""Whether a run that has been saved has lost its saves; what is left of it is never cut."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mnist_flax.errors import UserError
from mnist_flax.workdir.files import read_config
from mnist_flax.workdir.rows import METRICS_FILE, is_evaluation, read_rows
from mnist_flax.workdir.saves import saved_steps

# Each is written after a save, or by a process that has found one.
_OF_SAVES = ("saved", "stopped", "finished", "resumed", "damaged_checkpoint")


def refuse_lost_saves(workdir: Path, best: str) -> None:
    """Refuses a run that has been saved and whose saves are gone: its rows would be cut.

    A run that was killed before its first save has rows, too, and starts again. To be called
    before the folder of the saves is created: that it is missing means something.

    Args:
      workdir: is only read.
      best: the metric whose first evaluation leads to a save, as the best so far; '' for none.

    Raises:
      UserError: there is no save, and the rows tell of one.
    """
    directory = workdir / "checkpoints"
    if saved_steps(directory):
        return
    rows = read_rows(workdir)
    if rows and (not directory.is_dir() or _tell_of_a_save(workdir, rows, best)):
        raise UserError(
            f"workdir={workdir}: {METRICS_FILE} holds {len(rows)} rows of a run, up to step "
            f"{max(row['step'] for row in rows)}, and checkpoints/ none of its saves. Put "
            f"checkpoints/ back to go on, or start afresh with workdir={workdir}-new, or remove "
            f"{METRICS_FILE} on purpose."
        )


def _tell_of_a_save(workdir: Path, rows: Sequence[dict[str, Any]], best: str) -> bool:
    """Says whether rows are those of a run that has saved something.

    The first save has a row since 0.2.0. Runs of before are known by rows beyond a step that their
    config, an epoch or an evaluation had saved: the save comes before the next chunk of steps.
    """
    if any(row.get("event") in _OF_SAVES for row in rows):
        return True
    every = None
    with contextlib.suppress(UserError):  # without it, the other rows tell
        every = read_config(workdir)["config"].get("checkpoint_every_steps")
    saved = [every] if isinstance(every, int) and every > 0 else []
    if every == 0:
        saved += [row["step"] for row in rows if row.get("event") == "epoch"]
    if best:
        saved += [row["step"] for row in rows if is_evaluation(row) and best in row]
    return bool(saved) and max(row["step"] for row in rows) > min(saved)

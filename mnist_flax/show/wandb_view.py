"""A run as Weights & Biases shows it: the writer 'wandb' of config.writers.

The only importer of wandb, imported itself only where a config names it.

It is a view of metrics.jsonl: each training, epoch's and evaluation row is one entry of a W&B run's
history, in order, and nothing else is. W&B's own step of an entry is the number of its row among
those, from 0; curves are drawn over 'training_step'. <workdir>/wandb/id keeps the id of the W&B
run, which is one, however often the run is interrupted.

W&B takes back nothing that it was sent. So a row is sent once no kill can take it back, with the
save of its step or of a later one, and each start begins with those that W&B does not have: it may
be behind the file, but never has what the file has not.

Offline (WANDB_MODE=offline) W&B cannot go on with what it wrote before, <workdir>/wandb/offline-….
So each start writes the whole history anew and removes what was never synced. Where W&B has a part
already, from a sync or from a start that was online, the whole gets another id: what becomes of two
histories under one id has changed from version to version of W&B.
"""

import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mnist_flax.errors import UsageError, UserError, installing
from mnist_flax.show.writers import Context
from mnist_flax.workdir.files import write_atomic
from mnist_flax.workdir.rows import split_of

try:
    import wandb
    from wandb import Settings  # which a folder that is called wandb lacks
except ImportError as error:
    raise UsageError(
        f"config.writers='wandb': {error}. Install it with {installing('wandb')}, or leave it out."
    ) from error

# What W&B calls finished, and killed; it calls any other failed.
_EXIT_CODES = {"finished": 0, "stopped": 255}


def wandb_view(event: str, step: int, row: Mapping[str, Any], context: Context) -> None:
    """Sends W&B what it lacks of the rows that no kill takes back any more."""
    del step
    memory = context.memory
    if event == "started":
        run = memory["run"] = _start(context)
        # How many rows W&B has: of a run that it knows, one more than its last step.
        memory["sent"] = run.step if run.resumed else 0
    # A run that diverged would do so again: its last rows are the best that there will be.
    if event in ("started", "saved", "ended") and row.get("event") != "failed":
        rows = [row for row in context.rows() if split_of(row)]
        for number in range(memory["sent"], len(rows)):
            memory["run"].log(_entry(rows[number]), step=number, commit=True)
        memory["sent"] = max(memory["sent"], len(rows))
    if event == "ended":
        memory["run"].finish(exit_code=_EXIT_CODES.get(row["event"], 1))


def _start(context: Context) -> Any:
    """Starts the W&B run, or goes on with it.

    Raises:
      UserError: W&B does not let it.
    """
    folder = context.workdir / "wandb"
    folder.mkdir(exist_ok=True)
    older = list(folder.glob("offline-run-*/run-*.wandb"))
    # `silent`: else it asks for a key, and waits. Git and code are none of its business.
    settings = Settings(
        silent=True,
        console="off",
        symlink=False,
        disable_git=True,
        disable_code=True,
        save_code=False,
    )
    try:
        known = wandb.setup(settings=settings).settings
        offline = known.mode in ("offline", "dryrun")
        run = wandb.init(
            project=known.project or "mnist_flax",
            name=known.run_name or context.workdir.resolve().name,
            dir=context.workdir,
            id=_identity(folder, offline),
            resume=None if offline else "allow",
            reinit="create_new",
            config=context.config.to_dict(),
            allow_val_change=True,
            settings=settings,
        )
    except wandb.Error as error:
        raise UserError(
            f"config.writers='wandb': {' '.join(str(error).split())[:160]} Log in with `wandb "
            "login`, or set WANDB_MODE=offline and send all later with `wandb sync`."
        ) from error
    run.define_metric("training_step", hidden=True)
    run.define_metric("*", step_metric="training_step")
    for path in older:
        if not _is_synced(path):
            path.unlink()  # the history; then the rest, where a process of a killed run may write
            shutil.rmtree(path.parent, ignore_errors=True)
    return run


def _identity(folder: Path, offline: bool) -> str:
    """Returns the id that the folder keeps, or makes one; offline another one if W&B knows that."""
    path = folder / "id"
    name = path.read_text().strip() if path.exists() else ""
    synced = any(map(_is_synced, folder.glob(f"offline-run-*/run-{name}.wandb")))
    if not name or (offline and (synced or any(folder.glob(f"run-*/run-{name}.wandb")))):
        name = secrets.token_hex(6)
        write_atomic(path, name)
    return name


def _is_synced(path: Path) -> bool:
    """Says whether a sync of this file has begun, at least."""
    return any(path.parent.glob(f"{path.name}.sync*"))


def _entry(row: Mapping[str, Any]) -> dict[str, float]:
    """Returns {'train/loss': 0.5, …, 'training_step': 10} of a row."""
    split = split_of(row)
    numbers = {
        f"{split}/{name}": number
        for name, number in row.items()
        if name != "step" and type(number) in (int, float)
    }
    return numbers | {"training_step": row["step"]}

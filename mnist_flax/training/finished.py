"""What is said of a run that is finished, and left as it is."""

import shlex
from pathlib import Path
from typing import Any

from mnist_flax.config import as_flag
from mnist_flax.core.optimizers import length_matters
from mnist_flax.training.gather import Plan
from mnist_flax.workdir.files import read_config
from mnist_flax.workdir.rows import read_rows


def finished_told(plan: Plan, workdir: Path, step: int) -> str:
    """Says that a run is finished, and what would have it go on."""
    message = f"The run in {workdir} is finished: it stands at step {step:,}."
    if not plan.task.trains:
        message = f"The {plan.config.task.name} in {workdir} is complete: it has no steps to train."
    if step < plan.times.total_steps:
        patience = plan.config.early_stopping_patience
        message += (
            f" It ended early, by config.early_stopping_patience={patience}: it goes on with a "
            "larger one."
        )
    if plan.config.tensorboard and not (workdir / "tensorboard").exists():
        message += " Event files for TensorBoard take one more step."
    if plan.writers:
        message += " Its writers are called again with one more step."
    return "\n".join([message, *_not_evaluated(plan, workdir, step)])


def _not_evaluated(plan: Plan, workdir: Path, step: int) -> list[str]:
    """Says which extra splits the last evaluation did not have, and how they are evaluated.

    No row is added to a finished run: what reads its rows relies on `finished` being the last.
    """
    before = read_config(workdir).get("dataset", {}).get("extra_eval_splits", {})
    images = {name: known["fingerprint"] for name, known in before.items()}
    here = {row.get("split") for row in read_rows(workdir) if row["step"] == step}
    lacking = [
        name
        for name, extra in plan.dataset.extra.items()
        if name not in here or images.get(name) != extra.fingerprint
    ]
    if not lacking:
        return []
    told = [f"Not evaluated: {', '.join(lacking)}. Nothing is added to a finished run's rows."]
    whole = plan.task.trains and step == plan.times.total_steps
    if whole and not length_matters(plan.config.schedule):
        told[0] += f" config.num_steps={step + 1} trains one step more and evaluates them, too."
    for name in lacking:
        if flags := _flags(plan.config.data, name):
            told.append(f"  {name}, without training: --mode=eval --checkpoint=latest {flags}")
    return told


def _flags(config_data: Any, name: str) -> str:
    """Returns what has --mode=eval evaluate an extra split; '' where it cannot."""
    asked = config_data.extra_eval_splits[name]
    parts = {"split": asked} if isinstance(asked, str) else dict(asked)
    place = {part: parts[part] for part in ("data_dir", "name") if parts.get(part)}
    if not place and config_data.resplit is not None:  # it knows only its own splits
        return ""
    fields = {**place, "eval_split": parts.get("split") or "test"}
    return shlex.join(as_flag(f"data.{field}", value) for field, value in fields.items())

"""Runs of a sweep, as they are left on a disk. Not a test itself."""

from pathlib import Path

from tiny import get_config

from mnist_flax.core.sums import Metric
from mnist_flax.report.sweep_table import SweptRun
from mnist_flax.workdir.files import write_config
from mnist_flax.workdir.rows import append_row

ACCURACY = Metric(".4f", larger_is_better=True, bounds=(0, 1))


def swept_run(
    folder: Path,
    point: str,
    seed: int,
    value: float | None,
    split: str = "eval",
    **environment: object,
) -> SweptRun:
    """Writes what a run leaves, or tells of a failed one."""
    workdir = folder / f"{point},seed={seed}"
    varied = {"optimizer.learning_rate": float(point.partition("=")[2])}
    if value is None:
        return SweptRun(point, varied, seed, workdir, "The run diverged.")
    workdir.mkdir()
    config = get_config()
    config.optimizer.learning_rate, config.seed = varied["optimizer.learning_rate"], seed
    config.data.select_split = "train[90%:]"
    conditions = {
        "dataset": {"name": "sample", "fingerprint": "f"},
        "environment": {"cores": 1, "jax": "0.1", **environment},
    }
    write_config(workdir, {"config": config.to_dict(), **conditions})
    append_row(workdir, {"step": 1, "event": "fallback", "message": "Fallback: no mnist."})
    for step, share in ((10, 1.1), (20, 1.0)):
        append_row(workdir, {"step": step, "split": "train", "loss": 2.0 / step})
        append_row(workdir, {"step": step, "split": split, "accuracy": value * share})
    return SweptRun(point, varied, seed, workdir, "")


def swept_runs(folder: Path) -> list[SweptRun]:
    worse = [swept_run(folder, "rate=0.1", seed, 0.5 + seed / 10) for seed in range(3)]
    better = [swept_run(folder, "rate=0.2", seed, 0.6 + seed / 5) for seed in range(3)]
    one = swept_run(folder, "rate=0.3", 0, 0.99)
    return [*worse, *better, one, swept_run(folder, "rate=0.3", 1, None)]

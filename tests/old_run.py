"""Writes the workdir of a run as version 0.1.0 wrote it. Not a test itself.

Nothing of the package is imported here: what lies on users' disks does not change when the package
does. Whoever changes a literal below changes what counts as an old run.
"""

import gzip
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.struct
import jax
import numpy as np
import optax
import orbax.checkpoint as ocp

SHAPES = {
    "conv": {"bias": (4,), "kernel": (3, 3, 1, 4)},
    "logits": {"bias": (10,), "kernel": (36, 10)},
    "norm": {"bias": (4,), "scale": (4,)},
}  # of tiny:TinyNet's parameters, on images of 8×8 pixels
CONFIG = {
    "augment": {
        "order": [],
        "random_rotation": {"max_degrees": 10.0},
        "random_scaling": {"max_factor": 1.1},
        "random_shift": {"max_pixels": 2},
    },
    "batch_size": 6,
    "checkpoint_every_steps": 4,
    "clip_by_global_norm": None,
    "data": {
        "data_dir": None,  # the folder that a test has
        "eval_split": "test",
        "extended": False,
        "fallback": "none",
        "name": "mnist",
        "resplit": None,
        "shuffle": True,
        "train_split": "train",
    },
    "eval_every_steps": 5,
    "keep_checkpoints": 2,
    "label_smoothing": 0.0,
    "log_every_steps": 10,
    "log_probabilities": False,
    "model": {"name": "tiny:TinyNet"},
    "num_epochs": None,
    "num_steps": 20,
    "on_damaged_checkpoint": "stop",
    "optimizer": {"learning_rate": 0.01, "name": "adam"},
    "schedule": {"name": "constant_schedule"},
    "seed": 0,
    "tensorboard": False,
}
# What a kind of run has different in its config.
KINDS: dict[str, dict[str, Any]] = {
    "adam": {},
    "clipped sgd": {
        "clip_by_global_norm": 1.0,
        "optimizer": {"learning_rate": 0.01, "momentum": 0.9, "name": "sgd"},
    },
    "smoothed": {"label_smoothing": 0.1, "log_probabilities": True},
}
ENVIRONMENT = {
    "python": "3.11.7",
    "jax": "0.10.1",
    "jaxlib": "0.10.1",
    "flax": "0.12.8",
    "optax": "0.2.8",
    "orbax-checkpoint": "0.12.8",
    "numpy": "2.4.6",
    "device": "1 × cpu",
    "cores": 2,
}
CLASS_NAMES = list("0123456789")
BEST_STEP, LATEST_STEP = 5, 8


class OldSums(flax.struct.PyTreeNode):
    """Sums over the steps since a row; the order of the fields is that of the file."""

    loss_sum: np.ndarray
    correct: np.ndarray
    count: np.ndarray


class OldState(flax.struct.PyTreeNode):
    """A whole state; likewise."""

    step: np.ndarray
    params: dict
    batch_stats: dict
    opt_state: Any
    window: OldSums
    epoch: OldSums


@dataclass(frozen=True)
class OldRun:
    """What was written: the states of the newest and the best save, and all of metrics.jsonl."""

    workdir: Path
    latest: OldState
    best: OldState
    rows: list[dict[str, Any]]


def write_old_run(
    workdir: Path,
    data_dir: Path,
    kind: str = "adam",
    *,
    best_accuracy: float = 35 / 37,
    mean_loss: float = 2.5,
    right_a_step: int = 1,
) -> OldRun:
    """Writes a run that was stopped at step 8: inside an epoch, and inside the window 2 … 10.

    Args:
      workdir: does not exist yet.
      data_dir: holds the four IDX files of the `digits` fixture.
      kind: one of KINDS.
      best_accuracy: what the evaluation of step 5 is said to have given; no network was asked.
      mean_loss: an example's, in the open sums of the training rows.
      right_a_step: how many of the six images of each step count as right in them.
    """
    config = CONFIG | KINDS[kind] | {"data": CONFIG["data"] | {"data_dir": str(data_dir)}}
    dataset = {
        "name": "mnist",
        "source": f"IDX files in {data_dir}",
        "fingerprint": _fingerprint(data_dir),
        "class_names": CLASS_NAMES,
        "image_shape": [8, 8, 1],
    }
    rows = _rows(workdir, data_dir, kind, best_accuracy)
    states = {step: _state(step, kind, mean_loss, right_a_step) for step in (4, 5, 8)}
    latest, best = (workdir / "checkpoints" / name for name in ("latest", "best"))
    for folder, step, accuracy in ((latest, 4, None), (best, 5, best_accuracy), (latest, 8, None)):
        metadata = {
            "step": step,
            "accuracy": accuracy,
            "config": config,
            "dataset": dataset,
            "environment": ENVIRONMENT,
            "rows": sum(row["step"] <= step and row.get("event") != "stopped" for row in rows),
        }
        _save(folder, states[step], metadata)
    written = {"config": config, "dataset": dataset, "environment": ENVIRONMENT}
    (workdir / "config.json").write_text(json.dumps(written, indent=2) + "\n")
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (workdir / ".holder").write_text("process 1234 on a-machine")
    (workdir / ".lock").touch()
    return OldRun(workdir, states[LATEST_STEP], states[BEST_STEP], rows)


def read_digits(data_dir: Path, prefix: str) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, 8, 8, 1] and labels int32 [N] of 'train' or 't10k'."""
    content = [
        gzip.decompress((data_dir / f"{prefix}-{name}-ubyte.gz").read_bytes())
        for name in ("images-idx3", "labels-idx1")
    ]
    images = np.frombuffer(content[0], np.uint8, offset=16).reshape(-1, 8, 8, 1)
    return images, np.frombuffer(content[1], np.uint8, offset=8).astype(np.int32)


def _fingerprint(data_dir: Path) -> str:
    digest = hashlib.sha256(json.dumps(CLASS_NAMES).encode())
    for name, prefix in (("train", "train"), ("eval", "t10k")):
        for field, array in zip(("images", "labels"), read_digits(data_dir, prefix), strict=True):
            digest.update(f"\n{name}.{field} {array.shape}\n".encode() + array.tobytes())
    return digest.hexdigest()


def _state(step: int, kind: str, mean_loss: float, right_a_step: int) -> OldState:
    # RandomState and not Generator: NumPy keeps its streams as they are for ever (NEP 19).
    random = np.random.RandomState(step)
    count = np.array(step, np.int32)
    params = _numbers(random, 0.5)
    params["norm"]["scale"] += np.float32(1)
    moving, squares = _numbers(random, 0.01), jax.tree.map(np.square, _numbers(random, 0.01))
    rate = optax.ScaleByScheduleState(count=count)
    if kind == "clipped sgd":
        opt_state = (optax.EmptyState(), (optax.TraceState(trace=moving), rate))
    else:
        opt_state = (optax.ScaleByAdamState(count=count, mu=moving, nu=squares), rate)
    return OldState(
        step=count,
        params=params,
        batch_stats={
            "norm": {
                "mean": random.normal(0, 0.5, 4).astype(np.float32),
                "var": random.uniform(0.5, 1.5, 4).astype(np.float32),
            }
        },
        opt_state=opt_state,
        window=_sums(step - 1, mean_loss, right_a_step),  # there was a row at step 1
        epoch=_sums(step, mean_loss, right_a_step),
    )


def _numbers(random: np.random.RandomState, scale: float) -> dict[str, dict[str, np.ndarray]]:
    """Of the form of the parameters."""
    return {
        layer: {
            name: random.normal(0, scale, shape).astype(np.float32)
            for name, shape in arrays.items()
        }
        for layer, arrays in SHAPES.items()
    }


def _sums(steps: int, mean_loss: float, right_a_step: int) -> OldSums:
    count = 6 * steps
    return OldSums(
        loss_sum=np.array(count * mean_loss, np.float32),
        correct=np.array(steps * right_a_step, np.int32),
        count=np.array(count, np.int32),
    )


def _rows(workdir: Path, data_dir: Path, kind: str, best_accuracy: float) -> list[dict[str, Any]]:
    """What the run has written up to its stop at step 8."""
    data = f"Data: mnist, 105 images to train, 37 to evaluate, from IDX files in {data_dir}."
    speed = {"steps_per_second": 12.5, "images_per_second": 75.0}
    rows: list[dict[str, Any]] = [
        {"step": 0, "event": "data", "message": data},
        {"step": 0, "event": "started", "message": f"Started in {workdir}."},
        {"step": 1, "split": "train", "loss": 2.75, "accuracy": 1 / 6, "learning_rate": 0.01}
        | speed,
    ]
    if kind == "smoothed":
        shown = np.full((6, 10), 0.1)
        rows.append(
            {
                "step": 1,
                "event": "probabilities",
                "message": f"Probabilities of the last batch, [6, 10]:\n{shown}",
                "probabilities": shown.tolist(),
                "labels": [3, 1, 4, 1, 5, 9],
            }
        )
    evaluated = {"loss": 0.25, "accuracy": best_accuracy, "examples": 37, "seconds": 0.125}
    stopped = "Stopped at step 8, which is saved."
    rows += [
        {"step": BEST_STEP, "split": "eval", **evaluated},
        {"step": LATEST_STEP, "event": "stopped", "message": stopped},
    ]
    return [row | {"dataset": "mnist"} for row in rows]


def _save(folder: Path, state: OldState, metadata: dict[str, Any]) -> None:
    leaves = {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }
    forms = {name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in leaves.items()}
    digest = hashlib.sha256()
    for name, leaf in leaves.items():
        digest.update(f"{name} {forms[name]};".encode() + leaf.tobytes())
    metadata = {**metadata, "leaves": forms, "state_sha256": digest.hexdigest()}
    text = json.dumps(metadata, sort_keys=True)
    metadata["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
    with ocp.CheckpointManager(folder.absolute(), options=options) as manager:
        manager.save(
            int(state.step),
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), metadata=ocp.args.JsonSave(metadata)
            ),
        )

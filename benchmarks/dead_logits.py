"""Counts how often the ReLU on LeNet's logits kills classes: ten short runs of each recipe.

    python benchmarks/dead_logits.py --data_dir=FOLDER --output=dead_logits.json

A class counts as dead if its logit is zero for every image of the evaluation split. The ten runs
have the same data and order, and ten different starts.
"""

import argparse
import functools
import importlib
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp
import numpy as np

from mnist_flax.core.chunk import make_train_chunk
from mnist_flax.core.state import create_state
from mnist_flax.tasks.networks import apply_eval
from mnist_flax.training.gather import gather

RECIPES = ("lenet", "lenet_augmented")
STARTS = 10
STEPS = 300


def main() -> None:
    """Runs, prints and writes the counts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data_dir", help="config.data.data_dir; by default what launch.py finds")
    parser.add_argument("--output", type=Path, required=True, help="the JSON file to write")
    arguments = parser.parse_args()
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    counts = {name: count_dead(name, arguments.data_dir) for name in RECIPES}
    arguments.output.write_text(json.dumps({"steps": STEPS, "runs": counts}, indent=1) + "\n")


def count_dead(name: str, data_dir: str | None) -> list[dict[str, Any]]:
    """Returns a row for each start: its seed, its dead classes and its accuracy."""
    config = importlib.import_module(f"configs.{name}").get_config()
    config.data.data_dir, config.data.fallback = data_dir, "none"
    plan = gather(config, print)
    task, source, evaluation = plan.task, plan.source, plan.dataset.eval
    new_state = jax.jit(functools.partial(create_state, task, plan.tried.form.window))
    train_chunk = jax.jit(make_train_chunk(task, source.draw, config.seed))
    logits_of = jax.jit(functools.partial(apply_eval, task.model))

    rows = []
    for seed in range(STARTS):
        state, _ = train_chunk(new_state(seed), source.feed(0, STEPS), jnp.int32(STEPS))
        parts = np.array_split(evaluation.images, 10)
        logits = np.concatenate([logits_of(state.variables, part) for part in parts])
        row = {
            "seed": seed,
            "dead": int((logits.max(axis=0) <= 0).sum()),
            "accuracy": float((logits.argmax(axis=1) == evaluation.labels).mean()),
        }
        print(f"{name}: {row}", flush=True)
        rows.append(row)
    return rows


if __name__ == "__main__":
    main()

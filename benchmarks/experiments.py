"""The runs that reproduce.py makes and report.py reports."""

import dataclasses
import json
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One tutorial, as published or with one of its oddities mended.

    Attributes:
      name: of the row, and of the workdirs.
      config: the recipe.
      seeds: a run each.
      overrides: what differs from the recipe.
      resplit: whether the seed decides the random split, too.
      published: accuracies that the tutorial gives, by where they stand in the run.
    """

    name: str
    config: str
    seeds: tuple[int, ...] = (0,)
    overrides: tuple[str, ...] = ()
    resplit: bool = False
    published: dict[str, float] = dataclasses.field(default_factory=dict, hash=False)


_LENET = {"first": 0.976, "best": 0.9908, "last": 0.9907}
_LENET_AUGMENTED = {"first": 0.988, "best": 0.995, "last": 0.995}
_MENDED = ("--config.model.relu_logits=false",)
EXPERIMENTS = (
    Experiment("tutorial", "tutorial", published={"last": 0.9733}),
    Experiment("adam", "adam"),
    Experiment("rmsprop", "rmsprop"),
    Experiment("lenet", "lenet", (0, 1, 2), (), True, _LENET),
    Experiment("lenet_mended", "lenet", (0, 1, 2), _MENDED, True, _LENET),
    Experiment("lenet_augmented", "lenet_augmented", (0, 1, 2), (), True, _LENET_AUGMENTED),
    Experiment(
        "lenet_augmented_mended", "lenet_augmented", (0, 1, 2), _MENDED, True, _LENET_AUGMENTED
    ),
)


def read_rows(workdir: Path) -> list[dict[str, Any]]:
    """Returns all rows of a run's metrics.jsonl; none if it was not started."""
    path = workdir / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def is_finished(workdir: Path) -> bool:
    """Says whether a run has reached its last step."""
    return any(row.get("event") == "finished" for row in read_rows(workdir)[-1:])

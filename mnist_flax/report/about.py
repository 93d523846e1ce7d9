"""What the report says of a run in words: its warnings, conditions, config and events."""

import contextlib
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from mnist_flax.config import flatten
from mnist_flax.data import preparation
from mnist_flax.data.dataset import Dataset
from mnist_flax.report.history import History
from mnist_flax.report.repeat import Recipe, repeat_command
from mnist_flax.use.restore import Restored
from mnist_flax.workdir.environment import changes, environment
from mnist_flax.workdir.files import read_config
from mnist_flax.workdir.known_images import count_known

# An absolute path of two parts or more; its last part is the group.
_ELSEWHERE = re.compile(r"(?<![\w.~/:-])(?:/[\w.@+-]+)+/([\w.@+-]+)")


def about(
    workdir: Path, restored: Restored, dataset: Dataset, history: History, recipe: Recipe | None
) -> dict[str, Any]:
    """Returns what page.html needs besides figures and pictures."""
    written = read_config(workdir)
    places = _places(workdir, dataset.data_dir, restored.trained_on.get("data_dir"))

    def plain(text: Any) -> Any:
        return _without(places, text)

    checkpoint = restored.checkpoint.relative_to(workdir.absolute())
    command, command_notes = _command(workdir, written["config"], history, recipe)
    if plain(command) != command:
        command_notes.append("Folders are named by their last part: write out where yours lie.")
    return {
        "title": workdir.resolve().name,
        "step": int(restored.state.step),
        "checkpoint": checkpoint,
        "dataset": replace(dataset, source=plain(dataset.source)),
        "notes": list(map(plain, _notes(workdir, restored, dataset, history))),
        "parameters": sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(restored.state.params)),
        "resumes": [f"{step:,}" for step in sorted(set(history.resumes))],
        "evaluated": bool(history.eval),
        "extra_splits": list(history.extra),
        "command": plain(command),
        "command_notes": list(map(plain, command_notes)),
        "conditions": [
            ("checkpoint", checkpoint),
            *(
                (name, plain(value))
                for name, value in _conditions(restored, dataset, written.get("environment", {}))
            ),
        ],
        "events": [{**row, "message": plain(row["message"])} for row in history.events],
        "left_out": history.left_out,
        "config": sorted((k, plain(value)) for k, value in flatten(written["config"]).items()),
    }


def _places(workdir: Path, *folders: str | None) -> list[tuple[str, str]]:
    """Returns what stands for the folders of this machine: a report travels. The longest first."""
    paths = [workdir.absolute(), *(Path(folder).absolute() for folder in folders if folder)]
    found = {str(path): path.name for path in paths if path.name}
    with contextlib.suppress(RuntimeError):  # no home is known
        if Path.home().name:
            found.setdefault(str(Path.home()), "~")
    return sorted(found.items(), key=lambda pair: -len(pair[0]))


def _without(places: list[tuple[str, str]], text: Any) -> Any:
    """Returns a text without the places of this machine; anything else as it is."""
    if not isinstance(text, str):
        return text
    for place, name in places:
        pattern = rf"(?<![\w.-]){re.escape(place)}(?![\w-])"
        text = re.sub(pattern, name.replace("\\", r"\\"), text)
    return _ELSEWHERE.sub(r"\1", text)  # a judge's folder, that of an init_from, …


def _notes(workdir: Path, restored: Restored, dataset: Dataset, history: History) -> Iterator[str]:
    """What a reader must know before any figure."""
    yield from dataset.notes
    for row in history.warnings:
        yield f"Step {row['step']:,}: {row['message']}"
    if dataset.fingerprint != restored.trained_on["fingerprint"]:
        yield (
            f"The run's own data are others, {restored.trained_on['source']}. It is judged here "
            f"on {dataset.source}, {restored.config.data.eval_split!r}."
        )
    yield from count_known(workdir, dataset.eval.images, chosen=restored.chosen).told()


def _command(
    workdir: Path, config: dict[str, Any], history: History, recipe: Recipe | None
) -> tuple[str, list[str]]:
    """The command that repeats the run, and what there is to say of it."""
    if recipe is None:
        return "", [
            "A run does not keep the name of its recipe. A report that is made with --config=FILE "
            "says here what command repeats it."
        ]
    command, beyond = repeat_command(recipe, config, workdir)
    notes = []
    if beyond:
        named = ", ".join(f"config.{field}" for field in beyond)
        notes.append(f"It is not the same run: no flag gives {named} the run's value.")
    for row in history.events:
        if row["event"] == "init_from":
            notes.append(f"It needs an --init_from, too, as the run had one. {row['message']}")
    return command, notes


def _conditions(
    restored: Restored, dataset: Dataset, trained_in: dict[str, Any]
) -> Iterator[tuple[str, Any]]:
    yield "data", f"{dataset.name}, {dataset.source}"
    yield "fingerprint of the data (SHA-256)", dataset.fingerprint
    if dataset.fingerprint != restored.trained_on["fingerprint"]:
        yield "fingerprint of the run's own data", restored.trained_on["fingerprint"]
    yield "images", " × ".join(map(str, restored.image_shape))
    if decay := restored.config.ema_decay:
        told = "a mean of the last steps'; figures called learnt are of those of the step itself"
        yield "parameters", f"{told} (config.ema_decay={decay})"
    prepared = preparation.told(restored.preparation, restored.image_shape)
    yield "pictures of one's own", f"{prepared} (unless --center says otherwise)"
    yield from trained_in.items()
    here = environment(restored.config.compute_dtype)
    for name, (then, now) in changes(trained_in, here).items():
        yield f"{name}, for this report", f"{now} (trained with {then})"

"""A new run that starts from another run's parameters, or from those of a file."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mnist_flax.core.average import learnt, renewed
from mnist_flax.core.state import PyTree, TrainState
from mnist_flax.core.task import Task
from mnist_flax.core.trees import leaf_path
from mnist_flax.errors import UsageError, UserError
from mnist_flax.use.restore import restore
from mnist_flax.workdir.weights import read_weights

_COLLECTIONS = ("params", "batch_stats")
_NAMED = 8  # names in a message


class InitFrom(NamedTuple):
    """What a run that starts takes its parameters from.

    Attributes:
      path: the workdir of another run, or a safetensors file.
      which: of a workdir's saves: 'latest', 'best' or a step.
      renamed: 'PATTERN=>NAME', each: an array there whose whole name the regular expression
        matches is called NAME here, in which \\1 is what the first group matched; with an empty
        NAME it is left behind. The first that matches counts; where none does, the name stays.
    """

    path: Path
    which: str = "latest"
    renamed: Sequence[str] = ()


class _Offered(NamedTuple):
    name: str  # as it is called there
    array: Any


def init_from(
    state: TrainState, source: InitFrom, fixed: Sequence[str] = ()
) -> tuple[TrainState, str]:
    """Returns a new run's state with what fits of another's, and a line on what was taken.

    An array of the parameters or running statistics (of their average where the other run keeps
    one) is taken where both have it under one name, with one shape and dtype. The others, the
    optimizer's state and the step stay new.

    Args:
      state: before the first step.
      source: only read. A run's own config says what model to restore.
      fixed: collections that stay as they are, as Task has them.

    Raises:
      UsageError: a rule for names that is none, or that matches nothing.
      UserError: there is no whole checkpoint or file, or nothing of it fits.
    """
    place, arrays = _arrays(source)
    offered, dropped = _under_new_names(arrays, source.renamed)
    kept = {name: state.variables[name] for name in fixed}
    ours = {name: value for name, value in state.variables.items() if name not in kept}
    variables, count = learnt(ours), 0
    faults: list[str] = []
    taken: list[str] = []
    for collection in sorted(variables, key=lambda name: name != "params"):
        variables[collection], more, names = _take(variables[collection], offered, collection)
        faults, taken = faults + more, taken + names
        count += len(names) if collection == "params" or "params" not in variables else 0
    faults += [
        f"{f'{collection}/' if collection else ''}{name} is nothing, there {_form(other.array)}"
        for (collection, name), other in offered.items()
    ]
    if not count:
        raise UserError(
            f"init_from={place}: nothing in it fits this model:\n"
            + "\n".join(f"  {fault}" for fault in faults)
            + "\nName a run with layers of the same names and shapes, or leave init_from out."
        )
    message = f"Arrays taken from {place}: {len(taken)}."
    if source.renamed:
        message += f" They are {_some(taken)}."
    if dropped:
        message += f" Left behind by renaming: {_some(dropped)}."
    if faults:
        message += f" New, or left behind: {'; '.join(faults)}."
    return state.replace(variables={**renewed(ours, variables), **kept}), message


def refuse_init_from(task: Task, name: str, source: InitFrom | None) -> None:
    """Raises UsageError where nothing is trained: its parameters are those of its members."""
    if source and not task.trains:
        raise UsageError(
            f"init_from={source.path}: the task {name!r} trains nothing, and takes its "
            "parameters from its members. Leave it out."
        )


def _arrays(source: InitFrom) -> tuple[Path, list[tuple[str, _Offered]]]:
    """Returns where the arrays are, and each with its collection, which a file need not say."""
    if source.path.is_file():
        told = []
        for full, array in read_weights(source.path).items():
            collection, _, name = full.partition("/")
            if collection not in _COLLECTIONS or not name:
                collection, name = "", full
            told.append((collection, _Offered(name, array)))
        return source.path, told
    if not (source.path / "config.json").is_file():
        raise UserError(
            f"init_from={source.path}: holds no run, and is no safetensors file. Name the "
            "workdir of a trained run, or such a file."
        )
    restored = restore(source.path, source.which, {})
    return restored.checkpoint, [
        (collection, _Offered(leaf_path(path), leaf))
        for collection, tree in sorted(restored.variables.items(), reverse=True)  # params first
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]


def _under_new_names(
    arrays: Sequence[tuple[str, _Offered]], renamed: Sequence[str]
) -> tuple[dict[tuple[str, str], _Offered], list[str]]:
    """Returns what is offered, by collection and the name that it has here; and what is not."""
    rules = [_rule(text) for text in renamed]
    used: set[str] = set()
    offered: dict[tuple[str, str], _Offered] = {}
    dropped = []
    for collection, other in arrays:
        name = other.name
        for text, pattern, replacement in rules:
            if match := pattern.fullmatch(other.name):
                name = match.expand(replacement)
                used.add(text)
                break
        if not name:
            dropped.append(other.name)
            continue
        if before := offered.get((collection, name)):
            raise UsageError(
                f"init_from: renaming: {before.name} and {other.name} would both be called {name}."
            )
        offered[collection, name] = other
    if unused := [text for text, _, _ in rules if text not in used]:
        others = " that no rule before it matches" if unused[0] != renamed[0] else ""
        raise UsageError(
            f"init_from: renaming {unused[0]}: matches the whole of no name{others}. There are "
            f"{', '.join(sorted({other.name for _, other in arrays}))}."
        )
    return offered, dropped


def _rule(text: str) -> tuple[str, re.Pattern[str], str]:
    pattern, arrow, replacement = text.partition("=>")
    if not arrow:
        raise UsageError(
            f"init_from: renaming {text}: must be PATTERN=>NAME, such as 'backbone/(.*)=>\\1'."
        )
    try:
        compiled = re.compile(pattern)
        # Python reports a group that is not there only where something matches.
        groups = [int(group) for group in re.findall(r"\\(\d+)", replacement)]
        if wrong := [group for group in groups if group > compiled.groups]:
            raise re.error(f"invalid group reference {wrong[0]}")
        compiled.sub(replacement, "")
    except re.error as error:
        raise UsageError(f"init_from: renaming {text}: {error}.") from error
    return text, compiled, replacement


def _take(
    ours: PyTree, offered: dict[tuple[str, str], _Offered], collection: str
) -> tuple[PyTree, list[str], list[str]]:
    """Returns our tree with their leaves where they fit, what did not, and what was taken.

    What has a name here is no longer offered.
    """
    leaves, treedef = jax.tree_util.tree_flatten_with_path(ours)
    chosen, faults, taken = [], [], []
    for path, leaf in leaves:
        name = leaf_path(path)
        key = next((key for key in ((collection, name), ("", name)) if key in offered), None)
        other = offered.pop(key) if key else None
        if other is not None and _form(other.array) == _form(leaf):
            chosen.append(jnp.asarray(other.array))
            taken.append(name if other.name == name else f"{other.name} as {name}")
        else:
            chosen.append(leaf)
            there = _form(None if other is None else other.array)
            faults.append(f"{collection}/{name} is {_form(leaf)}, there {there}")
    return jax.tree.unflatten(treedef, chosen), faults, taken


def _form(leaf: Any) -> str:
    return "nothing" if leaf is None else f"{leaf.dtype}{list(leaf.shape)}"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"

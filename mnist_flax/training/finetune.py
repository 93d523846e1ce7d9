"""A new run that starts from another run's parameters."""

from pathlib import Path

import jax

from mnist_flax.core.average import learnt, renewed
from mnist_flax.core.state import PyTree, TrainState
from mnist_flax.errors import UserError
from mnist_flax.use.restore import restore


def init_from(state: TrainState, workdir: Path, which: str) -> tuple[TrainState, str]:
    """Returns a new run's state with what fits of another's, and a line on what was taken.

    An array of the parameters or running statistics (of their average where the other run keeps
    one) is taken where both have it under one name, with one shape and dtype. The others, the
    optimizer's state and the step stay new.

    Args:
      state: before the first step.
      workdir: of the other run; only read. Its own config says what model to restore.
      which: 'latest', 'best' or a step.

    Raises:
      UserError: the workdir holds no whole checkpoint, or nothing of it fits.
    """
    if not (workdir / "config.json").is_file():
        raise UserError(f"--init_from={workdir}: holds no run. Name the workdir of a trained one.")
    source = restore(workdir, which, {})
    variables, faults, counts = learnt(state.variables), [], {}
    for name in sorted(variables, key=lambda name: name != "params"):
        theirs = source.variables.get(name, {})
        variables[name], more, counts[name] = _take(variables[name], theirs, name)
        faults += more
    if not counts.get("params", sum(counts.values())):
        raise UserError(
            f"--init_from={source.checkpoint}: nothing in it fits this model:\n"
            + "\n".join(f"  {fault}" for fault in faults)
            + "\nName a run with layers of the same names and shapes, or leave --init_from out."
        )
    message = f"Arrays taken from {source.checkpoint}: {sum(counts.values())}."
    if faults:
        message += f" New, or left behind: {'; '.join(faults)}."
    return state.replace(variables=renewed(state.variables, variables)), message


def _take(ours: PyTree, theirs: PyTree, name: str) -> tuple[PyTree, list[str], int]:
    """Returns our tree with their leaves where they fit, what did not, and how many did."""
    leaves, treedef = jax.tree_util.tree_flatten_with_path(ours)
    offered = dict(jax.tree_util.tree_leaves_with_path(theirs))
    chosen, faults, taken = [], [], 0
    for path, leaf in leaves:
        other = offered.pop(path, None)
        if fits := other is not None and _form(other) == _form(leaf):
            taken += 1
        else:
            faults.append(f"{_name(name, path)} is {_form(leaf)}, there {_form(other)}")
        chosen.append(other if fits else leaf)
    faults += [f"{_name(name, path)} is nothing, there {_form(o)}" for path, o in offered.items()]
    return jax.tree.unflatten(treedef, chosen), faults, taken


def _form(leaf: jax.Array | None) -> str:
    return "nothing" if leaf is None else f"{leaf.dtype}{list(leaf.shape)}"


def _name(tree: str, path: tuple) -> str:
    return f"{tree}.{jax.tree_util.keystr(path, simple=True, separator='.')}"

"""A run of several processes: the first one writes and decides, all of them compute.

Each executes the same loop. What only one can know (the folder, the clock, a signal) goes from it
to the others; nothing is sent where there is one process.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from mnist_flax.config import diff
from mnist_flax.core.state import TrainState
from mnist_flax.data.placement import Placement
from mnist_flax.errors import UserError
from mnist_flax.show.console import Console
from mnist_flax.show.writer import Writer
from mnist_flax.training.compilation import Compiler
from mnist_flax.training.gather import Plan, gather
from mnist_flax.training.opening import Opened
from mnist_flax.training.own_data import with_own_data
from mnist_flax.training.standing import Standing
from mnist_flax.training.taken import Taken, takes_networks, with_taken
from mnist_flax.workdir.digests import state_digest
from mnist_flax.workdir.environment import environment

# Of what a process runs in, these may differ: they change no decision, at most the last bits.
_MAY_DIFFER = ("processor", "cores", "python")
# What XLA's and JAX's errors say of a process that is gone; they have no type of their own.
_LOST = ("Gloo", "gloo", "NCCL", "coordination", "Barrier", "Connection closed", "Connection reset")


def gather_everywhere(
    config: ConfigDict, workdir: Path, placement: Placement, console: Console, given: Any = None
) -> Plan:
    """Returns the plan of a run, which is the same in all processes.

    The first process loads its data before the others, so that one alone downloads and prepares
    what is missing. Data that are `given` are handed to each process, and must be the same.

    Raises:
      UserError: as `gather` does, or the processes are not of one mind; in all of them.
    """
    writes = placement.writes
    searches = writes and given is None
    own = placement.together(
        lambda: with_own_data(config, workdir, console.say) if searches else config
    )
    found = placement.agree(own.data.data_dir)
    # The others may have theirs elsewhere, in their own default place.
    unnamed = own.data.data_dir is None and given is None
    if unnamed and found is not None and Path(found).expanduser().is_dir():
        own = own.copy_and_resolve_references()
        own.data.data_dir = found

    def gathered() -> Plan:
        return gather(own, console.say, placement, given)

    first = placement.together(lambda: gathered() if writes else None)
    plan = placement.together(lambda: first or gathered())
    placement.together(lambda: _require_same(placement, plan))
    return plan


def taken_everywhere(
    config: ConfigDict, workdir: Path, placement: Placement, console: Console
) -> tuple[ConfigDict, Taken | None]:
    """Returns what `with_taken` does; the first process reads, and the others have its config."""
    if not takes_networks(config):
        return config, None

    def read() -> tuple[ConfigDict, Taken | None]:
        return with_taken(config, workdir, console.say) if placement.writes else (config, None)

    own, taken = placement.together(read)
    firsts = placement.agree(own.to_dict())
    return own if placement.writes else ConfigDict(firsts), taken


def _require_same(placement: Placement, plan: Plan) -> None:
    """Raises UserError if this process is to run something else than the first."""
    config = plan.config.to_dict()
    # Each machine may have them elsewhere.
    for section in (config["data"], *config["data"]["extra_eval_splits"].values()):
        if isinstance(section, dict):
            section.pop("data_dir", None)
    extra = {name: split.fingerprint for name, split in plan.dataset.extra.items()}
    known = environment(plan.config.compute_dtype, placement.devices)
    mine = {
        "config": config,
        "the data's fingerprint": plan.dataset.fingerprint,
        "the fingerprint of the extra split": extra,
        **{name: value for name, value in known.items() if name not in _MAY_DIFFER},
    }
    firsts = placement.agree(mine)
    if other := diff(firsts, _as_json(mine)):
        rows = "; ".join(
            f"{name}: {here!r} here, {first!r} there" for name, (first, here) in other.items()
        )
        raise UserError(
            f"the first process runs something else: {rows}. Give all of them the same command, "
            "data and versions."
        )


def _as_json(value: Any) -> Any:
    """Returns what JSON makes of a value: a list of a tuple."""
    if isinstance(value, Mapping):
        return {name: _as_json(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(one) for one in value]
    return value


def in_all(plan: Plan, at_hand: Opened | None, console: Console, compiler: Compiler) -> Opened:
    """Returns the folder that the first process has opened, as each process has it.

    Args:
      plan: of the run.
      at_hand: what the first process has opened; None in the others.
      console: of this process.
      compiler: is started in the others, too.
    """
    placement = plan.placement
    if placement.processes > 1:
        like = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), plan.tried.form)
        state = placement.share(at_hand.state if at_hand else like)
        mine = asdict(at_hand.standing) if at_hand else {}
        at = Standing(**placement.agree(mine))
        finished = placement.agree(at_hand is not None and at_hand.finished)
        if at_hand is None:
            writer = Writer(None, console, plan.dataset.name)
            at_hand = Opened(state, at, None, writer, finished=finished)
            if not finished:
                compiler.start(at.step)
    assert at_hand is not None  # the only process has opened it
    return replace(at_hand, state=placement.replicate(at_hand.state))


def require_one_state(placement: Placement, state: TrainState) -> None:
    """Raises UserError if a process has come to another state than the first.

    Every process computes its own copy of what is not shared out; processors that round otherwise
    would part from one another unseen.
    """
    if placement.processes == 1:
        return
    digests = placement.exchange(state_digest(jax.device_get(state)))
    others = [str(number) for number, digest in enumerate(digests) if digest != digests[0]]
    if others:
        raise UserError(
            f"step {int(state.step):,}: process {', '.join(others)} has another state than the "
            "first one: their machines compute otherwise. Take machines of one kind; nothing was "
            "saved at this step."
        )


@contextlib.contextmanager
def lost_processes_told(placement: Placement) -> Iterator[None]:
    """Says in one line that another process is gone, which JAX says in many.

    Raises:
      UserError: that.
    """
    try:
        yield
    except (RuntimeError, ValueError) as error:  # what XLA's errors are in Python
        lost = placement.processes > 1 and any(sign in str(error) for sign in _LOST)
        if not lost:
            raise
        why = " ".join(str(error).split())[:100]
        raise UserError(
            f"process {jax.process_index()} of {placement.processes}: another process of this run "
            f"is gone ({why}); where it ran more is said. Start all of them again: the run goes on "
            "from its newest save."
        ) from error

"""Several trained networks as one: nothing is trained, their probabilities are averaged."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from mnist_flax.core.sums import Sums
from mnist_flax.core.task import OptState, Spec, Task, Variables
from mnist_flax.data.batch import Batch
from mnist_flax.errors import UsageError
from mnist_flax.models import create_model
from mnist_flax.tasks.classification import classifier


def ensemble(
    config: ConfigDict,
    spec: Spec,
    members: Sequence[str] = (),
    checkpoint: str = "latest",
    taken: Any = None,
) -> Task:
    """Builds the task of an ensemble, which has no steps: its start is what it is.

    Before it starts, training/taken.py puts the members' networks into config.model.members and
    their arrays into the first state.

    Args:
      config: model is read; compute_dtype is that of the members.
      spec: of the data.
      members: the workdirs of finished classifications, or globs of them.
      checkpoint: which save of each: 'latest' or 'best'.
      taken: where each member came from; written by the run itself.

    Raises:
      UsageError: a wrong field.
    """
    del taken
    config.compute_dtype  # noqa: B018 (it is read: the programs are compiled for it)
    if not isinstance(members, tuple | list) or not all(isinstance(one, str) for one in members):
        raise UsageError(
            f"config.task.members={members!r}: must be a tuple of workdirs, such as "
            "('runs/a', 'runs/b') or ('runs/sweep/seed=*',)."
        )
    check_checkpoint(checkpoint)
    if config.model.name != "ensemble":
        raise UsageError(
            f"config.model.name={config.model.name!r}: the task 'ensemble' has the model "
            "'ensemble'. Leave it out."
        )
    model = create_model(config.model, len(spec.class_names))
    task = classifier(model, optax.identity(), spec)
    return task._replace(
        init=lambda key: zeros_like(task.init, key), update=_nothing, in_training=None, trains=False
    )


def check_checkpoint(checkpoint: Any) -> None:
    """Raises UsageError unless it says which save of another run is taken."""
    if checkpoint not in ("latest", "best"):
        raise UsageError(f"config.task.checkpoint={checkpoint!r}: must be 'latest' or 'best'.")


def zeros_like(init: Any, key: jax.Array) -> Variables:
    """Returns variables of the form that `init` gives: what another run's arrays take the place of.

    To draw a start for them would be work for nothing.
    """
    form = jax.eval_shape(init, key)
    return {
        name: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), tree)
        for name, tree in form.items()
    }


def _nothing(
    variables: Variables, opt_state: OptState, batch: Batch, step: jax.Array, key: jax.Array
) -> tuple[Variables, OptState, Sums]:
    """An update that is never made: a run of this task has no steps."""
    del step, key
    sums = {"loss": jnp.float32(0), "accuracy": jnp.int32(0), "count": jnp.int32(len(batch.images))}
    return variables, opt_state, sums

"""Several networks that answer as one: with the mean of their probabilities."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict
from ml_collections import ConfigDict

from mnist_flax.errors import UsageError
from mnist_flax.models import create_model
from mnist_flax.models.blocks import at_least_float32


class Ensemble(nn.Module):
    """Networks that need not be alike; each sees the images, and their softmax is averaged.

    A member is as it was in its own run: with the fields of its own, such as shifted_views, and
    computing in its own dtype. Softmax and mean are float32.

    Attributes:
      num_classes: number of logits, the same of every member.
      members: {'member1': {'model': {'name': …}, 'compute_dtype': 'float32'}, …}: the model section
        of each member's config, and what it computes in. In the parameters a member has its name
        here: 'member1/conv1/kernel'.
    """

    num_classes: int = 10
    members: Any = FrozenDict()

    def __post_init__(self) -> None:
        """Raises UsageError for members that are no networks."""
        # Hashable, as a module must be; a config's sections and lists are not.
        object.__setattr__(self, "members", _frozen(self.members))
        known = isinstance(self.members, FrozenDict) and all(
            isinstance(one, FrozenDict) and one.keys() == {"model", "compute_dtype"}
            for one in self.members.values()
        )
        if not known:
            raise UsageError(
                "config.model.members: must have a section for each member, with its model and "
                "compute_dtype. The task 'ensemble' writes them by itself."
            )
        super().__post_init__()

    def setup(self) -> None:
        """Makes the members' networks."""
        for name, member in self.members.items():
            section, dtype = ConfigDict(_thawed(member["model"])), member["compute_dtype"]
            setattr(self, name, create_model(section, self.num_classes, compute_dtype=dtype))

    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps images float32 [B, H, W, C] in [0, 1] to logits float32 [B, num_classes].

        The logits are logarithms of the mean of the members' probabilities, so that their softmax
        is that mean.

        Raises:
          UsageError: there are no members.
        """
        if not self.members:
            raise UsageError(
                "config.model.name='ensemble': has no members. They are taken from finished runs: "
                "the recipe ensemble with config.task.members=\"('runs/a', 'runs/b')\""
            )
        return log_of_mean([getattr(self, name)(images, train=train) for name in self.members])


def log_of_mean(logits: Sequence[jax.Array]) -> jax.Array:
    """Returns the logarithm of the mean of what softmax makes of each.

    Args:
      logits: [B, K] of each member.

    Returns:
      float32 [B, K], finite wherever the logits are: probabilities too small for a float32 are
      never computed.
    """
    each = jnp.stack([nn.log_softmax(at_least_float32(one)) for one in logits])
    largest = each.max(axis=0)
    return largest + jnp.log(jnp.exp(each - largest).mean(axis=0))


def _frozen(value: Any) -> Any:
    """Returns the same, hashable: sections as FrozenDicts, in the order of their keys."""
    if isinstance(value, ConfigDict | Mapping):
        return FrozenDict({name: _frozen(value[name]) for name in sorted(value.keys())})
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def _thawed(value: Any) -> Any:
    if isinstance(value, FrozenDict):
        return {name: _thawed(inner) for name, inner in value.items()}
    return value

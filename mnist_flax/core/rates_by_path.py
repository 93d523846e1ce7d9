"""Parameters that learn slower, faster or not at all, by their paths: config.optimizer.rates."""

import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mnist_flax.core.trees import leaf_path
from mnist_flax.errors import UsageError

Rates = Sequence[tuple[str, float]]  # (regular expression, factor)


def check_rates(rates: Any) -> Rates:
    """Returns what config.optimizer.rates holds, or raises UsageError where it holds no pairs."""
    field = "config.optimizer.rates"
    pairs = rates if isinstance(rates, tuple | list) else None
    if pairs is None or not all(isinstance(p, tuple | list) and len(p) == 2 for p in pairs):
        raise UsageError(
            f"{field}={rates!r}: must be pairs of a regular expression and a factor, such as "
            "(('conv.*', 0.1), ('stem.*', 0.0))."
        )
    for pattern, factor in pairs:
        number = isinstance(factor, int | float) and not isinstance(factor, bool)
        if not (number and 0 <= factor < 3e38):
            raise UsageError(f"{field}: {factor!r}, for {pattern!r}, must be a number, at least 0.")
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            raise UsageError(f"{field}: {pattern!r} is no regular expression: {error}.") from error
    return [(pattern, float(factor)) for pattern, factor in pairs]


def with_rates(optimizer: optax.GradientTransformation, rates: Rates) -> Any:
    """Returns the optimizer with what it changes multiplied by a factor, by path.

    A parameter takes the factor of the first expression that matches the whole of its path, such as
    'conv1/kernel', and 1 where none does. A factor of 0 freezes: the optimizer does not see the
    parameter or its gradient, and keeps no state for it.

    Raises:
      UsageError: from `init`, where an expression matches nothing.
    """

    def factors_of(params: Any) -> Any:
        leaves, treedef = jax.tree_util.tree_flatten_with_path(params)
        return jax.tree.unflatten(treedef, _factors([leaf_path(path) for path, _ in leaves], rates))

    masked = optax.masked(optimizer, lambda params: jax.tree.map(bool, factors_of(params)))

    def scaled(update: jax.Array, factor: float) -> jax.Array:
        # Zeros that depend on no gradient: what leads to it alone is not computed.
        return update if factor == 1 else update * factor if factor else jnp.zeros_like(update)

    def update(grads: Any, opt_state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, opt_state = masked.update(grads, opt_state, params)
        return jax.tree.map(scaled, updates, factors_of(updates)), opt_state

    return optax.GradientTransformation(masked.init, update)


def _factors(paths: Sequence[str], rates: Rates) -> list[float]:
    taken: dict[str, float] = {}
    for pattern, factor in rates:
        new = [path for path in paths if path not in taken and re.fullmatch(pattern, path)]
        if not new:
            left = [path for path in paths if path not in taken]
            told = f"config.optimizer.rates: {pattern!r} matches the whole of no parameter's path"
            if len(left) == len(paths):
                raise UsageError(f"{told}. There are {', '.join(paths)}.")
            raise UsageError(
                f"{told} that none before it matches. Left are {', '.join(left) or 'none'}."
            )
        taken |= dict.fromkeys(new, factor)
    return [taken.get(path, 1.0) for path in paths]

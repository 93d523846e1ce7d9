"""Pytrees: what a leaf of one is called; and that a jitted loop carries one of the same form."""

from typing import Any

import jax
import jax.numpy as jnp


def leaf_path(path: Any) -> str:
    """Returns 'conv1/kernel' for the path of a leaf, as jax.tree_util gives it."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def first_change(before: Any, after: Any) -> str:
    """Describes the first leaf that is not as it was, or returns ''.

    Args:
      before: a pytree of arrays or jax.ShapeDtypeStructs.
      after: likewise.
    """
    left, right = (jax.tree_util.tree_leaves_with_path(tree) for tree in (before, after))
    lost = {path for path, _ in left} ^ {path for path, _ in right}
    if lost:
        return f"another tree of it: {jax.tree_util.keystr(min(lost, key=str))} comes or goes"
    for (path, old), (_, new) in zip(left, right, strict=True):
        if (old.shape, old.dtype) != (new.shape, new.dtype):
            was, now = (f"{leaf.dtype} {list(leaf.shape)}" for leaf in (old, new))
            return f"{now} of {jax.tree_util.keystr(path)}, which was {was}"
    return ""


def finite(held: Any, opt_state: Any) -> jax.Array:
    """Says whether a run may go on from these: bool [].

    Nothing held and no array of the optimizer's is NaN or infinite. A single number of the
    optimizer's may be infinite: 'the best value so far' is so before there is one.
    """
    its_own = jax.tree.leaves(opt_state)
    arrays, numbers = [x for x in its_own if x.ndim], [x for x in its_own if not x.ndim]
    checked = [*jax.tree.leaves(held), *arrays]
    sound = [jnp.isfinite(leaf).all() for leaf in checked if _may_fail(leaf)]
    sound += [~jnp.isnan(leaf) for leaf in numbers if _may_fail(leaf)]
    return jnp.stack(sound).all() if sound else jnp.array(True)


def _may_fail(leaf: jax.Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.inexact)  # not counts, masks and keys

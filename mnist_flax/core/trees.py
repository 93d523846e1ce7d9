"""What a jitted loop asks of a pytree that it carries: the same form after every step."""

from typing import Any

import jax


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

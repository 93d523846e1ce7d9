"""What a state is made of, leaf by leaf, and digests that notice a single flipped bit."""

import hashlib
import json
from typing import Any

import jax
import numpy as np

from mnist_flax.core.state import PyTree


def describe(state: PyTree) -> dict[str, str]:
    """Returns {path: 'float32[5, 5, 1, 32]'} for every leaf, in the tree's order."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in leaves
    }


def mismatches(saved: dict[str, str], ours: dict[str, str]) -> list[str]:
    """Returns a line for each leaf that two descriptions have different."""
    return [
        f"  {path}: saved {saved.get(path, 'nothing')}, now {ours.get(path, 'nothing')}"
        for path in sorted(saved.keys() | ours.keys())
        if saved.get(path) != ours.get(path)
    ]


def state_digest(state: PyTree) -> str:
    """Returns the SHA-256 of all leaves' paths, dtypes, shapes and bytes. They are on the host."""
    digest = hashlib.sha256()
    for (path, form), leaf in zip(describe(state).items(), jax.tree.leaves(state), strict=True):
        digest.update(f"{path} {form};".encode())
        digest.update(np.ascontiguousarray(leaf).view(np.uint8).data)  # bfloat16 has no buffer
    return digest.hexdigest()


def json_digest(metadata: dict[str, Any]) -> str:
    """Returns the SHA-256 of what JSON can hold, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(metadata, sort_keys=True).encode()).hexdigest()

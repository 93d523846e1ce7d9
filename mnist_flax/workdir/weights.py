"""Weights by name, in a safetensors file: a table of names and shapes, and the arrays' bytes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mnist_flax.core.trees import leaf_path
from mnist_flax.errors import UserError
from mnist_flax.workdir.save_faults import first_line

WEIGHTS_FILE = "weights.safetensors"


def weights_content(variables: Mapping[str, Any], about: Mapping[str, Any]) -> bytes:
    """Returns a file's content: arrays 'params/conv1/kernel', 'batch_stats/norm1/mean', ….

    Args:
      variables: 'params' and 'batch_stats', any nesting of arrays; kernels are [H, W, in, out].
      about: what stands in the file's own table, as JSON, under 'mnist_flax'.
    """
    from safetensors.numpy import save

    arrays = {
        leaf_path(path): np.ascontiguousarray(jax.device_get(leaf))
        for path, leaf in jax.tree_util.tree_leaves_with_path(dict(variables))
    }
    # In one field: safetensors writes several in an order of their own each time.
    return bytes(save(arrays, {"mnist_flax": json.dumps(about)}))


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a file by their names, in alphabetical order.

    Raises:
      UserError: it cannot be read, or is no safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        # Its own order is another each time.
        return dict(sorted(load(path.read_bytes()).items()))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error
    except (SafetensorError, KeyError, ValueError, TypeError) as error:  # KeyError: its bfloat16
        raise UserError(f"{path}: is no whole safetensors file ({first_line(error)}).") from error

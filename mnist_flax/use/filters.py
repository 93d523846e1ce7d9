"""The filters that a network lays over its images: the kernel of its first convolution."""

from typing import Any

import jax
import numpy as np
from flax import linen as nn

from mnist_flax.core.task import Variables


def first_filters(
    model: nn.Module, variables: Variables, image_shape: tuple[int, int, int]
) -> tuple[str, np.ndarray] | None:
    """Finds the first convolution, in the order of the calls, that takes the images' channels.

    Works for any linen module, one whose convolution is a parameter of its own included. What has
    no 4-D parameter, such as a normalisation of the images, is passed over.

    Args:
      model: a linen module; it is traced, not run.
      variables: its parameters and running statistics.
      image_shape: (H, W, C).

    Returns:
      ('conv1', its kernel, float32 [h, w, C, F]); a layer inside another is 'block/conv1', a
      parameter of the model itself has its own name. None if there is none: a network of dense
      layers.
    """
    found: dict[str, jax.Array] = {}

    def look(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        own = variables["params"]
        for name in context.module.path:
            own = own.get(name, {})
        for name, leaf in own.items():
            if getattr(leaf, "ndim", 0) == 4 and leaf.shape[2] == image_shape[2]:
                found.setdefault("/".join(context.module.path) or name, leaf)
        return call(*args, **kwargs)

    def trace(images: jax.Array) -> Any:
        with nn.intercept_methods(look):
            return model.apply(variables, images)

    jax.eval_shape(trace, jax.ShapeDtypeStruct((1, *image_shape), "float32"))
    return next(((name, np.asarray(kernel)) for name, kernel in found.items()), None)

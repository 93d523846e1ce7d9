"""How much a function computes, counted from its jaxpr.

Counted are the multiplications and additions of convolutions and matrix products, two for each pair
of numbers that are multiplied and added, and nothing else: no bias, activation, normalisation or
optimizer. That is what is called the FLOPs of a model elsewhere, too (arXiv 2204.02311, appendix
B). A convolution's padding and the zeros of its dilation are not counted, so that it has as many
FLOPs as each of its two gradients.
"""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from jax.extend.core import Jaxpr, JaxprEqn, jaxprs_in_params, primitives


def count_flops(jaxpr: Jaxpr, part_of: Callable[[str], str] = lambda scope: "") -> Counter[str]:
    """Returns {part: FLOPs}.

    A loop counts as often as it is known to run, one without a known end once; of a conditional's
    branches the one that computes most.

    Args:
      jaxpr: of what is counted.
      part_of: from the named scopes that an equation stands in, 'a/b', to the part it belongs to.
    """
    return _count(jaxpr, "", part_of)


def _count(jaxpr: Jaxpr, scope: str, part_of: Callable[[str], str]) -> Counter[str]:
    counted: Counter[str] = Counter()
    for eqn in jaxpr.eqns:
        inside = "/".join(filter(None, [scope, str(eqn.source_info.name_stack)]))
        if count := _FLOPS.get(eqn.primitive):
            counted[part_of(inside)] += count(eqn)
            continue
        bodies = [_count(body, inside, part_of) for body in jaxprs_in_params(eqn.params)]
        if eqn.primitive is primitives.cond_p:
            bodies = [max(bodies, key=lambda body: body.total())]
        times = eqn.params["length"] if eqn.primitive is primitives.scan_p else 1
        for body in bodies:
            counted.update({part: times * flops for part, flops in body.items()})
    return counted


def _of_product(eqn: JaxprEqn) -> int:
    (contracted, _), _ = eqn.params["dimension_numbers"]
    shape = _shape(eqn.invars[0])
    return 2 * math.prod(_shape(eqn.outvars[0])) * math.prod(shape[axis] for axis in contracted)


def _of_convolution(eqn: JaxprEqn) -> int:
    p = eqn.params
    lhs, rhs, out = p["dimension_numbers"]
    images, kernel, outputs = (_shape(atom) for atom in (*eqn.invars, eqn.outvars[0]))
    pairs = [
        _pairs(images[lhs[d + 2]], kernel[rhs[d + 2]], outputs[out[d + 2]], *numbers)
        for d, numbers in enumerate(
            zip(
                p["window_strides"], p["padding"], p["lhs_dilation"], p["rhs_dilation"], strict=True
            )
        )
    ]
    # The kernel's second axis has the channels of one group. Where the batch is grouped, each
    # output is of one group of images: out has them once.
    once = outputs[out[0]] * outputs[out[1]] * kernel[rhs[1]]
    return 2 * once * math.prod(pairs)


def _pairs(
    size: int,
    kernel: int,
    outputs: int,
    stride: int,
    padding: tuple[int, int],
    size_dilation: int,
    kernel_dilation: int,
) -> int:
    """How many pairs of an output and a place of the kernel meet a number, along one axis."""
    starts = np.arange(outputs)[:, None] * stride - padding[0]
    places = starts + np.arange(kernel) * kernel_dilation
    inside = (places >= 0) & (places <= (size - 1) * size_dilation)
    return int(np.sum(inside & (places % size_dilation == 0)))


def _shape(atom: Any) -> tuple[int, ...]:
    return tuple(atom.aval.shape)


_FLOPS: dict[Any, Callable[[JaxprEqn], int]] = {
    primitives.dot_general_p: _of_product,
    primitives.conv_general_dilated_p: _of_convolution,
}

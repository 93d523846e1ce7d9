"""bfloat16 on a CPU: what XLA is asked for where the processor has units for it.

By itself XLA computes a CPU's convolutions and matrix products of bfloat16 slower than those of
float32. Its oneDNN kernels use the processor's own units, AMX on Intel's; they are an option of
each program that is compiled, so nothing in the environment is changed.

Measured with jax 0.12.0.1 on two cores with AMX, in turns in a busy minute: a step of the
tutorial's network, batch 100, takes 166 ms without the option and 57 with it. With jax 0.10.1 the
option is known and brings a convolution nothing.
"""

import os

import jaxlib

from mnist_flax.cpu import processor
from mnist_flax.cpu.target import target

OPTION = "xla_cpu_experimental_onednn_custom_call"
_UNITS = "amx_bf16"
_FIRST = (0, 12)  # jaxlib whose convolutions gain by it


def options(compute_dtype: str) -> dict[str, bool]:
    """Returns the `compiler_options` of every program of a network that computes in this dtype.

    None are needed for float32. For bfloat16 there are some on a CPU that gains by them, unless
    XLA_FLAGS has a value of the user's own.
    """
    if compute_dtype != "bfloat16" or target() != "cpu":
        return {}
    return {} if OPTION in os.environ.get("XLA_FLAGS", "") or obstacle() else {OPTION: True}


def obstacle() -> str:
    """Says why bfloat16 is slow on this CPU, or ''."""
    if not processor.has(_UNITS):
        return f"the processor has no {_UNITS} that the system tells of"
    if jaxlib.version.__version_info__[:2] < _FIRST:
        first = ".".join(map(str, _FIRST))
        return f"jaxlib {jaxlib.version.__version__} is older than {first}"
    return ""


def told(compute_dtype: str) -> str:
    """Returns a line on how bfloat16 is computed here; '' where there is nothing to say."""
    if compute_dtype != "bfloat16" or target() != "cpu":
        return ""
    if OPTION in os.environ.get("XLA_FLAGS", ""):
        return f"bfloat16: XLA_FLAGS sets {OPTION}, which stays as it is."
    if why := obstacle():
        return (
            f"bfloat16 is slow here, for {why}: a step takes 1.1 to 1.5 times as long as in "
            "float32, as measured on a Xeon. Leave config.compute_dtype out, unless the numbers "
            "matter."
        )
    return f"bfloat16: computed by oneDNN's kernels on the processor's {_UNITS} ({OPTION})."

"""How JAX is set: what a run needs of it, said in a line before JAX says it in a traceback."""

from typing import Any

import jax

from mnist_flax.errors import UserError, installing

_GUARDS = (
    *("jax_transfer_guard", "jax_transfer_guard_host_to_device"),
    *("jax_transfer_guard_device_to_device", "jax_transfer_guard_device_to_host"),
)


def require_jax() -> None:
    """Raises UserError where JAX finds no device, or is set so that no run can work."""
    config: Any = jax.config  # its attributes are made when JAX is imported
    platforms = config.jax_platforms
    try:
        jax.default_backend()
    except (RuntimeError, AssertionError) as error:  # the latter of JAX_PLATFORMS=cuda, in 0.10
        lines = [line for line in str(error).splitlines() if line]
        why = f" ({lines[0][:160]})" if lines else ""
        raise UserError(
            f"JAX_PLATFORMS={platforms or ''}: JAX finds no such device here{why}. Unset it, set "
            "JAX_PLATFORMS=cpu, or install JAX for that device (a CUDA GPU: "
            f"{installing('cuda')})."
        ) from error
    if config.jax_disable_jit:
        raise UserError(
            "JAX_DISABLE_JIT is set: a run is compiled before it starts, which JAX then refuses. "
            "Unset it; jax.debug.print and jax.debug.breakpoint look into compiled steps."
        )
    if config.jax_numpy_dtype_promotion == "strict":
        raise UserError(
            "JAX_NUMPY_DTYPE_PROMOTION=strict: Flax and optax mix types of numbers. Set it to "
            "standard."
        )
    for guard in _GUARDS:
        if str(getattr(config, guard)).startswith("disallow"):
            raise UserError(
                f"{guard.upper()}={getattr(config, guard)}: a run hands numbers to its device "
                "and reads them back. Unset it, or set it to log."
            )

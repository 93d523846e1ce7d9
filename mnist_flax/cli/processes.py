"""--distributed: one of several processes that train together.

It is the child of one that watches it (watching.py). What the processes agree on is in
data/placement.py.
"""

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from mnist_flax.cli import watching
from mnist_flax.cli.flags import FLAGS, refuse
from mnist_flax.errors import UsageError, UserError

_LAST_WORDS_SECONDS = 3  # that the others have when all fail, before the coordinator is gone
_SILENT_SECONDS = 15  # after which one that says nothing counts as gone
_ASKED_FOR = {"coordinator", "num_processes", "process_id"}


def check() -> None:
    """Raises UsageError for flags that do not go together."""
    if FLAGS.distributed == "off":
        refuse({"join_seconds"}, "is for --distributed=auto and manual. Leave it out.")
    if FLAGS.distributed != "manual":
        refuse(_ASKED_FOR, "is for --distributed=manual. Leave it out.")
        return
    if missing := sorted(name for name in _ASKED_FOR if not FLAGS[name].present):
        raise UsageError(
            f"--{missing[0]} is missing: --distributed=manual takes --coordinator=HOST:PORT of the "
            "first process, --num_processes=N, and --process_id=0 to N-1, another in each."
        )
    host, _, port = FLAGS.coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UsageError(
            f"--coordinator={FLAGS.coordinator}: must be HOST:PORT, the same in all processes: an "
            "address of the first one's machine, and a free port there."
        )
    if FLAGS.process_id >= FLAGS.num_processes:
        raise UsageError(
            f"--process_id={FLAGS.process_id}: must be below --num_processes="
            f"{FLAGS.num_processes}; the first is 0."
        )


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Makes this process one of those of the run, which leave together.

    Raises:
      UserError: the others did not come, or nothing here says who they are.
    """
    import jax

    from mnist_flax.data.placement import Placement
    from mnist_flax.training.processes import lost_processes_told

    sys.excepthook = _end_at_once
    config: Any = jax.config
    config.update("jax_enable_preemption_service", False)  # it would take SIGTERM from us
    watching.end_with_parent(watching.parent())
    _connect()
    global _joined, _left
    _joined = True
    _require_as_many_devices_each()
    watching.write_to_parent(watching.ALL_CAME)
    with lost_processes_told(Placement.over(jax.devices())):
        yield
        jax.distributed.shutdown()
    _left = True


def _connect() -> None:
    """Waits for the other processes, as `joined` says."""
    import jax

    given: dict[str, Any] = {}
    if FLAGS.distributed == "manual":
        given = {
            "coordinator_address": FLAGS.coordinator,
            "num_processes": FLAGS.num_processes,
            "process_id": FLAGS.process_id,
        }
        if FLAGS.process_id == 0:
            _require_free_port()
    try:
        jax.distributed.initialize(
            **given,
            initialization_timeout=FLAGS.join_seconds,
            heartbeat_timeout_seconds=_SILENT_SECONDS,
        )
    except ValueError as error:  # nothing was detected
        raise UsageError(
            f"--distributed={FLAGS.distributed}: JAX finds no SLURM, Open MPI, Kubernetes or TPU "
            f"around this process ({_first_line(error)}). Name the others: --distributed=manual "
            "--coordinator=HOST:PORT --num_processes=N --process_id=I."
        ) from error
    except RuntimeError as error:
        if "before any JAX" in str(error):
            raise UsageError(
                f"--config={FLAGS.config}: computes with JAX when it is read, before the "
                "processes have come together. Have it give plain numbers."
            ) from error
        raise UserError(watching.not_together(f" ({_first_line(error)})")) from error
    if given and jax.process_count() != FLAGS.num_processes:
        raise UserError(
            f"--num_processes={FLAGS.num_processes}: the first process was given "
            f"{jax.process_count()}. Give all of them the same number."
        )


def first_signal(mine: signal.Signals | None) -> signal.Signals | None:
    """Returns the signal that came to this process, or to another one; None if none came."""
    import jax

    from mnist_flax.data.placement import Placement

    given = Placement.over(jax.devices()).exchange(mine)
    return next((signal.Signals(number) for number in given if number is not None), None)


def is_first() -> bool:
    """Says whether this is the first process of those that have joined."""
    import jax

    return jax.process_index() == 0


_joined = False  # whether this process has come together with the others
_left = False  # whether it has left them, with all of them


def leave_failed(status: int) -> int:
    """Ends this process where it has failed among others: an orderly end waits for all.

    It has said why. Where all of them fail, each says so: the first one, which the others' runtime
    ends with, leaves last.
    """
    if watching.is_watched() and not _left:
        sys.stdout.flush()
        sys.stderr.flush()
        watching.write_to_parent(watching.SAID_WHY)
        if _joined and is_first():
            time.sleep(_LAST_WORDS_SECONDS)
        os._exit(status)
    return status


def _end_at_once(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Shows what nobody has caught, and ends this process likewise."""
    sys.__excepthook__(kind, error, trace)
    leave_failed(1)


def _require_as_many_devices_each() -> None:
    """Raises UserError, in every process, unless all have as many devices: JAX exchanges so."""
    import jax

    here, of_all, processes = jax.local_device_count(), jax.device_count(), jax.process_count()
    if here * processes != of_all:
        raise UserError(
            f"process {jax.process_index()} of {processes} has {here} of all {of_all} devices: "
            "each must have as many. CUDA_VISIBLE_DEVICES says which a process sees."
        )


def _require_free_port() -> None:
    """Raises UserError where the coordinator's port is taken: JAX would crash."""
    port = int(FLAGS.coordinator.rpartition(":")[2])
    dual = socket.has_dualstack_ipv6()  # asks the kernel
    with socket.socket(socket.AF_INET6 if dual else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("", port))
        except OSError as error:
            raise UserError(
                f"--coordinator={FLAGS.coordinator}: port {port} cannot be used here "
                f"({error.strerror}). Name a free one, the same in all processes."
            ) from error


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0][:160] if lines else type(error).__name__

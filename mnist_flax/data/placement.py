"""Where arrays lie: on which devices, of which processes; and what the processes agree on.

Variables are on every device, of a batch each device has a part. With one device all of this is
nothing: its programs are those that they would be without. JAX's own runtime does the work:
`jit` over a mesh of all devices, and XLA adds what the devices have to tell one another.
"""

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mnist_flax.errors import UsageError, UserError

T = TypeVar("T")
_AXIS = "batch"
_HEAD = 256  # bytes of a first exchange


@dataclass(frozen=True)
class Placement:
    """The devices of a run, of one process or several.

    Attributes:
      mesh: all of them, in one row; None where there is one: then everything lies where JAX puts
        it, and nobody has to be asked.
    """

    mesh: Mesh | None = None

    @classmethod
    def over(cls, devices: Sequence[jax.Device]) -> "Placement":
        """Returns the placement over these devices; over JAX's own list it is that of a run."""
        if len(devices) == 1:
            return cls()
        # By default an axis would be Explicit, under which nn.Dropout fails.
        return cls(Mesh(np.array(devices), (_AXIS,), axis_types=(AxisType.Auto,)))

    @property
    def devices(self) -> int:
        """How many devices there are, in all processes."""
        return self.mesh.size if self.mesh else 1

    @property
    def processes(self) -> int:
        """How many processes take part."""
        return jax.process_count() if self.mesh else 1

    @property
    def writes(self) -> bool:
        """Whether this is the process that writes the run's folder and the console."""
        return self.processes == 1 or jax.process_index() == 0

    @property
    def everywhere(self) -> NamedSharding | None:
        """The sharding of what is whole on every device; None leaves it to JAX."""
        return NamedSharding(self.mesh, PartitionSpec()) if self.mesh else None

    def replicate(self, tree: Any) -> Any:
        """Puts a pytree of arrays, the same in every process, whole on every device."""
        sharding = self.everywhere
        if sharding is None:
            return jax.device_put(tree)

        def put(leaf: Any) -> jax.Array:
            array = np.asarray(leaf)
            return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

        return jax.tree.map(put, tree)

    def form(self, tree: Any) -> Any:
        """Returns a pytree of jax.ShapeDtypeStructs as that of arrays that `replicate` made."""
        sharding = self.everywhere
        if sharding is None:
            return tree
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
        )

    def around(self) -> contextlib.AbstractContextManager[Any]:
        """Sets the devices for what is traced in the `with`: see `beside_batch`."""
        return jax.set_mesh(self.mesh) if self.mesh else contextlib.nullcontext()

    def shard(self, batch: T) -> T:
        """Cuts a batch, a pytree of arrays [B, …], among the devices: inside jit.

        B need not be a multiple of their number: XLA fills up.
        """
        if self.mesh is None:
            return batch
        sharding = NamedSharding(self.mesh, PartitionSpec(_AXIS))
        return cast(T, jax.lax.with_sharding_constraint(batch, sharding))

    def from_parts(self, part: np.ndarray, axis: int = 0) -> jax.Array:
        """Puts an array of which each process holds its part, cut along an axis, on the devices.

        Args:
          part: this process's, the process_index-th of equal ones; with one process all of it.
          axis: of the batch, whose whole size the number of devices divides.
        """
        if self.mesh is None:
            return jax.device_put(part)
        spec = PartitionSpec(*[None] * axis, _AXIS)
        return jax.make_array_from_process_local_data(NamedSharding(self.mesh, spec), part)

    def require_equal_parts(self, batch_size: int, why: str) -> None:
        """Raises UsageError, which says why, unless each device has as many of a batch."""
        if batch_size % self.devices:
            below = batch_size // self.devices * self.devices
            fitting = " or ".join(str(size) for size in (below, below + self.devices) if size)
            raise UsageError(
                f"config.batch_size={batch_size}: {why}, and there are {self.devices}. Take "
                f"{fitting}."
            )

    def exchange(self, value: Any) -> list[Any]:
        """Returns what every process has given, in the order of the processes.

        All of them call this at the same point. The value is anything that JSON holds.
        """
        if self.processes == 1:
            return [value]
        text = json.dumps(value).encode()
        # The length, and what fits next to it: one exchange is enough for a number or a word.
        head = np.zeros(_HEAD, np.uint8)
        head[:8] = np.frombuffer(np.int64(len(text)).tobytes(), np.uint8)
        head[8 : 8 + len(text)] = np.frombuffer(text[: _HEAD - 8], np.uint8)
        heads = _gathered(head)
        lengths = heads[:, :8].copy().view(np.int64)[:, 0]
        texts, longest = heads[:, 8:], int(lengths.max())
        if longest > _HEAD - 8:
            # A power of two, since each other size would be a program to compile.
            body = np.zeros(2 ** int(longest - 1).bit_length(), np.uint8)
            body[: len(text)] = np.frombuffer(text, np.uint8)
            texts = _gathered(body)
        return [
            json.loads(row[:length].tobytes())
            for row, length in zip(texts, lengths.tolist(), strict=True)
        ]

    def agree(self, value: T) -> T:
        """Returns the value of the first process, in all of them; see `exchange`."""
        return cast(T, self.exchange(value)[0])

    def any(self, flag: bool) -> bool:
        """Says, in all processes, whether one of them has it; see `exchange`."""
        return any(self.exchange(flag))

    def together(self, do: Callable[[], T]) -> T:
        """Does something in every process that may fail in one; then it fails in all of them.

        Raises:
          UserError: what `do` raised here, or what it raised elsewhere.
        """
        result, failed = cast(T, None), None
        try:
            result = do()
        except UserError as error:
            failed = error
        told = self.exchange(None if failed is None else [failed.exit_status, str(failed)])
        if failed is not None:
            raise failed
        for process, fault in enumerate(told):
            if fault is not None:
                kind = UsageError if fault[0] == UsageError.exit_status else UserError
                raise kind(f"process {process} of {len(told)}: {fault[1]}")
        return result

    def share(self, tree: Any) -> Any:
        """Returns the first process's arrays, bit for bit, in all of them: NumPy's.

        Args:
          tree: a pytree of arrays; in the other processes one of the same form.
        """
        if self.processes == 1:
            return tree
        leaves, structure = jax.tree.flatten(jax.device_get(tree))
        # As bytes: a sum over processes, which this is, would make 0.0 of -0.0.
        data = np.frombuffer(b"".join(leaf.tobytes() for leaf in leaves), np.uint8)
        data, shared, start = np.asarray(_broadcast(data)), [], 0
        for leaf in leaves:
            part = data[start : start + leaf.nbytes]
            shared.append(part.copy().view(leaf.dtype).reshape(leaf.shape))
            start += leaf.nbytes
        return jax.tree.unflatten(structure, shared)


ONE_DEVICE = Placement()


def beside_batch(values: jax.Array) -> jax.Array:
    """Has what is drawn for each image of a batch, [B, …], lie where the image does: inside jit.

    For what a task draws out of a key alone. Nothing tells XLA that it belongs to a batch that is
    cut, and each device would draw all of it and compute all that follows.

    The devices are those that `Placement.around` sets; without any, nothing is done.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return values
    return jax.lax.with_sharding_constraint(values, PartitionSpec(_AXIS))


def _gathered(row: np.ndarray) -> np.ndarray:
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(row))


def _broadcast(row: np.ndarray) -> np.ndarray:
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.broadcast_one_to_all(row))

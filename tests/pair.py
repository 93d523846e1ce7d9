"""Two processes of one run, on this machine. Not a test itself."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

BOUND = 60  # seconds after which every process has ended, whatever became of one
JOIN = 20  # seconds that one waits for the other


class Pair:
    """Two processes that were started at once.

    Attributes:
      processes: by number; each is the parent that watches the one that trains.
    """

    def __init__(
        self,
        commands: Mapping[int, list[str]],
        environment: Mapping[str, str],
        port: int | None = None,
        told: tuple[int, int] = (2, 2),
    ):
        """Starts them.

        Args:
          commands: by number, without what brings them together.
          environment: of both; each has one device.
          port: of the coordinator; by default a free one.
          told: how many processes each is told of.
        """
        # The coordinator would be looked for beyond a proxy.
        kept = {name: value for name, value in environment.items() if not name.endswith("_proxy")}
        coordinator = f"--coordinator=127.0.0.1:{port or free_port()}"
        of_many = ("--distributed=manual", coordinator, f"--join_seconds={JOIN}")
        self.processes = {
            number: subprocess.Popen(
                [*command, *of_many, f"--num_processes={told[number]}", f"--process_id={number}"],
                env=kept | {"JAX_NUM_CPU_DEVICES": "1"},
                stdout=subprocess.DEVNULL,  # where gloo writes
                stderr=subprocess.PIPE,
                text=True,
            )
            for number, command in commands.items()
        }

    def wait_for_save(self, workdir: Path, step: int) -> None:
        """Waits until a step as late as this is saved."""
        while newest_save(workdir) < step:
            for process in self.processes.values():
                assert process.poll() is None, process.communicate()[1]
            time.sleep(0.05)

    def training(self, number: int) -> int:
        """Returns the number, as the system has it, of the process that trains."""
        watching = self.processes[number].pid
        [pid] = Path(f"/proc/{watching}/task/{watching}/children").read_text().split()
        return int(pid)

    def end(self, seconds: float = 300) -> tuple[list[int], list[str]]:
        """Returns the exit status of each and what it said, if all end within these seconds."""
        limit = time.monotonic() + seconds
        said = []
        try:
            for process in self.processes.values():
                said.append(process.communicate(timeout=max(0, limit - time.monotonic()))[1])
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"still there after {seconds} s: {error}") from error
        finally:
            for process in self.processes.values():
                process.send_signal(signal.SIGKILL)
        return [process.returncode for process in self.processes.values()], said


def newest_save(workdir: Path) -> int:
    """Returns the newest step that has a folder of its own; -1 if there is none."""
    folders = workdir.glob("checkpoints/[lb]*/*")
    return max((int(folder.name) for folder in folders if folder.name.isdecimal()), default=-1)


def is_alive(pid: int) -> bool:
    """Says whether a process is there, and no zombie."""
    try:
        os.kill(pid, 0)
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def free_port() -> int:
    """Returns a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])

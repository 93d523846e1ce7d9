"""How long --mode=serve takes to answer one picture, asked from the outside.

    python benchmarks/serve.py --workdir=runs/speedrun
    python benchmarks/serve.py --workdir=runs/speedrun --output=FILE

A process of its own serves the network; this one posts a drawn seven over one connection that is
kept alive, as the page does while a digit is drawn: as a PNG of 280×280 with feature maps and
without, and as one of 28×28. Each round asks --steps times. Times are from the first byte sent to
the answer read, in milliseconds: the median over all requests, in brackets the lowest and the
highest median of a round, and the 95th percentile of all.
"""

import argparse
import contextlib
import http.client
import io
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import machine
from PIL import Image, ImageDraw

from mnist_flax.errors import UserError

READY = "Draw a digit on http://127.0.0.1:"
SEVEN = ((0.28, 0.25), (0.72, 0.25), (0.45, 0.82))  # corners, as shares of the sheet


def main() -> int:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workdir", type=Path, required=True, help="of a trained run")
    arguments = machine.parse(parser, steps=200)
    told = machine.conditions()
    machine.print_conditions(told)
    try:
        with serving(arguments.workdir) as port:
            times = measure(port, arguments.rounds, arguments.steps)
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_status
    show(times)
    machine.write({"conditions": told, "milliseconds": times}, arguments.output)
    return 0


@contextlib.contextmanager
def serving(workdir: Path) -> Iterator[int]:
    """The port of a server that is ready; it ends with the block."""
    command = [sys.executable, str(machine.ROOT / "launch.py"), f"--workdir={workdir}"]
    process = subprocess.Popen(
        [*command, "--mode=serve", "--port=0"], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        line = ""
        for line in process.stderr:
            if line.startswith(READY):
                yield int(line.removeprefix(READY).partition("/")[0])
                return
        raise UserError(f"The server does not start: {line.strip()}")
    finally:
        process.terminate()
        process.communicate()


def measure(port: int, rounds: int, steps: int) -> dict[str, list[list[float]]]:
    """Returns the milliseconds of every request, round by round, of each kind."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    large, small = drawing(280), drawing(28)

    def ask(path: str, body: bytes) -> Callable[[], list[float]]:
        def once() -> float:
            started = time.perf_counter()
            connection.request("POST", path, body)
            response = connection.getresponse()
            response.read()
            if response.status != 200:
                raise UserError(f"{path} is answered with status {response.status}.")
            return 1e3 * (time.perf_counter() - started)

        once()  # warms up
        return lambda: [once() for _ in range(steps)]

    asked = {
        "280×280": ask("/predict", large),
        "280×280, with feature maps": ask("/predict?features=1", large),
        "28×28": ask("/predict", small),
    }
    taken: dict[str, list[list[float]]] = {name: [] for name in asked}
    for _ in range(rounds):  # in turn, so that what disturbs a minute disturbs them all
        for name, times in asked.items():
            taken[name].append(times())
    return taken


def drawing(side: int) -> bytes:
    """A seven in strokes of a fourteenth of the sheet, black on white, as PNG."""
    image = Image.new("L", (side, side), 255)
    places = [(x * side, y * side) for x, y in SEVEN]
    ImageDraw.Draw(image).line(places, fill=0, width=side // 14, joint="curve")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def show(times: dict[str, list[list[float]]]) -> None:
    """Prints a row for each kind of picture."""
    rows = []
    for name, taken in times.items():
        every = sorted(value for values in taken for value in values)
        medians = machine.spread([statistics.median(values) for values in taken], ".1f")
        p95 = every[round(0.95 * (len(every) - 1))]
        rows.append((name, f"{statistics.median(every):.1f}", medians, f"{p95:.1f}"))
    machine.print_table(("picture", "median, ms", "of the rounds", "95th percentile, ms"), rows)


if __name__ == "__main__":
    sys.exit(main())

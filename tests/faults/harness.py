"""What a fault is, how it is brought about, and what must be true of the run that had it."""

import functools
import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
from conftest import TESTS, events, launch_command, launch_environment, rows

from mnist_flax.use.restore import restore

WRAPPER = Path(__file__).with_name("wrapper.py")
HALF = "kill@os.mkdir:latest/28."  # rows up to step 20; saves of 16 (the best), 20 and 24
_LONGEST_LINE = 320  # half of which may be what Orbax or the system said


@dataclass(frozen=True)
class Fault:
    """A run that something happens to.

    It starts from nothing or from the run that was killed at step 28; is harmed; is launched, with
    faults under way; and, unless that launch is the one that ends the run, is mended and launched
    again. Then it must have ended as the undisturbed run did.

    Attributes:
      name: a line of the report.
      half: whether it starts from the killed run.
      harm: what is done to its workdir first.
      during: wrapper.py's faults in the first launch.
      more: further arguments of the first launch.
      prefix: a command that starts it; {workdir} stands for the workdir.
      xla_flags: further XLA_FLAGS.
      status: the first launch's exit status.
      says: a regular expression that is found in what it says.
      untouched: whether it must leave every file as it is.
      mend: what is done to the workdir then.
      then: further arguments of the second launch.
      resumes: a regular expression that is found in what the second launch says.
      left: what must be in the workdir in the end.
      same_bits: whether the end must be the undisturbed run's; else it must only be reached.
      obstacle: says why it cannot be tried on this machine, if it cannot.
      procedure: what replaces all this.
    """

    name: str
    half: bool = False
    harm: Callable[[Path], None] = lambda workdir: None
    during: str = ""
    more: tuple[str, ...] = ()
    prefix: tuple[str, ...] = ()
    xla_flags: str = ""
    status: int = 0
    says: str = ""
    untouched: bool = False
    mend: Callable[[Path], None] = lambda workdir: None
    then: tuple[str, ...] = ()
    resumes: str = ""
    left: tuple[str, ...] = ()
    same_bits: bool = True
    obstacle: Callable[[], str] = lambda: ""
    procedure: "Callable[[Bench, Path], str] | None" = None


@dataclass
class Bench:
    """Where faults are tried: the data, the folder of the runs, what they are held against.

    Attributes:
      digits: four IDX files.
      folder: of the runs.
      recipe: whose task is learnt; of 40 steps, with the intervals of tiny.py.
      changes: what every launch changes of it.
    """

    digits: Path
    folder: Path
    recipe: Path = TESTS / "tiny.py"
    changes: tuple[str, ...] = ("--config.augment.order=('random_shift',)",)
    told: dict[str, str] = field(default_factory=dict)  # fault -> what happened
    # Copied once, in the main thread: pytest changes os.environ while other threads launch.
    known: dict[str, str] = field(
        default_factory=functools.partial(launch_environment, compiles=True)
    )

    @property
    def undisturbed(self) -> Path:
        """The workdir of the run that nothing happened to."""
        return self.folder / "undisturbed"

    @property
    def half(self) -> Path:
        """The workdir of a run that was killed at step 28, between the row and the save."""
        return self.folder / "half"

    def prepare(self) -> None:
        """Makes these two, at the same time."""
        with ThreadPoolExecutor(2) as pool:
            half = pool.submit(self.launch, self.half, during=HALF)
            done = self.launch(self.undisturbed)
        assert done.returncode == 0, done.stderr
        assert half.result().returncode == -9, half.result().stderr

    def command(self, workdir: Path, *more: str, during: str = "") -> list[str]:
        """Returns the command of the small run, in this workdir."""
        launch = launch_command()
        start = [sys.executable, str(WRAPPER), during] if during else launch
        recipe = [f"--config={self.recipe}", *self.changes]
        places = [f"--workdir={workdir}", f"--config.data.data_dir={self.digits}"]
        return [*start, *recipe, *places, *more]

    def launch(
        self,
        workdir: Path,
        *more: str,
        during: str = "",
        prefix: tuple[str, ...] = (),
        xla_flags: str = "",
    ) -> subprocess.CompletedProcess[str]:
        """Runs it to its end."""
        return subprocess.run(
            [part.replace("{workdir}", str(workdir)) for part in prefix]
            + self.command(workdir, *more, during=during),
            cwd=self.folder,
            env=self.environment(xla_flags),
            capture_output=True,
            text=True,
            timeout=300,
        )

    def environment(self, xla_flags: str = "") -> dict[str, str]:
        """Returns what every launch sees."""
        flags = f"{self.known.get('XLA_FLAGS', '')} {xla_flags}".strip()
        return self.known | {"XLA_FLAGS": flags}

    def perform(self, fault: Fault) -> str:
        """Brings a fault about; raises AssertionError where the run is not what it must be."""
        workdir = self.folder / re.sub(r"\W+", "-", fault.name)
        bring_about = fault.procedure or functools.partial(Bench._perform, fault=fault)
        told = bring_about(self, workdir)
        self.told[fault.name] = told
        shutil.rmtree(workdir)
        return told

    def _perform(self, workdir: Path, fault: Fault) -> str:
        if fault.half:
            shutil.copytree(self.half, workdir)
        fault.harm(workdir)
        before = digests(workdir)
        first = self.launch(
            workdir,
            *fault.more,
            during=fault.during,
            prefix=fault.prefix,
            xla_flags=fault.xla_flags,
        )
        told = [how_it_ended(first)]
        assert first.returncode == fault.status, first.stderr
        assert re.search(fault.says, first.stderr), first.stderr
        if fault.untouched:
            assert digests(workdir) == before
        if fault.status:
            fault.mend(workdir)
            told.append(self.goes_on(workdir, *fault.then, says=fault.resumes))
        for name in fault.left:
            assert (workdir / name).exists()
            told.append(f"{name} is kept")
        told.append(self.compare(workdir, fault.same_bits))
        return "; ".join(told)

    def goes_on(self, workdir: Path, *more: str, says: str = "") -> str:
        """Launches the run once more, which must bring it to its end."""
        second = self.launch(workdir, *more)
        assert second.returncode == 0, second.stderr
        assert re.search(says, second.stderr), second.stderr
        return how_it_ended(second)

    def compare(
        self, workdir: Path, same_bits: bool = True, undisturbed: Path | None = None
    ) -> str:
        """Holds a finished run against the undisturbed one: every leaf, every row, no leftovers."""
        undisturbed = undisturbed or self.undisturbed
        last = rows(undisturbed)[-1]["step"]
        assert rows(workdir)[-1]["step"] == last
        assert [path for path in workdir.rglob("*") if "tmp" in path.name] == []
        if not same_bits:
            return "finished, its bits are its own"
        assert_same(rows(workdir), rows(undisturbed))
        kinds = ("epoch", "predictions")
        assert_same(events(workdir, *kinds), events(undisturbed, *kinds))
        assert pictures(workdir) == pictures(undisturbed)
        for which in ("latest", "best"):
            ours, theirs = (leaves(folder, which) for folder in (workdir, undisturbed))
            assert ours.keys() == theirs.keys()
            assert [name for name in ours if ours[name] != theirs[name]] == [], which
        return "bit-identical"


def pictures(workdir: Path) -> dict[str, bytes]:
    """What a run has drawn, by file."""
    folder = workdir / "pictures"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.png")}


def assert_same(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    """Compares rows; says at which they part."""
    assert len(ours) == len(theirs)
    for our, their in zip(ours, theirs, strict=True):
        assert our == their


def leaves(workdir: Path, which: str) -> dict[str, tuple[str, bytes]]:
    """Returns the type and the bytes of every leaf of a restored state."""
    state = jax.device_get(restore(workdir, which, {}).state)
    return {
        jax.tree_util.keystr(path): (f"{leaf.dtype}{leaf.shape}", leaf.tobytes())
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


def digests(workdir: Path) -> dict[str, str]:
    """Returns a hash of every file, and the folders; those of the lock aside."""
    return {
        str(path.relative_to(workdir)): _digest(path)
        for path in sorted(workdir.rglob("*"))
        if path.name not in (".lock", ".holder", ".holder.tmp")
    }


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "a folder"


def how_it_ended(process: subprocess.CompletedProcess[str]) -> str:
    """Says it for the report; an error must be told in one clear line, long paths aside."""
    assert "Traceback" not in process.stderr, process.stderr
    workdir = next(part[10:] for part in process.args if part.startswith("--workdir="))
    lines = process.stderr.replace(f"{workdir}/", "").replace(workdir, "WORKDIR").splitlines()
    if process.returncode < 0:
        return f"killed by signal {-process.returncode}"
    if process.returncode in (1, 2):
        at = [number for number, line in enumerate(lines) if line.startswith("Error: ")]
        assert at == [len(lines) - 1], process.stderr
        assert max(map(len, lines)) < _LONGEST_LINE, process.stderr
        return f"refused ({lines[-1]})"
    found = re.search(r"(Resumed|Started|Stopped) (at step [\d,]+|in )", process.stderr)
    told = f"{found[1].lower()} {found[2]}".removesuffix(" in ") if found else "ended"
    if process.returncode > 2:
        stopped = re.search(r"Stopped at step \d[\d,]*\b", process.stderr)
        return f"{stopped[0].lower() if stopped else 'left at once'}, status {process.returncode}"
    return told


def report(told: dict[str, str], folder: Path) -> str:
    """Returns a Markdown table of what happened."""
    lines = ["| fault | what happened |", "|---|---|"]
    lines += [f"| {name} | {text} |" for name, text in told.items()]
    return "\n".join(lines).replace(f"{folder}/", "").replace("\n\n", "\n") + "\n"


def files_of(workdir: Path, part: str) -> Iterator[Path]:
    """Yields the files of the workdir whose path has this part."""
    return (p for p in sorted(workdir.rglob("*")) if p.is_file() and part in str(p))

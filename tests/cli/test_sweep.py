"""--mode=sweep from the outside: what it trains, stops, resumes, refuses and makes of it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT, TESTS, launch_command, launch_environment, rows
from pair import is_alive
from report_page import Page
from tiny import get_config

from mnist_flax.cli import sweep_plan, sweep_processes
from mnist_flax.cli.flags import Launch
from mnist_flax.cli.recipe import parse_overrides
from mnist_flax.cli.sweep import _begins, _fallbacks, result
from mnist_flax.cli.sweep_plan import Sweep, SweepRun, planned
from mnist_flax.cli.sweep_processes import CONSOLE_FILE, Ended, find_slots, run_pinned
from mnist_flax.config import diff, overridden
from mnist_flax.core.sums import Metric
from mnist_flax.errors import UsageError, UserError
from mnist_flax.workdir.files import write_config
from mnist_flax.workdir.lock import locked
from mnist_flax.workdir.rows import append_row

Launched = Callable[..., CompletedProcess[str]]
TINY = f"--config={TESTS / 'tiny.py'}"
BOUND = 60  # seconds in which whatever is to end has ended

# Runs of seed 1 wait after their saves of steps 20 and 24, so that something can happen to them.
RECIPE = """
import os
import time
from pathlib import Path

import tiny

from mnist_flax.config.sweep import grid


def look(event, step, row, context):
    run = f"{context.config.optimizer.learning_rate}-{context.config.seed}"
    if event == "train" and step == 1:
        Path(f"cores-{run}").write_text(",".join(map(str, sorted(os.sched_getaffinity(0)))))
    if event == "saved" and context.config.seed == 1 and step in (20, 24):
        Path(f"waits-{run}-{step}").write_text(str(os.getpid()))
        while not Path(f"go-{step}").exists():
            time.sleep(0.02)


def get_config():
    config = tiny.get_config()
    config.observers = ("own:look",)
    return config


def get_sweep():
    return grid({"optimizer.learning_rate": (0.01, 0.001)})
"""
RATES = ("0.01", "0.001")
NAMES = [f"learning_rate={rate},seed={seed}" for seed in (0, 1) for rate in RATES]


class Swept:
    """A sweep of two rates and two seeds in a folder of its own."""

    def __init__(self, folder: Path, digits: Path):
        self.folder, self.runs = folder, folder / "runs/own-sweep"
        self.arguments = ["--config=own.py", "--mode=sweep", f"--config.data.data_dir={digits}"]
        (folder / "own.py").write_text(RECIPE)

    def start(self, *more: str) -> subprocess.Popen:
        command = launch_command(*self.arguments, *(more or ["--seeds=0,1"]))
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        environment = launch_environment(compiles=True)
        return subprocess.Popen(command, cwd=self.folder, env=environment, **pipes)

    def wait_for_waiting(self, process: subprocess.Popen, step: int) -> list[int]:
        """Waits until both runs of seed 1 stand after a save; returns their processes."""
        files = [self.folder / f"waits-{rate}-1-{step}" for rate in RATES]
        while not all(file.exists() and file.read_text() for file in files):
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.02)
        return [int(file.read_text()) for file in files]


@pytest.fixture(scope="module")
def ended(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Swept, list[str]]:
    """A sweep that was killed once and stopped once, and what its three starts said."""
    swept, said = Swept(tmp_path_factory.mktemp("swept"), digits), []
    killed = swept.start()
    children = swept.wait_for_waiting(killed, 20)
    killed.kill()
    said.append("".join(killed.communicate(timeout=BOUND)))

    stopped = swept.start()  # at once: those that were left may not be gone yet
    until = time.monotonic() + BOUND
    while any(map(is_alive, children)):
        assert time.monotonic() < until, "what the killed sweep has started trains on"
        time.sleep(0.05)
    (swept.folder / "go-20").touch()
    swept.wait_for_waiting(stopped, 24)
    stopped.send_signal(signal.SIGTERM)
    for name in NAMES[2:]:
        log = swept.runs / name / CONSOLE_FILE
        while "SIGTERM: saving and leaving" not in log.read_text():
            time.sleep(0.02)
    (swept.folder / "go-24").touch()
    output, errors = stopped.communicate(timeout=BOUND)
    assert stopped.returncode == 143, errors
    assert output == ""  # no table of what is not finished
    said.append(errors)

    finished = swept.start()
    output, errors = finished.communicate(timeout=5 * BOUND)
    assert finished.returncode == 0, errors
    said.append(output + errors)
    return swept, said


@pytest.mark.slow
@pytest.mark.promise
def test_what_is_finished_is_skipped_and_what_is_begun_goes_on(
    ended: tuple[Swept, list[str]],
) -> None:
    swept, (first, second, third) = ended
    assert "4 runs, of 2 points and 2 seeds" in first
    started = [name for name in NAMES if f"started   {name}\n" in first]
    assert started == NAMES
    for said in (second, third):
        assert "Finished before: 2 runs." in said
        assert "started " not in said
        assert re.findall(r"^resumed   (\S+), at step 2\d$", said, re.MULTILINE) == NAMES[2:]
    assert second.count("stopped   ") == 2
    assert "Go on with: python" in second
    for name in NAMES[2:]:
        log = (swept.runs / name / CONSOLE_FILE).read_text()
        assert "Resumed at step 20" in log
        assert re.search("Resumed at step 2[4-9]", log)
    assert "Traceback" not in "".join((first, second, third))


@pytest.mark.slow
@pytest.mark.promise
def test_the_table_holds_the_last_evaluations(ended: tuple[Swept, list[str]]) -> None:
    swept, said = ended
    found = json.loads((swept.runs / "sweep.json").read_text())
    assert (found["metric"], found["larger_is_better"]) == ("accuracy", True)
    told = {
        (point["varied"]["optimizer.learning_rate"], int(seed)): value
        for point in found["points"]
        for seed, value in point["values"].items()
    }
    expected = {
        (float(rate), seed): rows(swept.runs / f"learning_rate={rate},seed={seed}")[-1]["accuracy"]
        for rate in RATES
        for seed in (0, 1)
    }
    assert told == expected
    assert found["points"][0]["summary"]["mean"] >= found["points"][1]["summary"]["mean"]
    assert (swept.runs / "sweep.md").read_text() in said[2]
    for name in NAMES[2:]:
        line = next(line for line in said[2].splitlines() if line.startswith(f"finished  {name}"))
        assert f"accuracy {rows(swept.runs / name)[-1]['accuracy']:.4f} (" in line
    assert len(Page(swept.runs / "sweep.html").tables["points"]) == 3
    assert (swept.runs / "sweep.png").exists()


@pytest.mark.slow
@pytest.mark.promise
@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="pins no process to a core")
def test_each_run_has_one_core(ended: tuple[Swept, list[str]]) -> None:
    swept, said = ended
    mine = os.sched_getaffinity(0)
    seen = {rate: (swept.folder / f"cores-{rate}-0").read_text() for rate in RATES}
    assert {int(core) for core in seen.values()} <= mine
    assert len(set(seen.values())) == min(2, len(mine))  # they ran at once
    for name in NAMES:
        written = json.loads((swept.runs / name / "config.json").read_text())
        assert written["environment"]["cores"] == 1
    assert "Each run is pinned to one core: it has the bits of a run on one core" in said[0]


PINNED = """
import os, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.mark.slow
@pytest.mark.promise
@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="pins no process to a core")
def test_an_interrupted_run_has_the_bits_of_a_plain_one_on_one_core(
    ended: tuple[Swept, list[str]], digits: Path
) -> None:
    swept, _ = ended
    arguments = launch_command(
        *("--config=own.py", "--workdir=plain", f"--config.data.data_dir={digits}"),
        *("--config.optimizer.learning_rate=0.01", "--config.seed=1"),
    )[1:]
    done = subprocess.run(
        [sys.executable, "-c", PINNED, *arguments],
        cwd=swept.folder,
        env=launch_environment(compiles=True),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    run = swept.runs / "learning_rate=0.01,seed=1"
    assert rows(run) == rows(swept.folder / "plain")
    assert _digest(run) == _digest(swept.folder / "plain")


def _digest(workdir: Path) -> str:
    import jax

    from mnist_flax.use.restore import restore

    state = restore(workdir, "latest", {}).state
    return "".join(leaf.tobytes().hex() for leaf in jax.tree.leaves(jax.device_get(state)))


@pytest.mark.slow
@pytest.mark.promise
def test_runs_that_are_no_longer_asked_for_are_named_and_stay(
    ended: tuple[Swept, list[str]], launch: Launched, tmp_path: Path
) -> None:
    swept, _ = ended
    (tmp_path / "own.py").write_text(RECIPE.replace("(0.01, 0.001)", "(0.001,)"))
    done = launch(*swept.arguments, "--seeds=1", f"--workdir={swept.runs}")
    assert done.returncode == 0, done.stderr
    assert "Finished before: 1 run." in done.stderr
    left = ", ".join(sorted(set(NAMES) - {NAMES[3]}))
    assert f"No longer asked for, and left as they are: {left}\n" in done.stderr
    assert all((swept.runs / name / "checkpoints").is_dir() for name in NAMES)
    assert "less the best" not in done.stdout
    assert "| learning_rate=0.001 |     1 |" in done.stdout


FAILING = """
import tiny


def get_config():
    config = tiny.get_config()
    config.num_steps = 20
    return config


def get_sweep():
    yield {"optimizer.name": "adam"}
    yield {"optimizer.name": "tiny:spoil_late"}
"""


@pytest.mark.slow
@pytest.mark.promise
def test_a_run_that_fails_is_told_and_the_others_go_on(
    launch: Launched, digits: Path, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(FAILING)
    arguments = ("--config=own.py", "--mode=sweep", f"--config.data.data_dir={digits}", "--jobs=1")
    done = launch(*arguments, "--workdir=swept")
    assert done.returncode == 1, done.stderr
    assert "2 runs, of 2 points and 1 seed, 1 at once" in done.stderr
    [failed] = [line for line in done.stderr.splitlines() if line.startswith("failed")]
    assert "The run diverged: NaN or infinity within steps" in failed
    assert failed.endswith(f"{CONSOLE_FILE} (2 of 2)")
    [finished] = [line for line in done.stderr.splitlines() if line.startswith("finished")]
    assert finished.startswith("finished  optimizer=adam,seed=0, in ")
    assert "0 (1 failed)" in done.stdout
    assert "The run diverged" in done.stdout
    # Training decides whether what is finished is what is asked for.
    done = launch(*arguments, "--workdir=swept", "--config.data.eval_split=test[:20]")
    assert done.returncode == 1, done.stderr
    told = "holds another run, saved at step 20: data.eval_split: was test, now test[:20], the data"
    assert told in done.stderr
    assert "finished  " not in done.stderr
    assert done.stdout.count("0 (1 failed)") == 2


FAULTS = {
    "nothing to vary": (None, [], ["--mode=sweep: nothing is varied. Give --seeds=0,1,2"]),
    "the recipe as it is": ("return [{}]", [], ["--mode=sweep: nothing is varied."]),
    "seeds that are none": (
        None,
        ["--seeds=0,x,-1,1.5"],
        ["--seeds: 'x' is no seed", "--seeds: '-1' is no seed", "--seeds: '1.5' is no seed"],
    ),
    "a seed twice": (None, ["--seeds=0,1,0"], ["--seeds=0,1,0: a seed is there twice."]),
    "a seed too many": (
        None,
        ["--seeds=0,1", "--config.seed=3"],
        ["--config.seed=3: --seeds says it. Leave it out."],
    ),
    "too many at once": (None, ["--seeds=0", "--jobs=4096"], ["--jobs=4096: at most "]),
    "a flag of training": (
        None,
        ["--seeds=0", "--init_from=x"],
        ["--init_from: is for --mode=train and check, not for --mode=sweep"],
    ),
    "every value of every point": (
        "return grid({'batch_size': (6, 0, 'many'), 'num_step': (1,), 'seed': (0, 1)})",
        [],
        [
            "--config.num_step: no such field. Did you mean 'num_steps'?",
            "--config.batch_size=many: the value must be a whole number. (point ",
        ],
    ),
    "every range of every field": (
        "return grid({'batch_size': (6, 0), 'optimizer.learning_rate': (0.1, -1.0)})",
        [],
        [
            "config.optimizer.learning_rate=-1.0: must be positive and finite. (point batch_size=6",
            "config.batch_size=0: must be at least 1. (point batch_size=0,learning_rate=0.1 and 1",
        ],
    ),
    "what the command line sets": (
        "return grid({'batch_size': (6, 7)})",
        ["--config.batch_size=3"],
        ["--config.batch_size=3: the sweep varies it. Leave it out."],
    ),
    "seeds of both": (
        "return grid({'seed': (6, 7)})",
        ["--seeds=0"],
        ["--seeds: the sweep varies config.seed itself."],
    ),
    "a point twice": (
        "return grid({'batch_size': (6, 7)}) + [{'batch_size': 7}]",
        [],
        ["get_sweep(): point 3 is point 2 once more. Leave it out."],
    ),
    "no points": ("return []", [], ["get_sweep(): returned no points."]),
    "no list": ("return 7", [], ["get_sweep(): returned a int: return a list of points"]),
    "points that are none": (
        "return [{'batch_size': 6}, 7]",
        [],
        ["get_sweep(): point 2 is 7: must be {'optimizer.learning_rate': 0.01, …}."],
    ),
    "a value that no flag says": (
        "return [{'observers': print}]",
        [],
        ["get_sweep(): point 1: config.observers=<built-in function print>: no flag can say this"],
    ),
    "an error of its author": ("return nosuch", [], ["get_sweep(): line 7: NameError: "]),
    "no list in a grid": (
        "return grid({'batch_size': 6, 'seed': 1})",
        [],
        [
            "get_sweep(): config.batch_size=6: a sweep takes a list",
            "get_sweep(): config.seed=1: a sweep takes a list",
        ],
    ),
    "nothing to compare by": (
        "return [{'task.name': 'gan', 'model.name': 'dcgan', "
        "'task.discriminator_learning_rate': 1.0}]",
        [],
        ["config.task.name='gan': a sweep compares runs by the metric that chooses the best"],
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_wrong_definitions(called: Launched, tmp_path: Path, name: str) -> None:
    body, more, expected = FAULTS[name]
    recipe = "import tiny\nfrom mnist_flax.config.sweep import grid\n"
    recipe += "def get_config():\n    return tiny.get_config()\n\n"
    if body is not None:
        recipe += f"def get_sweep():\n    {body}\n"
    (tmp_path / "own.py").write_text(recipe)
    done = called("--config=own.py", "--mode=sweep", *more)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    lines = done.stderr.removeprefix("Error: ").splitlines()
    assert len(lines) == len(expected), done.stderr
    for line, told in zip(lines, expected, strict=True):
        assert told in line
    assert not (tmp_path / "runs").exists()  # nothing was begun


POINTS = (
    {"clip_by_global_norm": None, "label_smoothing": 0},
    {"clip_by_global_norm": np.float64(0.1), "batch_size": np.int64(5)},
    {"augment.order": ("random_shift", "random_scaling"), "augment.random_shift.max_pixels": 1},
    {"augment.order": (), "class_weights": np.linspace(1, 2, 10)},
    {"optimizer.rates": (("conv/.*", 0.1), ("logits/.*", 0.0)), "optimizer.b1": 0.8},
    {"optimizer.name": "sgd", "optimizer.momentum": 0.9, "optimizer.nesterov": True},
    {"num_epochs": 2, "data.shuffle": False, "data.train_split": "train[:50%]+test[3:]"},
    {"model.features": 3, "ema_decay": 1e-05},
)


def test_the_command_of_a_run_says_its_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_plan, "FLAGS", SimpleNamespace(config="x.py", seeds=["3", "1"]))
    monkeypatch.setattr(sweep_plan, "swept_points", lambda file: list(POINTS))
    recipe = get_config()
    swept = planned(Launch(["launch.py"], [], recipe, {"keep_checkpoints": 7}))
    assert [run.seed for run in swept.runs] == [3] * len(POINTS) + [1] * len(POINTS)
    assert len({run.name for run in swept.runs}) == 2 * len(POINTS)
    for run, point in zip(swept.runs, POINTS * 2, strict=True):
        python, script, config, *arguments, workdir = run.command(
            Launch(["launch.py"], [], recipe, {}), Path("runs")
        )
        assert (python, script, config) == (sys.executable, "launch.py", "--config=x.py")
        assert workdir == f"--workdir=runs/{run.name}"
        asked = {**point, "keep_checkpoints": 7, "seed": run.seed}
        asked = {f: v.tolist() if hasattr(v, "tolist") else v for f, v in asked.items()}
        expected, _ = overridden(recipe, asked)
        assert diff(overridden(recipe, parse_overrides(arguments, recipe))[0], expected) == {}
        assert diff(run.config, expected) == {}


def test_a_sweep_of_a_folder_in_which_another_runs(launch: Launched, tmp_path: Path) -> None:
    with locked(tmp_path / "runs/tiny-sweep"):
        done = launch(TINY, "--mode=sweep", "--seeds=0")
    assert done.returncode == 1
    assert f"process {os.getpid()} on " in done.stderr


def test_a_folder_that_holds_a_run_is_none_of_a_sweep(launch: Launched, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text("{}")
    done = launch(TINY, "--mode=sweep", "--seeds=0", "--workdir=run")
    assert done.returncode == 1
    assert "--workdir=run: holds a run. A sweep has a folder of its own" in done.stderr


def test_the_recipe_is_executed_once(launch: Launched, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import tiny\nprint('the file')\n"
        "def get_config():\n    print('get_config()')\n    return tiny.get_config()\n"
        "def get_sweep():\n    print('get_sweep()')\n    return []\n"
    )
    done = launch("--config=own.py", "--mode=sweep")
    assert done.returncode == 2
    assert done.stdout == "the file\nget_config()\nget_sweep()\n"


# What follows runs other commands than training, which take no time.

never = lambda: None  # noqa: E731


def _commands(folder: Path, *sources: str) -> Mapping[Path, Sequence[str]]:
    return {folder / str(n): [sys.executable, "-c", source] for n, source in enumerate(sources)}


@pytest.fixture
def cores() -> Iterator[list[int]]:
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("pins no process to a core")
    before = os.sched_getaffinity(0)
    yield sorted(before)
    assert os.sched_getaffinity(0) == before


SHOW = "import os; print(*os.sched_getaffinity(0))"


def test_a_command_has_its_core_from_its_start_and_its_parent_keeps_all(
    cores: list[int], tmp_path: Path
) -> None:
    commands = _commands(tmp_path, *[SHOW] * 3)
    events = list(run_pinned(commands, cores[:2], never))
    assert sorted(event for event in events if isinstance(event, int)) == [0, 1, 2]
    assert all(not event.fault for event in events if isinstance(event, Ended))
    for folder in commands:
        assert (folder / CONSOLE_FILE).read_text().strip() in map(str, cores[:2])


def test_why_a_command_failed_is_a_line(tmp_path: Path) -> None:
    sources = {
        "print('Error: one'); print('Error: two.'); print('Say more'); exit(1)": "two.",
        "print('Error: a list:\\n  one\\n  two\\nUndo it'); exit(2)": "a list: one, two",
        "exit(3)": "exit status 3",
        "raise ValueError('mine')": "ValueError: mine",
        "import os; os.kill(os.getpid(), 9)": "ended by SIGKILL, as the system does where memory",
        "import os; os.kill(os.getpid(), 15)": "ended by SIGTERM",
        "pass": "",
    }
    commands = _commands(tmp_path, *sources)
    for folder in commands:
        folder.mkdir()
        (folder / CONSOLE_FILE).write_text("Error: of an earlier start\n")
    ended = [event for event in run_pinned(commands, [None], never) if isinstance(event, Ended)]
    assert [event.index for event in ended] == list(range(len(sources)))
    for event, told in zip(ended, sources.values(), strict=True):
        assert event.fault.startswith(told)
        assert bool(event.fault) == bool(told)
        assert not event.stopped


def test_a_stop_reaches_all_that_run_and_starts_no_more(tmp_path: Path) -> None:
    source = (
        "import signal, sys, time\n"
        "def leave(number, frame):\n    print('saved'); sys.exit(128 + number)\n"
        "signal.signal(signal.SIGINT, leave)\nprint('ready', flush=True)\ntime.sleep(60)\n"
    )
    commands = _commands(tmp_path, *[source] * 3)

    def stop() -> signal.Signals | None:
        logs = [folder / CONSOLE_FILE for folder in list(commands)[:2]]
        ready = all(log.exists() and "ready" in log.read_text() for log in logs)
        return signal.SIGINT if ready else None

    events = list(run_pinned(commands, [None, None], stop))
    assert [event for event in events if isinstance(event, int)] == [0, 1]
    ended = [event for event in events if isinstance(event, Ended)]
    assert [(event.stopped, event.fault) for event in ended] == [(True, "")] * 2
    for folder in list(commands)[:2]:
        assert (folder / CONSOLE_FILE).read_text() == "ready\nsaved\n"


# A sweep of one run, which does not listen.
DEAF = """
import sys
from pathlib import Path
from mnist_flax.cli.signals import StopSignals
from mnist_flax.cli.sweep_processes import run_pinned
child = '''
import os, signal, time
from mnist_flax.cli.watching import end_with_parent
signal.signal(signal.SIGTERM, lambda number, frame: print("heard", flush=True))
end_with_parent(int(os.environ["MNIST_FLAX_SWEEP"]))
print(os.getpid(), flush=True)
while True:
    time.sleep(60)
'''
with StopSignals() as stop:
    list(run_pinned({Path("run"): [sys.executable, "-c", child]}, [None], lambda: stop.signal))
"""


def test_a_second_signal_leaves_at_once_and_nothing_behind(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", DEAF],
        cwd=tmp_path,
        env=launch_environment() | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    log = tmp_path / "run" / CONSOLE_FILE
    for word in ("\n", "heard\n"):
        while not (log.exists() and log.read_text().endswith(word)):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
    assert process.wait(BOUND) == 143
    until = time.monotonic() + BOUND
    while is_alive(int(log.read_text().split()[0])):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_nothing_is_left_behind_by_an_error(tmp_path: Path) -> None:
    source = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    events = run_pinned(_commands(tmp_path, source), [None], never)
    assert next(events) == 0
    with pytest.raises(KeyError):
        events.throw(KeyError)  # before it started
    events = run_pinned(_commands(tmp_path, source, "pass"), [None, None], never)
    assert [next(events), next(events)] == [0, 1]
    assert isinstance(next(events), Ended)
    log = tmp_path / "0" / CONSOLE_FILE
    while not log.read_text():
        time.sleep(0.02)
    with pytest.raises(KeyError):
        events.throw(KeyError)
    assert not is_alive(int(log.read_text()))


def test_a_run_with_a_save_is_resumed(tmp_path: Path) -> None:
    assert _begins("seed=0", tmp_path) == "started   seed=0"
    for step in (900, 1200):
        (tmp_path / "seed=0/checkpoints/latest" / str(step)).mkdir(parents=True)
    assert _begins("seed=0", tmp_path) == "resumed   seed=0, at step 1,200"


def test_a_number_of_another_evaluation_is_no_result(tmp_path: Path) -> None:
    """A finished run takes another judge and does not judge again."""
    config = get_config()
    run = SweepRun({}, 0, "seed=0", config, [])
    swept = Sweep([run], "accuracy", Metric(larger_is_better=True))
    folder = tmp_path / "seed=0"
    folder.mkdir()
    write_config(folder, {"config": config.to_dict()})
    append_row(folder, {"step": 9, "split": "eval", "loss": 0.1})
    with pytest.raises(UserError, match="its last evaluation has no accuracy"):
        result(run, tmp_path, swept)
    append_row(folder, {"step": 9, "split": "eval", "accuracy": 0.5})
    assert result(run, tmp_path, swept) == 0.5
    with config.unlocked():
        config.task.judge = "another"
    with pytest.raises(UserError, match=r"task\.judge=None, now 'another'"):
        result(run, tmp_path, swept)


def test_a_folder_that_another_process_trains_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sweep_processes, "_PATIENCE_SECONDS", 0)
    with locked(tmp_path / "0"):
        started, ended = run_pinned(_commands(tmp_path, "pass"), [None], never)
    assert started == 0
    assert isinstance(ended, Ended)
    assert "trains in it" in ended.fault


@pytest.mark.parametrize("jobs", [None, 1])
def test_a_system_that_pins_nothing_runs_one_after_another(
    monkeypatch: pytest.MonkeyPatch, jobs: int | None
) -> None:
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    monkeypatch.setattr(sweep_processes, "FLAGS", SimpleNamespace(jobs=jobs))
    slots, told = find_slots()
    assert slots == [None]
    assert told.startswith("This system pins no process to a core: runs are trained one after")
    monkeypatch.setattr(sweep_processes, "FLAGS", SimpleNamespace(jobs=2))
    with pytest.raises(UsageError, match="--jobs=2: at most 1 here"):
        find_slots()


def test_an_accelerator_is_for_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_processes, "FLAGS", SimpleNamespace(jobs=None))
    monkeypatch.setattr(sweep_processes, "_has_accelerator", lambda: True)
    slots, told = find_slots()
    assert slots == [None]
    assert told == "JAX is installed for an accelerator: one run at a time has it."


def test_help_names_the_mode(launch: Launched) -> None:
    done = launch("--help")
    assert "--mode=sweep --seeds=0,1,2" in done.stdout
    assert "  --seeds " in done.stdout


def test_training_imports_nothing_of_sweeps() -> None:
    source = "import sys; import mnist_flax.cli.main, mnist_flax.cli.train, mnist_flax.training;"
    done = subprocess.run(
        [sys.executable, "-c", f"{source} print([m for m in sys.modules if 'sweep' in m])"],
        env=launch_environment() | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "[]\n", done.stderr


VARIANTS = """
import tiny


def get_config(variant=""):
    return tiny.get_config()


def get_sweep(variant):
    return [{"batch_size": 0}] if variant == "wide" else [{"num_steps": -1}]
"""


@pytest.mark.parametrize(
    ("asked", "expected"),
    [("own.py:wide", "config.batch_size=0"), ("own.py", "config.num_steps=-1")],
)
def test_points_may_differ_with_the_variant(
    launch: Launched, tmp_path: Path, asked: str, expected: str
) -> None:
    (tmp_path / "own.py").write_text(VARIANTS)
    done = launch(f"--config={asked}", "--mode=sweep")
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"Error: {expected}: ")


def test_a_fallback_of_its_runs_is_repeated(tmp_path: Path) -> None:
    said = "Data: mnist_sample, 4,000 images.\nFallback: no mnist in x and no download."
    messages = [{"event": "data", "message": said}, {"step": 1, "split": "train"}]
    (tmp_path / "metrics.jsonl").write_text(
        "".join(json.dumps({"step": 0, **row}) + "\n" for row in messages)
    )
    assert _fallbacks(tmp_path) == {"Fallback: no mnist in x and no download."}
    assert _fallbacks(tmp_path / "none") == set()

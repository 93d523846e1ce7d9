"""--mode=report and --report from the outside, as a user calls them."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, TESTS, launch_environment, rows
from report_page import Page

from mnist_flax.training import train

Launch = Callable[..., subprocess.CompletedProcess[str]]
TINY = f"--config={TESTS / 'tiny.py'}"


@pytest.mark.slow
@pytest.mark.promise
def test_training_may_end_with_it_and_the_page_says_how_to_repeat_the_run(
    launch: Launch, digits: Path, tmp_path: Path
) -> None:
    # Both lie in the folder that it is started from: the page holds no others' full names.
    shutil.copy(TESTS / "tiny.py", tmp_path / "recipe.py")
    shutil.copytree(digits, tmp_path / "digits")
    changes = ("--config.data.data_dir=digits", "--config.num_epochs=1", "--config.seed=3")
    done = launch("--config=recipe.py", *changes, "--workdir=run", "--report")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "run/report/index.html\n"
    command = Page(tmp_path / "run/report/index.html").texts["command"]
    again = subprocess.run(
        command.replace("python launch.py", f"{sys.executable} {ROOT / 'launch.py'}"),
        shell=True,
        cwd=tmp_path,
        env=launch_environment(),
        capture_output=True,
        text=True,
    )
    assert again.returncode == 0, again.stderr
    one, other = (tmp_path / name / "config.json" for name in ("run", "run-again"))
    assert one.read_text() == other.read_text()
    assert rows(tmp_path / "run") == rows(tmp_path / "run-again")


def test_plain_training_loads_nothing_of_it(digits: Path, tmp_path: Path) -> None:
    code = (
        "import sys, launch; status = launch.start();"
        "heavy = {'sklearn', 'matplotlib', 'jinja2', 'mnist_flax.report'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else status)"
    )
    arguments = [TINY, f"--config.data.data_dir={digits}", f"--workdir={tmp_path / 'run'}"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env=launch_environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/metrics.jsonl").exists()


@pytest.mark.parametrize(
    "arguments",
    [("--compare=x",), ("--mode=eval", "--report"), ("--mode=report", "--split=test")],
    ids=" ".join,
)
def test_what_a_mode_does_not_take(called: Launch, arguments: tuple[str, ...]) -> None:
    mode = arguments[0].partition("=")[2] if "mode" in arguments[0] else "train"
    done = called(TINY, *arguments)
    assert done.returncode == 2
    assert f"not for --mode={mode}. Leave it out, or change the mode." in done.stderr


def test_an_augmentation_in_the_workdir_is_not_executed(
    tiny_config, launch: Launch, tmp_path: Path
) -> None:
    train(tiny_config, tmp_path / "run", should_stop=lambda: True)
    (tmp_path / "run/evil.py").write_text("raise SystemExit('executed')")
    config = tmp_path / "run/config.json"
    content = json.loads(config.read_text())
    content["config"]["augment"]["order"] = ["run.evil:augment"]
    config.write_text(json.dumps(content))
    done = launch("--workdir=run", "--mode=report")
    assert done.returncode == 1
    assert "is Python in the workdir, which is not executed" in done.stderr

"""Nothing that every run needs is Linux's alone: its calls and packages are hidden, and it runs."""

import os
import subprocess
from pathlib import Path

import pytest
from conftest import TESTS, launch_command, launch_environment

# Run by Python itself at its start, before anything of the package is imported.
HIDDEN = """
import os
import signal
import sys

for module, names in (
    (os, ("set_blocking", "sched_getaffinity", "sched_setaffinity", "fork", "posix_fadvise")),
    (signal, ("SIGHUP",)),
):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)


if hasattr(os, "process_cpu_count"):  # Python 3.13's asks what is hidden now
    os.process_cpu_count = os.cpu_count


class Missing:
    # In the place of all finders, so that a module is absent as it is where it is not installed.
    def __init__(self, finders):
        self.finders = finders

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            return None
        found = (finder.find_spec(name, path, target) for finder in self.finders)
        return next((spec for spec in found if spec is not None), None)

    def find_distributions(self, *arguments):
        for finder in self.finders:
            yield from getattr(finder, "find_distributions", lambda *_: ())(*arguments)


sys.meta_path[:] = [Missing(sys.meta_path[:])]
print("HIDDEN", file=sys.stderr)
"""
RECIPE = """
import tiny


def get_config():
    config = tiny.get_config()
    config.num_steps = 3
    return config
"""


def run(folder: Path, absent: set[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "hidden").mkdir(exist_ok=True)
    (folder / "hidden/sitecustomize.py").write_text(HIDDEN.format(absent=absent))
    (folder / "recipe.py").write_text(RECIPE)
    environment = launch_environment()
    paths = (str(folder / "hidden"), str(TESTS))
    return subprocess.run(
        launch_command("--config=recipe.py", *arguments),
        cwd=folder,
        env=environment | {"PYTHONPATH": os.pathsep.join(paths), "TFDS_DATA_DIR": ""},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    "absent", [{"array_record"}, {"array_record", "tensorflow_datasets"}], ids=["a Mac", "no TFDS"]
)
def test_a_run_needs_nothing_of_linux(absent: set[str], digits: Path, tmp_path: Path) -> None:
    for more in ((), ("--mode=eval",)):
        done = run(tmp_path, absent, f"--config.data.data_dir={digits}", *more)
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stderr.startswith("HIDDEN")


def test_a_download_needs_nothing_of_linux(tmp_path: Path) -> None:
    """Without a network, the reason is the network, and not a package that there is not."""
    (tmp_path / "home").mkdir()
    done = run(tmp_path, {"array_record"}, f"--config.data.data_dir={tmp_path / 'home'}")
    assert done.returncode == 1
    assert "no download from storage.googleapis.com" in done.stderr
    assert "array_record" not in done.stderr

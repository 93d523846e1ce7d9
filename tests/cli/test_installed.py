"""The command as it is installed: its names, the recipes by theirs, what it says of both.

What pip makes of the checkout is laid out by links here; .ci/wheel tries the wheel itself.
"""

import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from conftest import ROOT, TESTS, launch_environment

import mnist_flax
from mnist_flax.cli import program
from mnist_flax.cli.recipe_files import recipe_file, recipe_names, recipes_folder
from mnist_flax.errors import UsageError, installing

Launch = Callable[..., CompletedProcess[str]]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# What pip writes into bin/.
SCRIPT = """#!{python}
import sys
from {module} import {function}
if __name__ == '__main__':
    sys.exit({function}())
"""


class Installed:
    """The package and its command in a folder, and another folder to work in."""

    def __init__(self, folder: Path):
        self.package, self.work = folder / "site/mnist_flax", folder / "work"
        self.script = folder / "bin/mnist-flax"
        for each in (self.package, self.work, self.script.parent):
            each.mkdir(parents=True)
        for each in (ROOT / "mnist_flax").iterdir():
            (self.package / each.name).symlink_to(each)
        (self.package / "recipes").symlink_to(ROOT / "configs")
        module, function = PROJECT["project"]["scripts"]["mnist-flax"].split(":")
        self.script.write_text(
            SCRIPT.format(python=sys.executable, module=module, function=function)
        )
        self.script.chmod(0o755)

    def run(self, *command: str) -> CompletedProcess[str]:
        environment = launch_environment()
        environment |= {
            "PYTHONPATH": f"{self.package.parent}:{TESTS}",
            "PATH": f"{self.script.parent}:{environment['PATH']}",
        }
        pipes = {"capture_output": True, "text": True, "timeout": 300}
        return subprocess.run(command, cwd=self.work, env=environment, **pipes)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("installed"))


MODULE = (sys.executable, "-m", "mnist_flax")


@pytest.mark.parametrize(
    ("command", "called"), [(("mnist-flax",), "mnist-flax"), (MODULE, "python -m mnist_flax")]
)
def test_the_help_has_the_name_that_it_was_called_by(
    installed: Installed, command: tuple[str, ...], called: str
) -> None:
    done = installed.run(*command, "--help")
    assert done.returncode == 0, done.stderr
    assert f"    {called} --config=tutorial --mode=eval" in done.stdout
    assert "launch.py" not in done.stdout
    assert f"speedrun, tutorial, vae;\npages to read and to copy, in {installed.package}/rec" in (
        done.stdout
    )


def test_it_trains_by_a_recipes_name_and_names_itself_in_what_it_says(
    installed: Installed, digits: Path
) -> None:
    data = f"--config.data.data_dir={digits}"
    asked = ("--config=speedrun", data, "--config.num_steps=1", "--workdir=run", "--report")
    done = installed.run("mnist-flax", *asked)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if " with: " in line]
    assert len(said) == 2
    assert all("  mnist-flax --config=speedrun " in line.replace(":", ": ") for line in said)
    assert "launch.py" not in done.stderr
    page = (installed.work / "run/report/index.html").read_text()
    assert "mnist-flax \\\n    --config=speedrun " in page
    assert "launch.py" not in page


def test_how_an_extra_is_installed_there(installed: Installed) -> None:
    assert installing("onnx") == "pip install -e '.[onnx]'"
    code = "from mnist_flax.errors import installing; print(*map(installing, ('onnx', 'none')))"
    assert installed.run(sys.executable, "-c", code).stdout == (
        "pip install 'jax2onnx>=0.13' 'onnxruntime>=1.24.1' "
        "pip install -e '.[none]' in the repository's folder\n"
    )


def test_the_version_is_a_line_and_waits_for_no_jax() -> None:
    code = (
        "import sys; from mnist_flax.cli.main import main; main(['launch.py', '--version']);"
        "sys.exit(bool({'jax', 'flax'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    import flax
    import jax

    told = f"mnist_flax {mnist_flax.__version__}, jax {jax.__version__}, flax {flax.__version__}\n"
    assert done.stdout == told


def test_a_recipe_by_its_name_in_a_checkout(launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "lenet").mkdir()
    (tmp_path / "speedrun").write_text("no recipe")
    (tmp_path / "speedrun.py").write_text("no recipe either")
    for value, run in (("lenet", "lenet"), ("speedrun:bfloat16", "speedrun-bfloat16")):
        done = launch(f"--config={value}", "--mode=eval")
        assert done.returncode == 1
        assert done.stderr.startswith(f"Error: runs/{run}/config.json: not found")


def test_what_a_name_stands_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").touch()
    assert recipes_folder() == ROOT / "configs"
    assert recipe_file("vae") == recipe_file("vae:x") == ROOT / "configs/vae.py"
    assert recipe_file("mine.py:x") == Path("mine.py")
    for value, told in (
        (
            "speedrn:x",
            "there is no recipe 'speedrn'. Did you mean 'speedrun'? There are adam, best",
        ),
        ("mine", "there is no recipe 'mine'. Did you mean 'mine.py'? There are adam, "),
        ("xyz", "there is no recipe 'xyz'. There are adam, "),
        ("configs/tutorial.py", "there is no file configs/tutorial.py. Did you mean 'tutorial'?"),
        ("./vae", "there is no file vae."),
    ):
        with pytest.raises(UsageError) as error:
            recipe_file(value)
        assert str(error.value).startswith(f"--config={value}: {told}"), error.value


def test_every_recipe_has_a_page_and_every_page_a_name() -> None:
    assert recipe_names() == sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
    assert not {name for name in recipe_names() if not recipe_file(name).is_file()}


def test_by_which_name_it_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script, other = tmp_path / "bin/mnist-flax", tmp_path / "other/mnist-flax"
    for each in (script, other):
        each.parent.mkdir()
        each.touch(0o755)
    monkeypatch.setenv("PATH", str(script.parent))
    module = str(Path(mnist_flax.__file__).with_name("__main__.py"))
    python, this = ["python", "-m", "mnist_flax"], sys.executable
    for argv0, name, typed, again in (
        (str(script), ["mnist-flax"], ["mnist-flax"], [this, str(script)]),
        (str(other), ["mnist-flax"], [str(other)], [this, str(other)]),
        (module, python, python, [this, "-m", "mnist_flax"]),
        ("a/launch.py", ["python", "launch.py"], ["python", "a/launch.py"], [this, "a/launch.py"]),
    ):
        assert program.name(argv0) == name
        assert program.typed(argv0) == typed
        assert program.again(argv0) == again


def test_everything_is_installed() -> None:
    folders = {path.parent for path in (ROOT / "mnist_flax").rglob("*.py")}
    ours = {".".join(path.relative_to(ROOT).parts) for path in folders}
    assert sorted(PROJECT["tool"]["setuptools"]["packages"]) == sorted(
        {*ours, "mnist_flax.recipes"}
    )
    assert PROJECT["tool"]["setuptools"]["package-dir"] == {"mnist_flax.recipes": "configs"}


def test_the_version_is_the_same_wherever_it_stands() -> None:
    version = mnist_flax.__version__
    assert PROJECT["project"]["version"] == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    history = (ROOT / "CHANGELOG.md").read_text()
    assert history.index(f"\n## {version} ") == history.index("\n## ")

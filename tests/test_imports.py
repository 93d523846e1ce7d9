"""Who may import whom: a folder only those above it, and heavy libraries have one door each."""

import ast
import functools
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "mnist_flax"

# Each may import those before it.
FOLDERS = (
    *("errors", "keys", "cpu", "config", "data", "models", "core", "tasks", "workdir", "use"),
    *("show", "training", "report", "serve", "export", "cli"),
)
STRANGERS = {("report", "serve"), ("report", "export"), ("serve", "export")}  # to each other

ONE_DOOR = {
    "absl": {"cli.flag_kinds", "cli.flags", "cli.recipe"},
    "tensorflow_datasets": {"data.tfds_records", "data.tfds_source"},
    "grain": {"data.grain_reader"},
    "orbax": {"workdir.saves"},
    "mlxtend": {"data.sample"},
    "PIL": {
        *("data.decoding", "data.encoding", "data.folder", "data.ink", "data.picture_files"),
        *("data.pictures", "data.scaling"),
    },
    "rich": {"show.console", "models"},
    "filelock": {"workdir.lock"},
    "safetensors": {"workdir.weights"},
    "jinja2": {"report.page"},
    "matplotlib": {"report.pixels", "report.plots"},
    "IPython": {"show.notebook"},
    "scipy": {"data.doubts", "data.ink", "report.scores", "report.sweep_statistics"},
    "sklearn": {"report.scores"},
    "tensorboardX": {"show.tensorboard"},
    "wandb": {"show.wandb_view"},
    "starlette": {"serve.app"},
    "uvicorn": {"serve", "serve.connection"},
    "jax2onnx": {"export.onnx"},
    "onnxruntime": {"export.onnx"},
}


@functools.cache
def _modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return {name: path for name, path in found.items() if name != "__init__"}


@functools.cache
def _imports(path: Path) -> set[str]:
    """Everything a file imports, inside functions too: 'a.b' for both `import a.b` and `from`."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@functools.cache
def _ours(path: Path) -> set[str]:
    """The modules of the package that a file imports."""
    modules, found = _modules(), set()
    for name in _imports(path):
        inner = name.removeprefix("mnist_flax.")
        if inner == name:
            continue
        while inner not in modules:
            inner = inner.rpartition(".")[0]
            assert inner, f"{path} imports {name}, which is no module"
        found.add(inner)
    return found


def _folder(module: str) -> str:
    return module.partition(".")[0]


def test_the_folders_are_those_of_the_list() -> None:
    assert {_folder(module) for module in _modules()} == {*FOLDERS, "__main__"}
    assert not list(PACKAGE.glob("*/*/*.py"))  # a folder has no folders


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_imports_only_those_above_it(folder: str) -> None:
    above = set(FOLDERS[: FOLDERS.index(folder)])
    above -= {other for pair in STRANGERS for other in pair if folder in pair}
    for module, path in _modules().items():
        if _folder(module) == folder:
            assert {_folder(name) for name in _ours(path)} <= {*above, folder}, module


@pytest.mark.parametrize("folder", FOLDERS)
def test_there_is_no_cycle_inside_a_folder(folder: str) -> None:
    graph = {
        module: {name for name in _ours(path) if _folder(name) == folder and name != module}
        for module, path in _modules().items()
        if _folder(module) == folder
    }
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


@pytest.mark.parametrize("library", sorted(ONE_DOOR))
def test_a_heavy_library_has_one_door(library: str) -> None:
    files = {**_modules(), "launch": ROOT / "launch.py"}
    users = {
        name
        for name, path in files.items()
        if any(imported.split(".")[0] == library for imported in _imports(path))
    }
    assert users == ONE_DOOR[library]


def test_nobody_imports_tensorflow() -> None:
    for path in [*_modules().values(), ROOT / "launch.py"]:
        assert not any(name.split(".")[0] == "tensorflow" for name in _imports(path)), path


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['launch.py', '--help']; import launch; launch.start();"
        "heavy = {'jax', 'flax', 'optax', 'orbax', 'tensorflow_datasets', 'PIL', 'rich',"
        "'starlette', 'uvicorn'};"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--workdir" in done.stdout


def test_the_public_names_are_listed_and_wait_for_nothing() -> None:
    """What an editor or IPython completes; the names themselves are imported when asked for."""
    asked = "import mnist_flax, sys; print(*dir(mnist_flax)); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    names, modules = (line.split() for line in done.stdout.splitlines())
    assert {"Task", "default_config", "restore", "train"} <= set(names)
    assert not {"jax", "ml_collections", "numpy"} & set(modules)


# Commands that are shown as such, on a page or beside one, and what no flag of ours is.
SPEAKS_OF_FLAGS = {
    *("config.changes", "report.about", "report.repeat", "serve.app", "training.finished"),
}


@pytest.mark.parametrize("module", sorted(_modules()))
def test_only_the_command_speaks_of_flags(module: str) -> None:
    """Who calls train() or restore() has none: `workdir=runs/a: …` is a name for both."""
    if module.startswith("cli.") or module in SPEAKS_OF_FLAGS:
        return
    tree = ast.parse(_modules()[module].read_text())
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body
        if isinstance(node.body[0], ast.Expr)
    }
    said = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if id(node) not in docstrings and re.search(r"(^|[\s('=])--[a-z]+\b(?!:)", node.value)
    ]
    assert not said

"""Who may import whom: nothing points up, and heavy libraries have one door each."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "mnist_flax"

# Lower layers first. A module may import from lower layers, and from those of its own that its
# line says.
LAYERS = (
    {"errors", "calibration", "diagnosis", "drawings", "ink", "save_faults"},
    {
        "registry",
        "trees",
        "workdir",
        "terminal",
        "data.download",
        "environment",
        "onnx_export",
        "cpu.convolution",
        "tensorboard",
    },
    {"config", "metrics", "writers", "cpu.pooling", "optim", "pictures"},
    {"cpu", "data.dataset", "data.augment", "models.blocks", "timetable", "stopping", "validation"},
    {"recipe", "data.pipeline"},
    {"models.compact", "models.lenet", "models.threeconv", "models.tutorial"},
    {"data.idx", "data.sample", "models", "state"},
    {"data.folder", "digests", "filters", "licences"},
    {"data.tfds_source", "checkpoint"},
    {"data"},
    {"steps", "resume", "features"},
    {"programs", "inference"},
    {"compilation", "evaluation", "prediction", "finetune"},
    {"loop", "model_card"},
    {"training", "export", "serve.answers"},
    {"serve.app"},
    {"serve"},
    {"report.history", "report.page", "report.repeat", "report.saliency", "report.scores"},
    {"report.about", "report.comparison", "report.plots"},
    {"report.pictures"},
    {"report"},
)

ONE_DOOR = {
    "absl": {"launch", "recipe"},
    "tensorflow_datasets": {"data.tfds_source"},
    "orbax": {"checkpoint"},
    "mlxtend": {"data.sample"},
    "PIL": {"data.folder", "ink", "pictures"},
    "rich": {"writers", "models"},
    "filelock": {"workdir"},
    "jinja2": {"report.page"},
    "matplotlib": {"report.plots"},
    "scipy": {"ink", "report.scores"},
    "sklearn": {"report.scores"},
    "tensorboardX": {"tensorboard"},
    "starlette": {"serve.app"},
    "uvicorn": {"serve"},
    "jax2onnx": {"onnx_export"},
    "onnxruntime": {"onnx_export"},
}


def _modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return {name: path for name, path in found.items() if name != "__init__"}


def _imports(path: Path) -> set[str]:
    """Everything a file imports, inside functions too: 'a.b' for both `import a.b` and `from`."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


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


def test_every_module_has_its_layer() -> None:
    assert sorted(name for layer in LAYERS for name in layer) == sorted(_modules())


@pytest.mark.parametrize("module", sorted(_modules()))
def test_imports_point_down(module: str) -> None:
    level = next(i for i, layer in enumerate(LAYERS) if module in layer)
    below = set().union(*LAYERS[:level])
    assert _ours(_modules()[module]) <= below


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
        "import sys; sys.argv = ['launch.py', '--help']; import launch; launch.main(sys.argv);"
        "heavy = {'jax', 'flax', 'optax', 'orbax', 'tensorflow_datasets', 'PIL', 'rich',"
        "'starlette', 'uvicorn'};"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--workdir" in done.stdout

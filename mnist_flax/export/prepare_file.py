"""prepare.py, which lies next to an exported network: what --mode=predict does to a picture first.

It is our own source, cut to what fit_picture() needs and put into one file, so that it cannot come
to differ. Text out, no files.
"""

import ast
import inspect
from collections.abc import Iterator, Sequence
from types import ModuleType

import mnist_flax
from mnist_flax.data import decoding, doubts, ink, pictures, preparation
from mnist_flax.data.preparation import Preparation

PREPARE_FILE = "prepare.py"
_MODULES = (preparation, ink, doubts, decoding, pictures)  # as they follow each other in the file
_HEAD = '''"""A picture file -> the input of the network beside this file: NumPy, Pillow and SciPy.

prepare("picture.png") gives uint8 [1, {height}, {width}, {channels}]:
{told}.
Written by mnist_flax {version}, of its own source. Apache-2.0.
"""

from __future__ import annotations
'''
_FOOT = '''
PREPARATION = {preparation}
SHAPE = {shape}


def prepare(path: str) -> np.ndarray:
    """Reads a PNG or JPEG file; raises PictureError, a ValueError, for one that is not fit."""
    with open(path, "rb") as file:
        picture = fit_picture(file, PREPARATION, SHAPE)
    if picture.warning:
        warnings.warn(f"{{path}}: {{picture.warning}}", stacklevel=2)
    return picture.image[None]
'''


def takes_pictures(image_shape: Sequence[int]) -> bool:
    """Whether a picture file, grey or in colour, can become the network's input."""
    return image_shape[2] in (1, 3)


def prepare_file(prepared: Preparation, image_shape: tuple[int, int, int]) -> str:
    """Returns the Python that makes a network's input of a picture, without this package.

    Args:
      prepared: what is done to pictures.
      image_shape: (H, W, C) that the network takes.
    """
    height, width, channels = image_shape
    head = _HEAD.format(
        height=height,
        width=width,
        channels=channels,
        told=preparation.told(prepared, image_shape),
        version=mnist_flax.__version__,
    )
    foot = _FOOT.format(preparation=prepared, shape=image_shape)
    parts = [(module, node) for module in _MODULES for node in ast.parse(_source(module)).body]
    defined = {name: part for part in parts for name in _names(part[1])}
    wanted = _mentioned(ast.parse(foot))
    found: set[str] = set()
    while wanted:
        name = wanted.pop()
        if name not in found:
            found.add(name)
            wanted += _mentioned(defined[name][1]) if name in defined else []
    kept = [part for part in parts if found.intersection(_names(part[1]))]
    imports = sorted({line for _, node in parts for line in _imports(node, found)})
    texts = [_text(module, node) for module, node in kept]
    return "\n\n\n".join([head + "\n" + "\n".join(imports), *texts, foot.strip()]) + "\n"


def _source(module: ModuleType) -> str:
    return inspect.getsource(module)


def _names(node: ast.stmt) -> set[str]:
    """What a statement at the top of a module defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.AnnAssign):
        targets: list[ast.expr] = [node.target]
    else:
        targets = node.targets if isinstance(node, ast.Assign) else []
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _mentioned(node: ast.AST) -> list[str]:
    return [part.id for part in ast.walk(node) if isinstance(part, ast.Name)]


def _imports(node: ast.stmt, used: set[str]) -> Iterator[str]:
    """Lines that import what is used of others' modules."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            if (alias.asname or alias.name) in used:
                yield f"import {alias.name}" + (f" as {alias.asname}" if alias.asname else "")
    elif isinstance(node, ast.ImportFrom) and not f"{node.module}.".startswith("mnist_flax."):
        for alias in node.names:
            if alias.name in used:
                yield f"from {node.module} import {alias.name}"


def _text(module: ModuleType, node: ast.stmt) -> str:
    first = min([node.lineno, *(part.lineno for part in getattr(node, "decorator_list", ()))])
    lines = _source(module).splitlines()[first - 1 : node.end_lineno]
    return "\n".join(lines)

"""What the documents point at exists."""

import ast
import re
from pathlib import Path

import pytest
from conftest import ROOT

from mnist_flax.export.model_card import example

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_to_a_file(document: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", document.read_text())
    assert links
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_the_guide_runs_exported_files_as_their_card_does() -> None:
    page = (ROOT / "docs/guide/export.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    examples = [block for block in blocks if "model.stablehlo" in block or "model.onnx" in block]
    assert examples == [example(name, (28, 28, 1)) for name in ("model.stablehlo", "model.onnx")]


def test_the_tour_names_code_that_is_there() -> None:
    text = re.sub(r"\s+", " ", (ROOT / "docs/TOUR.md").read_text())
    found = re.findall(r"`([\w.]+)`[^`\[\]]*?in \[[\w/.]+\]\(\.\./(mnist_flax/[\w/]+\.py)\)", text)
    assert len(found) > 10
    for name, path in found:
        defined = {
            node.name
            for node in ast.walk(ast.parse((ROOT / path).read_text()))
            if isinstance(node, ast.FunctionDef | ast.ClassDef)
        }
        assert set(name.split(".")) <= defined, f"{name} is not in {path}"

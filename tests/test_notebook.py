"""docs/tour.ipynb: what is committed can be shown, and running it gives the same again."""

import base64
import io
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from conftest import ROOT
from PIL import Image

NOTEBOOK = ROOT / "docs/tour.ipynb"


@pytest.fixture
def committed() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def outputs(notebook: Any) -> list[dict[str, Any]]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def kinds(notebook: Any) -> list[tuple[str, list[str]]]:
    """What each output is, without what a clock decides."""
    return [
        (output.output_type, sorted(output.get("data", {})), output.get("name"))
        for output in outputs(notebook)
    ]


def told(notebook: Any) -> str:
    """What was printed and returned."""
    texts = (output.get("text") or output.data["text/plain"] for output in outputs(notebook))
    return "\n".join(texts)


def test_what_is_committed_was_run_from_top_to_bottom(committed) -> None:
    nbformat.validate(committed)
    counts = [cell.execution_count for cell in committed.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert {output.output_type for output in outputs(committed)} == {"stream", "execute_result"}
    assert "WARNING" not in told(committed)


def test_its_pictures_are_small_and_it_names_no_machine(committed) -> None:
    pngs = [
        output.data["image/png"]
        for output in outputs(committed)
        if "image/png" in output.get("data", {})
    ]
    assert len(pngs) == 6
    for png in pngs:
        with Image.open(io.BytesIO(base64.b64decode(png))) as picture:
            assert picture.width >= 400
    assert NOTEBOOK.stat().st_size < 500_000
    assert (
        re.findall(r"(?:/tmp|/home|/root|/Users|/work|/usr|site-packages)\b", NOTEBOOK.read_text())
        == []
    )


@pytest.mark.slow
@pytest.mark.promise
def test_it_runs_and_says_the_same(committed, tmp_path: Path) -> None:
    from nbclient import NotebookClient

    again = nbformat.read(NOTEBOOK, as_version=4)
    for cell in again.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    place = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(again, timeout=300, coalesce_streams=True, resources=place).execute()
    assert kinds(again) == kinds(committed)
    for notebook in (again, committed):
        text = told(notebook)
        assert "Stopped at step" in text
        assert "Resumed at step" in text
        assert "\nTrue\n" in text  # the interrupted run's bits are the other's
        accuracy = re.search(r"1,000 images, loss [\d.]+, accuracy ([\d.]+)", text)
        assert accuracy
        assert float(accuracy[1]) > 0.97
    assert (tmp_path / "runs/notebook_mine/config.json").exists()

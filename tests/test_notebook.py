"""Runs in a notebook's cells; docs/tour.ipynb: what is committed, and that it comes out again."""

import base64
import io
import os
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from conftest import ROOT, TESTS
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
    kinds_of_output = {output.output_type for output in outputs(committed)}
    assert kinds_of_output == {"stream", "execute_result", "display_data"}
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


CELLS = (
    """
import contextlib, io, os, signal
import jax, numpy as np
from mnist_flax import restore, train
from tiny import get_config
config = get_config()
config.data.data_dir = os.environ["DIGITS"]
""",
    "state = train(config, 'run')",
    """
with contextlib.redirect_stderr(io.StringIO()) as told:
    train(config, "told")
print(told.getvalue())
""",
    """
def press():
    if '"step": 10,' in open("cut/metrics.jsonl").read() and not pressed:
        pressed.append(True)
        os.kill(os.getpid(), signal.SIGINT)
    return False

pressed = []
train(config, "cut", should_stop=press)
""",
    """
saved, again = restore("cut").state.step, train(config, "cut")
print(saved, jax.tree.all(jax.tree.map(np.array_equal, state, again)))
""",
    "restore('nowhere')",
)


@pytest.fixture(scope="module")
def executed(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> list[list[dict[str, Any]]]:
    """The outputs of each of CELLS, as a kernel gives them."""
    from nbclient import NotebookClient

    place = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in CELLS])
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(TESTS), str(ROOT)]),
        "DIGITS": str(digits),
    }
    client = NotebookClient(
        notebook,
        timeout=300,
        allow_errors=True,
        coalesce_streams=True,
        resources={"metadata": {"path": str(place)}},
    )
    client.execute(env=environment)
    return [cell.outputs for cell in notebook.cells]


@pytest.mark.slow
@pytest.mark.promise
def test_a_run_is_one_output_that_is_drawn_again(executed: list[list[dict[str, Any]]]) -> None:
    assert executed[0] == []
    (output,) = executed[1]
    assert output["output_type"] == "display_data"
    plain, page = (output["data"][kind] for kind in ("text/plain", "text/html"))
    assert "Finished at step 40, which is saved." in plain
    assert plain.splitlines()[-3].startswith("step 40/40  100.0%")
    assert re.search(r"\ntrain +loss [\d.]+  accuracy [\d.]+  at step 40\n", plain)
    assert page.count("<svg ") == 2
    assert page.count("<circle ") == 2 * 3  # evaluations
    assert [re.findall(f">{name}<", page) for name in ("loss", "accuracy")] == [
        [">loss<"],
        [">accuracy<"],
    ]
    assert "step     10/40" not in plain  # no line for each row


@pytest.mark.slow
@pytest.mark.promise
def test_where_stderr_goes_elsewhere_it_gets_lines(executed: list[list[dict[str, Any]]]) -> None:
    (output,) = executed[2]
    assert output["output_type"] == "stream"
    assert re.search(r"\nstep +10/40 +25\.0 % +train +loss ", output["text"])
    assert "\nFinished at step 40, which is saved.\n" in output["text"]


@pytest.mark.slow
@pytest.mark.promise
def test_the_stop_button_keeps_the_state(executed: list[list[dict[str, Any]]]) -> None:
    display, error = executed[3]
    assert "Stopped at step 10, which is saved." in display["data"]["text/plain"]
    assert error["ename"] == "KeyboardInterrupt"
    assert error["evalue"] == "cut: step 10 is saved; the same call goes on from there."
    display, printed = executed[4]
    assert "Resumed at step 10" in display["data"]["text/plain"]
    assert printed["text"] == "10 True\n"
    # The curves begin where the run began.
    points = re.search(r'<polyline points="([^"]*)"', display["data"]["text/html"])
    first = re.search(r'<polyline points="([^"]*)"', executed[1][0]["data"]["text/html"])
    assert points
    assert first
    assert points[1] == first[1]


@pytest.mark.slow
@pytest.mark.promise
def test_an_error_is_its_message(executed: list[list[dict[str, Any]]]) -> None:
    (error,) = executed[5]
    assert error["ename"] == "UserError"
    (line,) = error["traceback"]
    assert line.startswith("UserError: nowhere/config.json: not found")


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

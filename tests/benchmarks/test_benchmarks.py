"""The report on the tutorials, from made-up runs whose figures a reader can compute."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, recipe

BENCHMARKS = ROOT / "benchmarks"
ENVIRONMENT = {"jax": "1.2.3", "device": "1 × cpu", "cores": 2}


def made_up_run(workdir: Path, name: str, accuracies: list[float], finished: bool = True) -> None:
    workdir.mkdir(parents=True)
    config = {"config": recipe(name).to_dict(), "environment": ENVIRONMENT}
    (workdir / "config.json").write_text(json.dumps(config))
    rows: list[dict[str, Any]] = []
    for epoch, accuracy in enumerate(accuracies, start=1):
        step = 300 * epoch
        rows += [
            {"step": step, "split": "train", "loss": 1.5, "steps_per_second": 10.0 * epoch},
            {"step": step, "event": "epoch", "epoch": epoch, "loss_sum": 1000.0 / 20**epoch},
            {"step": step, "split": "eval", "accuracy": accuracy, "loss": 0.25},
        ]
    rows += [{"step": step, "event": "finished"}] if finished else []
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def report(tmp_path: Path) -> str:
    """RESULTS.md about two seeds of lenet, one of adam, and one run that is not finished."""
    runs = tmp_path / "runs"
    made_up_run(runs / "lenet-0", "lenet", [0.5, 0.75, 0.625])
    made_up_run(runs / "lenet-1", "lenet", [0.5, 0.875, 0.75])
    made_up_run(runs / "lenet-2", "lenet", [0.1, 0.1, 0.1], finished=False)
    made_up_run(runs / "adam-0", "adam", [0.25, 0.5, 0.5])
    dead = {"seed": 0, "dead": 3, "accuracy": 0.5}, {"seed": 1, "dead": 0, "accuracy": 0.75}
    (runs / "dead_logits.json").write_text(json.dumps({"steps": 9, "runs": {"lenet": dead}}))
    report = write(runs, tmp_path / "docs")
    for picture in ("lenet.png", "adam.png"):
        assert (tmp_path / "docs" / picture).stat().st_size < 100_000
    return report


def write(runs: Path, folder: Path) -> str:
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]);"
        "from experiments import EXPERIMENTS; from report import write_report;"
        "write_report(EXPERIMENTS, Path(sys.argv[2]), Path(sys.argv[3]))"
    )
    arguments = [str(BENCHMARKS), str(runs), str(folder)]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, cwd=ROOT)
    return (folder / "RESULTS.md").read_text()


def test_chapters_about_other_runs_stay(report: str, tmp_path: Path) -> None:
    _, line, _ = (ROOT / "docs/RESULTS.md").read_text().partition("\n## Networks that draw\n")
    assert line
    assert "Networks that draw" not in report
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]);"
        "from report import _others; print(_others(Path(sys.argv[2])), end='')"
    )
    (tmp_path / "RESULTS.md").write_text(f"# Older\n{line}Kept.\n")
    command = [sys.executable, "-c", code, str(BENCHMARKS), str(tmp_path / "RESULTS.md")]
    done = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == f"{line}Kept.\n"


def test_the_report(report: str) -> None:
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in report.splitlines()]
    runs = {cells[0]: cells[1:] for cells in lines if len(cells) == 11}
    # Rates after the first row are 20 and 30 steps/s, in the middle 25: 900 steps take 36 s.
    assert runs["`lenet`"] == [
        *("0, 1", "0.976, 0.9908, 0.9907", "0.5000", "0.7500–0.8750", "0.6250–0.7500"),
        *("0.25", "176,286", "900", "0.6", "25.0"),
    ]
    assert runs["`adam`"][:6] == ["0", "–, –, –", "0.2500", "0.5000", "0.5000", "0.25"]
    assert ["`lenet`", "1 of 2", "3, 0", "0.5000–0.7500"] in lines
    # 1000 / 20 in the first epoch, 1000 / 20³ in the last.
    assert "50.00 in the first epoch, 0.12 in the last: 0.0025 of it" in report
    assert "lenet-0, lenet-1" in report
    assert "lenet-2" not in report
    assert "jax 1.2.3, device 1 × cpu, cores 2" in report


def test_a_run_shorter_than_an_epoch_is_told_of_too(tmp_path: Path) -> None:
    made_up_run(tmp_path / "adam-0", "adam", [0.25, 0.5])
    rows = (tmp_path / "adam-0/metrics.jsonl").read_text().splitlines(keepends=True)
    kept = "".join(row for row in rows if '"epoch"' not in row)
    (tmp_path / "adam-0/metrics.jsonl").write_text(kept)
    assert "| `adam` | 0 |" in write(tmp_path, tmp_path)


def test_without_finished_runs_nothing_is_written(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "reproduce.py"), "--only=lenet", "--seeds=7"]
    done = subprocess.run([*command, f"--runs={tmp_path}"], capture_output=True, text=True)
    assert (done.returncode, list(tmp_path.iterdir())) == (1, [])
    assert f"No run in {tmp_path} is finished" in done.stderr


def test_what_is_asked_for_must_be_there() -> None:
    command = [sys.executable, str(BENCHMARKS / "reproduce.py"), "--only=lenet,tutorail"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--only=tutorail: there are tutorial, adam, " in done.stderr

"""The soak: what it reads and sums up, and a short one of two kills."""

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT, launch_environment

SOAK = ROOT / "benchmarks" / "soak.py"


@pytest.fixture
def soak() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SOAK.parent))
        yield importlib.import_module("soak")


def write(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))


def test_what_a_folder_holds(soak: ModuleType, tmp_path: Path) -> None:
    assert soak.newest(tmp_path) == -1
    write(tmp_path / "metrics.jsonl", 1024)
    write(tmp_path / "config.json", 512)
    write(tmp_path / "checkpoints/latest/40/state/d/numbers", 2048)
    write(tmp_path / "checkpoints/latest/8/metadata", 1024)
    write(tmp_path / "checkpoints/best/32/metadata", 1024)
    write(tmp_path / "checkpoints/latest/44.orbax-checkpoint-tmp/state", 4096)
    assert soak.newest(tmp_path) == 40
    assert soak.disk(tmp_path) == {
        "saves": 3,
        "saves_kib": 4.0,
        "rows_kib": 1.0,
        "leftover_kib": 4.0,
        "other_kib": 0.5,
    }


def test_growth_is_from_the_second_quarter_to_the_last(soak: ModuleType) -> None:
    # The start is left out: 500 MiB that were needed to compile do not hide a leak.
    rss = [500, 90, 100, 102, 104, 104, 110, 120]
    files = [3, 3, 9, 3, 5, 5, 9, 5]  # 9 while it saves
    pairs = zip(rss, files, strict=True)
    samples = [{"step": n, "rss_mib": mib, "open_files": f} for n, (mib, f) in enumerate(pairs)]
    assert soak.growth(samples) == {"rss_mib": [101, 500, 115], "open_files": [3, 9, 5]}


@pytest.mark.slow
def test_a_short_soak(digits: Path, tmp_path: Path) -> None:
    output = tmp_path / "soak.json"
    command = [sys.executable, str(SOAK), "--quick", f"--data_dir={digits}", f"--output={output}"]
    environment = launch_environment(compiles=True)
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(output.read_text())
    assert results["cycles"]["kills"] == 2
    assert results["faults"] == []
    assert results["cycles"]["step"][-1] == 2_000
    assert results["steps"]["growth"]["saves"][1] <= 4  # two, the best, and the one under way
    assert "bit-identical" in done.stdout

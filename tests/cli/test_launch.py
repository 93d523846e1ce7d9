"""launch.py from the outside, as a user calls it."""

import json
import os
import pty
import subprocess
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from conftest import ROOT, TESTS, launch_command, launch_environment, rows

Launch = Callable[..., CompletedProcess[str]]
TINY = f"--config={TESTS / 'tiny.py'}"


@pytest.fixture(scope="module")
def trained(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a finished run of 40 steps."""
    from tiny import get_config

    from mnist_flax.training import train

    config = get_config()
    config.data.data_dir = str(digits)
    workdir = tmp_path_factory.mktemp("trained")
    train(config, workdir)
    return workdir


def test_training_says_what_it_does_and_keeps_it(launch: Launch, digits: Path, tmp_path) -> None:
    done = launch(TINY, f"--config.data.data_dir={digits}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    for expected in (
        f"Data: mnist, 105 images to train, 37 to evaluate, from IDX files in {digits}.",
        "norm",
        "Compiled in ",
        "step     10/40  25.0 %  train  loss ",
        "step     16/40  40.0 %  eval   loss ",
        "37 images",
        "Finished at step 40",
        "--mode=eval",
    ):
        assert expected in done.stderr
    assert "\x1b" not in done.stderr  # no colours in a pipe
    assert (tmp_path / "runs/tiny/config.json").exists()  # named after the config file
    assert [row["step"] for row in rows(tmp_path / "runs/tiny")][-1] == 40


def test_eval_ends_with_one_json_line(launch: Launch, trained: Path) -> None:
    done = launch(f"--workdir={trained}", "--mode=eval")
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    assert list(row) == ["loss", "accuracy", "global_step", "examples", "checkpoint", "dataset"]
    told = rows(trained)[-1]
    assert (row["global_step"], row["examples"]) == (40, 37)
    assert row["accuracy"] == told["accuracy"]
    assert row["loss"] == pytest.approx(told["loss"], rel=1e-5)
    assert f"Restored step 40 from {row['checkpoint']}" in done.stderr


def test_eval_takes_other_data_and_batches(launch: Launch, trained: Path) -> None:
    done = launch(
        TINY,
        f"--workdir={trained}",
        "--mode=eval",
        "--checkpoint=best",
        "--config.batch_size=5",
        "--config.data.eval_split=train[:11]+test[50%:]",
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["examples"] == 11 + 19  # half of 37 is 18.5, rounded down


def test_predict_prints_one_json_line_a_file(launch: Launch, trained: Path, tmp_path) -> None:
    from PIL import Image

    for name in ("a.png", "b.png"):
        Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / name)
    done = launch(f"--workdir={trained}", "--mode=predict", "--center=false", "a.png", "b.png")
    assert done.returncode == 0, done.stderr
    first, second = map(json.loads, done.stdout.splitlines())
    told = ["classes", "probabilities", "class", "class_name", "class_names"]
    assert list(first) == ["file", *told]
    assert (first["file"], second["file"]) == ("a.png", "b.png")
    assert first["probabilities"] == second["probabilities"]
    assert len(first["probabilities"]) == 10
    assert sum(first["probabilities"]) == pytest.approx(1, abs=1e-5)
    assert first["classes"] == first["class"] == int(np.argmax(first["probabilities"]))
    assert first["class_name"] == first["class_names"][first["class"]] == str(first["class"])


def test_a_damaged_picture_among_others_costs_itself_alone(
    launch: Launch, trained: Path, tmp_path: Path
) -> None:
    from PIL import Image

    for name in ("a.png", "b.png"):
        Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / name)
    (tmp_path / "broken.png").write_bytes((tmp_path / "a.png").read_bytes()[:50])
    files = ("a.png", "broken.png", "none.png", "b.png")
    done = launch(f"--workdir={trained}", "--mode=predict", "--center=false", *files)
    assert done.returncode == 1
    assert [json.loads(line)["file"] for line in done.stdout.splitlines()] == ["a.png", "b.png"]
    faults = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert [line.split(":")[1] for line in faults] == [" broken.png", " none.png"]
    assert "Traceback" not in done.stderr


def test_predict_draws_on_a_terminal(trained: Path, tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "a.png")
    terminal, side = pty.openpty()
    arguments = (f"--workdir={trained}", "--mode=predict", "--center=false", "a.png")
    done = subprocess.run(
        launch_command(*arguments),
        cwd=tmp_path,
        env=launch_environment() | {"TERM": "xterm", "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=side,
        text=True,
    )
    drawn = os.read(terminal, 1 << 16).decode()
    os.close(terminal)
    os.close(side)
    assert done.returncode == 0, drawn
    row = json.loads(done.stdout)
    assert f"a.png: {row['classes']}" in drawn
    percent = 100 * row["probabilities"][row["classes"]]
    assert f"→ {row['classes']} █" in drawn
    assert f"{percent:.1f}%" in drawn


def test_predict_writes_a_whole_split(launch: Launch, trained: Path, tmp_path: Path) -> None:
    done = launch(
        f"--workdir={trained}", "--mode=predict", "--split=test", "--output=predictions.npz"
    )
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "predictions.npz") as saved:
        assert saved["probabilities"].shape == (37, 10)
        assert saved["class_names"].tolist() == list("0123456789")
        accuracy = np.mean(saved["labels"] == saved["classes"])
    assert accuracy == pytest.approx(rows(trained)[-1]["accuracy"])
    assert f"accuracy {accuracy:.4f}" in done.stderr


def test_a_model_of_the_users_own_joins_from_the_folder_he_works_in(
    launch: Launch, digits: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(
        "from flax import linen as nn\n"
        "class Net(nn.Module):\n"
        "    @nn.compact\n"
        "    def __call__(self, images, *, train=False):\n"
        "        return nn.Dense(10)(images.reshape(len(images), -1))\n"
    )
    done = launch(
        f"--config={ROOT / 'configs/tutorial.py'}",
        "--config.model.name=mine:Net",
        "--config.num_steps=2",
        f"--config.data.data_dir={digits}",
    )
    assert done.returncode == 0, done.stderr
    assert "config.model.dropout_rate=0.4 is left out" in done.stderr


def test_without_network_or_data_the_fallback_is_announced(launch: Launch, tmp_path: Path) -> None:
    done = launch(
        f"--config={ROOT / 'configs/tutorial.py'}:quick",
        "--config.num_steps=1",
        "--config.data.fallback=mnist_sample",
    )
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("Fallback:")]
    assert len(told) == 2  # at the start and at the end
    assert told[0] == told[1]
    assert "4,000" in told[0]
    workdir = tmp_path / "runs/tutorial-quick"
    assert {row["dataset"] for row in rows(workdir)} == {"mnist_sample"}
    events = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert any(row.get("event") == "fallback" for row in events)

    # What follows is about the digits that it was trained on, and cut as it is asked here.
    more = (f"--config={ROOT / 'configs/tutorial.py'}:quick", "--mode=predict", "--output=o.npz")
    done = launch(*more, "--split=train[:7]")
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "o.npz") as saved:
        assert len(saved["labels"]) == 7


@pytest.mark.skipif(os.name != "posix", reason="other systems have no SIGPIPE")
@pytest.mark.parametrize("asked", [("--help",), ("--version",), ("--config=tutorial", "--wrong")])
def test_a_reader_that_leaves_is_no_error(asked: tuple[str, ...]) -> None:
    """As `| head -3` does. The status is that of a program which SIGPIPE ends."""
    reading, writing = os.pipe()
    os.close(reading)
    command, environment = launch_command(*asked), launch_environment()
    done = subprocess.run(
        command, env=environment, stdout=writing, stderr=subprocess.PIPE, text=True
    )
    os.close(writing)
    if asked[-1] == "--wrong":  # what is wrong is said as ever
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    else:
        assert (done.returncode, done.stderr) == (141, "")

"""The writer 'wandb': W&B has the rows of metrics.jsonl, each once, whatever became of the run."""

import importlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest
from conftest import TESTS, events, launch_command, launch_environment
from ml_collections import FrozenConfigDict

from mnist_flax.core.task import Spec
from mnist_flax.errors import UserError
from mnist_flax.show.writers import Context
from mnist_flax.workdir.rows import read_rows

VIEW = "mnist_flax.show.wandb_view"
WRAPPER = TESTS / "faults/wrapper.py"
KILLED = "kill@os.mkdir:latest/20."  # between the row of step 20 and its save
STOPPED = "term@os.mkdir:latest/16."

needs_wandb = pytest.mark.skipif(
    getattr(find_spec("wandb"), "origin", None) is None,
    reason="W&B is not installed: pip install -e '.[wandb]'. The test extra is without it, for its "
    "60 MB and a dozen packages that nothing else needs.",
)


def expected(workdir: Path) -> list[dict[str, Any]]:
    """The history that a W&B run must have."""
    return [
        {
            **{
                f"{row.get('split', 'epoch')}/{name}": value
                for name, value in row.items()
                if name != "step" and type(value) in (int, float)
            },
            "training_step": row["step"],
        }
        for row in read_rows(workdir)
        if "split" in row or row["event"] == "epoch"
    ]


# Without W&B: a stand-in for the package.


class Run:
    """A W&B run that W&B has some entries of."""

    def __init__(self, has: int):
        self.step, self.resumed = has, has > 0
        self.logged: list[tuple[int, dict[str, Any]]] = []
        self.codes: list[int] = []

    def log(self, entry: dict[str, Any], step: int, commit: bool) -> None:
        assert commit
        self.logged.append((step, entry))

    def define_metric(self, name: str, **options: Any) -> None:
        pass

    def finish(self, exit_code: int) -> None:
        self.codes.append(exit_code)


class Package(ModuleType):
    """As much of `wandb` as is used."""

    Error = type("Error", (Exception,), {})
    Settings = staticmethod(lambda **fields: SimpleNamespace(**fields))

    def __init__(self, mode: str = "online", has: int = 0):
        super().__init__("wandb")
        self.mode, self.run, self.asked = mode, Run(has), {}

    def setup(self, settings: Any) -> Any:
        return SimpleNamespace(
            settings=SimpleNamespace(project=None, run_name=None, mode=self.mode)
        )

    def init(self, **asked: Any) -> Run:
        self.asked = asked
        return self.run


@pytest.fixture
def door(monkeypatch) -> Iterator[Callable[[Package], Callable[..., None]]]:
    """Returns wandb_view over a stand-in."""

    def over(package: Package) -> Callable[..., None]:
        monkeypatch.setitem(sys.modules, "wandb", package)
        sys.modules.pop(VIEW, None)
        return importlib.import_module(VIEW).wandb_view

    yield over
    sys.modules.pop(VIEW, None)


def row(step: int) -> dict[str, Any]:
    return {"step": step, "split": "train", "loss": 1 / step, "dataset": "mnist"}


def context(workdir: Path, rows: list[dict[str, Any]]) -> Context:
    spec = Spec((8, 8, 1), ("0", "1"), 40)
    config = FrozenConfigDict({"seed": 0, "data": {"name": "mnist"}})
    return Context(config, spec, 17, workdir, lambda: list(rows), {})


def steps(run: Run) -> list[tuple[int, int]]:
    return [(number, entry["training_step"]) for number, entry in run.logged]


def test_a_row_is_sent_with_the_save_that_makes_it_last(door, tmp_path) -> None:
    view, rows, package = door(package := Package()), [], package
    told = context(tmp_path, rows)
    view("started", 0, {}, told)
    for step in (1, 2):
        rows.append(row(step))
        view("train", step, rows[-1], told)
    rows.append({"step": 2, "event": "saved", "message": "First save: step 2."})
    assert package.run.logged == []
    view("saved", 2, {}, told)
    assert steps(package.run) == [(0, 1), (1, 2)]
    assert package.run.logged[0][1] == {"train/loss": 1.0, "training_step": 1}
    view("saved", 2, {}, told)
    rows += [row(3), {"step": 4, "event": "epoch", "epoch": 1, "loss": 0.5, "message": "…"}]
    view("ended", 4, {"event": "finished"}, told)
    assert steps(package.run)[2:] == [(2, 3), (3, 4)]
    assert package.run.logged[3][1] == {"epoch/epoch": 1, "epoch/loss": 0.5, "training_step": 4}
    assert package.run.codes == [0]


@pytest.mark.parametrize(("has", "sent"), [(0, [0, 1, 2, 3]), (2, [2, 3]), (4, []), (5, [])])
def test_what_it_has_is_not_sent_again(door, tmp_path, has: int, sent: list[int]) -> None:
    view, rows = door(package := Package(has=has)), [row(step) for step in (1, 2, 3)]
    told = context(tmp_path, rows)
    view("started", 3, {}, told)
    rows.append(row(4))
    view("saved", 4, {}, told)
    assert [number for number, _ in package.run.logged] == sent


@pytest.mark.parametrize(
    ("how", "sent", "code"),
    [("stopped", 1, 255), ("diverged", 1, 1), ("failed", 0, 1)],
)
def test_how_a_run_may_end(door, tmp_path, how: str, sent: int, code: int) -> None:
    """What is not saved is sent where the run would do it again: where it diverged."""
    view, rows = door(package := Package()), []
    told = context(tmp_path, rows)
    view("started", 0, {}, told)
    rows.append(row(1))
    view("ended", 1, {"event": how, "message": "…"}, told)
    assert (len(package.run.logged), package.run.codes) == (sent, [code])


def test_one_id_for_a_workdir_unless_it_was_synced(door, tmp_path) -> None:
    def start(mode: str) -> tuple[str, str | None]:
        view = door(package := Package(mode))
        view("started", 0, {}, context(tmp_path, []))
        return package.asked["id"], package.asked["resume"]

    def write(kind: str, name: str) -> Path:
        path = tmp_path / f"wandb/{kind}-2026-{name}/run-{name}.wandb"
        path.parent.mkdir(parents=True)
        path.touch()
        return path

    first, _ = start("offline")
    unsynced = write("offline-run", first)
    assert start("offline") == (first, None)
    assert not unsynced.parent.exists()
    unsynced = write("offline-run", first)
    assert start("online") == (first, "allow")
    assert not unsynced.parent.exists()
    write("run", first)
    assert start("online") == (first, "allow")
    second, _ = start("offline")
    assert second != first
    synced = write("offline-run", second)
    synced.with_name(f"{synced.name}.synced").touch()
    third, resume = start("offline")
    assert third not in (first, second)
    assert resume is None
    assert synced.exists()


def test_what_it_refuses_is_said_in_words(door, tmp_path, monkeypatch) -> None:
    view = door(package := Package())
    monkeypatch.setattr(package, "init", refuses)
    with pytest.raises(UserError, match=r"^config.writers='wandb': No API key\. Log in with `wan"):
        view("started", 0, {}, context(tmp_path, []))


def refuses(**asked: Any) -> None:
    raise Package.Error("No\nAPI key.")


@pytest.mark.parametrize("there", ["package", "folder"])
def test_without_the_extra_one_line_says_so_before_anything_is_done(
    digits, tmp_path, there: str
) -> None:
    missing = tmp_path / "path/wandb"
    missing.mkdir(parents=True)
    what = "No module named 'wandb'"
    if there == "package":
        (missing / "__init__.py").write_text(f'raise ModuleNotFoundError("{what}")\n')
    elif find_spec("wandb") is None:  # a folder of this name is a package without anything in it
        what = "cannot import name 'Settings' from 'wandb' (unknown location)"
    else:
        pytest.skip("W&B is installed, and found before the folder")
    environment = launch_environment() | {"PYTHONPATH": f"{missing.parent}{os.pathsep}{TESTS}"}
    done = subprocess.run(
        command(digits, "--config.seed=-1"),
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr == (
        "Error: config.seed=-1: must be at least 0.\n"
        f"config.writers='wandb': {what}. Install it with pip install -e '.[wandb]', or leave it "
        "out.\n"
    )
    assert not (tmp_path / "run").exists()


def command(digits: Path, *more: str) -> list[str]:
    recipe = (f"--config={TESTS / 'tiny.py'}", f"--config.data.data_dir={digits}")
    return launch_command(*recipe, "--workdir=run", "--config.writers='wandb',", *more)


# With W&B, offline: what it has written is read back.


@pytest.fixture
def launched(digits: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*more: str, during: str = "", **known: str) -> subprocess.CompletedProcess[str]:
        whole = command(digits, *more)
        if during:
            whole = [whole[0], str(WRAPPER), during, *whole[2:]]
        kept = {k: v for k, v in launch_environment().items() if not k.startswith("WANDB_")}
        # Nothing of a user's own, and nothing that looks beyond this machine.
        ours = {"HOME": str(tmp_path), "WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false"}
        ours |= {"WANDB_X_DISABLE_STATS": "true", "WANDB_X_DISABLE_META": "true"}
        return subprocess.run(
            whole, cwd=tmp_path, env=kept | ours | known, capture_output=True, text=True
        )

    return run


def written(workdir: Path) -> Any:
    """The records of the one history that is there."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = (workdir / "wandb").glob("offline-run-*/run-*.wandb")
    assert path.name == f"run-{(workdir / 'wandb/id').read_text()}.wandb"
    return [Record.FromString(content) for content in _contents(path.read_bytes())]


def _contents(written: bytes) -> Iterator[bytes]:
    """Yields what a file of LevelDB's log format holds, behind a header of 7 bytes.

    A part is its checksum (4 bytes), its length (2), its kind (1: whole, 2: first, 3: middle, 4:
    last), so many bytes; none lies across a boundary of 32 KiB.
    """
    assert written[:4] == b":W&B"
    at, content = 7, b""
    while at < len(written):
        if (left := -at % 2**15) and left < 7:
            at += left
            continue
        length, kind = int.from_bytes(written[at + 4 : at + 6], "little"), written[at + 6]
        content = (b"" if kind in (1, 2) else content) + written[at + 7 : at + 7 + length]
        if kind in (1, 4):
            yield content
        at += 7 + length


def history(workdir: Path) -> list[tuple[int, dict[str, Any]]]:
    """(W&B's step, entry), in the order of the file."""
    entries = [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in found.item}
        for found in (one.history for one in written(workdir) if one.HasField("history"))
    ]
    return [
        (entry["_step"], {name: v for name, v in entry.items() if not name.startswith("_")})
        for entry in entries
    ]


def assert_shown(workdir: Path, code: int = 0) -> None:
    assert history(workdir) == list(enumerate(expected(workdir)))
    assert [one.exit.exit_code for one in written(workdir) if one.HasField("exit")] == [code]


@needs_wandb
def test_an_undisturbed_run_is_shown(launched, tmp_path) -> None:
    done = launched()
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    # How to go on names the writer; W&B says nothing.
    assert [
        line
        for line in done.stderr.splitlines()
        if "--config.writers" not in line and "wandb" in line.lower()
    ] == []
    assert_shown(tmp_path / "run")
    assert len(history(tmp_path / "run")) == 10
    records = written(tmp_path / "run")
    (run,) = (one.run for one in records if one.HasField("run"))
    assert (run.project, run.display_name) == ("mnist_flax", "run")
    assert not run.git.remote_url
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["optimizer"] == {"name": "adam", "learning_rate": 0.01}
    metrics = [one.metric for one in records if one.HasField("metric")]
    assert ("*", "training_step") in [(metric.glob_name, metric.step_metric) for metric in metrics]
    files = {path.name for path in (tmp_path / "run/wandb").rglob("*") if path.is_file()}
    assert not {name for name in files if name.endswith((".py", ".patch"))}


@needs_wandb
@pytest.mark.parametrize(("during", "status"), [(STOPPED, 143), (KILLED, -9)])
def test_a_stop_and_a_kill_leave_each_row_once(launched, tmp_path, during, status) -> None:
    """Of the kill, the rows of step 20 are written when the newest save is that of step 16."""
    first = launched(during=during)
    assert first.returncode == status, first.stderr
    (path,) = (tmp_path / "run/wandb").glob("offline-run-*/run-*.wandb")
    if status == 143:
        assert_shown(tmp_path / "run", code=255)
    done = launched()
    assert done.returncode == 0, done.stderr
    assert "Resumed at step" in done.stderr
    assert not path.parent.exists()
    assert_shown(tmp_path / "run")
    assert events(tmp_path / "run", "writer_fault") == []


@needs_wandb
def test_without_a_key_the_run_goes_on_and_says_so(launched, tmp_path) -> None:
    done = launched("--config.num_steps=1", WANDB_MODE="online")
    assert done.returncode == 0, done.stderr
    (fault,) = events(tmp_path / "run", "writer_fault")
    assert fault["message"].startswith("config.writers: 'wandb' fails at 'started' of step 0: ")
    assert "Log in with `wandb login`, or set WANDB_MODE=offline" in fault["message"]
    assert fault["message"] in done.stderr.splitlines()
    assert [line for line in done.stderr.splitlines() if line.startswith("wandb")] == []


# With W&B, online: with a server in its place, on this machine.


class Server(BaseHTTPRequestHandler):
    """Takes histories as W&B does, line by line at an offset, and says how many it has."""

    protocol_version = "HTTP/1.1"
    lines: ClassVar[dict[str, list[dict[str, Any]]]] = {}

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if found := re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path):
            self._take(self.lines[found[1]], asked)
            return self._answer({"limits": {}})
        variables = asked.get("variables") or {}
        project = {"id": "1", "name": "mnist_flax", "entity": {"id": "1", "name": "somebody"}}
        if "RunResumeStatus" in asked["query"]:
            return self._answer({"model": project | {"bucket": self._known(variables["name"])}})
        if "UpsertBucket" in asked["query"]:
            self.lines.setdefault(variables["name"], [])
            bucket = {"id": "1", "name": variables["name"], "config": "{}", "project": project}
            return self._answer({"upsertBucket": {"bucket": bucket, "inserted": True}})
        if "serverInfo" in asked["query"]:  # of older versions
            return self._answer({"serverInfo": {"features": []}, "viewer": {"id": "1"}})
        if "CreateRunFiles" in asked["query"]:
            place = f"http://{self.headers['Host']}/"
            files = [{"name": name, "uploadUrl": place} for name in variables["files"]]
            return self._answer(
                {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": files}}
            )
        return self._answer({})

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer({})

    def _take(self, lines: list[dict[str, Any]], asked: dict[str, Any]) -> None:
        chunk = (asked.get("files") or {}).get("wandb-history.jsonl")
        if chunk:
            assert chunk["offset"] == len(lines)
            lines += map(json.loads, chunk["content"])

    def _known(self, name: str) -> dict[str, Any] | None:
        if name not in self.lines:
            return None
        tail = [json.dumps(line) for line in self.lines[name][-1:]]
        counts = {"historyLineCount": len(self.lines[name]), "eventsLineCount": 0}
        texts = {"historyTail": json.dumps(tail), "eventsTail": "[]", "summaryMetrics": "{}"}
        config = {"config": "{}", "wandbConfig": '{"t": 1}', "tags": []}
        return {"id": "1", "name": name, "logLineCount": 0, **counts, **texts, **config}

    def _answer(self, data: dict[str, Any]) -> None:
        content = json.dumps({"data": data, **data}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def online() -> Iterator[dict[str, str]]:
    Server.lines.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield {
            "WANDB_MODE": "online",
            "WANDB_BASE_URL": f"http://127.0.0.1:{server.server_port}",
            "WANDB_API_KEY": 40 * "a",
            **dict.fromkeys(("http_proxy", "https_proxy"), ""),
        }
        server.shutdown()


@needs_wandb
@pytest.mark.slow
def test_online_a_start_sends_what_the_other_side_does_not_have(launched, online, tmp_path) -> None:
    assert launched(during=KILLED, **online).returncode == -9
    # As if W&B had got only a part of it.
    (name,) = Server.lines
    assert len(Server.lines[name]) <= 3  # those up to step 16: the newest save's
    del Server.lines[name][2:]
    done = launched(**online)
    assert done.returncode == 0, done.stderr
    assert events(tmp_path / "run", "writer_fault") == []
    assert list(Server.lines) == [name]
    entries = [
        (line["_step"], {key: value for key, value in line.items() if not key.startswith("_")})
        for line in Server.lines[name]
    ]
    assert entries == list(enumerate(expected(tmp_path / "run")))

"""What the README and the guide have a reader type runs, in the order of each page.

Each page has a folder of its own, in which a command finds what those before it have made. Runs are
a few steps long, on a thousand digits. What a page takes for granted (a run, pictures, data) is
made for it. A command that fails, or a flag that does not exist, fails the page's test.
"""

import ast
import builtins
import importlib
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, launch_command, launch_environment
from documents import SHELLS, Block, Command, Document, blocks, commands, documents, page_folder
from forked import Forker
from pair import free_port
from PIL import Image

from mnist_flax.data.idx import write_idx
from mnist_flax.data.sample import read_sample

PAGES = [
    document
    for document in documents()
    if document.path == ROOT / "README.md" or document.path.parent == ROOT / "docs/guide"
]
# What is not run: a part of the command's line or of the Python block, and why.
NOT_RUN = {
    "--config.writers=\"('wandb',)\"": "asks for an account at Weights & Biases",
    "from prepare import prepare": "test_export.py runs what the card has, which is this block",
}
STEPS, MORE_STEPS = 2, 4  # of a run, and of one whose length its command gives
TRAIN, TEST = 1200, 200  # digits
READY = re.compile(r"on (http://127\.0\.0\.1:\d+)")
PROGRAM = ROOT / "tests/short_program.py"


def test_what_is_not_run_is_still_there() -> None:
    texts = [block.text for page in PAGES for block in blocks(page.text)]
    assert [part for part in NOT_RUN if not any(part in text for text in texts)] == []


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_commands_stand_in_blocks_that_are_run(page: Document) -> None:
    """Else nobody would notice one that is not run."""
    others = [block for block in blocks(page.text) if block.language not in (*SHELLS, "text")]
    assert [command.text for block in others for command in commands(block)] == []


@pytest.fixture(scope="module")
def digits28(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits as IDX files, and the same as pictures, in two folders."""
    folder = tmp_path_factory.mktemp("digits28")
    splits = read_sample().splits
    for name, prefix, count in (("train", "train", TRAIN), ("test", "t10k", TEST)):
        images, labels = splits[name].images[:count], splits[name].labels[:count]
        (folder / "idx").mkdir(exist_ok=True)
        write_idx(folder / f"idx/{prefix}-images-idx3-ubyte", images[..., 0])
        write_idx(folder / f"idx/{prefix}-labels-idx1-ubyte", labels.astype(np.uint8))
        for place, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = folder / f"pictures/{name}/{label}/{place:04}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[..., 0]).save(path)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [
        # Of the pages that take seconds the one whose programs no other test runs.
        pytest.param(page, marks=pytest.mark.promise if page.path.name == "python.md" else ())
        for page in PAGES
    ],
    ids=str,
)
def test_a_page_runs(
    page: Document, digits28: Path, forkers: dict[bool, Forker], tmp_path: Path
) -> None:
    reader = Reader(page_folder(page, tmp_path), digits28, forkers)
    with reader:
        for block in blocks(page.text):
            if is_program(block) and not is_left_out(block.text):
                reader.runs(block)
            if block.language in SHELLS:
                for command in commands(block):
                    if not is_left_out(command.text):
                        reader.types(command)
                reader.waits()


def is_left_out(text: str) -> bool:
    return any(part in text for part in NOT_RUN)


def is_program(block: Block) -> bool:
    """Says whether a block is a program of its own: no file, and it reads no name of others."""
    if block.file or block.language not in ("python", "py"):
        return False
    tree = ast.parse(block.text)
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    made = {node.id for node in names if isinstance(node.ctx, ast.Store)} | set(dir(builtins))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            made |= {(each.asname or each.name).partition(".")[0] for each in node.names}
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            made.add(node.name)
        if isinstance(node, ast.arg):
            made.add(node.arg)
    return {node.id for node in names} <= made


class Reader:
    """Types what a page says, in a folder."""

    def __init__(self, folder: Path, digits: Path, forkers: dict[bool, Forker]):
        self._folder, self._digits, self._forkers = folder, digits, forkers
        self._port = free_port()  # of all processes that a page joins
        self._background: list[tuple[Command, subprocess.Popen[str]]] = []

    def __enter__(self) -> None:
        pass

    def __exit__(self, *fault: object) -> None:
        for _, process in self._background:
            process.kill()
            process.communicate()

    def types(self, command: Command) -> None:
        """Runs a command, which must succeed."""
        arguments = self._shortened(command.arguments)
        where = f"line {command.line}: {command.text}\nas {arguments}"
        if mode_of(arguments) == "serve":
            self._serves(arguments, where)
        elif command.in_background:
            process = self._start(arguments, command.environment)
            self._background.append((command, process))
        else:
            done = self._launch(arguments, command.environment)
            assert done.returncode == 0, f"{where}\n{done.stderr}"
            if command.output:
                (self._folder / command.output).write_text(done.stdout)

    def waits(self) -> None:
        """Waits for what was started in the background."""
        while self._background:
            command, process = self._background.pop(0)
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, f"line {command.line}: {command.text}\n{errors}"

    def runs(self, block: Block) -> None:
        """Runs a Python program, its trainings short."""
        for workdir in restored_runs(block.text):
            self._require_run(workdir)
        for name in re.findall(r"\"([\w/.]+\.(?:png|jpe?g))\"", block.text):
            self._require_picture(name)
        program = self._folder / "program_of_the_page.py"
        program.write_text(block.text)
        done = subprocess.run(
            [sys.executable, str(PROGRAM), str(program), str(self._digits / "idx"), str(STEPS)],
            cwd=self._folder,
            env=launch_environment() | {"PYTHONPATH": f"{ROOT}:{self._folder}"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f"line {block.line}:\n{block.text}\n{done.stderr}"

    def _launch(
        self, arguments: Sequence[str], environment: Mapping[str, str] = {}
    ) -> subprocess.CompletedProcess[str]:
        ours = environment_of(arguments)
        forker = self._forkers.get(False) or self._forkers.setdefault(False, Forker(ours))
        whole = ours | dict(environment)
        command = launch_command(*arguments)
        alone = value_of(arguments, "distributed")  # it starts itself anew, which a fork cannot
        if forker.fits(whole) and not alone:
            return forker.run(command, self._folder, whole, timeout=300)
        return subprocess.run(
            command, cwd=self._folder, env=whole, capture_output=True, text=True, timeout=300
        )

    def _start(
        self, arguments: Sequence[str], environment: Mapping[str, str] = {}
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            launch_command(*arguments),
            cwd=self._folder,
            env=environment_of(arguments) | dict(environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def _serves(self, arguments: Sequence[str], where: str) -> None:
        """Starts a server, asks for its page, stops it."""
        process = self._start([*without(arguments, "port"), "--port=0"])
        try:
            assert process.stderr is not None
            found = next(filter(None, map(READY.search, iter(process.stderr.readline, ""))), None)
            assert found is not None, where
            with urllib.request.urlopen(found[1], timeout=60) as answer:
                assert b"</html>" in answer.read().lower(), where
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)
        finally:
            process.kill()
            process.communicate()

    def _shortened(self, arguments: Sequence[str]) -> list[str]:
        """Returns a command of few steps and images, and makes what it needs."""
        mode = mode_of(arguments)
        streamed = "--config.data.stream=true" in arguments
        data = str(self._digits / ("pictures" if streamed else "idx"))
        shorter = [self._replaced(argument, data) for argument in arguments]
        for argument in shorter:
            if not argument.startswith("-"):
                self._require_picture(argument)
        for workdir in used_runs(shorter, mode):
            self._require_run(workdir, value_of(shorter, "config"))
        if mode not in ("train", "sweep", "check"):
            return shorter
        longer = any(re.match(r"--config\.num_(steps|epochs)=", each) for each in shorter)
        shorter = without(shorter, "config.num_steps", "config.num_epochs")
        if any(re.match(r"--config\.data\.(data_dir=|name=mnist_sample)", a) for a in shorter):
            data = ""
        return [*shorter, *short(shorter, data, MORE_STEPS if longer else STEPS)]

    def _replaced(self, argument: str, data: str) -> str:
        """Returns an argument of smaller numbers, its placeholders filled in."""
        name, equals, value = argument.partition("=")
        if name.endswith("data_dir"):
            value = data
        elif name == "--config" and re.fullmatch("[A-Z]+", value):
            value = "recipe.py"
        elif name == "--coordinator":
            value = f"127.0.0.1:{self._port}"
        elif name == "--profile":
            value = "1:3"
        elif name == "--checkpoint" and value.isdecimal():
            value = "latest"
        elif name == "--output":
            (self._folder / value).parent.mkdir(parents=True, exist_ok=True)
        elif "split" in name:
            value = smaller(value)
        return f"{name}{equals}{value}"

    def _require_picture(self, name: str) -> None:
        path = self._folder / name
        if not path.exists() and path.suffix in (".png", ".jpg", ".jpeg"):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(read_sample().splits["test"].images[7, ..., 0]).save(path)

    def _require_run(self, workdir: str, recipe: str = "") -> None:
        """Trains a run that the page takes for granted, by its recipe or by its folder's name."""
        if (self._folder / workdir / "config.json").exists():
            return
        name, _, variant = Path(workdir).name.partition("-")
        if not recipe or (self._folder / f"configs/{name}.py").exists():
            name = name if (self._folder / f"configs/{name}.py").exists() else "tutorial"
            recipe = f"configs/{name}.py" + (f":{variant}" if variant else "")
        arguments = [f"--config={recipe}", f"--workdir={workdir}"]
        arguments += short(arguments, str(self._digits / "idx"), STEPS)
        done = self._launch(arguments)
        assert done.returncode == 0, f"{workdir}, which the page needs:\n{done.stderr}"


def environment_of(arguments: Sequence[str]) -> dict[str, str]:
    """Returns what a command sees: those that are joined would look for each other at a proxy."""
    joined = value_of(arguments, "distributed")
    return {
        name: value
        for name, value in launch_environment().items()
        if not (joined and name.endswith("_proxy"))
    }


def short(arguments: Sequence[str], data: str, steps: int) -> list[str]:
    """Returns what makes a training short: few steps, on small data; splits as small."""
    more = [f"--config.num_steps={steps}"]
    if data:
        more.append(f"--config.data.data_dir={data}")
    name, _, variant = Path(value_of(arguments, "config")).name.partition(":")
    if (ROOT / "configs" / name).exists():
        module = importlib.import_module(f"configs.{name.removesuffix('.py')}")
        recipe = module.get_config(*filter(None, [variant]))
        if recipe.num_steps == 0:  # it trains nothing
            more = more[1:]
        splits = recipe.data
        for field in ("train_split", "select_split", "eval_split"):
            if smaller(splits[field]) != splits[field] and not value_of(
                arguments, f"config.data.{field}"
            ):
                more.append(f"--config.data.{field}={smaller(splits[field])}")
    return more


def smaller(split: str) -> str:
    """Returns a split of MNIST as one of the test's data: 'train[:55000]' as 'train[:1100]'."""
    sizes = {"train": TRAIN / 60_000, "test": TEST / 10_000}

    def scaled(part: re.Match[str]) -> str:
        size = sizes[part[1]]
        bounds = re.sub(r"\d+", lambda n: str(max(1, round(int(n[0]) * size))), part[2])
        return f"{part[1]}[{bounds}]"

    return re.sub(r"(train|test)\[([\d:]*)\]", scaled, split)


def mode_of(arguments: Sequence[str]) -> str:
    return value_of(arguments, "mode") or "train"


def value_of(arguments: Sequence[str], flag: str) -> str:
    found = [a.partition("=")[2] for a in arguments if a.startswith(f"--{flag}=")]
    return found[-1] if found else ""


def without(arguments: Sequence[str], *flags: str) -> list[str]:
    return [a for a in arguments if not a.startswith(tuple(f"--{flag}=" for flag in flags))]


def restored_runs(program: str) -> set[str]:
    """Returns the workdirs that a program restores and does not train."""
    named: dict[str, set[str]] = {"restore": set(), "train": set()}
    for node in ast.walk(ast.parse(program)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in named:
            given = [each.value for each in node.args if isinstance(each, ast.Constant)]
            named[ast.unparse(node.func)] |= {each for each in given if isinstance(each, str)}
    return named["restore"] - named["train"]


def used_runs(arguments: Sequence[str], mode: str) -> Iterator[str]:
    """Yields the workdirs that a command reads."""
    if mode not in ("train", "sweep", "check"):
        recipe = value_of(arguments, "config").removesuffix(".py").replace(".py:", "-")
        yield value_of(arguments, "workdir") or f"runs/{Path(recipe).name}"
    yield from filter(None, value_of(arguments, "compare").split(","))
    for flag in ("init_from", "config.task.judge"):
        value = value_of(arguments, flag)
        if value and not Path(value).suffix:
            yield value

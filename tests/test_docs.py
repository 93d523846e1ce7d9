"""What the documents point at exists, and what they have a reader type is understood."""

import ast
import functools
import re
import sys
import warnings
from pathlib import Path

import pytest
from absl.testing import flagsaver
from conftest import ROOT
from documents import (
    Block,
    Command,
    Document,
    anchors,
    blocks,
    command_of,
    commands,
    documents,
    links,
    page_folder,
    spans,
)

from mnist_flax.cli.flags import FLAGS, parse
from mnist_flax.config import default_config, flatten, may_be_added, overridden
from mnist_flax.errors import UsageError
from mnist_flax.export.model_card import example
from mnist_flax.training.gather import check

FIELDS = flatten(default_config())
MAIN = "mnist_flax/cli/main.py"
DOCUMENTS = documents()
EACH = pytest.mark.parametrize("document", DOCUMENTS, ids=str)
# A name with a dot in it, or this machine; a port; a path.
ADDRESS = re.compile(
    r"https?://(?:[\w-]+(?:\.[\w-]+)+|localhost)(?::\d+)?(?:/[^\s<>\"`]*)?|mailto:\S+@\S+"
)


@EACH
def test_every_link_leads_somewhere(document: Document) -> None:
    assert [
        problem for link in links(document.text) if (problem := wrong_with(link, document))
    ] == []


def wrong_with(link: str, document: Document) -> str:
    """Says what is wrong with a link; '' for nothing. Nobody asks the network."""
    if re.match(r"\w+:", link):
        return "" if ADDRESS.fullmatch(link) else f"{link}: is no address"
    path, _, anchor = link.partition("#")
    target = (document.path.parent / path) if path else document.path
    if not target.exists() or (ROOT not in target.resolve().parents and target.resolve() != ROOT):
        return f"{link}: leads to nothing here"
    if not anchor:
        return ""
    if target.suffix in (".md", ".ipynb"):
        text = next(other.text for other in DOCUMENTS if other.path == target.resolve())
        return "" if anchor in anchors(text) else f"{link}: has no such heading"
    lines = re.fullmatch(r"L(\d+)(?:-L(\d+))?", anchor)
    if lines is None or target.is_dir():
        return f"{link}: a file has lines, #L12, and no headings"
    last = int(lines[2] or lines[1])
    return "" if last <= target.read_text().count("\n") else f"{link}: has no such line"


def test_links_are_found_and_judged() -> None:
    text = "# A [b](c) `d_e`, f!\n# A b `d_e`, f!\n```sh\n# no heading [x](no_link)\n```\n"
    assert anchors(text + '<a id="here"></a>') == {"a-b-d_e-f", "a-b-d_e-f-1", "here"}
    text += '[a](x.md) ![b](y.png "z") `[c](d)` <https://e.org>\n[f]: g.md\n<img src="h.png">'
    assert sorted(links(text)) == sorted(["c", "x.md", "y.png", "g.md", "h.png", "https://e.org"])
    readme = next(each for each in DOCUMENTS if each.path.name == "README.md")
    for right in (
        "docs",
        "docs/guide/tasks.md#a-task-of-your-own",
        "launch.py#L1",
        "https://a.org:80/b?c",
    ):
        assert wrong_with(right, readme) == ""
    for wrong in (
        *(
            "doc",
            "docs/guide/tasks.md#a-task-of-yours",
            "launch.py#main",
            "launch.py#L9999",
            "#nowhere",
        ),
        *("https:/a.org", "https://a", "htps://a.org", "../.."),
    ):
        assert wrong_with(wrong, readme) != "", wrong


@EACH
def test_every_command_is_understood(
    document: Document, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [c for block in blocks(document.text) for c in commands(block)]
    found += [c for span in spans(document.text) if (c := command_of(span)) and c.arguments]
    for command in found:
        require_understood(command, page_folder(document, tmp_path), monkeypatch)


@pytest.mark.parametrize("path", [*sorted((ROOT / "configs").glob("*.py")), ROOT / MAIN], ids=str)
def test_every_command_of_a_docstring_is_understood(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = re.findall(r"^    (python launch\.py .*)", path.read_text(), re.MULTILINE)
    assert lines
    readme = DOCUMENTS[0]
    for line in lines:
        command = command_of(re.split(r"   +| {2,}(?=\w)", line)[0])
        assert command is not None
        require_understood(command, page_folder(readme, tmp_path), monkeypatch)


def require_understood(command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parses a command as launch.py does, with every check that needs no data."""
    if command.arguments == ["--version"]:  # answered before flags are read
        return
    arguments = [re.sub(r"=N$", "=1", argument) for argument in command.arguments]
    arguments = [re.sub(r"^--config=[A-Z]+$", "--config=recipe.py", each) for each in arguments]
    saved = flagsaver.save_flag_values(FLAGS)
    with monkeypatch.context() as patched:
        patched.chdir(folder)
        patched.setattr(sys, "path", [str(folder), *sys.path])
        before = set(sys.modules)
        # ml_collections loads a recipe by an old function of Python's.
        quiet = warnings.catch_warnings(action="ignore", category=DeprecationWarning)
        try:
            with quiet:
                launch = parse(["launch.py", *arguments])
            if launch.recipe is not None and FLAGS.mode in ("train", "sweep", "check"):
                check(overridden(launch.recipe, launch.overrides)[0])
        except UsageError as error:
            if "Install it with pip install" not in str(error):
                pytest.fail(f"line {command.line}: {command.text}\n{error}")
        finally:
            flagsaver.restore_flag_values(saved, FLAGS)
            for name in set(sys.modules) - before:
                if str(folder) in (getattr(sys.modules[name], "__file__", None) or ""):
                    del sys.modules[name]


@pytest.mark.parametrize(
    "wrong",
    [
        "python launch.py --confg=configs/tutorial.py",
        "python launch.py --config=configs/tutoral.py",
        "python launch.py --config=configs/tutorial.py --config.num_step=3",
        "python launch.py --config=configs/tutorial.py --config.optimizer.momentun=0.9",
        "python launch.py --config=configs/tutorial.py --config.data.stream=maybe",
        "python launch.py --config=configs/tutorial.py --mode=eval --compare=runs/adam",
        "mnist-flax --config=configs/tutorial.py --mode=evaluate",
    ],
)
def test_a_wrong_command_is_noticed(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = command_of(wrong)
    assert command is not None
    with pytest.raises(pytest.fail.Exception):
        require_understood(command, page_folder(DOCUMENTS[0], tmp_path), monkeypatch)


def test_commands_are_found() -> None:
    text = (
        "# a comment of launch.py\n$ pip install x && A=b python launch.py --config=c \\\n"
        "    --d='e f'   # why\nfor seed in 3 4; do mnist-flax --g=$seed > h; done\n"
        "- exec python -m mnist_flax --i &\npython -m mnist_flax.data mnist FOLDER\n"
    )
    one, two, three = commands(Block("sh", 10, text))
    assert (one.line, one.environment) == (11, {"A": "b"})
    assert one.arguments == ["--config=c", "--d=e f"]
    assert (two.line, two.arguments, two.output) == (13, ["--g=3"], "h")
    assert (three.arguments, three.in_background) == (["--i"], True)


@EACH
def test_flags_and_fields_in_the_text_exist(document: Document) -> None:
    assert [
        span for span in spans(document.text) if not (known_flag(span) and known_field(span))
    ] == []


def known_flag(span: str) -> bool:
    """Says whether a span of code such as `--profile=100:120` begins with a flag of somebody's."""
    match = re.match(r"--(?:no)?([\w-]+)(?![\w.-])", span)
    return match is None or match[1] in FLAGS or f"--{match[1]}" in of_other_programs()


def known_field(span: str) -> bool:
    """Says whether a span such as `config.data.stream=true` begins with a field."""
    match = re.match(r"(?:--)?config\.([a-z_]\w*(?:\.[\w…]+)*)(?=$|[ =,)])", span)
    return (
        match is None
        or match[1] == "json"  # config.json is a file
        or any(f"{field}.".startswith(f"{match[1]}.") for field in FIELDS)
        or match[1] == "data.extra_eval_splits"
        or may_be_added(match[1])
        or match[1].startswith("augment.")
    )


@functools.cache
def of_other_programs() -> set[str]:
    """The flags of the scripts beside the package, and those of programs that documents name."""
    scripts = [*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "docs").glob("*.py")]
    found = {
        flag
        for path in scripts
        for flag in re.findall(r"add_argument\(\s*\"(--[\w-]+)\"", path.read_text())
    }
    # absl's; answered before flags are read; srun's
    return found | {"--help", "--version", "--signal"}


@EACH
def test_python_compiles(document: Document) -> None:
    for block in blocks(document.text):
        if block.language in ("python", "py"):
            compile(block.text, f"{document}, line {block.line}", "exec", dont_inherit=True)


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

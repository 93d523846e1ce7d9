"""What stands in the documents: links, anchors, commands, Python. Not a test itself."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import nbformat
from conftest import ROOT

_FENCE = re.compile(r"^( *)(```+|~~~+)[ ]*(\w*).*?\n(.*?)^\1\2[ ]*$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
# Languages of blocks that a reader types; 'text' is what he sees.
SHELLS = ("sh", "bash", "shell", "console")
# How a command of ours begins.
LAUNCHER = re.compile(r"(?:^|\s)(?:\S*launch\.py|mnist-flax|-m mnist_flax)(?=\s|$)")
# What names the file that a block is: just before it, or in its first line.
_FILE_BEFORE = re.compile(r"(?:^|\n\n)`([\w/]+\.py)`(?:[^\n]|\n(?!\n))*:\s*$")
_FILE_WITHIN = re.compile(r"# ([\w/]+\.py)\b")


class Document(NamedTuple):
    """A document's path, which its links start from, and its Markdown."""

    path: Path
    text: str

    def __str__(self) -> str:
        return str(self.path.relative_to(ROOT))


class Block(NamedTuple):
    """A fenced block: its language, the line that it begins in, its text, the file that it is."""

    language: str
    line: int
    text: str
    file: str = ""


class Command(NamedTuple):
    """A command of ours in a document.

    Attributes:
      line: of the document.
      text: the whole line.
      environment: what is set before it: {'WANDB_MODE': 'offline'}.
      arguments: as launch.py is given them.
      in_background: whether it ends in &.
      output: the file that its output goes to; '' for none.
    """

    line: int
    text: str
    environment: dict[str, str]
    arguments: list[str]
    in_background: bool = False
    output: str = ""


def documents() -> list[Document]:
    """Every document that there is, and the notebook's text."""
    names = (ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))
    paths = [*filter(Path.exists, names), *sorted((ROOT / "docs").rglob("*.md"))]
    found = [Document(path, path.read_text(encoding="utf-8")) for path in paths]
    for path in sorted((ROOT / "docs").rglob("*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        found.append(Document(path, text))
    return found


def blocks(text: str) -> list[Block]:
    """Returns the fenced blocks of a document."""
    found = []
    for match in _FENCE.finditer(text):
        before = text[: match.start()]
        inside = "\n".join(line.removeprefix(match[1]) for line in match[4].splitlines())
        named = _FILE_BEFORE.search(before[-400:]) or _FILE_WITHIN.match(inside)
        file = named[1] if named and match[3] == "python" else ""
        found.append(Block(match[3], before.count("\n") + 2, inside, file))
    return found


def page_folder(document: Document, folder: Path) -> Path:
    """Makes a folder as the page's reader has one: configs/, what the page has in files, recipe.py.

    A recipe of the reader's own that the page does not show is a copy of the tutorial's.
    """
    if not (folder / "configs").exists():
        (folder / "configs").symlink_to(ROOT / "configs")
    recipe = (ROOT / "configs/tutorial.py").read_text(encoding="utf-8")
    (folder / "recipe.py").write_text(recipe, encoding="utf-8")
    for block in blocks(document.text):
        if block.file:
            (folder / block.file).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.file).write_text(block.text, encoding="utf-8")
    return folder


def prose(text: str) -> str:
    """Returns a document without its blocks: lines stay lines."""
    text = re.sub(r"<!--.*?-->", lambda match: "\n" * match[0].count("\n"), text, flags=re.DOTALL)
    return _FENCE.sub(lambda match: "\n" * match[0].count("\n"), text)


def spans(text: str) -> list[str]:
    """Returns what stands as `code` between words, in one line each."""
    return [" ".join(match[2].split()) for match in _SPAN.finditer(prose(text))]


def links(text: str) -> list[str]:
    """Returns what links and pictures lead to."""
    text = _SPAN.sub(lambda match: match[1], prose(text))
    found = re.findall(r"\]\(\s*<?([^)\s>]*)>?(?:\s+[\"'][^)]*)?\s*\)", text)
    found += re.findall(r"^ {0,3}\[[^\]]+\]:\s*(\S+)", text, re.MULTILINE)
    found += re.findall(r"<(?:img|a|source)\b[^>]*?\b(?:src|href|srcset)=\"([^\"]*)\"", text)
    return found + re.findall(r"<(\w+:[^>\s]*)>", text)


def anchors(text: str) -> set[str]:
    """Returns the anchors that GitHub makes of a document's headings, and those that it sets."""
    text = prose(text)
    found: dict[str, int] = {}
    names = set(re.findall(r"<a\s[^>]*?(?:id|name)=\"([^\"]+)\"", text))
    for heading in re.findall(r"^ {0,3}#{1,6}[ \t]+(.*?)[ \t]*#*[ \t]*$", text, re.MULTILINE):
        shown = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", shown.lower().replace("`", "")).replace(" ", "-")
        names.add(f"{slug}-{found[slug]}" if slug in found else slug)
        found[slug] = found.get(slug, 0) + 1
    return names


def commands(block: Block) -> list[Command]:
    """Returns what a block has launch.py do, in order; other programs are left out.

    A loop's variable has its first value, a variable of the shell's own is 0.
    """
    found: list[Command] = []
    known = {"HOME": "home"}
    for line, text in _logical_lines(block):
        known |= dict(re.findall(r"\bfor (\w+) in ([^\s;]+)", text))
        if LAUNCHER.search(text) and not text.lstrip().startswith("#"):
            in_line = _in_line(_filled(text, known), text.strip())
            new = [command._replace(line=line) for command in in_line]
            assert new, f"line {line}: how is this command to be read? {text}"
            found += new
    return found


def _filled(text: str, known: dict[str, str]) -> str:
    return re.sub(r"\$\{?(\w+)\}?", lambda match: known.get(match[1], "0"), text)


def command_of(text: str) -> Command | None:
    """Returns the command of ours that a line, or a span of code, is; None where it is none."""
    return next(iter(_in_line(text, text)), None) if LAUNCHER.search(text) else None


def _logical_lines(block: Block) -> Iterator[tuple[int, str]]:
    line, held = block.line, ""
    for number, text in enumerate(block.text.splitlines(), block.line):
        held, line = held + text, line if held else number
        if held.endswith("\\"):
            held = held[:-1]
            continue
        yield line, re.sub(r"^\s*(?:[$>]|- exec) ", "", held)
        held = ""


def _in_line(text: str, shown: str) -> Iterator[Command]:
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    simple: list[str] = []
    for word in [*lexer, ";"]:
        if word in (";", "&&", "||", "|", "&"):
            if command := _command(simple, shown):
                yield command._replace(in_background=word == "&")
            simple = []
        else:
            simple.append(word)


def _command(words: list[str], shown: str) -> Command | None:
    at = next((i for i, word in enumerate(words) if LAUNCHER.fullmatch(word)), None)
    if at is None and "mnist_flax" in words and words[words.index("mnist_flax") - 1] == "-m":
        at = words.index("mnist_flax")
    if at is None:
        return None
    environment = dict(word.split("=", 1) for word in words[:at] if re.match(r"[A-Z]\w*=", word))
    arguments, output = words[at + 1 :], ""
    if ">" in arguments:
        arguments, (output, *_) = (
            arguments[: arguments.index(">")],
            arguments[arguments.index(">") + 1 :],
        )
    arguments = [word for word in arguments if word not in ("…", "...", "done")]
    return Command(0, shown, environment, arguments, output=output)

"""Names in a config: what they find, and what is said where they find nothing."""

from pathlib import Path

import pytest

from mnist_flax.config.registry import nearest, resolve
from mnist_flax.errors import UsageError

TABLE = {"tutorial": "fractions:Fraction", "softmax": "decimal:Decimal"}


def refusal(name: str) -> str:
    with pytest.raises(UsageError) as error:
        resolve(name, TABLE, "config.model.name")
    message = str(error.value)
    assert message.startswith(f"config.model.name={name!r}: ")
    return message


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_a_known_name() -> None:
    from fractions import Fraction

    assert resolve("tutorial", TABLE, "config.model.name") is Fraction


def test_a_users_own(folder: Path) -> None:
    (folder / "pack").mkdir()
    (folder / "pack" / "__init__.py").touch()
    (folder / "pack" / "own_nets.py").write_text("Net = 'the net'")
    assert resolve("pack.own_nets:Net", TABLE, "config.model.name") == "the net"


def test_an_unknown_name_lists_the_known_and_the_nearest() -> None:
    assert refusal("tutorail") == (
        "config.model.name='tutorail': unknown. Did you mean 'tutorial'? "
        "Known: softmax, tutorial; or 'package.module:attribute' for your own."
    )


@pytest.mark.parametrize("name", ["", "json:", ":Net", "qqqq"])
def test_nothing_near_is_not_guessed(name: str) -> None:
    assert "unknown. Known: softmax, tutorial;" in refusal(name)


@pytest.mark.parametrize("module", ["no_such_module", "no_such_package.net", "json.no_such"])
def test_a_module_that_is_not_there(module: str) -> None:
    missing = module if module.startswith("json") else module.partition(".")[0]
    assert f"there is no module {missing!r}" in refusal(f"{module}:Net")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nets/net.py:Net", "there is no module 'nets/net'"),
        ("./net.py:Net", "unknown."),
        (".net:Net", "unknown."),
    ],
)
def test_a_path_is_no_module(name: str, told: str) -> None:
    assert told in refusal(name)


def test_a_module_that_says_itself_what_it_lacks(folder: Path) -> None:
    (folder / "own_lacking.py").write_text(
        "from mnist_flax.errors import UsageError\nraise UsageError('Install it.')"
    )
    with pytest.raises(UsageError, match=r"^Install it\.$"):
        resolve("own_lacking:Net", TABLE, "config.model.name")


def test_a_missing_attribute_names_the_nearest(folder: Path) -> None:
    (folder / "own_misspelt.py").write_text("class Network: ...")
    message = refusal("own_misspelt:Netwrok")
    assert message.endswith("own_misspelt has no 'Netwrok'. Did you mean 'Network'?")


@pytest.mark.parametrize(
    ("module", "source", "error"),
    [
        ("own_imports", "import no_such_dependency", "ModuleNotFoundError: No module named 'no_s"),
        ("own_raises", "raise RuntimeError('no ink')", "RuntimeError: no ink"),
        ("own_syntax", "def", "SyntaxError: invalid syntax"),
    ],
)
def test_a_module_that_fails_is_told_with_its_line(
    folder: Path, module: str, source: str, error: str
) -> None:
    file = folder / f"{module}.py"
    file.write_text(f"x = 1\n{source}\n")
    message = refusal(f"{module}:Net")
    assert message.startswith(f"config.model.name='{module}:Net': {file}, line 2: {error}")


def test_nearest() -> None:
    assert nearest("adm", ["sgd", "adam"]) == " Did you mean 'adam'?"
    assert nearest("adm", ["momentum"]) == ""

"""docs/reference/: what the code says now; and its files and rows are those of runs."""

import ast
import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, TESTS, recipe
from ml_collections import ConfigDict
from tiny import get_config

from mnist_flax.config import as_flag, default_config, diff, flatten
from mnist_flax.training import train

PACKAGE = ROOT / "mnist_flax"


@pytest.fixture(scope="module")
def reference() -> Iterator[Any]:
    sys.path.insert(0, str(ROOT / "docs"))
    yield importlib.import_module("reference")
    sys.path.remove(str(ROOT / "docs"))


def test_the_pages_are_what_the_code_says(reference: Any) -> None:
    from reference_config import OF_OPTAX

    for name, page in reference.PAGES.items():
        path = ROOT / "docs/reference" / name
        written, now = path.read_text(), page()
        if optax_of(written) != optax_of(now):  # whose functions have other fields
            written, now = (without(text, OF_OPTAX) for text in (written, now))
        assert written == now, f"docs/reference/{name} is old. Renew it: {reference.COMMAND}"


def optax_of(page: str) -> list[str]:
    return re.findall(r"as in optax ([\w.]+)\. ", page)


def without(page: str, titles: tuple[str, ...]) -> list[str]:
    sections = re.split(r"^## ", page, flags=re.MULTILINE)
    return [section for section in sections if not section.startswith(titles)]


def test_every_field_stands_on_the_page_once() -> None:
    page = (ROOT / "docs/reference/config.md").read_text()
    found = re.findall(
        r"^\| ((?:`[\w.]+`(?:<br>)?)+) \| (?:true|whole|number|text|tuple|section)", page, re.M
    )
    names = [name for cell in found for name in re.findall(r"`([\w.]+)`", cell)]
    parameters = {"augment.random_rotation", "augment.random_scaling", "augment.random_shift"}
    fields = {f for f in flatten(default_config()) if f.rpartition(".")[0] not in parameters}
    assert sorted(names) == sorted(fields | {"data.extra_eval_splits"})


def test_every_comment_of_the_fields_stands_there() -> None:
    """Word by word: none is lost between two assignments."""
    page = (ROOT / "docs/reference/config.md").read_text().lower()
    source = (PACKAGE / "config/fields.py").read_text().partition("config = ConfigDict()")[2]
    comments = re.findall(r"# (.*)", source.partition("config.augment.random_rotation")[0])
    said = set(re.findall(r"[a-z]{3,}", page))
    lacking = {word for line in comments for word in re.findall(r"[a-z]{3,}", line.lower())} - said
    assert lacking == set()


def test_the_page_names_the_events_of_the_code(reference: Any) -> None:
    from reference_rows import EVENTS

    found = {name for path in PACKAGE.rglob("*.py") for name in events_in(path.read_text())}
    found |= {"finished", "stopped"}  # training/loop.py names them in a variable
    assert found == set(EVENTS)


def events_in(source: str) -> Iterator[str]:
    """Yields what stands for an event in writer.event(step, 'event', …) and the like."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).startswith("told['"):
            yield ast.literal_eval(node.targets[0].slice)
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if called == "functools.partial" and ast.unparse(node.args[0]) == "writer.event":
            names = node.args[2:3]
        elif re.search(r"writer\.(event|record)\b|^self\._record$", called):
            names = node.args[1:2]
        else:
            names = node.args[:1] if called == "context.say" else []
        for name in names:
            choices = [name.body, name.orelse] if isinstance(name, ast.IfExp) else [name]
            yield from (each.value for each in choices if isinstance(each, ast.Constant))


@pytest.fixture(scope="module")
def classified(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is asked for whatever adds a column or a file."""
    config = get_config()
    config.data.data_dir = str(digits)
    config.data.train_split, config.data.select_split = "train[:90]", "train[90:]"
    config.data.extra_eval_splits = ConfigDict({"few": "test[:9]"})
    config.log_norms = config.log_probabilities = config.tensorboard = True
    config.on_bad_step, config.ema_decay = "skip", 0.5
    config.early_stopping_patience = config.plateau_patience = 50
    workdir = tmp_path_factory.mktemp("classified") / "run"
    train(config, workdir)
    return workdir


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each task that draws; the GAN's has a judge."""
    folder = tmp_path_factory.mktemp("drawn")
    sample = {
        "data.name": "mnist_sample",
        "data.train_split": "train[:60]",
        "data.select_split": "",
        "data.eval_split": "test[:20]",
        "batch_size": 20,
        "num_steps": 3,
        "eval_every_steps": 1,
    }
    judge = get_config()
    judge.update_from_flattened_dict(sample)
    train(judge, folder / "judge")
    gan = recipe("dcgan_fast")
    gan.model.features, gan.model.judge_features = 2, 4
    gan.update_from_flattened_dict({**sample, "task.judge": str(folder / "judge")})
    vae = recipe("vae")
    vae.model.hidden = 8
    vae.num_epochs = None
    vae.update_from_flattened_dict(sample)
    for name, config in (("gan", gan), ("autoencoder", vae)):
        train(config, folder / name)
    return {name: folder / name for name in ("gan", "autoencoder")}


def columns_in(workdir: Path) -> dict[str, set[str]]:
    """The columns of each kind of row, by its split or its event."""
    found: dict[str, set[str]] = {}
    for row in map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines()):
        found.setdefault(row.get("split", row.get("event")), set()).update(row)
    return found


def asked(where: str) -> set[str]:
    """The columns that stand on the page for these rows, as those that a run asks for."""
    from reference_rows import ASKED

    return {name for name, (rows, _) in ASKED.items() if where in rows}


def check_events(found: dict[str, set[str]]) -> None:
    from reference_rows import EVENTS

    for event, columns in found.items():
        if event in EVENTS and event != "epoch":
            expected = {"step", "event", "message", "dataset", *EVENTS[event].columns}
            assert columns == expected, event


def test_the_columns_of_a_classification(reference: Any, classified: Path) -> None:
    from reference_rows import ALL, EVALUATION, METRICS, TRAIN

    found, metrics = columns_in(classified), set(METRICS["classification"])
    of_gan = {"discriminator_learning_rate"}
    assert found["train"] == {"split", *ALL, *TRAIN, *metrics, *asked("train")} - of_gan
    learnt = {f"learnt_{name}" for name in metrics}
    for split in ("select", "few"):
        assert found[split] == {"split", *ALL, *EVALUATION, *metrics, *learnt}
    means = metrics | asked("epoch")
    assert found["epoch"] - {"skipped_steps", "last_batch_skipped_steps"} == {
        *(*ALL, "event", "message", "epoch", "loss_sum"),
        *(means - {"skipped_steps"}),
        *(f"last_batch_{name}" for name in means - {"skipped_steps"}),
    }
    check_events(found)


@pytest.mark.slow
def test_the_columns_of_those_that_draw(reference: Any, drawn: dict[str, Path]) -> None:
    from reference_rows import ALL, EVALUATION, METRICS, OF_GAN, TRAIN

    found, metrics = columns_in(drawn["autoencoder"]), set(METRICS["autoencoder"])
    assert found["train"] == {"split", *ALL, *TRAIN, *metrics}
    assert found["eval"] == {"split", *ALL, *EVALUATION, *metrics}
    check_events(found)
    found = columns_in(drawn["gan"])
    assert found["train"] == {"split", *ALL, *TRAIN, *OF_GAN["train"]}
    judged = {name for name in asked("evaluations") if "<" not in name}
    judged |= {f"class_share_{number}" for number in range(10)}
    ours = {"learnt_real_estimate", "learnt_fake_estimate"}  # dcgan_fast keeps an average
    assert found["eval"] == {"split", *ALL, *EVALUATION, *OF_GAN["evaluation"], *judged, *ours}
    check_events(found)


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def matches(name: str, file: str) -> bool:
    """Says whether a file has a name of the page: 'report/<picture>.png', or lies in 'wandb/'."""
    pattern = "".join(
        "[^/]+" if part.startswith("<") else re.escape(part) for part in re.split("(<.*?>)", name)
    )
    return bool(re.fullmatch(pattern + (".*" if name.endswith("/") else ""), file))


def check_files(files: set[str], names: set[str]) -> set[str]:
    """Returns the names of the page that have files; fails for a file that has no name there."""
    found = {file: {name for name in names if matches(name, file)} for file in sorted(files)}
    assert [file for file, its in found.items() if not its] == []
    return set.union(*found.values())


def test_the_files_of_a_classification(reference: Any, classified: Path) -> None:
    from reference_files import RUN

    here = {file for file in files_in(classified) if "/" not in file}
    assert check_files(files_in(classified), {file.name for file in RUN}) >= here


@pytest.mark.slow
def test_every_file_of_the_page_is_written(
    reference: Any, classified: Path, drawn: dict[str, Path], launch: Any, tmp_path: Path
) -> None:
    from reference_files import OF_A_SWEEP, RUN

    tiny = f"--config={TESTS / 'tiny.py'}"
    traced = ["--config.num_steps=45", "--profile=42:44"]
    for flags in (traced, ["--mode=report"], ["--mode=export", "--format=all"]):
        config = json.loads((classified / "config.json").read_text())["config"]
        again = [as_flag(field, value) for field, value in changed(config).items()]
        done = launch(tiny, f"--workdir={classified}", *again, *flags)
        assert done.returncode == 0, done.stderr
    for flags in (["--mode=report"], ["--mode=export", "--format=all"]):
        of = (f"--config={ROOT / 'configs/dcgan_fast.py'}", f"--workdir={drawn['gan']}")
        done = launch(*of, *flags)
        assert done.returncode == 0, done.stderr
    names = {file.name for file in RUN}
    found = set.union(*(check_files(files_in(w), names) for w in (classified, *drawn.values())))
    # What only damage, or an account elsewhere, brings about.
    assert names - found == {"checkpoints/damaged/<folder>-<step>/", "wandb/"}
    data = f"--config.data.data_dir={digits_of(classified)}"
    done = launch(tiny, data, "--mode=sweep", "--seeds=0,1", "--config.num_steps=2")
    assert done.returncode == 0, done.stderr
    names = {file.name for file in OF_A_SWEEP}
    assert check_files(files_in(tmp_path / "runs/tiny-sweep"), names) == names


def digits_of(workdir: Path) -> str:
    return json.loads((workdir / "config.json").read_text())["config"]["data"]["data_dir"]


def changed(config: dict[str, Any]) -> dict[str, Any]:
    """The fields of a run that are not those of tiny.py, but for its length."""
    fields = {field: new for field, (_, new) in diff(get_config(), config).items()}
    return {field: value for field, value in fields.items() if value is not None}

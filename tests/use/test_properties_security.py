"""Opening a stranger's files executes nothing: no pickle is unpickled, no module imported."""

import io
import json
import pickle
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import ROOT
from made import sums

from mnist_flax.core.state import TrainState
from mnist_flax.data import folder, idx, tfds_source
from mnist_flax.data.dataset import Raw, Split
from mnist_flax.data.pictures import read_picture
from mnist_flax.errors import UserError
from mnist_flax.use.restore import restore
from mnist_flax.workdir.checkpoints import Checkpoints
from mnist_flax.workdir.files import read_config
from mnist_flax.workdir.rows import read_rows


class Planted:
    """Creates a marker wherever it is unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """Is not there when the test ends."""
    marker = tmp_path / "executed"
    yield marker
    assert not marker.exists()


def payloads(marker: Path) -> dict[str, bytes]:
    objects = np.array([Planted(marker)], dtype=object)
    npy, npz = io.BytesIO(), io.BytesIO()
    np.save(npy, objects, allow_pickle=True)
    np.savez(npz, images=objects)
    packed = {"pickle": pickle.dumps(Planted(marker)), "npy": npy.getvalue()}
    return packed | {"npz": npz.getvalue(), "pickle 0": pickle.dumps(Planted(marker), 0)}


KINDS = ("pickle", "npy", "npz", "pickle 0")


@pytest.mark.parametrize("kind", KINDS)
def test_the_payload_itself_works(tmp_path: Path, kind: str) -> None:
    marker = tmp_path / "executed"
    payload = payloads(marker)[kind]
    if kind.startswith("pickle"):
        pickle.loads(payload)
    else:
        loaded = np.load(io.BytesIO(payload), allow_pickle=True)
        if kind == "npz":
            loaded["images"]
    assert marker.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_data_files_and_pictures(tmp_path: Path, marker: Path, kind: str) -> None:
    payload = payloads(marker)[kind]
    for names in idx.STEMS.values():
        for name in names:
            (tmp_path / name).write_bytes(payload)
    with pytest.raises(UserError, match="is not an IDX file"):
        idx.read_directory(tmp_path, "mnist")
    picture = tmp_path / "train" / "cat" / "a.png"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(payload)
    with pytest.raises(UserError, match="no PNG, JPEG or WebP picture"):
        folder.read_directory(tmp_path)
    with pytest.raises(UserError, match="no PNG or JPEG picture"):
        read_picture(picture)


@pytest.mark.parametrize("kind", KINDS)
def test_texts_of_a_workdir(tmp_path: Path, marker: Path, kind: str) -> None:
    payload = payloads(marker)[kind]
    (tmp_path / "config.json").write_bytes(payload)
    (tmp_path / "metrics.jsonl").write_bytes(payload + b"\n")
    with pytest.raises(UserError, match=r"config\.json: cannot be read"):
        read_config(tmp_path)
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 1: is no JSON object"):
        read_rows(tmp_path)


def tiny_state() -> TrainState:
    params = {"dense": {"kernel": jnp.ones((4, 3)), "bias": jnp.zeros(3)}}
    none = sums()
    return TrainState(
        step=jnp.int32(7),
        variables={"params": params, "batch_stats": {}},
        opt_state=optax.sgd(0.1).init(params),
        window=none,
        epoch=none,
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("saved") / "checkpoints"
    checkpoints = Checkpoints(directory)
    checkpoints.save(
        tiny_state(), {"step": 7, "evaluation": {"accuracy": 0.5}, "config": {}}, best=False
    )
    checkpoints.close()
    return directory


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_of_a_checkpoint(tmp_path: Path, marker: Path, saved: Path, kind: str) -> None:
    payload, like = payloads(marker)[kind], jax.eval_shape(tiny_state)
    names = [path.relative_to(saved) for path in saved.rglob("*") if path.is_file()]
    refused = 0
    for number, name in enumerate(names):
        directory = tmp_path / str(number)
        shutil.copytree(saved, directory)
        (directory / name).write_bytes(payload)
        checkpoints = Checkpoints(directory, read_only=True)
        try:
            checkpoints.restore(7, like)
        except UserError as error:
            assert "is damaged" in error.args[0]  # noqa: PT017
            refused += 1
        finally:
            checkpoints.close()
    assert refused >= 3  # of metadata, tensors and their index, at least


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TFDS's root with two grey pictures of mnist."""
    root = tmp_path_factory.mktemp("prepared")
    split = Split(np.arange(8, dtype=np.uint8).reshape(2, 2, 2, 1), np.arange(2, dtype=np.int32))
    tfds_source._write(Raw({"train": split, "test": split}, ("0", "1"), "here"), "mnist", root)
    return root


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_of_a_tfds_directory(
    tmp_path: Path, marker: Path, prepared: Path, kind: str
) -> None:
    payload = payloads(marker)[kind]
    names = [path.relative_to(prepared) for path in prepared.rglob("*") if path.is_file()]
    refused = 0
    for number, name in enumerate(names):
        root = tmp_path / str(number)
        shutil.copytree(prepared, root)
        (root / name).write_bytes(payload)
        try:
            tfds_source.read_prepared("mnist", root)
        except UserError:
            refused += 1
    assert refused >= 4  # two files of records, dataset_info.json, features.json


def test_a_tfds_directory_imports_no_module(
    tmp_path: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, marker = tmp_path / "root", tmp_path / "executed"
    shutil.copytree(prepared, root)
    (tmp_path / "planted_by_tfds.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(tmp_path)  # launch.py has the working directory on the path
    features = next(root.rglob("features.json"))
    text = features.read_text()
    name = json.loads(text)["pythonClassName"]
    features.write_text(text.replace(name, "planted_by_tfds.FeaturesDict"))
    with pytest.raises(UserError):
        tfds_source.read_prepared("mnist", root)
    assert not marker.exists()


def test_a_workdir_imports_no_module_out_of_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from conftest import recipe

    workdir, marker = tmp_path / "runs" / "stranger", tmp_path / "executed"
    config = recipe("tutorial").to_dict()
    config["model"]["name"] = "runs.stranger.planted:Net"
    checkpoints = Checkpoints(workdir / "checkpoints")
    dataset = {"name": "mnist", "class_names": ["0"], "image_shape": [2, 2, 1]}
    checkpoints.save(tiny_state(), {"step": 7, "config": config, "dataset": dataset}, best=False)
    checkpoints.close()
    (workdir / "config.json").write_text(json.dumps({"config": config}))
    (workdir / "planted.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError):
        restore(workdir, "latest", {})
    assert not marker.exists()


def test_nothing_in_the_source_executes_data() -> None:
    forbidden = re.compile(
        r"\b(pickle|cloudpickle|dill|joblib|marshal|shelve)\b|(?<![.\w])(eval|exec)\(|allow_pickle=True"
        r"|yaml\.load|os\.system|shell=True"
    )
    sources = [ROOT / "launch.py", *(ROOT / "mnist_flax").rglob("*.py")]
    assert len(sources) > 30
    found = [
        f"{path.relative_to(ROOT)}, line {number}: {line.strip()}"
        for path in sources
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if forbidden.search(line)
    ]
    assert found == []

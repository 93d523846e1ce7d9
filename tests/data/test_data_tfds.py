"""TFDS directories: ours prepared from a local server, read back by us and by TFDS itself."""

import functools
import hashlib
import http.server
import json
import os
import shutil
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mnist_flax import data
from mnist_flax.data import download, folder, idx, published
from mnist_flax.data.dataset import make_dataset
from mnist_flax.data.download import Remote, Unavailable
from mnist_flax.data.idx import write_idx
from mnist_flax.data.published import known_remotes
from mnist_flax.data.tfds_source import prepare, read_prepared
from mnist_flax.errors import UsageError, UserError

OWN = "mnist_array_record/1.0.0"


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files; a path may say how to misbehave."""

    def do_GET(self):
        self.server.asked.append(self.path)
        if self.path.startswith("/stall"):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"x" * 5 if "later" in self.path else b"")
            self.wfile.flush()
            self.server.released.wait(30)
        else:
            super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server of four tiny IDX files: 7 and 3 pictures of 4x5; `remotes` tells what they are."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    served = tmp_path / "served"
    served.mkdir()
    for first, count, (images, labels) in ((0, 7, idx.STEMS["train"]), (90, 3, idx.STEMS["test"])):
        numbers = np.arange(first, first + count, dtype=np.uint8)
        pixels = np.arange(20, dtype=np.uint8).reshape(4, 5) * 10
        write_idx(served / f"{images}.gz", numbers[:, None, None] + pixels)
        write_idx(served / f"{labels}.gz", numbers % 10)
    handler = functools.partial(Handler, directory=str(served))
    http_server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    http_server.asked, http_server.released = [], threading.Event()
    thread = threading.Thread(target=http_server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    http_server.url = f"http://127.0.0.1:{http_server.server_port}"
    http_server.remotes = {
        path.name: Remote(f"{http_server.url}/{path.name}", path.stat().st_size, sha256(path))
        for path in sorted(served.iterdir())
    }
    yield http_server
    http_server.released.set()
    http_server.shutdown()
    http_server.server_close()
    thread.join()


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def instead(server, **changes) -> dict[str, Remote]:
    """Return the server's remotes, the first of them changed."""
    first = next(iter(server.remotes))
    return server.remotes | {first: server.remotes[first]._replace(**changes)}


def files_in(directory: Path) -> list[str]:
    return sorted(str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file())


@pytest.fixture
def root(server, tmp_path):
    """A TFDS root that holds our own preparation of the tiny files."""
    prepare("mnist", tmp_path / "root", lambda line: None, server.remotes)
    return tmp_path / "root"


def test_prepared_once_and_read_back_in_the_order_of_the_files(server, tmp_path, capfd):
    lines = []
    prepared = prepare("mnist", tmp_path / "root", lines.append, server.remotes)
    assert prepared.splits["train"].images[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert prepared.splits["train"].images[0, 3, :, 0].tolist() == [150, 160, 170, 180, 190]
    assert prepared.splits["train"].images.shape == (7, 4, 5, 1)
    assert prepared.splits["test"].labels.tolist() == [0, 1, 2]
    assert prepared.class_names == tuple("0123456789")
    assert [line.split()[0] for line in lines] == ["Downloading", "Preparing"]
    assert capfd.readouterr() == ("", "")  # TFDS's own talk is hidden

    assert len(server.asked) == 4
    again, notes = read_prepared("mnist", tmp_path / "root")
    prepare("mnist", tmp_path / "root", lines.append, server.remotes)
    assert (len(server.asked), len(lines), notes) == (4, 2, ())
    served = idx.read_directory(tmp_path / "served", "mnist")
    prints = {make_dataset("x", raw, "train", "test").fingerprint for raw in (again, served)}
    assert len(prints) == 1


def test_tfds_itself_reads_it(root):
    import tensorflow_datasets as tfds

    # TFDS recommends OpenCV through absl's logging, not through warnings: nothing to filter.
    records = tfds.data_source("mnist_array_record", split="train", data_dir=root)
    assert len(records) == 7
    assert records[2]["label"] == 2
    assert records[2]["image"].shape == (4, 5, 1)
    assert records[2]["image"][0, :, 0].tolist() == [2, 12, 22, 32, 42]


@pytest.mark.parametrize("inside", ["", "mnist_array_record", OWN])
def test_the_root_a_dataset_or_a_version_may_be_given(root, inside):
    raw, _ = read_prepared("mnist", root / inside)
    assert len(raw.splits["train"].labels) == 7
    assert raw.source == f"prepared TFDS directory {root / OWN}"


def as_stock(root: Path, version: str, keep: int = 7) -> Path:
    """Copy our directory to where TFDS has its own, with so many training labels."""
    directory = root / "mnist" / version
    shutil.copytree(root / OWN, directory)
    info = (directory / "dataset_info.json").read_text().replace('"7"', f'"{keep}"')
    (directory / "dataset_info.json").write_text(info.replace("mnist_array_record", "mnist"))
    for path in directory.glob("mnist_array_record-*"):
        path.rename(directory / path.name.replace("mnist_array_record", "mnist"))
    return directory


def test_the_newest_readable_version_wins(root):
    as_stock(root, "3.0.9", keep=5)
    as_stock(root, "3.0.10", keep=6)
    raw, _ = read_prepared("mnist", root)
    assert len(raw.splits["train"].labels) == 6


def test_tfrecord_is_passed_over_with_one_note(root):
    stock = as_stock(root, "3.0.1")
    info = json.loads((stock / "dataset_info.json").read_text())
    (stock / "dataset_info.json").write_text(json.dumps(info | {"fileFormat": "tfrecord"}))
    raw, notes = read_prepared("mnist", root)
    assert raw.source.endswith(OWN)
    want = f"{stock} holds tfrecord files, which need TensorFlow to read: passed over."
    assert notes == (want,)
    assert read_prepared("mnist", stock) == (None, (want,))
    # Given that very directory, our own one is found, or made, beside it and not inside.
    assert prepare("mnist", stock, print).source == raw.source


def test_load_downloads_reads_and_hands_on_the_note(server, tmp_path, monkeypatch):
    stock = tmp_path / "root/mnist/3.0.1"
    stock.mkdir(parents=True)
    (stock / "dataset_info.json").write_text('{"name": "mnist", "fileFormat": "tfrecord"}')
    monkeypatch.setattr(published, "known_remotes", lambda name: server.remotes)
    fields = {"name": "mnist", "data_dir": str(tmp_path / "root"), "fallback": "mnist_sample"}
    fields |= {"train_split": "train[5:]", "eval_split": "test", "resplit": None}
    fields |= {"select_split": "", "extra_eval_splits": {}}
    config = SimpleNamespace(**fields, transpose=None, resize=None, stream=False)
    for lines in ([], []):  # the second time from disk
        dataset = data.load(config, lines.append)
        assert dataset.source == f"IDX files in {tmp_path / 'root/downloads/mnist'}"
        assert dataset.train.labels.tolist() == [5, 6]
        assert dataset.notes == (
            f"{stock} holds tfrecord files, which need TensorFlow to read: passed over.",
        )
    assert lines == []
    assert len(server.asked) == 4


def test_a_download_is_for_whoever_may_read_the_folder(server, tmp_path):
    before = os.umask(0o022)
    try:
        published.fetch("mnist", tmp_path / "root", print, server.remotes)
    finally:
        os.umask(before)
    for path in (tmp_path / "root/downloads/mnist").iterdir():
        assert path.stat().st_mode & 0o777 == 0o644


def test_a_half_done_preparation_is_not_taken_for_a_whole_one(server, tmp_path, monkeypatch):
    calls = []

    def killed(image, encode=folder.encode):
        calls.append(image)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return encode(image)

    monkeypatch.setattr(folder, "encode", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare("mnist", tmp_path / "root", lambda line: None, server.remotes)
    monkeypatch.undo()
    assert read_prepared("mnist", tmp_path / "root") == (None, ())
    raw = prepare("mnist", tmp_path / "root", lambda line: None, server.remotes)
    assert len(raw.splits["train"].labels) == 7
    assert len(server.asked) == 4  # and nothing was downloaded twice


def test_what_a_killed_process_leaves_is_not_read(root):
    (root / OWN).rename(root / "mnist_array_record/incomplete.ABCDEF_1.0.0")
    assert read_prepared("mnist", root) == (None, ())


def test_a_wrong_checksum_keeps_nothing(server, tmp_path):
    with pytest.raises(
        UserError, match=r"not the file published: SHA-256 .* Nothing was kept"
    ) as e:
        prepare("mnist", tmp_path / "root", lambda line: None, instead(server, sha256="0" * 64))
    assert not isinstance(e.value, Unavailable)
    assert files_in(tmp_path / "root") == []


def test_a_file_that_is_too_long_is_cut_off(server, tmp_path):
    with pytest.raises(UserError, match="more than the 9 bytes of the file published"):
        prepare("mnist", tmp_path / "root", lambda line: None, instead(server, size=9))
    assert files_in(tmp_path / "root") == []


def test_a_damaged_download_is_made_again(server, tmp_path):
    first = next(iter(server.remotes))
    path = tmp_path / "root/downloads/mnist" / first
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x" * server.remotes[first].size)
    prepare("mnist", tmp_path / "root", lambda line: None, server.remotes)
    assert sha256(path) == server.remotes[first].sha256


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("{url}/missing", r"no download from 127\.0\.0\.1:\d+ \(HTTP Error 404: .*ound\)"),
        ("http://127.0.0.1:1/x", r"no download from 127\.0\.0\.1:1 \(.*Connection refused\)"),
        ("{url}/stall", r"no answer at all from 127\.0\.0\.1:\d+ in 0 s"),
        ("{url}/stall-later", r"no answer after 5 bytes from 127\.0\.0\.1:\d+ in 0 s"),
        ("http://name.invalid/x", r"no download from name\.invalid|no answer at all"),
        ("{url}/t10k-labels-idx1-ubyte.gz", r"after \d+ of 10,000 bytes"),
    ],
)
def test_without_network_one_line_and_nothing_on_disk(server, tmp_path, monkeypatch, url, why):
    monkeypatch.setattr(download, "PATIENCE", 0.4)
    broken = instead(server, url=url.format(url=server.url), size=10_000)
    started = time.monotonic()
    with pytest.raises(Unavailable, match=why) as error:
        prepare("mnist", tmp_path / "root", lambda line: None, broken)
    assert time.monotonic() - started < 4
    assert "\n" not in str(error.value)
    assert files_in(tmp_path / "root") == []
    assert (tmp_path / "root").exists() == ("after" in why)


def test_a_name_look_up_that_hangs_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "PATIENCE", 0.2)
    never = threading.Event()

    def hang(*_, **__):
        never.wait(20)
        raise OSError("too late")

    monkeypatch.setattr("socket.getaddrinfo", hang)
    with pytest.raises(Unavailable, match=r"no answer at all from storage\.googleapis\.com"):
        prepare("mnist", tmp_path / "root", lambda line: None)
    never.set()
    assert not (tmp_path / "root").exists()


def test_patience_leaves_room_within_ten_seconds():
    assert download.PATIENCE <= 9


def test_a_place_that_cannot_be_written(server, tmp_path):
    (tmp_path / "root").write_text("a file, where a directory should be")
    with pytest.raises(Unavailable, match=r"root cannot be written: .*Not a directory"):
        prepare("mnist", tmp_path / "root", lambda line: None, server.remotes)


def test_the_published_files_are_those_that_tfds_knows():
    for name in ("mnist", "fashion_mnist", "kmnist"):
        remotes = known_remotes(name)
        stems = [f"{stem}.gz" for pair in idx.STEMS.values() for stem in pair]
        assert sorted(remotes) == sorted(stems)
    assert known_remotes("mnist")["train-images-idx3-ubyte.gz"].size == 9_912_422


def test_another_dataset_than_its_name_says(root):
    with pytest.raises(UsageError, match=r"is the dataset 'mnist_array_record', but .* 'kmnist'"):
        read_prepared("kmnist", root / OWN)


def truncate(directory: Path) -> None:
    os.truncate(next(directory.glob("*-train*")), 1000)


def forget_features(directory: Path) -> None:
    (directory / "features.json").unlink()


def break_info(directory: Path) -> None:
    (directory / "dataset_info.json").write_text("{")


def other_shape(directory: Path) -> None:
    text = (directory / "features.json").read_text()
    (directory / "features.json").write_text(text.replace('"4"', '"9"'))


def no_label(directory: Path) -> None:
    text = (directory / "features.json").read_text()
    (directory / "features.json").write_text(text.replace('"label"', '"class"'))


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (truncate, "cannot be read: .*64KB.* Delete it"),
        (forget_features, "cannot be read: .*Delete it"),
        (break_info, "dataset_info.json cannot be read"),
        (other_shape, r"picture 0 is \[4, 5, 1\], not \[9, 5, 1\]"),
        (no_label, "want an `image` of uint8 and fixed size and a whole number `label`, got"),
    ],
)
def test_a_damaged_directory_is_named(root, damage, why):
    damage(root / OWN)
    with pytest.raises(UserError, match=why) as error:
        read_prepared("mnist", root)
    assert str(root / OWN) in str(error.value)
    assert "\n" not in str(error.value)


def test_nothing_prepared():
    assert read_prepared("mnist", Path("missing")) == (None, ())


@pytest.mark.slow
@pytest.mark.promise
@pytest.mark.skipif(not os.environ.get("MNIST_DIR"), reason="needs MNIST_DIR: the four IDX files")
def test_the_full_mnist_as_tfds_prepares_it():
    mnist_dir = Path(os.environ["MNIST_DIR"])
    prepared = mnist_dir.parent / "tensorflow_datasets"
    if not prepared.is_dir():
        pytest.skip(f"needs {prepared}")
    raw, _ = read_prepared("mnist", prepared)
    files = idx.read_directory(mnist_dir, "mnist")
    for name, count in (("train", 60000), ("test", 10000)):
        ours, theirs = raw.splits[name], files.splits[name]
        assert ours.images.shape == (count, 28, 28, 1)
        # TFDS shuffles the records of its own mnist: the same digits, in another order.
        assert np.bincount(ours.labels).tolist() == np.bincount(theirs.labels).tolist()
        assert ours.images.sum(dtype=np.int64) == theirs.images.sum(dtype=np.int64)
    assert rows_of(raw.splits["test"]) == rows_of(files.splits["test"])


def rows_of(split) -> list[tuple[bytes, int]]:
    pairs = zip(split.images, split.labels, strict=True)
    return sorted((image.tobytes(), int(label)) for image, label in pairs)

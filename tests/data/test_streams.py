"""Images that are streamed are those in memory: order, bits, fingerprint, checks, errors."""

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import picture_folder
import pytest
from ml_collections import ConfigDict
from picture_files import PNGS
from picture_folder import config_of
from PIL import Image

from mnist_flax import data
from mnist_flax.data import feeding, grain_reader, kept_findings, streams, tfds_records
from mnist_flax.data.dataset import Dataset, Split
from mnist_flax.data.placement import Placement
from mnist_flax.data.sources import Source
from mnist_flax.data.streamed_images import (
    StreamedImages,
    blocks,
    image_digests,
    joined,
    same_images,
    taken,
)
from mnist_flax.errors import UsageError, UserError
from mnist_flax.training.gather import gather
from mnist_flax.workdir import known_images

BATCH_BYTES = 6 * 64


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where findings are kept, in place of the user's own folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/mnist_flax/streams"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_folder.made(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def records(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_folder.prepared(pictures, tmp_path_factory.mktemp("tfds") / "root")


@pytest.fixture(params=["pictures", "records"])
def place(request: pytest.FixtureRequest) -> Path:
    """Each kind of data that is streamed."""
    return request.getfixturevalue(request.param)


def loaded(config: ConfigDict) -> Dataset:
    return data.load(config.data, report=lambda line: None)


def drawn(source: Source, steps: int) -> list[dict[str, np.ndarray]]:
    """The batches of these first steps: in memory and streamed, each leaf by name."""
    draw = jax.jit(source.draw)
    batches = [draw(source.feed(step, 1), jnp.int32(step)) for step in range(steps)]
    return [{k: np.asarray(v) for k, v in vars(b).items() if v is not None} for b in batches]


def assert_same(one: list[dict[str, np.ndarray]], other: list[dict[str, np.ndarray]]) -> None:
    assert len(one) == len(other) > 0
    for left, right in zip(one, other, strict=True):
        assert left.keys() == right.keys()
        for name, values in left.items():
            assert values.dtype == right[name].dtype, name
            np.testing.assert_array_equal(values, right[name], name)


def mixed(config: ConfigDict) -> None:
    config.augment.order = ("random_shift", "mixup")
    config.augment.mixup = ConfigDict({"alpha": 0.4, "share": 0.5})


CHANGES: dict[str, Callable[[ConfigDict], None]] = {
    "as it is": lambda config: None,
    "no shuffle": lambda config: config.data.update(shuffle=False),
    "balance": lambda config: config.data.update(balance=True),
    "extended": lambda config: config.data.update(extended=True),
    "extended and balanced": lambda config: config.data.update(extended=True, balance=True),
    "augmented": mixed,
    "select": lambda config: config.data.update(
        train_split="train[5:20]+train[30:]", select_split="train[20:30]"
    ),
    "resplit": lambda config: config.data.update(resplit=3),
    "scaled and turned": lambda config: config.data.update(resize=5, transpose=True),
}


@pytest.mark.parametrize(
    ("change", "steps_of_a_block"),
    [("as it is", 1), ("extended", 200), *((change, 3) for change in CHANGES)],
)
def test_batches_are_those_of_memory(
    place: Path, change: str, steps_of_a_block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = []
    for stream in (False, True):
        config = config_of(place, stream=stream)
        CHANGES[change](config)
        dataset = loaded(config)
        assert dataset.streamed is stream
        side = dataset.train.images.shape[1]
        monkeypatch.setattr(streams, "BLOCK_BYTES", 6 * side * side * steps_of_a_block)
        source = feeding.train_source(config, dataset)
        steps = 2 * source.steps_per_epoch + 3
        evaluated = feeding.eval_source(dataset.choosing, 6)
        told = (dataset.fingerprint, dataset.class_names, image_digests(dataset.train.images))
        sources.append((drawn(source, steps), drawn(evaluated, evaluated.steps_per_epoch), told))
    (trained, evaluated, told), (others, others_evaluated, others_told) = sources
    assert_same(trained, others)
    assert_same(evaluated, others_evaluated)
    assert told[:2] == others_told[:2]
    np.testing.assert_array_equal(told[2], others_told[2])


def test_blocks_are_cut_as_an_epoch_is(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "BLOCK_BYTES", 3 * BATCH_BYTES)
    config = config_of(pictures, stream=True)
    source = feeding.train_source(config, loaded(config))
    assert source.steps_per_epoch == 7
    assert [source.most_steps(step) for step in range(15)] == [3, 2, 1, 3, 2, 1, 1] * 2 + [3]
    forms = [jax.tree.map(jnp.shape, source.feed(step, 1)) for step in range(7)]
    assert all(form == forms[0] for form in forms)
    assert forms[0].images == (3, 6, 8, 8, 1)


def test_every_example_comes_once_in_an_epoch(pictures: Path) -> None:
    config = config_of(pictures, stream=True)
    batches = drawn(feeding.train_source(config, loaded(config)), 14)
    epochs = np.reshape([batch["index"] for batch in batches], (2, -1))
    for epoch in epochs:
        assert len(set(epoch.tolist())) == 42
    assert not np.array_equal(*epochs)


class Counted:
    """Records that count how often each is read."""

    def __init__(self, images: StreamedImages):
        self.inner, self.read_so_far = images.records, []
        self.shape, self.key, self.notes = self.inner.shape, self.inner.key, self.inner.notes

    def __len__(self) -> int:
        return len(self.inner)

    def read(self, numbers: list[int]) -> np.ndarray:
        self.read_so_far += numbers
        return self.inner.read(numbers)


def counted(pictures: Path, config: ConfigDict) -> tuple[Source, Counted]:
    dataset = loaded(config)
    images = dataset.train.images
    watched = Counted(images)
    split = Split(StreamedImages(watched, images.numbers), dataset.train.labels)
    return streams.train_source(config, with_train(dataset, split), Placement()), watched


def with_train(dataset: Dataset, train: Split) -> Dataset:
    return Dataset("abc", "", train, dataset.eval, dataset.class_names, "", ())


def test_a_block_is_read_once_and_none_beyond_the_end(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "BLOCK_BYTES", 2 * BATCH_BYTES)
    config = config_of(pictures, stream=True)
    config.num_steps = 9  # of seven an epoch
    source, watched = counted(pictures, config)
    for step in range(9):
        source.feed(step, 1)
        source.feed(max(step - 1, 0), 1)  # as an observer looks at the last batch
    source.feed.__self__._pool.submit(int).result()  # whatever was begun is over
    assert len(watched.read_so_far) == (7 + 2) * 6


def test_a_run_that_goes_on_reads_what_is_left(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "BLOCK_BYTES", 2 * BATCH_BYTES)
    config = config_of(pictures, stream=True)
    config.num_epochs = 1
    source, watched = counted(pictures, config)
    straight = drawn(source, 7)
    again, watched = counted(pictures, config)
    draw = jax.jit(again.draw)
    for step in (4, 3, 5, 6):  # of the block before, once
        batch = draw(again.feed(step, 1), jnp.int32(step))
        np.testing.assert_array_equal(batch.images, straight[step]["images"])
    assert len(watched.read_so_far) == (2 + 2 + 1 + 2) * 6 - 12


def test_a_split_is_an_array_to_whoever_takes_parts(place: Path) -> None:
    array = loaded(config_of(place, stream=False)).train.images
    streamed = loaded(config_of(place, stream=True)).train.images
    assert (streamed.shape, streamed.dtype, streamed.ndim) == (array.shape, array.dtype, 4)
    assert (len(streamed), streamed.size) == (len(array), array.size)
    for places in (3, slice(2, 30, 7), [5, 5, 1], np.array([40, 0]), slice(0, 0), slice(None)):
        np.testing.assert_array_equal(streamed[places], array[places])
    np.testing.assert_array_equal(np.asarray(streamed), array)
    part = taken(streamed, slice(10, 20))
    assert isinstance(part, StreamedImages)
    both = joined([part, taken(streamed, np.array([0, 0]))])
    np.testing.assert_array_equal(both[:], array[[*range(10, 20), 0, 0]])
    np.testing.assert_array_equal(np.concatenate([b for _, b in blocks(both)]), both[:])
    assert same_images(streamed, array)
    assert not same_images(streamed, array[::-1])
    assert not same_images(part, array)


def test_what_a_run_knows_is_known_without_reading(pictures: Path, tmp_path: Path) -> None:
    dataset, array = (loaded(config_of(pictures, stream=s)) for s in (True, False))
    for name, which in (("streamed", dataset), ("memory", array)):
        (tmp_path / name).mkdir()
        known_images.keep_known(tmp_path / name, which.train.images)
        known_images.keep_chosen(tmp_path / name, which.eval.images)
    for file in (known_images.TRAINED_ON_FILE, known_images.CHOSEN_ON_FILE):
        assert (tmp_path / "streamed" / file).read_bytes() == (
            tmp_path / "memory" / file
        ).read_bytes()
    unread = StreamedImages(None, dataset.eval.images.numbers, dataset.eval.images.digests)
    known = known_images.count_known(tmp_path / "memory", unread, chosen=True)
    assert known == (0, 13, 13)
    assert dataset.preparation == array.preparation


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures each call of Grain's has decoded."""
    counts: list[int] = []

    def read(records: object, numbers: np.ndarray, read=grain_reader.read) -> np.ndarray:
        counts.append(len(numbers))
        return read(records, numbers)

    monkeypatch.setattr(grain_reader, "read", read)
    return counts


def told(config: ConfigDict) -> tuple[list[str], Dataset]:
    lines: list[str] = []
    return lines, data.load(config.data, report=lines.append)


def test_data_are_read_once_and_again_when_a_file_changes(
    tmp_path: Path, decoded: list[int], cache: Path
) -> None:
    place = picture_folder.made(tmp_path / "data")
    config = config_of(place, stream=True)
    lines, first = told(config)
    assert lines == [
        "Reading 60 pictures once, to check them and take their digest: "
        f"picture folders in {place}."
    ]
    assert sum(decoded) == 60
    assert len(list(cache.glob("survey-*.npz"))) == 1
    decoded.clear()
    lines, again = told(config)
    assert (lines, decoded) == ([], [])
    assert again.fingerprint == first.fingerprint
    changed = place / "train/a/03.png"
    Image.fromarray(np.full((8, 8), 7, np.uint8)).save(changed)
    lines, other = told(config)
    assert len(lines) == 1
    assert sum(decoded) == 60
    assert other.fingerprint != first.fingerprint
    assert other.fingerprint == loaded(config_of(place, stream=False)).fingerprint
    os.utime(changed, ns=(1, 1))  # by its time alone a file is another one, too
    assert len(told(config)[0]) == 1


def test_pictures_beside_the_splits_are_checked_too(tmp_path: Path, decoded: list[int]) -> None:
    place = picture_folder.made(tmp_path / "data")
    _, dataset = told(config_of(place, stream=True, train_split="train[:10]"))
    assert sum(decoded) == 60
    assert len(dataset.train.labels) == 10
    (place / "train/c/07.png").write_bytes(PNGS["grey"][:60])
    with pytest.raises(UserError, match=r"c/07\.png cannot be read: the picture is damaged") as e:
        told(config_of(place, stream=True, train_split="train[:10]"))
    assert "\n" not in str(e.value)


def test_other_pixels_of_the_same_labels_are_other_data(place: Path) -> None:
    changes: tuple[dict[str, object], ...] = (
        {"train_split": "train[:10]"},
        {"train_split": "train[1:11]"},
        {"train_split": "train[:10]", "transpose": True},
        {"train_split": "train[:10]", "resize": 5},
        {"train_split": "train[:10]", "resize": 6},
    )
    prints = [
        [told(config_of(place, stream=stream, **change))[1].fingerprint for change in changes]
        for stream in (True, False)
    ]
    assert prints[0] == prints[1]
    assert len(set(prints[0])) == 5


def test_labels_of_records_are_read_once(records: Path, decoded: list[int]) -> None:
    lines, _ = told(config_of(records, stream=True))
    assert lines[0].startswith("Reading 60 records once, for their labels: ")
    assert lines[1].startswith("Reading 60 pictures once, to check them")
    assert told(config_of(records, stream=True))[0] == []


def test_findings_that_are_damaged_are_found_anew(pictures: Path, cache: Path) -> None:
    _, first = told(config_of(pictures, stream=True))
    (kept,) = cache.glob("survey-*.npz")
    content = bytearray(kept.read_bytes())
    content[len(content) // 2] ^= 1
    kept.write_bytes(content)
    lines, again = told(config_of(pictures, stream=True))
    assert "cannot be used" in lines[0]
    assert lines[1].startswith("Reading 60 pictures once")
    assert again.fingerprint == first.fingerprint


def test_a_cache_that_cannot_be_written_is_told(place: Path, cache: Path) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text("a file")
    lines, _ = told(config_of(place, stream=True))
    said = [line for line in lines if line.startswith(f"{cache}: ")]
    kinds = ("records", "pictures") if place.name == "root" else ("pictures",)
    assert len(said) == len(kinds)
    for line, kind in zip(said, kinds, strict=True):
        assert line.endswith(f"the next start reads the {kind} again.")


def test_the_oldest_findings_go(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_findings, "_MOST_BYTES", 2500)
    for number in range(3):
        kept_findings.write(f"n{number}", {"values": np.zeros(100)})
        os.utime(cache / f"n{number}.npz", (number, number))
    assert sorted(path.name for path in cache.iterdir()) == ["n1.npz", "n2.npz"]


def test_notes_are_those_of_memory(tmp_path: Path) -> None:
    place = picture_folder.made(tmp_path / "data")
    (place / "train/b/00.png").write_bytes(PNGS["16 bit"])
    notes = [loaded(config_of(place, stream=s, resize=6)).notes for s in (False, True, True)]
    assert notes[0] == notes[1] == notes[2]
    assert any("pictures of 16 bits (1 of them)" in note for note in notes[0])
    assert any("are scaled to 6x6" in note for note in notes[0])


def test_a_picture_unlike_the_others_is_named(tmp_path: Path) -> None:
    place = picture_folder.made(tmp_path / "data")
    Image.new("L", (9, 8)).save(place / "test/b/02.png")
    messages = []
    for stream in (False, True):
        with pytest.raises(UserError, match=r"test/b/02\.png is 9x8 grey") as error:
            loaded(config_of(place, stream=stream))
        messages.append(str(error.value))
    assert messages[0] == messages[1]


def test_damaged_records_are_told(records: Path, tmp_path: Path) -> None:
    place = tmp_path / "copy"
    for path in records.rglob("*"):
        if path.is_file():
            copy = place / path.relative_to(records)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    (file,) = place.rglob("*train*")
    content = bytearray(file.read_bytes())
    content[1000:1400] = bytes(400)
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"cannot be read: .* Delete it or repair it") as error:
        loaded(config_of(place, stream=True))
    assert "\n" not in str(error.value)


def test_a_damaged_picture_in_a_record_has_its_number(
    records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = loaded(config_of(records, stream=True)).train.images
    assert isinstance(images, StreamedImages)
    whole = tfds_records._pictures
    monkeypatch.setattr(tfds_records, "_pictures", lambda rows: [*whole(rows)[:-1], b"none"])
    with pytest.raises(UserError, match=r"cannot be read: picture 5: "):
        images.records.read([40, 2, 5])


def test_what_cannot_be_streamed_is_refused_in_a_line(tmp_path: Path, digits: Path) -> None:
    images, labels = np.zeros((4, 3, 3), np.uint8), np.arange(4)
    arrays = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels}
    np.savez(tmp_path / "mnist.npz", **arrays)
    sample = config_of(tmp_path, stream=True)
    sample.data.name = "mnist_sample"
    (tmp_path / "empty").mkdir()
    download = config_of(tmp_path / "empty", stream=True)
    download.data.name = "mnist"
    for config, what in (
        (config_of(digits, stream=True), "IDX files in "),
        (config_of(tmp_path, stream=True), "mnist.npz"),
        (sample, "the mnist_sample"),
        (download, "what is downloaded to "),
    ):
        with pytest.raises(UsageError, match=r"^config\.data\.stream=true: ") as error:
            loaded(config)
        assert what in str(error.value)
        assert "Picture folders and TFDS directories" in str(error.value)
        assert "\n" not in str(error.value)


def test_without_grain_a_line_says_what_to_install(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec

    def lacking(name: str, package: str | None = None) -> object:
        return None if name == "grain" else found(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", lacking)
    with pytest.raises(
        UsageError, match=r"^config\.data\.stream=true: .*pip install -e '\.\[grain"
    ):
        loaded(config_of(pictures, stream=True))
    assert not loaded(config_of(pictures, stream=False)).streamed


def test_pictures_too_large_for_memory_name_the_stream(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("folder", "tfds_records"):
        monkeypatch.setattr(f"mnist_flax.data.{module}.LARGEST", 100)
    with pytest.raises(UserError, match=r"config\.data\.stream=true"):
        loaded(config_of(place, stream=False))
    assert loaded(config_of(place, stream=True)).streamed


@pytest.mark.parametrize(("size", "fitting"), [(6, "4 or 8"), (3, "4")])
def test_a_batch_that_devices_cannot_share_is_refused(
    pictures: Path, size: int, fitting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(pictures, stream=True)
    config.batch_size = size
    monkeypatch.setattr(Placement, "devices", 4)
    with pytest.raises(UsageError, match=rf"^config\.batch_size={size}: .*Take {fitting}\.$"):
        feeding.train_source(config, loaded(config))


def test_a_process_reads_its_rows_alone(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(pictures, stream=True)
    whole = drawn(feeding.train_source(config, loaded(config)), 7)
    monkeypatch.setattr(Placement, "processes", 2)
    monkeypatch.setattr(Placement, "devices", 2)
    for process in range(2):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        source, watched = counted(pictures, config)
        rows = slice(3 * process, 3 * process + 3)
        for mine, batch in zip(drawn(source, 7), whole, strict=True):
            for name, values in mine.items():
                np.testing.assert_array_equal(values, batch[name][rows])
        wanted = {int(n) for batch in whole for n in batch["index"][rows]}
        assert set(watched.read_so_far[:21]) == wanted  # then comes the next epoch


def test_a_gathered_plan_streams(pictures: Path) -> None:
    config = config_of(pictures, stream=True)
    config.num_steps = 3
    plan = gather(config, lambda line: None)
    assert plan.source.most_steps(0) == 7
    assert isinstance(plan.source.feed(0, 1), streams.Block)
    assert isinstance(plan.eval_source.feed(0, 1), streams.Block)

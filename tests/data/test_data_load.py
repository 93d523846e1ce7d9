"""load(): the order of search, what each step says, and what is refused before it starts."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from mnist_flax import data
from mnist_flax.data import download, folder, idx, published
from mnist_flax.data.idx import write_idx
from mnist_flax.errors import UsageError, UserError


def config(**changes):
    defaults = {
        "name": "mnist",
        "data_dir": None,
        "train_split": "train",
        "eval_split": "test",
        "select_split": "",
        "extra_eval_splits": {},
        "resplit": None,
        "transpose": None,
        "resize": None,
        "stream": False,
        "shuffle": True,
        "fallback": "mnist_sample",
    }
    return SimpleNamespace(**(defaults | {k: str(v) for k, v in changes.items()}))


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No network, at once; the default folder is the test's."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))

    def refuse(remote):
        raise download.Unavailable("no download from a server (offline)")

    monkeypatch.setattr(download, "_receive", refuse)


def write_idx_files(directory, count=4):
    for images, labels in idx.STEMS.values():
        write_idx(directory / images, np.zeros((count, 2, 2), np.uint8))
        write_idx(directory / labels, np.arange(count, dtype=np.uint8))


def write_pictures(directory):
    for split in ("train", "test"):
        (directory / split / "cat").mkdir(parents=True)
        (directory / split / "cat" / "a.png").write_bytes(
            folder.encode(np.zeros((3, 3, 1), np.uint8))
        )


def write_tfrecord(root):
    directory = root / "mnist" / "3.0.1"
    directory.mkdir(parents=True)
    (directory / "dataset_info.json").write_text('{"name": "mnist", "fileFormat": "tfrecord"}')
    return directory


def silent(line):
    raise AssertionError(f"nothing is downloaded here, but: {line}")


def test_the_sample_by_name_whatever_the_directory_says():
    dataset = data.load(config(name="mnist_sample", data_dir="missing"), silent)
    assert (dataset.name, len(dataset.train.labels), len(dataset.eval.labels)) == (
        *("mnist_sample", 4000, 1000),
    )
    assert dataset.notes == ()


def test_the_sample_can_be_split():
    dataset = data.load(config(name="mnist_sample", train_split="train[:10%]"), silent)
    assert np.bincount(dataset.train.labels).tolist() == [40] * 10


def test_idx_files_come_before_folders_and_prepared_directories(tmp_path):
    write_idx_files(tmp_path)
    write_pictures(tmp_path)
    write_tfrecord(tmp_path)
    dataset = data.load(config(data_dir=tmp_path, train_split="train[3:]"), silent)
    assert dataset.source == f"IDX files in {tmp_path}"
    assert dataset.train.labels.tolist() == [3]
    assert dataset.notes == ()


def test_folders_come_before_prepared_directories(tmp_path):
    write_pictures(tmp_path)
    write_tfrecord(tmp_path)
    dataset = data.load(config(data_dir=tmp_path), silent)
    assert dataset.source == f"picture folders in {tmp_path}"
    assert dataset.class_names == ("cat",)


def test_an_unknown_name_may_have_files(tmp_path):
    write_idx_files(tmp_path)
    dataset = data.load(config(name="mine", data_dir=tmp_path), silent)
    assert (dataset.name, dataset.class_names) == ("mine", ("0", "1", "2", "3"))


def test_an_incomplete_set_of_files_is_an_error_whatever_else_there_is(tmp_path):
    write_idx_files(tmp_path)
    write_pictures(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte").unlink()
    with pytest.raises(UserError, match="lacks t10k-images-idx3-ubyte"):
        data.load(config(data_dir=tmp_path), silent)


def test_the_fallback_says_what_it_stands_in_for(tmp_path, offline):
    lines = []
    dataset = data.load(config(train_split="train[5000:]"), lines.append)
    assert dataset.name == "mnist_sample"
    assert (len(dataset.train.labels), len(dataset.eval.labels)) == (4000, 1000)
    assert dataset.notes == (
        f"Fallback: no mnist in {tmp_path} and no download from a server (offline): training on "
        "the mnist_sample: 4,000 digits, evaluating on 1,000; split 'train[5000:]' ignored.",
    )
    assert lines == []  # the note alone tells it
    assert list(tmp_path.iterdir()) == []


def test_the_fallback_names_both_splits_or_none(offline):
    both = config(train_split="train[1:]", eval_split="train[:1]")
    note = data.load(both, str).notes[0]
    assert note.endswith("; split 'train[1:]' and 'train[:1]' ignored.")
    swapped = config(train_split="test", eval_split="train")
    assert data.load(swapped, str).notes[0].endswith("; split 'test' and 'train' ignored.")
    for split in ("train", "test"):  # right for one of the two fields, ignored for the other
        same = config(train_split=split, eval_split=split)
        assert data.load(same, str).notes[0].endswith(f"; split {split!r} ignored.")
    assert data.load(config(), str).notes[0].endswith("on 1,000.")


def test_a_tfrecord_directory_gets_one_note_before_the_fallback(tmp_path, offline):
    stock = write_tfrecord(tmp_path)
    notes = data.load(config(), str).notes
    assert len(notes) == 2
    assert notes[0] == f"{stock} holds tfrecord files, which need TensorFlow to read: passed over."


@pytest.mark.parametrize("changes", [{"fallback": "none"}, {"name": "kmnist"}])
def test_no_fallback(tmp_path, offline, changes):
    with pytest.raises(
        UserError, match=r"^There is no k?mnist in .* Point config.data.data_dir at"
    ):
        data.load(config(**changes), str)


def write_png(path):
    path.parent.mkdir(parents=True)
    path.write_bytes(folder.encode(np.zeros((3, 3, 1), np.uint8)))


NOT_UNDERSTOOD = {  # what lies in a named folder: what is told of it
    "a table": ({"table.parquet": None}, "it holds 'table.parquet'"),
    "deep pictures": ({"a/b/c/d/7.png": write_png}, "it holds 'a/'"),
    "pictures side by side": ({"7.png": None, "8.png": None}, "it holds '7.png', '8.png'"),
    "many things": (
        {f"{letter}.mat": None for letter in "gfedcba"},
        "it holds 'a.mat', 'b.mat', 'c.mat', 'd.mat', 'e.mat' and 2 more",
    ),
    "nothing": ({".DS_Store": None}, "it is empty, and no download from a server (offline)"),
    "a dataset of another name": (
        {"kmnist/3.0.1/dataset_info.json": None},
        "it holds 'kmnist/', and no download from a server (offline)",
    ),
}


@pytest.mark.parametrize("what", NOT_UNDERSTOOD)
@pytest.mark.parametrize("fallback", ["mnist_sample", "none"])
def test_nothing_stands_in_for_a_named_folder_in_which_nothing_is_understood(
    tmp_path, monkeypatch, what, fallback
):
    def refuse(remote):
        raise download.Unavailable("no download from a server (offline)")

    monkeypatch.setattr(download, "_receive", refuse)
    files, told = NOT_UNDERSTOOD[what]
    for name, write in files.items():
        if write is None:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(b"?")
        else:
            write(tmp_path / name)
    with pytest.raises(UserError) as error:
        data.load(config(data_dir=tmp_path, fallback=fallback), silent)
    message = str(error.value)
    want = f"config.data.data_dir={str(tmp_path)!r}: no data that are understood; {told}. Underst"
    assert message.startswith(want)
    assert "\n" not in message
    assert error.value.exit_status == 1


def test_a_download_goes_into_no_folder_that_holds_other_things(tmp_path, monkeypatch):
    def fetch(*arguments):
        raise AssertionError("a download")

    monkeypatch.setattr(published, "fetch", fetch)
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UserError, match=r"no data that are understood; it holds 'notes\.txt'"):
        data.load(config(data_dir=tmp_path), silent)
    (tmp_path / "notes.txt").unlink()
    for there in ("downloads", "incomplete.AB12_1.0.0", "kmnist_array_record"):
        (tmp_path / there).mkdir()
    with pytest.raises(AssertionError, match="a download"):
        data.load(config(data_dir=tmp_path), silent)


def test_a_dataset_knows_the_folder_that_it_is_from(tmp_path, monkeypatch):
    write_idx_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert data.load(config(data_dir="."), silent).data_dir == str(tmp_path)
    assert data.load(config(name="mnist_sample"), silent).data_dir is None


def test_the_default_directory(tmp_path, offline, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    assert f"{tmp_path}/tensorflow_datasets and" in data.load(config(), str).notes[0]
    write_idx_files(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert data.load(config(), silent).source == f"IDX files in {tmp_path}"


def test_a_directory_that_was_asked_for_must_exist(tmp_path):
    with pytest.raises(
        UserError, match=r"config\.data\.data_dir='.*/typo' does not exist"
    ) as error:
        data.load(config(data_dir=tmp_path / "typo"), silent)
    assert error.value.exit_status == 1
    assert not (tmp_path / "typo").exists()
    (tmp_path / "typo").write_text("")
    with pytest.raises(UserError, match="is a file, not a directory"):
        data.load(config(data_dir=tmp_path / "typo"), silent)


def test_an_unknown_name_with_nothing_to_read(tmp_path):
    with pytest.raises(UsageError) as error:
        data.load(config(name="fashion_mnit", data_dir=tmp_path), silent)
    for part in ("'fashion_mnit'", "kmnist, mnist_sample", "Did you mean 'fashion_mnist'?", "IDX"):
        assert part in str(error.value)


def _faults(wrong):
    with pytest.raises(UsageError) as error:
        data.check(wrong)
    return str(error.value).split("\n")


def test_all_wrong_fields_at_once():
    wrong = config(name="", data_dir="", train_split="train[", eval_split="1:2", fallback="sample")
    wrong.select_split = "train[:9"
    faults = _faults(wrong)
    fields = ["train_split", "eval_split", "select_split", "fallback", "name", "data_dir"]
    assert [fault.split("=")[0].split(" ")[0] for fault in faults] == [
        f"config.data.{field}" for field in fields
    ]
    with pytest.raises(UsageError) as error:
        data.load(wrong)
    assert str(error.value).split("\n") == faults
    data.check(config())


def test_a_config_dict_is_taken():
    from ml_collections import ConfigDict, config_dict

    fields = vars(config(name="mnist_sample")) | {"data_dir": config_dict.placeholder(str)}
    assert data.load(ConfigDict(fields), silent).name == "mnist_sample"


def test_importing_is_light():
    heavy = "{'jax', 'tensorflow_datasets', 'tensorflow', 'PIL', 'mlxtend', 'matplotlib'}"
    code = f"import sys, mnist_flax.data; print({heavy} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


def test_a_split_beyond_the_sample_gives_way_and_says_so():
    asked = {
        "train_split": "train[5000:]",
        "eval_split": "test[:2000]",
        "select_split": "train[:5000]",
    }
    dataset = data.load(config(name="mnist_sample", **asked), silent)
    whole = data.load(config(name="mnist_sample"), silent)
    assert dataset.fingerprint == whole.fingerprint
    assert dataset.notes == (
        "config.data.train_split='train[5000:]' is beyond the 4,000 digits that the mnist_sample "
        "has in 'train': all of them are taken.",
        "config.data.eval_split='test[:2000]' is beyond the 1,000 digits that the mnist_sample "
        "has in 'test': all of them are taken.",
        "config.data.select_split='train[:5000]' is beyond the 4,000 digits that the mnist_sample "
        "has in 'train': none is held out to choose the best save.",
    )
    assert dataset.select is None


@pytest.mark.parametrize(
    ("split", "told"),
    [
        ("validation", "there is no split 'validation'"),
        ("test[50:10]", "images 50 to 10 of 'test' are none at all"),
        ("train[:5000]", "5,000 is beyond a split of 4,000"),  # not the test split's to answer
        ("test[:2000]+train[:5]", "2,000 is beyond a split of 1,000"),
    ],
)
def test_a_split_that_would_mean_something_else_is_an_error_all_the_same(split, told):
    with pytest.raises(UsageError, match=told):
        data.load(config(name="mnist_sample", eval_split=split), silent)


def test_the_sample_may_be_mixed_as_fallback_too(offline):
    mixed = config()
    mixed.resplit = 0
    stood_in = data.load(mixed, str)
    asked_for = config(name="mnist_sample")
    asked_for.resplit = 0
    assert stood_in.fingerprint == data.load(asked_for, silent).fingerprint


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_is_none(seed):
    wrong = config()
    wrong.resplit = seed
    assert _faults(wrong) == [f"config.data.resplit={seed}: a seed, from 0 to 2**32 - 1."]

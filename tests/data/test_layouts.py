"""Layouts in which people have pictures: each is read, and what is assumed is announced."""

import gzip
import io
import shutil
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from mnist_flax import data
from mnist_flax.data import arrays, csv_files, idx, npz
from mnist_flax.data.folder import encode
from mnist_flax.data.idx import write_idx
from mnist_flax.errors import UserError

# 20 pictures of 2 classes to train on, 4 to test; no two are alike, and none is symmetric.
X = {
    "train": np.arange(20 * 9, dtype=np.uint8).reshape(20, 3, 3),
    "test": np.arange(100, 100 + 4 * 9, dtype=np.uint8).reshape(4, 3, 3),
}
Y = {"train": np.arange(20, dtype=np.uint8) // 10, "test": np.array([1, 0, 1, 0], np.uint8)}
STEMS = {split: dict(zip(("x", "y"), stems, strict=True)) for split, stems in idx.STEMS.items()}


def load(directory, **changes):
    fields = {
        "name": "mine",
        "train_split": "train",
        "eval_split": "test",
        "select_split": "",
        "fallback": "none",
    }
    fields |= {"data_dir": str(directory), "resplit": None, "transpose": None, "resize": None}
    fields |= {"stream": False, "extra_eval_splits": {}}
    return data.load(SimpleNamespace(**(fields | changes)), str)


def refusal(directory, **changes):
    with pytest.raises(UserError) as error:
        load(directory, **changes)
    assert "\n" not in str(error.value)
    return str(error.value)


def write_four(directory, name=lambda stem: f"{stem}.gz", images=lambda x: x):
    directory.mkdir(parents=True, exist_ok=True)
    for split, stems in STEMS.items():
        write_idx(directory / name(stems["x"]), images(X[split]))
        write_idx(directory / name(stems["y"]), Y[split])
    for path in directory.iterdir():  # write_idx goes by the name's end
        content = path.read_bytes()
        if ".gz" in path.name and content[:2] != b"\x1f\x8b":
            path.write_bytes(gzip.compress(content, mtime=0))
    return directory


def write_picture(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(image[..., None]))


def write_classes(directory, split, names=("cat", "dog")):
    for i, (image, label) in enumerate(zip(X[split], Y[split], strict=True)):
        write_picture(directory / names[label] / f"{i:02}.png", image)


def csv(split, header=None, labels=True):
    rows = [[*([y] if labels else []), *x.ravel()] for x, y in zip(X[split], Y[split], strict=True)]
    lines = [",".join(map(str, row)) for row in rows]
    return "\n".join([*([header] if header else []), *lines]) + "\n"


def assert_whole(dataset, x=None):
    """The very pictures and labels, in their order."""
    for split, part in (("train", dataset.train), ("test", dataset.eval)):
        np.testing.assert_array_equal(part.images[..., 0], (x or X)[split])
        assert part.labels.tolist() == Y[split].tolist()


@pytest.mark.parametrize("folder", ["MNIST/raw", "raw", "archive", "mine"])
def test_idx_files_a_folder_below_are_read_and_announced(tmp_path, folder):
    write_four(tmp_path / folder)
    dataset = load(tmp_path)
    assert_whole(dataset)
    assert dataset.source == f"IDX files in {tmp_path / folder}"
    told = f"{tmp_path} holds no data itself: those in {folder}/ are read."
    assert dataset.notes == (told,)


def test_of_torchvisions_folders_the_one_of_the_name_is_read(tmp_path):
    write_four(tmp_path / "MNIST/raw")
    write_four(tmp_path / "FashionMNIST/raw", images=lambda x: 255 - x)
    assert load(tmp_path, name="mnist").source.endswith("/MNIST/raw")
    fashion = load(tmp_path, name="fashion_mnist")
    assert fashion.source.endswith("/FashionMNIST/raw")
    assert fashion.class_names[0] == "T-shirt/top"
    assert "holds data in FashionMNIST/, MNIST/: name one of these folders." in refusal(tmp_path)
    shutil.rmtree(tmp_path / "MNIST")
    told = refusal(tmp_path, name="mnist")
    assert told.endswith("holds FashionMNIST/ alone. For that give config.data.name=fashion_mnist")


def test_two_folders_below_are_not_searched(tmp_path):
    write_four(tmp_path / "a/b")
    assert "not known, and" in refusal(tmp_path)
    assert "no data that are understood; it holds 'a/'" in refusal(tmp_path, name="mnist")


def test_the_default_folder_is_not_searched_below(tmp_path, monkeypatch):
    write_four(tmp_path / "archive")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert "not known, and" in refusal(tmp_path, data_dir=None)


@pytest.mark.parametrize("end", [" (1).gz", "(2).gz", ".gz (1)", " (1)"])
def test_a_browsers_copies_are_read_and_named(tmp_path, end):
    dataset = load(write_four(tmp_path, lambda stem: stem + end))
    assert_whole(dataset)
    assert len(dataset.notes) == 4
    assert f"{tmp_path / (STEMS['train']['x'] + end)} is read: a copy, by its name." in (
        dataset.notes
    )


def test_a_file_is_preferred_to_its_copy(tmp_path):
    write_four(tmp_path, lambda stem: f"{stem} (1).gz", images=lambda x: 255 - x)
    dataset = load(write_four(tmp_path))
    assert_whole(dataset)
    assert dataset.notes == ()


def emnist(part):
    return lambda stem: f"emnist-{part}-{stem.replace('t10k', 'test')}.gz"


def test_emnists_pictures_are_turned_upright(tmp_path):
    write_four(tmp_path, emnist("letters"), images=lambda x: x.transpose(0, 2, 1))
    dataset = load(tmp_path)
    assert_whole(dataset)
    assert dataset.notes == (
        "Rows and columns of all pictures are exchanged (config.data.transpose).",
    )
    as_they_lie = load(tmp_path, transpose=False)
    assert_whole(as_they_lie, {split: x.transpose(0, 2, 1) for split, x in X.items()})
    assert as_they_lie.notes == ()


def test_any_pictures_are_transposed_if_that_is_asked_for(tmp_path):
    turned = load(write_four(tmp_path), transpose=True)
    assert_whole(turned, {split: x.transpose(0, 2, 1) for split, x in X.items()})


def test_of_emnists_parts_the_one_of_the_name_is_read(tmp_path):
    for part in ("letters", "digits"):
        write_four(tmp_path / "EMNIST/raw", emnist(part))
    told = refusal(tmp_path, name="emnist")
    assert told.startswith("config.data.name='emnist': ")
    assert "holds emnist_digits, emnist_letters. Name one of them" in told
    assert len(load(tmp_path, name="emnist_digits").eval.labels) == 4
    for path in (tmp_path / "EMNIST/raw").glob("*digits-test-labels*"):
        path.unlink()
    lacks = refusal(tmp_path, name="emnist/digits")
    assert "lacks emnist-digits-test-labels-idx1-ubyte[.gz]." in lacks


@pytest.mark.parametrize(
    ("reshaped", "colour"),
    [
        (lambda x: x.reshape(len(x), 9), False),
        (lambda x: x[..., None], False),
        (lambda x: np.stack([x, x, x], -1), True),
    ],
)
def test_idx_images_of_two_to_four_dimensions(tmp_path, reshaped, colour):
    dataset = load(write_four(tmp_path, images=reshaped))
    assert_whole(dataset)
    assert dataset.train.images.shape == (20, 3, 3, 3 if colour else 1)
    flat = reshaped(X["train"]).ndim == 2
    told = [f"{tmp_path / stems['x']}.gz: rows of 9 are taken for" for stems in STEMS.values()]
    assert len(dataset.notes) == (2 if flat else 0)
    assert all(note.startswith(want) for note, want in zip(dataset.notes, told, strict=False))


@pytest.mark.parametrize(
    ("reshaped", "told"),
    [
        (lambda x: x.reshape(len(x), 9)[:, :8], "has rows of 8: want square pictures"),
        (lambda x: np.stack([x, x], -1), "has the shape [20, 3, 3, 2]: want [N, H, W, C] with"),
    ],
)
def test_idx_images_that_are_no_pictures(tmp_path, reshaped, told):
    assert told in refusal(write_four(tmp_path, images=reshaped))


HEADER = "label," + ",".join(f"pixel{i}" for i in range(9))


@pytest.mark.parametrize(
    ("names", "header"),
    [
        (("train.csv", "test.csv"), HEADER),
        (("mnist_train.csv", "mnist_test.csv"), None),
        (("mnist_train.csv", "mnist_test (1).csv"), HEADER.replace("label", '"label"')),
        (("fashion-mnist_train.csv", "fashion-mnist_test.csv"), HEADER),
    ],
)
def test_tables_with_labels(tmp_path, names, header):
    for name, split in zip(names, ("train", "test"), strict=True):
        (tmp_path / name).write_text(csv(split, header))
    dataset = load(tmp_path)
    assert_whole(dataset)
    assert (dataset.notes, dataset.source) == ((), f"CSV files in {tmp_path}")


def test_a_label_may_stand_in_any_column_that_has_its_name(tmp_path):
    rows = [[*x.ravel(), y] for x, y in zip(X["train"], Y["train"], strict=True)]
    text = "\n".join(",".join(map(str, row)) for row in rows)
    (tmp_path / "x.csv").write_text(f"{HEADER.removeprefix('label,')},Label\n{text}\n")
    split = csv_files.read_table(tmp_path / "x.csv")
    np.testing.assert_array_equal(split.images[..., 0], X["train"])
    assert split.labels.tolist() == Y["train"].tolist()


@pytest.mark.parametrize("header", [HEADER.removeprefix("label,"), None])
def test_a_test_without_labels_is_told_and_train_is_cut(tmp_path, header):
    (tmp_path / "train.csv").write_text(csv("train", HEADER))
    (tmp_path / "test.csv").write_text(csv("test", header, labels=False))
    dataset = load(tmp_path)
    assert dataset.notes == (
        f"{tmp_path / 'test.csv'} has no labels: every fifth picture of each class of train.csv "
        "evaluates (4 of 20), the others train.",
    )
    np.testing.assert_array_equal(dataset.eval.images[..., 0], X["train"][[4, 9, 14, 19]])
    assert dataset.eval.labels.tolist() == [0, 0, 1, 1]
    assert len(dataset.train.labels) == 16
    (tmp_path / "test.csv").unlink()
    (note,) = load(tmp_path).notes
    assert note.startswith("There is no test.csv: ")


def test_emnists_tables_lie_on_their_side(tmp_path):
    for split in ("train", "test"):
        (tmp_path / f"emnist-letters-{split}.csv").write_text(csv(split))
    assert_whole(load(tmp_path), {split: x.transpose(0, 2, 1) for split, x in X.items()})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (HEADER + "\n1,2,3,4,5,6,7,8,9,256\n", "cannot be read: could not convert string '256'"),
        (HEADER + "\n1,2\n1,2,3\n", "cannot be read: "),
        ("1,2,3\n", "has 3 columns: want a label, first or in a column 'label'"),
        ("", "holds no pictures"),
        (HEADER + "\n", "holds no pictures"),
        (HEADER.removeprefix("label,") + "\n1,2,3,4,5,6,7,8,9\n", "has no labels"),
    ],
)
def test_a_faulty_table_is_named(tmp_path, text, told):
    (tmp_path / "train.csv").write_text(text)
    message = refusal(tmp_path)
    assert message.startswith(str(tmp_path / "train.csv"))
    assert told in message


def write_npz(path, **changes):
    content = {f"{k}_{split}": v[split] for k, v in (("x", X), ("y", Y)) for split in X}
    content |= changes
    np.savez(path, **{key: value for key, value in content.items() if value is not None})


def test_kerass_file(tmp_path):
    write_npz(tmp_path / "mnist.npz", y_train=Y["train"][:, None].astype(np.int64))
    dataset = load(tmp_path)
    assert_whole(dataset)
    assert (dataset.notes, dataset.source) == ((), f"the NPZ file {tmp_path / 'mnist.npz'}")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"x_test": None}, "lacks x_test (it holds x_train, y_test, y_train)."),
        ({"x_train": X["train"] / 255}, "x_train is float64: want uint8, from 0 to 255"),
        ({"y_train": Y["train"] / 2}, "y_train is float64 [20]: want whole numbers [N]."),
        ({"y_train": np.array([object()] * 20)}, "cannot be read: "),
        ({"x_train": np.array([object()] * 20)}, "cannot be read: "),
        ({"y_test": Y["test"].astype(np.int64) - 1}, "y_test holds -1 to 0: want from 0 on."),
    ],
)
def test_a_faulty_npz_file_is_named_and_no_pickle_is_read(tmp_path, changes, told):
    write_npz(tmp_path / "mnist.npz", **changes)
    message = refusal(tmp_path)
    assert message.startswith(str(tmp_path / "mnist.npz"))
    assert told in message


def test_an_npz_file_that_is_cut_short_or_promises_much(tmp_path):
    path = tmp_path / "mnist.npz"
    write_npz(path)
    path.write_bytes(path.read_bytes()[:-30])
    assert "cannot be read: File is not a zip file" in refusal(tmp_path)
    write_npz(path)
    header = io.BytesIO()
    promise = {"descr": "|u1", "fortran_order": False, "shape": (10**9, 28, 28)}
    np.lib.format.write_array_header_1_0(header, promise)
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (files | {"x_train.npy": header.getvalue()}).items():
            archive.writestr(name, content)
    assert "x_train.npy promises uint8 [1000000000, 28, 28], 784,000,000,000 bytes" in refusal(
        tmp_path
    )
    assert npz.find(tmp_path) == path


def test_class_folders_without_train_are_cut_by_their_names(tmp_path):
    write_classes(tmp_path, "train")
    dataset = load(tmp_path)
    assert dataset.class_names == ("cat", "dog")
    np.testing.assert_array_equal(dataset.eval.images[..., 0], X["train"][[4, 9, 14, 19]])
    assert dataset.train.labels.tolist() == [0] * 8 + [1] * 8
    assert dataset.notes == (
        f"{tmp_path} has no train folder: every fifth picture of each class, by name, is 'test' "
        "(4 of 20), the others are 'train'.",
    )


def test_of_a_class_of_few_pictures_one_is_tested_and_a_single_one_trained_on():
    assert [arrays.tested(n).nonzero()[0].tolist() for n in range(7)] == [
        *([], [], [1], [2], [3]),
        *([4], [4]),
    ]


@pytest.mark.parametrize(
    ("train", "test", "told"),
    [
        ("training", "testing", ""),
        ("train", "val", "has no test folder: val/ is 'test', to evaluate."),
        ("train", "valid", "has no test folder: valid/ is 'test', to evaluate."),
    ],
)
def test_folders_that_are_called_otherwise(tmp_path, train, test, told):
    write_classes(tmp_path / train, "train")
    write_classes(tmp_path / test, "test")
    dataset = load(tmp_path)
    assert len(dataset.train.labels) == 20
    assert dataset.eval.labels.tolist() == [0, 0, 1, 1]
    assert "".join(dataset.notes) == (f"{tmp_path} {told}" if told else "")


def test_a_val_beside_a_test_is_told_to_be_left(tmp_path):
    for folder, split in (("train", "train"), ("test", "test"), ("val", "train")):
        write_classes(tmp_path / folder, split)
    dataset = load(tmp_path)
    assert len(dataset.eval.labels) == 4
    assert dataset.notes == (f"{tmp_path / 'val'} is not read.",)


def test_class_folders_a_folder_below(tmp_path):
    write_classes(tmp_path / "archive", "train")
    below, cut_note = load(tmp_path).notes
    assert below == f"{tmp_path} holds no data itself: those in archive/ are read."
    assert cut_note.startswith(f"{tmp_path / 'archive'} has no train folder: ")


def test_what_macos_adds_to_an_archive_is_passed_over_and_named(tmp_path):
    write_classes(tmp_path / "pictures/train", "train")
    write_classes(tmp_path / "pictures/test", "test")
    write_picture(tmp_path / "__MACOSX/pictures/._00.png", X["test"][0])
    write_picture(tmp_path / "pictures/train/__MACOSX/00.png", X["test"][0])
    dataset = load(tmp_path)
    assert dataset.class_names == ("cat", "dog")
    is_litter = "is what macOS adds to an archive, no data: passed over."
    assert f"{tmp_path / '__MACOSX'}, and 1 more, {is_litter}" in dataset.notes


def test_a_link_that_leads_nowhere_is_called_one(tmp_path):
    write_classes(tmp_path / "train", "train")
    (tmp_path / "train/cat/99.png").symlink_to("gone.png")
    told = "is a symbolic link to gone.png, which is not there. Put that there, or remove the link."
    assert refusal(tmp_path) == f"{tmp_path / 'train/cat/99.png'} {told}"
    shutil.rmtree(tmp_path / "train")
    write_four(tmp_path)
    path = tmp_path / f"{STEMS['train']['y']}.gz"
    path.unlink()
    path.symlink_to("gone.png")
    assert refusal(tmp_path) == f"{path} {told}"


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def palette(colours, size=(3, 3)):
    image = Image.new("P", size, 1)
    image.putpalette([value for colour in colours for value in colour])
    return image


def test_grey_palettes_are_grey_and_stand_among_colour_too(tmp_path):
    grey = palette([(0, 0, 0), (7, 7, 7)])
    save(tmp_path / "train/cat/a.png", grey)
    save(tmp_path / "test/cat/a.png", Image.new("L", (3, 3), 9))
    dataset = load(tmp_path)
    assert dataset.train.images.shape == (1, 3, 3, 1)
    assert dataset.train.images.max() == 7
    save(tmp_path / "train/cat/b.png", palette([(0, 0, 0), (1, 2, 3)]))
    save(tmp_path / "test/cat/a.png", Image.new("RGB", (3, 3), (4, 5, 6)))
    dataset = load(tmp_path)
    assert dataset.train.images[:, 0, 0].tolist() == [[7, 7, 7], [1, 2, 3]]


def test_sixteen_bits_of_grey_are_read_as_eight_and_announced(tmp_path):
    deep = np.array([[0, 257, 514], [65_535, 65_534, 128], [129, 1000, 2]], np.uint16)
    save(tmp_path / "train/cat/a.png", Image.fromarray(deep))
    save(tmp_path / "test/cat/a.png", Image.new("L", (3, 3), 9))
    dataset = load(tmp_path)
    assert dataset.train.images[0, ..., 0].tolist() == [[0, 1, 2], [255, 255, 0], [1, 4, 0]]
    assert dataset.notes == (
        f"{tmp_path / 'train/cat/a.png'}: pictures of 16 bits (1 of them) are read as 8 bits, "
        "divided by 257.",
    )


def test_jfif_and_webp(tmp_path):
    blue = Image.new("RGB", (3, 3), (0, 0, 255))
    save(tmp_path / "train/cat/a.jfif", blue, format="JPEG")
    save(tmp_path / "test/cat/a.webp", blue, lossless=True)
    dataset = load(tmp_path)
    assert dataset.eval.images[0, 1, 1].tolist() == [0, 0, 255]
    assert dataset.train.images.shape == (1, 3, 3, 3)


def write_sizes(directory):
    """Each of one value, so that it is known what scaling makes of it."""
    for i, size in enumerate([(3, 2), (30, 40), (28, 28)]):
        save(directory / f"train/cat/{i}.png", Image.new("L", size, 10 * i))
    save(directory / "test/cat/0.png", Image.new("L", (7, 9), 77))


def test_pictures_of_mixed_sizes_are_scaled_if_that_is_asked_for(tmp_path):
    write_sizes(tmp_path)
    told = refusal(tmp_path)
    assert told.startswith(f"{tmp_path / 'train/cat/1.png'} is 30x40 grey, but train/cat/0.png is")
    assert told.endswith("or have them scaled to one size, as with config.data.resize=28.")
    dataset = load(tmp_path, resize=28)
    assert dataset.train.images.shape == (3, 28, 28, 1)
    assert dataset.train.images.mean((1, 2, 3)).tolist() == [0, 10, 20]
    assert (dataset.eval.images == 77).all()
    assert dataset.notes == (
        "Pictures of 3x2 to 30x40 (3 sizes) are scaled to 28x28, whatever their proportions "
        "(config.data.resize, LANCZOS).",
    )


def test_scaling_is_pillows_lanczos(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    (tmp_path / "train/cat").mkdir(parents=True)
    Image.fromarray(image).save(tmp_path / "train/cat/a.png")
    want = np.asarray(Image.fromarray(image).resize((4, 4), Image.Resampling.LANCZOS))
    dataset = load(tmp_path, resize=4, eval_split="train")
    np.testing.assert_array_equal(dataset.train.images[0], want)


@pytest.mark.parametrize("where", ["named", "below", "classes"])
def test_every_source_is_scaled(tmp_path, where):
    if where == "classes":
        write_classes(tmp_path, "train")
    else:
        write_four(tmp_path / ("archive" if where == "below" else ""))
    dataset = load(tmp_path, resize=2)
    assert dataset.train.images.shape[1:] == dataset.eval.images.shape[1:] == (2, 2, 1)
    assert dataset.notes[-1].startswith("Pictures of 3x3 are scaled to 2x2")
    assert load(tmp_path, resize=3).fingerprint == load(tmp_path).fingerprint


def test_the_sample_is_scaled_too():
    dataset = load("", name="mnist_sample", data_dir=None, resize=8, train_split="train[:20]")
    assert dataset.train.images.shape == (20, 8, 8, 1)
    assert dataset.notes == (
        "Pictures of 28x28 are scaled to 8x8, whatever their proportions "
        "(config.data.resize, LANCZOS).",
    )

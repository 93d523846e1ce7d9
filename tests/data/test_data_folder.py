"""A user's own pictures: order, classes, modes, and the file that an error names."""

import io

import numpy as np
import pytest
from PIL import Image

from mnist_flax.data import decoding, folder
from mnist_flax.errors import UserError


def picture(path, value=0, mode="L", size=(3, 2), **options):
    """Write a picture of one value, 3 wide and 2 high."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path, **options)
    return path


@pytest.fixture
def own(tmp_path):
    """Two classes, their pictures made in no order."""
    picture(tmp_path / "train/cat/b.png", 2)
    picture(tmp_path / "train/dog/a.PNG", 3)
    picture(tmp_path / "train/cat/a.png", 1)
    picture(tmp_path / "test/dog/c.png", 4)
    return tmp_path


def refusal(directory):
    with pytest.raises(UserError) as error:
        folder.read_directory(directory)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_pictures_class_by_class_in_the_order_of_their_names(own):
    raw = folder.read_directory(own)
    assert raw.class_names == ("cat", "dog")
    assert raw.splits["train"].images.shape == (3, 2, 3, 1)
    assert raw.splits["train"].images.dtype == np.uint8
    assert raw.splits["train"].images[:, 0, 0, 0].tolist() == [1, 2, 3]
    assert raw.splits["train"].labels.tolist() == [0, 0, 1]
    assert raw.splits["train"].labels.dtype == np.int32
    assert raw.splits["test"].images[:, 0, 0, 0].tolist() == [4]
    assert raw.splits["test"].labels.tolist() == [1]


def test_numbers_are_sorted_as_numbers(tmp_path):
    for name in ("10", "9", "0"):
        picture(tmp_path / "train" / name / "a.png")
    assert folder.read_directory(tmp_path).class_names == ("0", "9", "10")
    picture(tmp_path / "train/x/a.png")
    assert folder.read_directory(tmp_path).class_names == ("0", "10", "9", "x")


def test_train_alone_is_enough(tmp_path):
    picture(tmp_path / "train/cat/a.png")
    assert list(folder.read_directory(tmp_path).splits) == ["train"]


def test_no_train_is_no_source(tmp_path):
    assert folder.read_directory(tmp_path) is None
    assert folder.read_directory(tmp_path / "missing") is None


def test_hidden_files_are_ignored(own):
    for name in (".DS_Store", "Thumbs.db", "cat/.a.png.swp", "cat/desktop.ini"):
        (own / "train" / name).write_bytes(b"x")
    (own / "train/.git").mkdir()
    assert len(folder.read_directory(own).splits["train"].labels) == 3


def test_colour(tmp_path):
    picture(tmp_path / "train/cat/a.png", (1, 2, 3), "RGB")
    images = folder.read_directory(tmp_path).splits["train"].images
    assert images.shape == (1, 2, 3, 3)
    assert images[0, 0, 0].tolist() == [1, 2, 3]


def test_jpeg(tmp_path):
    picture(tmp_path / "train/cat/a.jpg", 100)
    picture(tmp_path / "train/cat/b.JPEG", 200)
    images = folder.read_directory(tmp_path).splits["train"].images
    assert images[:, 1, 1, 0].tolist() == [100, 200]


@pytest.mark.parametrize(
    ("mode", "value", "options", "pixel"),
    [
        ("1", 1, {}, [255]),
        ("P", 0, {}, [0]),
        ("LA", (7, 255), {}, [7]),
        ("RGBA", (7, 8, 9, 255), {}, [7, 8, 9]),
        ("RGB", (7, 8, 9), {"transparency": (0, 0, 0)}, [7, 8, 9]),
    ],
)
def test_modes_that_say_the_same_in_another_way(tmp_path, mode, value, options, pixel):
    picture(tmp_path / "train/cat/a.png", value, mode, **options)
    images = folder.read_directory(tmp_path).splits["train"].images
    assert images[0, 0, 0].tolist() == pixel


@pytest.mark.parametrize(
    ("mode", "value", "options", "why"),
    [
        ("RGBA", (7, 8, 9, 254), {}, "transparent in places"),
        ("LA", (7, 0), {}, "transparent in places"),
        ("L", 7, {"transparency": 7}, "transparent in places"),
        ("P", 0, {"transparency": 0}, "transparent in places"),
    ],
)
def test_modes_that_would_lose_something(tmp_path, mode, value, options, why):
    path = picture(tmp_path / "train/cat/a.png", value, mode, **options)
    message = refusal(tmp_path)
    assert str(path) in message
    assert why in message


def test_another_size_names_the_first_file_that_differs(own):
    path = picture(own / "train/cat/c.png", size=(5, 2))
    picture(own / "train/dog/z.png", size=(7, 2))
    want = f"{path} is 5x2 grey, but train/cat/a.png is 3x2 grey. Make all alike, or "
    assert refusal(own) == f"{want}have them scaled to one size, as with config.data.resize=28."


def test_one_colour_picture_among_grey_ones(own):
    path = picture(own / "test/cat/a.png", (0, 0, 0), "RGB")
    assert refusal(own).startswith(f"{path} is 3x2 colour, but ")


def test_a_class_that_train_lacks(own):
    picture(own / "test/bird/a.png")
    assert refusal(own) == f"{own / 'test/bird'}: train has no class 'bird'. Add it."


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("train/cat/notes.txt", "is not a picture: want .png, .jpg, .jpeg, .jfif, .webp"),
        ("train/list.csv", "is no folder. Put pictures into one folder for each class."),
        ("train/cat/broken.png", "cannot be read: no PNG, JPEG or WebP picture"),
    ],
)
def test_other_files_are_named(own, name, why):
    (own / name).write_bytes(b"not a picture")
    message = refusal(own)
    assert str(own / name) in message
    assert why in message


@pytest.mark.parametrize("keep", [60, 1000])
def test_a_picture_that_is_cut_short(own, keep):
    path = own / "train/cat/c.png"
    Image.effect_noise((64, 64), 50).save(path)
    path.write_bytes(path.read_bytes()[:keep])
    assert refusal(own).startswith(f"{path} cannot be read: the picture is damaged or cut short (")


def test_a_png_that_pillow_calls_a_syntax_error(own):
    path = own / "train/cat/c.png"
    Image.effect_noise((16, 16), 50).save(path)
    data = bytearray(path.read_bytes())
    length = data.index(b"IDAT") - 1  # its last byte; now the next chunk begins inside the pixels
    data[length] -= 20
    path.write_bytes(data)
    with pytest.raises(SyntaxError), Image.open(path) as image:
        image.load()
    assert "the picture is damaged or cut short (broken PNG file" in refusal(own)


def test_a_folder_inside_a_class(own):
    (own / "train/cat/more").mkdir()
    assert f"{own / 'train/cat/more'} is not a picture" in refusal(own)


def test_empty_folders(own):
    (own / "test/cat").mkdir()
    assert (
        refusal(own)
        == f"{own / 'test/cat'} holds no pictures (.png, .jpg, .jpeg, .jfif, .webp). Add some."
    )


def test_an_empty_train(tmp_path):
    (tmp_path / "train").mkdir()
    assert refusal(tmp_path).startswith(f"{tmp_path / 'train'} is empty")


@pytest.mark.parametrize("limit", [5, 1])
def test_a_picture_too_large_for_a_set(own, monkeypatch, limit):
    monkeypatch.setattr(decoding, "MAX_PIXELS", limit)  # each has 6
    assert "3x2 pixels: the picture is too large; " in refusal(own)


def test_encode_and_decode_are_inverse():
    for channels in (1, 3):
        image = np.arange(4 * 5 * channels, dtype=np.uint8).reshape(4, 5, channels)
        decoded = np.zeros((1, *image.shape), np.uint8)
        folder.decode([folder.encode(image)], decoded)
        np.testing.assert_array_equal(decoded[0], image)


def test_pictures_are_decoded_side_by_side():
    images = np.random.default_rng(0).integers(0, 256, (205, 3, 4, 1), np.uint8)
    files = [folder.encode(image) for image in images]
    opaque = io.BytesIO()  # not as most are: it takes the longer way
    Image.fromarray(images[103, ..., 0]).convert("LA").save(opaque, "PNG")
    files[103] = opaque.getvalue()
    decoded = np.empty_like(images)
    folder.decode(files, decoded)
    np.testing.assert_array_equal(decoded, images)


def test_a_picture_of_another_size_has_the_number_of_its_file():
    files = [folder.encode(np.zeros((3, 4, 1), np.uint8))] * 102
    files[101] = folder.encode(np.zeros((5, 4, 1), np.uint8))
    with pytest.raises(ValueError, match=r"picture 1202 is \[5, 4, 1\], not \[3, 4, 1\]"):
        folder.decode(files, np.empty((102, 3, 4, 1), np.uint8), range(1000, 1204, 2))

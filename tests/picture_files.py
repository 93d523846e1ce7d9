"""Small PNG and JPEG files of every kind, some made by hand. Not a test itself."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

GREY = np.random.default_rng(0).integers(0, 256, (5, 4), np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (5, 4, 3), np.uint8)


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + crc(name + content)


def crc(data: bytes) -> bytes:
    return struct.pack(">I", zlib.crc32(data))


def png(width: int, height: int, depth: int, colours: int, pixels: bytes, *more: bytes) -> bytes:
    """A PNG by hand; `more` are whole chunks before the pixels."""
    header = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(pixels, 9))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", header), *more, data, chunk(b"IEND", b"")]
    )


def exif(orientation: int) -> Image.Exif:
    values = Image.Exif()
    values[0x0112] = orientation
    return values


IDAT = chunk(b"IDAT", zlib.compress(b"", 9))  # of no pixels
GREY_IMAGE, COLOUR_IMAGE = Image.fromarray(GREY), Image.fromarray(COLOUR)
DEEP = png(1, 1, 16, 2, b"\0" + bytes(range(1, 7)))  # 16-bit colour
ANIMATION = saved(GREY_IMAGE, save_all=True, append_images=[GREY_IMAGE.rotate(180)])
PNGS = {
    "grey": saved(GREY_IMAGE),
    "colour": saved(COLOUR_IMAGE),
    "palette": saved(COLOUR_IMAGE.quantize(4)),
    "two levels": saved(GREY_IMAGE.convert("1")),
    "opaque": saved(COLOUR_IMAGE.convert("RGBA")),
    "animated": ANIMATION,
    "turned": saved(COLOUR_IMAGE, exif=exif(6)),
    "1x1": saved(Image.new("L", (1, 1), 9)),
    "16 bit": saved(Image.fromarray(GREY.astype(np.uint16) * 257)),
    "16-bit colour": DEEP,
    "transparent": saved(COLOUR_IMAGE.convert("RGBA").rotate(45)),
    "transparent value": saved(GREY_IMAGE, transparency=int(GREY[0, 0])),
}
JPEGS = {
    "grey": saved(GREY_IMAGE, "JPEG"),
    "colour": saved(COLOUR_IMAGE, "JPEG"),
    "progressive": saved(COLOUR_IMAGE, "JPEG", progressive=True),
    "CMYK": saved(COLOUR_IMAGE.convert("CMYK"), "JPEG"),
    "turned": saved(COLOUR_IMAGE, "JPEG", exif=exif(8)),
    "two pictures": saved(COLOUR_IMAGE, "MPO", save_all=True, append_images=[COLOUR_IMAGE]),
}

"""Pictures of 12 or 14 bits in files of 16: how much of the range they use is said, and the white level scales them."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from retinanet.data.dataset import load_set
from retinanet.data.images import brightest, read_image, read_upright, upright
from retinanet.data.white_level import used_range
from retinanet.runtime.errors import UserError

HEIGHT, WIDTH = 6, 8
DEEP = np.random.default_rng(0).integers(0, 4096, (HEIGHT, WIDTH, 3), dtype=np.uint16)
DEEP[0, 0] = 4095


def write_png(path, pixels, colours=2):
    """Writes 16-bit pixels with PNG's colour type `colours` (default: RGB), which Pillow can't."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, colours, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


def write_tiff(path, pixels):
    """Writes uncompressed 16-bit RGB, which Pillow can't."""
    height, width = pixels.shape[:2]
    content = pixels.astype("<u2").tobytes()
    bits = 8 + 2 + 9 * 12 + 4
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, 2), (273, bits + 6), (277, 3), (278, height)]
    kinds = {258: (3, 3)}  # three numbers of 16 bits; the others are one of 32 bits each
    entries = b"".join(struct.pack("<HHII", tag, *kinds.get(tag, (4, 1)), value) for tag, value in tags)
    entries += struct.pack("<HHII", 279, 4, 1, len(content))
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, 9) + entries + struct.pack("<IHHH", 0, 16, 16, 16) + content)


WRITERS = {
    "rgb.png": write_png,
    "rgb.tif": write_tiff,
    "grey.png": lambda path, pixels: Image.fromarray(pixels[..., 0]).save(path),
    "grey_and_alpha.png": lambda path, pixels: write_png(path, pixels[..., :2], colours=4),
    "grey.tif": lambda path, pixels: Image.fromarray(pixels[..., 0]).save(path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_white_is_where_the_level_says(tmp_path, name):
    path = tmp_path / name
    WRITERS[name](path, DEEP)
    wanted = np.rint(DEEP / 4095 * 255) if "rgb" in name else np.repeat(np.rint(DEEP[..., :1] / 4095 * 255), 3, axis=2)
    np.testing.assert_array_equal(read_image(path, (HEIGHT, WIDTH), white_level=4095), wanted)
    with open(path, "rb") as file:
        np.testing.assert_array_equal(read_upright(file, white_level=4095), wanted)
    assert read_image(path, (HEIGHT, WIDTH)).max() <= 16  # of 255: dark
    assert read_image(path, (HEIGHT, WIDTH), white_level=1000).max() == 255
    assert brightest(path) == 4095


def test_an_open_picture_without_its_low_bytes_is_refused(tmp_path):
    write_png(tmp_path / "rgb.png", DEEP)
    with Image.open(tmp_path / "rgb.png") as picture, pytest.raises(UserError, match="Pass the file's path instead"):
        upright(picture, 4095)
    with Image.open(tmp_path / "rgb.png") as picture:
        np.testing.assert_array_equal(upright(picture), DEEP // 256)


def test_pictures_of_8_bits_have_their_own_white(tmp_path):
    Image.fromarray((DEEP // 16).astype(np.uint8)).save(tmp_path / "rgb.png")
    np.testing.assert_array_equal(read_image(tmp_path / "rgb.png", (HEIGHT, WIDTH), white_level=100), DEEP // 16)


@pytest.fixture
def deep_path(coco_path):
    """The training set, with the values of 12 bits in files of 16."""
    for path in (coco_path / "images" / "train").iterdir():
        with Image.open(path) as picture:
            grey = np.asarray(picture.convert("L")).astype(np.uint16)
        Image.fromarray(grey * 16).save(path)
    return coco_path


def test_the_used_range_is_measured(deep_path):
    dataset = load_set(deep_path, "train", min_side=64, max_side=96, max_pixels=10**6)[1]
    used = used_range(dataset)
    assert (used.num_deep, used.num_looked_at) == (8, 8)
    assert used.is_far
    share = used.brightest / 65535
    assert f"is {used.brightest}, {share:.1%} of --white_level 65535; --white_level 4095 would fit" in used.text()
    assert used_range(load_set(deep_path, "val", min_side=64, max_side=96, max_pixels=10**6)[1]) is None
    right = load_set(deep_path, "train", min_side=64, max_side=96, max_pixels=10**6, white_level=4095)[1]
    assert not used_range(right).is_far
    assert right.original(0).max() > 100

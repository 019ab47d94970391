import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, features

from retinanet.data import images
from retinanet.data.images import (
    FORMATS,
    Region,
    check_image,
    image_suffixes,
    read_header,
    read_image,
    read_upright,
)
from retinanet.runtime.errors import UserError

HEIGHT, WIDTH = 6, 8
GREY = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH) * 5
RGB = np.stack([GREY, 255 - GREY, GREY // 2], axis=2)


def read(path):
    return read_image(path, (HEIGHT, WIDTH))


@pytest.mark.parametrize(
    ("mode", "suffix", "expected"),
    [
        ("RGB", "png", RGB),
        ("RGB", "tif", RGB),
        ("L", "png", GREY),
        ("1", "png", (GREY > 127) * 255),
        ("P", "png", None),
        ("P", "gif", None),
        ("LA", "png", GREY),
        ("RGBA", "png", RGB),
        ("CMYK", "tif", None),
        ("CMYK", "jpg", None),
        ("YCbCr", "jpg", None),
    ],
)
def test_every_mode_becomes_rgb(tmp_path, mode, suffix, expected):
    picture = Image.fromarray(RGB) if mode in ("RGB", "RGBA", "P", "CMYK", "YCbCr") else Image.fromarray(GREY)
    path = tmp_path / f"one.{suffix}"
    converted = picture.convert(mode, dither=Image.Dither.NONE)
    converted.save(path)
    pixels = read(path)
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    assert pixels.dtype == np.uint8
    if expected is not None:
        wanted = expected if expected.ndim == 3 else np.stack([expected] * 3, axis=2)
        np.testing.assert_array_equal(pixels, wanted)
    elif suffix != "jpg":
        np.testing.assert_array_equal(pixels, np.asarray(converted.convert("RGB")))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_scaled_and_not_cut_off(tmp_path, suffix):
    Image.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / f"deep.{suffix}")
    np.testing.assert_array_equal(read(tmp_path / f"deep.{suffix}")[..., 1], GREY)


def test_the_first_frame_of_many(tmp_path):
    frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    frames[0].save(tmp_path / "many.tif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(read(tmp_path / "many.tif"), RGB)


def test_a_32_bit_image_has_no_known_range(tmp_path):
    Image.fromarray(GREY.astype(np.int32)).save(tmp_path / "deep.tif")
    with pytest.raises(UserError, match=r"deep\.tif: .* no fixed range"):
        read(tmp_path / "deep.tif")


def test_16_bit_pgm(tmp_path):
    Image.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / "deep.pgm")
    np.testing.assert_array_equal(read(tmp_path / "deep.pgm")[..., 1], GREY)


def photo(path, orientation, pixels=RGB):
    """Writes pixels with an EXIF orientation; returns how a viewer shows them."""
    exif = Image.Exif()
    exif[274] = orientation
    picture = Image.fromarray(pixels)
    picture.save(path, exif=exif, **({} if path.suffix == ".png" else {"quality": 100, "subsampling": 0}))
    upright = {
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.swapaxes(0, 1),
        6: np.rot90(pixels, -1),
        7: np.rot90(pixels, 2).swapaxes(0, 1),
        8: np.rot90(pixels),
    }
    return upright.get(orientation, pixels)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
@pytest.mark.parametrize("orientation", range(1, 10))
def test_pictures_are_read_upright(tmp_path, orientation, suffix):
    path = tmp_path / f"photo.{suffix}"
    upright = photo(path, orientation)
    height, width = upright.shape[:2]
    assert read_header(path).upright_size == (height, width)
    for pixels in (read_image(path, (height, width)), read_upright(path)):
        assert np.abs(pixels.astype(int) - upright).max() <= (40 if suffix == "jpg" else 0)
    with pytest.raises(UserError, match=rf"annotation says {height + 1} x {width}"):
        read_image(path, (height + 1, width))


@pytest.mark.parametrize("strip", [1, 20, 2**20])
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_region_is_a_part_of_the_whole(tmp_path, monkeypatch, orientation, suffix, strip):
    path = tmp_path / f"photo.{suffix}"
    height, width = photo(path, orientation).shape[:2]
    whole = read_image(path, (height, width))
    monkeypatch.setattr(images, "STRIP", strip)  # pixels at a time
    assert np.array_equal(read_image(path, (height, width)), whole)
    for region in (Region(0, 0, height, width), Region(1, 2, 3, 4), Region(height - 1, 0, 1, 1)):
        top, left, rows, columns = region
        part = read_image(path, (height, width), region=region)
        assert np.array_equal(part, whole[top : top + rows, left : left + columns])
        assert part.flags.writeable


def test_a_region_of_a_16_bit_picture(tmp_path):
    Image.fromarray(GREY.astype(np.uint16) * 16).save(tmp_path / "deep.png")
    part = read_image(tmp_path / "deep.png", (HEIGHT, WIDTH), white_level=4095, region=Region(1, 2, 3, 4))
    np.testing.assert_array_equal(part[..., 0], np.rint(GREY.astype(int) * 16 / (4095 / 255))[1:4, 2:6])


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 10))
def test_raw_turns_pictures_only_to_the_annotated_size(tmp_path, orientation, suffix):
    path = tmp_path / f"photo.{suffix}"
    upright = photo(path, orientation)
    np.testing.assert_array_equal(read_image(path, (HEIGHT, WIDTH), exif="raw"), RGB)
    part = read_image(path, (HEIGHT, WIDTH), exif="raw", region=Region(1, 2, 3, 4))
    np.testing.assert_array_equal(part, RGB[1:4, 2:6])
    if 5 <= orientation <= 8:
        np.testing.assert_array_equal(read_image(path, (WIDTH, HEIGHT), exif="raw"), upright)


def test_a_png_may_say_its_orientation_after_its_pixels(tmp_path):
    photo(tmp_path / "early.png", 6)
    content = (tmp_path / "early.png").read_bytes()
    start = content.index(b"eXIf") - 4
    stop = start + 12 + int.from_bytes(content[start : start + 4], "big")
    end = content.index(b"IEND") - 4
    late = tmp_path / "late.png"
    late.write_bytes(content[:start] + content[stop:end] + content[start:stop] + content[end:])
    assert read_header(late) == read_header(tmp_path / "early.png") == (HEIGHT, WIDTH, 6, False)
    np.testing.assert_array_equal(read_upright(late), np.rot90(RGB, -1))


def test_damaged_exif_data_say_nothing(tmp_path):
    path = tmp_path / "photo.jpg"
    photo(path, 6)
    path.write_bytes(path.read_bytes().replace(b"Exif\0\0", b"Exif\0\0xxxx", 1))
    assert read_header(path).orientation == 1
    assert read_upright(path).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_recognised_by_its_content(tmp_path, name):
    if name in ("WEBP", "AVIF", "JPEG2000") and not features.check({"JPEG2000": "jpg_2000"}.get(name, name.lower())):
        pytest.skip(f"Pillow is built without {name}")
    Image.fromarray(RGB).save(tmp_path / "one.txt", format=name)
    pixels = read(tmp_path / "one.txt").astype(int)
    exact = name not in ("JPEG", "WEBP", "AVIF", "GIF")
    assert np.abs(pixels - RGB).max() <= (0 if exact else 128)


@pytest.mark.parametrize("suffix", ["eps", "jpg"])
def test_postscript_starts_no_program(tmp_path, monkeypatch, suffix):
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (tmp_path / "gs").chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # what an earlier look for it found
    path = tmp_path / f"one.{suffix}"
    Image.fromarray(RGB).save(path, format="EPS")
    for look in (read_image, check_image):
        with pytest.raises(
            UserError, match=rf"one\.{suffix}: can't be read as an image: it is in none of .* JPEG, PNG"
        ):
            look(path, (HEIGHT, WIDTH))
    assert not (tmp_path / "started").exists()
    assert {".jpg", ".png", ".tif", ".webp", ".mpo"} <= image_suffixes()
    assert not {".eps", ".pdf", ".psd"} & image_suffixes()


@pytest.mark.parametrize("name", ["PDF", "ICO", "PCX", "SGI"])
def test_other_formats_are_refused(tmp_path, name):
    Image.fromarray(RGB).save(tmp_path / "one.png", format=name)
    with pytest.raises(UserError, match=r"one\.png: can't be read as an image: it is in none of the formats JPEG, PNG"):
        read_image(tmp_path / "one.png", (HEIGHT, WIDTH))


def damaged(path, kind):
    if kind == "missing":
        return
    if kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("no image")
    elif kind == "empty":
        path.write_bytes(b"")
    else:
        suffix = kind.split()[1]
        noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path, format=suffix)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) * 3 // 4])


@pytest.mark.parametrize("kind", ["missing", "folder", "text", "empty", "truncated PNG", "truncated JPEG"])
def test_bad_files_are_named(tmp_path, kind):
    path = tmp_path / "bad.img"
    damaged(path, kind)
    with pytest.raises(UserError, match=r"bad\.img"):
        read_image(path, (HEIGHT, WIDTH))


def test_headers_are_checked_without_decoding(tmp_path):
    path = tmp_path / "one.png"
    Image.fromarray(RGB).save(path)
    with pytest.raises(UserError, match="its annotation says 7 x 8"):
        check_image(path, (7, WIDTH))
    damaged(path, "truncated PNG")
    check_image(path, (HEIGHT, WIDTH))
    damaged(path, "text")
    with pytest.raises(UserError, match="can't be read as an image"):
        check_image(path, (HEIGHT, WIDTH))


def test_too_many_pixels_are_refused_from_the_header(tmp_path):
    path = tmp_path / "huge.png"
    Image.new("1", (20000, 20000)).save(path)
    with pytest.raises(UserError, match="20000 x 20000 pixels are more than --max_pixels 89000000"):
        read_image(path, (20000, 20000))
    with pytest.raises(UserError, match="max_pixels 40"):
        read_image(tmp_path / "huge.png", (20000, 20000), max_pixels=40)


def test_as_many_pixels_as_are_allowed_are_read(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "one.png")
    assert read_image(tmp_path / "one.png", (HEIGHT, WIDTH), max_pixels=HEIGHT * WIDTH).shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(UserError, match="6 x 8 pixels are more than --max_pixels 47"):
        read_image(tmp_path / "one.png", (HEIGHT, WIDTH), max_pixels=HEIGHT * WIDTH - 1)


def test_what_is_no_file_is_not_opened():
    """A pipe would be waited for, and a device such as this one may never end."""
    with pytest.raises(UserError, match=r"/dev/null: can't be read as an image \(it is not a regular file\)"):
        read_image("/dev/null", (HEIGHT, WIDTH))

import hashlib
import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from linkcontext.data import formats
from linkcontext.data.images import Upload, hash_pixels, open_image, portable, sha256, suffix, summarize, thumbnail_png
from linkcontext.errors import InputError


def saved(image, path, **options):
    image.save(path, **options)
    return path


def noise(height=6, width=9, channels=3):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8)


def png_header(width, height):
    """A whole PNG header, and then nothing."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


def gif_of_frame(width, height):
    """A GIF whose screen is 1 x 1 and whose first frame is larger."""
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", 1, 1, 0, 0, 0)
        + b","
        + struct.pack("<HHHHB", 0, 0, width, height, 0)
        + b"\x02"
    )


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.bmp", "a.tif"])
def test_rgb_comes_back_as_it_was(tmp_path, name):
    pixels = noise()
    options = {"lossless": True} if name == "a.webp" else {}
    image = open_image(saved(Image.fromarray(pixels), tmp_path / name, **options))
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), pixels)


def test_jpeg_comes_back_nearly_as_it_was(tmp_path):
    pixels = np.full((16, 16, 3), (200, 40, 90), np.uint8)
    image = open_image(saved(Image.fromarray(pixels), tmp_path / "a.jpg", quality=95))
    assert np.abs(np.asarray(image).astype(int) - pixels).max() <= 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif"])
def test_every_exif_orientation_is_applied(tmp_path, orientation, name):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if name == "a.webp" else {}
    path = saved(Image.fromarray(noise()), tmp_path / name, exif=exif, **options)
    with Image.open(path) as raw:
        oracle = ImageOps.exif_transpose(raw).convert("RGB")
    assert np.array_equal(np.asarray(open_image(path)), np.asarray(oracle))


def test_orientation_6_by_hand(tmp_path):
    """A camera on its side: what is stored as the left column is the top row."""
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = np.array([[[10] * 3, [20] * 3], [[30] * 3, [40] * 3], [[50] * 3, [60] * 3]], np.uint8)
    image = open_image(saved(Image.fromarray(stored), tmp_path / "a.png", exif=exif))
    assert np.asarray(image)[..., 0].tolist() == [[50, 30, 10], [60, 40, 20]]


def test_damaged_exif_leaves_the_picture_as_it_lies(tmp_path):
    pixels = noise()
    path = saved(Image.fromarray(pixels), tmp_path / "a.png", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    assert np.array_equal(np.asarray(open_image(path)), pixels)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_lies_on_white(tmp_path, mode):
    image = Image.fromarray(noise(channels=4)).convert(mode)
    colour = np.asarray(image.convert("RGBA")).astype(float)
    alpha = colour[..., 3:] / 255
    oracle = colour[..., :3] * alpha + 255 * (1 - alpha)
    got = np.asarray(open_image(saved(image, tmp_path / "a.png")))
    assert np.abs(got - oracle).max() <= 1


def test_transparent_palette_colour_becomes_white(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.putpixel((1, 0), 1)
    for name in ("a.png", "a.gif"):
        path = saved(image, tmp_path / name, transparency=0)
        assert np.asarray(open_image(path)).tolist() == [[[255, 255, 255], [10, 20, 30]]]


def test_palette_with_an_alpha_for_each_colour(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 100, 100, 100])
    image.putpixel((1, 0), 1)
    path = saved(image, tmp_path / "a.png", transparency=bytes([0, 255]))
    assert np.asarray(open_image(path))[..., 0].tolist() == [[255, 100]]


def test_transparent_grey_of_8_and_of_16_bits_becomes_white(tmp_path):
    eight = Image.fromarray(np.array([[7, 8]], np.uint8))
    assert np.asarray(open_image(saved(eight, tmp_path / "8.png", transparency=7)))[..., 0].tolist() == [[255, 8]]
    sixteen = Image.fromarray(np.array([[700, 257, 65_535]], np.uint16))
    path = saved(sixteen, tmp_path / "16.png", transparency=700)
    assert np.asarray(open_image(path))[..., 0].tolist() == [[255, 1, 255]]


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path, name):
    grey = np.array([[0, 128, 129, 257, 32_768, 65_535]], np.uint16)
    image = open_image(saved(Image.fromarray(grey), tmp_path / name))
    assert np.asarray(image)[..., 1].tolist() == [[0, 0, 1, 1, 128, 255]]


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 2.0, 255.0]], np.float32), [0, 2, 255]),
        (np.array([[-5.0, 257.0, 65_535.0]], np.float32), [0, 1, 255]),
        (np.array([[np.nan, np.inf, 0.2]], np.float32), [0, 255, 51]),
        (np.array([[0.0, 2.0**40, 2.0**41]], np.float32), [0, 128, 255]),
        (np.array([[0, 1, 255]], np.int32), [0, 1, 255]),
        (np.array([[-1, 2_570, 65_535]], np.int32), [0, 10, 255]),
        (np.array([[0, 2**30, 2**31 - 1]], np.int32), [0, 128, 255]),
    ],
)
def test_32_bits_take_the_smallest_customary_white(tmp_path, values, shown):
    image = open_image(saved(Image.fromarray(values), tmp_path / "a.tif"))
    assert np.asarray(image)[0, :, 0].tolist() == shown


def test_one_bit_and_cmyk(tmp_path):
    one = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")
    assert np.asarray(open_image(saved(one, tmp_path / "1.png"))).tolist() == [[[0] * 3, [255] * 3]]
    cyan = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    red, green, blue = open_image(saved(cyan, tmp_path / "c.jpg")).getpixel((4, 4))
    assert red <= 3
    assert min(green, blue) >= 252


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png"])
def test_first_frame_of_an_animation(tmp_path, name):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue", "lime")]
    options = {"lossless": True} if name == "a.webp" else {}
    path = saved(frames[0], tmp_path / name, save_all=True, append_images=frames[1:], **options)
    assert open_image(path).getpixel((0, 0)) == (255, 0, 0)


def test_the_content_and_not_the_name_says_the_format(tmp_path):
    pixels = noise()
    path = saved(Image.fromarray(pixels), tmp_path / "really_a_png.jpg", format="PNG")
    assert np.array_equal(np.asarray(open_image(path)), pixels)


def test_nothing_of_the_file_clings_to_the_picture(tmp_path):
    image = Image.fromarray(noise())
    path = saved(image, tmp_path / "a.png", icc_profile=b"a profile", dpi=(300, 300))
    assert open_image(path).info == {}


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.png", b"", "0 bytes"),
        ("text.png", b"this is a text file\n", "not a picture"),
        ("one_byte.jpg", b"\xff", "not a picture"),
        ("sound.webp", b"RIFF\x00\x00\x00\x00WAVEfmt ", "not a picture"),
        (
            "huge.png",
            png_header(30_000, 30_000),
            "30,000 x 30,000 pixels are more than the limit of 50,000,000",
        ),
        ("warned.png", png_header(10_000, 10_000), "10,000 x 10,000 pixels"),
        ("huge.gif", gif_of_frame(60_000, 60_000), "limit of 50,000,000"),
        ("warned.gif", gif_of_frame(10_000, 10_000), "10,000 x 10,000 pixels"),
        ("headless.png", png_header(5, 5), "damaged or cut short"),
        ("zero.png", png_header(0, 5), "damaged or cut short"),
    ],
)
def test_bad_files_are_refused_in_one_sentence(tmp_path, name, content, reason):
    path = tmp_path / name
    path.write_bytes(content)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with pytest.raises(InputError) as caught:
            open_image(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert seen == []


def test_a_whole_picture_above_the_limit_is_refused_and_at_the_limit_opened(tmp_path):
    path = saved(Image.new("RGB", (20, 10)), tmp_path / "a.png")
    assert open_image(path, max_pixels=200).size == (20, 10)
    with pytest.raises(InputError, match="20 x 10 pixels are more than the limit of 199"):
        open_image(path, max_pixels=199)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.gif"])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.95])
def test_truncated_pictures_are_refused(tmp_path, name, share):
    whole = saved(Image.fromarray(noise(40, 40)), tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(InputError, match=r"damaged or cut short|not a picture"):
        open_image(tmp_path / name)


def test_what_is_no_regular_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path, tmp_path / "pipe.png"):
        with pytest.raises(InputError, match="not a file"):
            open_image(path)
    with pytest.raises(InputError, match="No such file"):
        sha256(tmp_path / "absent.png")


def test_a_file_without_permission_is_refused(tmp_path, monkeypatch):
    path = saved(Image.fromarray(noise()), tmp_path / "a.png")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    for reader in (open_image, sha256):
        with pytest.raises(InputError, match=r"a\.png: cannot be read \(Permission denied\)"):
            reader(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_really_without_permission_is_refused(tmp_path):
    path = saved(Image.fromarray(noise()), tmp_path / "a.png")
    path.chmod(0)
    with pytest.raises(InputError, match="Permission denied"):
        open_image(path)


def test_sha256_is_of_the_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()


def test_thumbnail_keeps_the_shape_and_never_grows(tmp_path):
    path = saved(Image.fromarray(noise(30, 60)), tmp_path / "a.png", icc_profile=b"a profile")
    with Image.open(io.BytesIO(thumbnail_png(path, 20))) as small:
        assert (small.format, small.size, small.info) == ("PNG", (20, 10), {})
    with Image.open(io.BytesIO(thumbnail_png(path, 500))) as same:
        assert same.size == (60, 30)
    assert thumbnail_png(path, 20) == thumbnail_png(path, 20)


@pytest.mark.parametrize("name", [".png", ".jpg", ".webp", ".gif", ".bmp", ".tif"])
def test_suffix_of_what_pillow_writes(tmp_path, name):
    assert suffix(saved(Image.fromarray(noise()), tmp_path / f"a{name}").read_bytes()) == name


def test_suffix_of_no_picture():
    assert suffix(b"%PDF-1.7") is None
    assert suffix(b"") is None


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_grey_of_fewer_bits_in_16_is_shown_with_its_own_white(tmp_path, bits):
    pixels = np.array([[0, 2**bits - 1]], np.uint16)
    path = saved(Image.fromarray(pixels), tmp_path / "a.png")
    assert np.asarray(open_image(path))[..., 0].tolist() == [[0, 255]]
    assert ("bits" in summarize(path).notes) is (bits < 16)
    assert np.asarray(open_image(saved(Image.fromarray(pixels), tmp_path / "a.tif")))[0, 1].tolist() == [255] * 3


@pytest.mark.parametrize("after", [False, True])
def test_a_png_with_long_texts_is_read(tmp_path, after):
    """Renderers write scenes, editors histories and profiles; before the pixels or behind them."""
    texts = PngInfo()
    texts.add_itxt("workflow", "node " * 400_000, zip=True)
    texts.add_text("more", "x" * 2_000_000, zip=True)
    if after:
        chunks, texts.chunks = texts.chunks, []
        for kind, body, _ in chunks:
            texts.add(kind, body, after_idat=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(Image.fromarray(noise()), tmp_path / "a.png", pnginfo=texts, exif=exif)
    plain = saved(Image.fromarray(noise()), tmp_path / "b.png", exif=exif)
    assert open_image(path).size == (6, 9)
    assert summarize(path).pixels == summarize(plain).pixels
    assert portable(path) == portable(plain)


def test_a_png_with_a_large_profile_is_read_and_a_damaged_one_is_not(tmp_path):
    profile = saved(Image.fromarray(noise()), tmp_path / "a.png", icc_profile=b"x" * 3_000_000)
    assert np.array_equal(np.asarray(open_image(profile)), noise())
    profile.write_bytes(profile.read_bytes()[:-40])
    with pytest.raises(InputError, match="damaged or cut short"):
        open_image(profile)


def test_copies_have_one_hash_whatever_holds_them(tmp_path):
    image = Image.fromarray(noise())
    paths = [saved(image, tmp_path / name) for name in ("a.png", "b.bmp", "c.tif")]
    paths.append(saved(image.convert("RGBA"), tmp_path / "d.png"))
    assert len({hash_pixels(path) for path in paths}) == 1
    assert hash_pixels(saved(image.rotate(180), tmp_path / "e.png")) != hash_pixels(paths[0])
    assert hash_pixels(Upload("u", paths[0].read_bytes())) == hash_pixels(paths[0])


def test_what_is_notable_about_a_picture(tmp_path):
    flat, night, film = Image.new("RGB", (9, 9), "white"), Image.new("RGB", (9, 9)), Image.fromarray(noise())
    night.putpixel((0, 0), (9, 9, 9))
    assert summarize(saved(flat, tmp_path / "a.jpg")).notes == ("blank",)
    assert summarize(saved(night, tmp_path / "b.png")).notes == ("dark",)
    assert summarize(saved(film, tmp_path / "c.png")).notes == ()
    assert summarize(saved(film, tmp_path / "d.webp", save_all=True, append_images=[flat.resize(film.size)])).notes == (
        "frames",
    )


def tiff(entries):
    """A TIFF of one black pixel with these further tags."""
    tags = {256: 1, 257: 1, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: 1, **entries}
    rows = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return b"II*\x00" + struct.pack("<I", 10) + b"\x00\x00" + struct.pack("<H", len(tags)) + rows + struct.pack("<I", 0)


def test_a_raw_file_is_not_read_as_its_preview(tmp_path):
    (tmp_path / "plain.tif").write_bytes(tiff({}))
    assert open_image(tmp_path / "plain.tif").size == (1, 1)
    (tmp_path / "a.NEF").write_bytes(tiff({}))
    for name, content in (
        ("a.tif", tiff({50706: 1})),  # DNG, under another name
        ("b.tif", tiff({254: 1, 330: 8})),  # a preview, and the picture in another place
        ("c.jpg", b"II*\x00\x10\x00\x00\x00CR\x02\x00" + b"\x00" * 30),
        ("d.png", b"\x00\x00\x00\x18ftypcrx "),
        ("a.NEF", tiff({})),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name}: has the format camera RAW, which is not supported"):
            open_image(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\x00\x00\x00\x18ftypheic", "HEIC"),
        (b"\x00\x00\x00\x1cftypmif1\x00\x00\x00\x00mif1heic", "HEIC"),
        (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"8BPS\x00\x01", "Photoshop"),
        (b"\x00\x00\x00\x18ftypisom", "video"),
        (b'<?xml version="1.0"?>', ""),
    ],
)
def test_formats_that_are_known_by_name_only(tmp_path, monkeypatch, content, kind):
    monkeypatch.setattr(formats, "HAS_HEIC", False)
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(InputError, match=f"has the format {kind}" if kind else "not a picture"):
        open_image(tmp_path / "a.png")
    assert formats.readable(content) is None


def test_avif_and_heic_are_read_where_their_readers_are_installed(tmp_path):
    image = Image.new("RGB", (16, 16), "red")
    if formats.HAS_AVIF:
        assert open_image(saved(image, tmp_path / "a.avif")).getpixel((3, 3))[0] > 240
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(image).save(tmp_path / "a.heic")
    assert open_image(tmp_path / "a.heic").getpixel((3, 3))[0] > 240
    (tmp_path / "b.heic").write_bytes((tmp_path / "a.heic").read_bytes()[:150])
    with pytest.raises(InputError, match="damaged or cut short"):
        open_image(tmp_path / "b.heic")


def test_a_kind_of_picture_that_is_good_and_cannot_be_read_is_not_called_damaged(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff({262: 999}))  # a colour space that nobody knows
    with pytest.raises(InputError, match="this kind of picture cannot be read"):
        open_image(tmp_path / "a.tif")

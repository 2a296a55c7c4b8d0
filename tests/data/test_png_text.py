import io

import pytest
from PIL import Image
from PIL.PngImagePlugin import MAX_TEXT_CHUNK, PngInfo

from linkcontext.data.images import open_image
from linkcontext.data.png_text import without_long_texts


def png(**options):
    file = io.BytesIO()
    Image.new("RGB", (4, 3), "red").save(file, "PNG", **options)
    return file


def texts(**values):
    info = PngInfo()
    for name, value in values.items():
        info.add_text(name.replace("_", " "), value)
    return info


def test_texts_and_profiles_go_and_the_picture_stays():
    plain = png()
    described = png(pnginfo=texts(scene="x" * 2 * MAX_TEXT_CHUNK, short="y"), icc_profile=b"p" * 1000)
    assert without_long_texts(described).getvalue() == plain.getvalue()
    assert without_long_texts(plain).getvalue() == plain.getvalue()


@pytest.mark.parametrize(("length", "stays"), [(100, True), (2 * MAX_TEXT_CHUNK, False)])
def test_short_texts_that_may_have_the_orientation_stay(length, stays):
    kept = without_long_texts(png(pnginfo=texts(Raw_profile_type_exif="z" * length))).getvalue()
    assert (b"Raw profile type exif" in kept) is stays


def test_bytes_that_are_no_chunk_are_kept():
    damaged = png().getvalue()[:-6]
    assert without_long_texts(io.BytesIO(damaged)).getvalue() == damaged
    assert without_long_texts(io.BytesIO(b"short")).getvalue() == b"short"


def test_such_a_file_is_opened(tmp_path):
    (tmp_path / "a.png").write_bytes(png(pnginfo=texts(scene="x" * 2 * MAX_TEXT_CHUNK)).getvalue())
    assert open_image(tmp_path / "a.png").getpixel((1, 1)) == (255, 0, 0)

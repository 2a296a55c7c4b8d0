"""Pictures as callers give them: each kind has the pixels of its file, and each mistake is a sentence."""

import numpy as np
import pytest
import torch
from PIL import Image

from linkcontext.data.images import MAX_PIXELS, Upload, hash_pixels, open_image
from linkcontext.errors import InputError
from linkcontext.teach.given_pictures import picture_source, picture_sources


@pytest.fixture
def file(picture, tmp_path):
    return picture(tmp_path / "a.png", 1)


def test_every_kind_has_the_pixels_of_the_file(file):
    pixels = np.asarray(open_image(file))
    channels_first = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    for given in (
        str(file),
        file,
        file.read_bytes(),
        bytearray(file.read_bytes()),
        Image.open(file),
        pixels,
        pixels / 255,
        channels_first,
        channels_first.float() / 255,
        channels_first.double().requires_grad_() / 255,
        np.concatenate([pixels, np.full((*pixels.shape[:2], 1), 255, np.uint8)], -1),  # RGBA
        pixels[::-1][::-1],  # not contiguous
    ):
        assert hash_pixels(picture_source(given)) == hash_pixels(file)
    grey = pixels[:, :, 0]
    for given in (grey, grey[:, :, None], torch.from_numpy(grey.copy()), torch.from_numpy(grey.copy())[None]):
        assert np.array_equal(np.asarray(open_image(picture_source(given))), np.stack([grey] * 3, -1))


def test_an_image_of_pillow_is_treated_as_its_file_is(tmp_path):
    """Orientation, transparency, palettes, 16 bits: the pixels are those of the file."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels[:, :, :3]).save(tmp_path / "turned.jpg", exif=exif)
    Image.fromarray(pixels).save(tmp_path / "clear.png")
    Image.fromarray(pixels[:, :, :3]).quantize(8).save(tmp_path / "palette.gif")
    Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 200).save(tmp_path / "deep.png")
    for path in tmp_path.iterdir():
        with Image.open(path) as image:
            assert hash_pixels(picture_source(image)) == hash_pixels(path), path
    with Image.open(tmp_path / "turned.jpg") as image:
        assert open_image(picture_source(image)).size == (6, 9)


def test_an_image_that_was_changed_is_what_it_is_now(file):
    turned = Image.open(file).rotate(90, expand=True)
    assert np.array_equal(np.asarray(open_image(picture_source(turned))), np.asarray(turned))


def test_lists_folders_and_generators_are_several(picture, tmp_path):
    paths = [picture(tmp_path / "lime" / f"{i}.png", i) for i in (2, 1)]
    (tmp_path / "lime" / "notes.txt").write_text("no picture")
    assert picture_sources(str(tmp_path / "lime")) == sorted(paths)
    assert picture_sources(path for path in paths) == paths
    assert picture_sources([paths[1], tmp_path / "lime"]) == [paths[1], *sorted(paths)]
    assert picture_sources((paths[0].read_bytes(),), " of 'x'") == [Upload("picture 1 of 'x'", paths[0].read_bytes())]
    assert picture_sources([]) == []


def test_what_a_folder_leaves_out_is_logged(picture, tmp_path, caplog):
    picture(tmp_path / "a.png", 1)
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    picture(tmp_path / "below" / "c.png", 2)
    assert picture_sources(tmp_path) == [tmp_path / "a.png"]
    assert "b.png: the picture is damaged" in caplog.text


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("https://example.org/cat.png", "an address. Pictures are never fetched: save the picture"),
        ("data:image/png;base64,AAAA", "an address"),
        ("file:///cat.png", "an address"),
        ("{tmp}/b.png", "no such picture. Did you mean .*/a.png"),
        ("{tmp}/nowhere/x.png", "no such picture.$"),
        ("{tmp}", r"a folder, where one picture is expected. For all pictures in it give \['"),
        ("{tmp}/*.png", r"a pattern. Give the folder, or the list that glob.glob\('"),
        (3, "the picture is of the type int. Give a path, a PIL image"),
        (None, "of the type NoneType"),
        ({"cat": "a.png"}, "of the type dict"),
        (np.zeros((3, 8, 8), np.uint8), r"Channels come last: array.transpose\(1, 2, 0\)"),
        (torch.zeros(8, 8, 3), r"Channels come first: tensor.permute\(2, 0, 1\)"),
        (np.zeros((2, 8, 8, 3), np.uint8), r"a batch of the shape .* Give a list of pictures: list\(batch\)"),
        (torch.zeros(2, 3, 8, 8), r"list\(batch\)"),
        (np.zeros((8, 8, 5)), "with 1, 3 or 4 channels"),
        (np.zeros(8), "has 1 axes"),
        (np.zeros((0, 8), np.uint8), "has no pixels"),
        (np.full((8, 8, 3), 255.0), "floats from 255 to 255. Give floats from 0 to 1"),
        (torch.full((3, 8, 8), -2.1), "without the normalization of a model"),
        (np.full((8, 8), np.nan), "floats from nan"),
        (np.zeros((8, 8), np.int64), "values of the type int64. Give uint8 from 0 to 255"),
        (np.zeros((8, 8), bool), "values of the type bool"),
        (np.array(["a.png", "b.png"]), "has 1 axes"),
        (Image.new("RGB", (0, 4)), "0 x 4 pixels"),
        (Image.new("1", (MAX_PIXELS, 2)), "Resize it"),
    ],
)
def test_a_mistake_is_a_sentence(file, tmp_path, given, sentence):
    with pytest.raises(InputError, match=sentence):
        picture_source(given.format(tmp=tmp_path) if isinstance(given, str) else given)


def test_a_mistake_in_a_list_says_which(file, tmp_path):
    with pytest.raises(InputError, match="picture 2 of 'cat' is of the type int"):
        picture_sources([file, 7], " of 'cat'")
    with pytest.raises(InputError, match="the pictures are a dictionary"):
        picture_sources({"cat": file})
    with file.open("rb") as opened, pytest.raises(InputError, match=r"an open file. .* file.read\(\)"):
        picture_sources(opened)
    with pytest.raises(InputError, match="picture 1: the picture is damaged or cut short"):
        open_image(picture_sources([file.read_bytes()[:40]])[0])
    with pytest.raises(InputError, match="picture 1: the file is empty"):
        open_image(picture_sources(b"")[0])


def test_a_folder_of_folders_is_no_folder_of_pictures(picture, tmp_path):
    picture(tmp_path / "photos" / "cat" / "a.png")
    with pytest.raises(InputError, match="To teach a folder of class folders, give teach the folder alone"):
        picture_sources(tmp_path / "photos")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="there is no picture directly in this folder"):
        picture_sources(tmp_path / "empty")

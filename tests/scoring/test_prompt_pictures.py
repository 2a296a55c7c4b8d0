"""The numbers of pictures in prompts: one for each content, whatever the ids and the files are called."""

import io
from pathlib import Path

import pytest
import torch
from PIL import Image

from linkcontext.data.images import Upload, open_image
from linkcontext.errors import InputError
from linkcontext.inference.vision import VisionEncoder
from linkcontext.models.synthetic_images import BLANK, CHECKED, SYNTHETIC, synthetic_image
from linkcontext.scoring.pictures import PromptPictures


def upload(number):
    file = io.BytesIO()
    Image.new("RGB", (32, 32), (40 * number, 0, 0)).save(file, "PNG")
    return Upload(str(number), file.getvalue())


def shown(*items):
    return [{"role": "user", "content": [{"type": "image", "image": item} for item in items]}]


@pytest.fixture
def pictures(nano_model):
    """Of three files, a and b have one content."""
    sources = {"a": ("same", upload(1)), "b": ("same", upload(1)), "c": ("other", upload(2)), "d": ("third", upload(3))}
    return PromptPictures(VisionEncoder(nano_model, open_image), sources)


def test_a_content_has_one_number_and_is_encoded_once(pictures):
    pictures.begin([shown("a", "b"), shown("c", "a")])
    assert pictures.eyes.calls == 2
    assert pictures.seen == []  # encoded, and without numbers yet
    assert pictures.numbered(["a", "b"]) == [0, 0]
    assert pictures.numbered(["c", "a"]) == [1, 0]
    assert pictures.contents == ["same", "other"]
    assert pictures.seen == [pictures.eyes.get("same"), pictures.eyes.get("other")]
    assert pictures.eyes.calls == 2


def test_a_picture_alone_in_its_prompt_has_another_number(pictures):
    pictures.begin([shown("a", "c"), shown("a")])
    assert pictures.numbered(["a", "c"]) == [0, 1]
    assert pictures.numbered(["b"]) == [2]
    assert pictures.numbered(["a"]) == [2]
    assert pictures.contents == ["same", "other", "same+alone"]
    assert pictures.items([shown("a", "c"), shown("a")]) == {0: "a", 1: "c", 2: "a"}
    assert pictures.items([shown("b")]) == {2: "b"}


def test_a_model_that_reads_a_single_picture_otherwise_has_other_features_for_it(pictures, monkeypatch):
    """Models of the LLaVA-OneVision kind cut a picture into tiles only where it is alone."""
    encoded = []
    monkeypatch.setattr(VisionEncoder, "key", lambda _eyes, content, alone: f"{content} alone" if alone else content)
    encode = VisionEncoder.encode
    monkeypatch.setattr(
        VisionEncoder,
        "encode",
        lambda eyes, images, alone=False: (
            encoded.extend((content, alone) for content, _ in images) or encode(eyes, images, alone)
        ),
    )
    pictures.begin([shown("a", "c"), shown("a"), shown("b")])
    assert sorted(set(encoded)) == [("other", False), ("same", False), ("same", True)]
    assert pictures.numbered(["a", "c"]) == [0, 1]
    assert pictures.numbered(["a"]) == [2]
    assert pictures.seen[0] is pictures.eyes.features["same"]
    assert pictures.seen[2] is pictures.eyes.features["same alone"]


def test_pictures_are_encoded_together_before_they_get_numbers_and_late_ones_when_they_come(pictures, monkeypatch):
    batches, encode = [], VisionEncoder._encode
    monkeypatch.setattr(
        VisionEncoder, "_encode", lambda eyes, images, alone: batches.append(len(images)) or encode(eyes, images, alone)
    )
    pictures.begin([shown("a", "c"), shown("c", "b")])
    assert batches == [2]
    assert pictures.numbered(["a", "d"]) == [0, 1]
    assert batches == [2, 1]


def test_numbers_begin_anew_with_each_request(pictures):
    pictures.begin([shown("a", "c")])
    pictures.numbered(["a", "c"])
    pictures.begin([shown("c", "d")])
    assert (pictures.seen, pictures.contents) == ([], [])
    assert pictures.numbered(["c", "d"]) == [0, 1]
    assert pictures.eyes.calls == 3  # what was encoded for the first request is still there


def test_features_are_given_in_order_and_get_no_numbers(pictures):
    pictures.begin([shown("a", "c")])
    pictures.numbered(["c", "a"])
    features = pictures.features(["d", "a", "b"])
    assert [row.embeddings.shape for row in features] == [features[0].embeddings.shape] * 3
    assert features[1] is features[2] is pictures.eyes.get("same")
    assert features[0] is pictures.eyes.get("third")
    assert pictures.contents == ["other", "same"]
    assert len(pictures.seen) == 2


def test_features_wanted_now_are_not_evicted(pictures, monkeypatch):
    monkeypatch.setattr(pictures.eyes, "max_bytes", 0)
    pictures.begin([shown("a", "c")])
    pictures.begin([shown("c", "d")])
    assert set(pictures.eyes.features) == {"other", "third"}
    pictures.features(["d"])
    assert set(pictures.eyes.features) == {"third"}


def test_pinned_features_are_used_without_the_file(pictures, nano_model):
    (kept,) = pictures.features(["a"])
    gone = Path("/no/such/file.png")
    sources = {"a": ("same", gone), "c": ("other", gone)}
    later = PromptPictures(VisionEncoder(nano_model, open_image, max_bytes=0), sources)
    later.pin("a", kept)
    for _ in range(2):  # and it stays
        later.begin([shown("a", "a")])
        assert later.numbered(["a", "a"]) == [0, 0]
        assert later.seen == [kept]
    assert later.eyes.calls == 0
    with pytest.raises(InputError, match=str(gone)):
        later.begin([shown("c", "a")])


def test_synthetic_pictures_have_no_source(pictures):
    pictures.begin([shown(BLANK, "a"), shown(*CHECKED)])
    assert pictures.numbered([BLANK, "a"]) == [0, 1]
    assert pictures.numbered(list(CHECKED)) == [2, 3]
    assert pictures.contents == [BLANK, "same", *CHECKED]
    assert pictures.items([shown(BLANK, "a")]) == {0: BLANK, 1: "a"}
    for number, item in zip((0, 2, 3), SYNTHETIC, strict=True):
        assert pictures.open(item).tobytes() == synthetic_image(item).tobytes()
        (expected,) = pictures.eyes.encode_images([synthetic_image(item)])
        torch.testing.assert_close(pictures.seen[number].embeddings, expected.embeddings, atol=1e-5, rtol=0)
    assert pictures.eyes.counters()["pictures"] == 1  # of the data


def test_a_picture_is_opened_from_its_source(pictures):
    assert pictures.open("c").getpixel((0, 0)) == (80, 0, 0)
    assert pictures.open("c").mode == "RGB"

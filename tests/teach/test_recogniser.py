"""Taught pictures are recognised in conversations."""

import pytest
from PIL import Image

import linkcontext
from linkcontext.source import open_data
from linkcontext.teach.recogniser import Recogniser


@pytest.fixture(scope="module")
def paths():
    dataset = open_data("world:3")
    return [[dataset.root / item.path for item in items] for items in dataset.by_class().values()]


def test_a_taught_picture_is_recognised_in_a_conversation(nano, paths, tmp_path):
    model = linkcontext.load(str(nano))
    model.teach({"a": paths[0][:1], "b": paths[1][:1]})
    Image.open(paths[1][0]).save(tmp_path / "again.bmp")
    recogniser = Recogniser.of(model)
    sources = {"x": ("x", tmp_path / "again.bmp"), "new": ("new", paths[2][0])}

    def name(text, *items, role="user"):
        pictures = [{"type": "image", "image": item} for item in items]
        return recogniser.name([{"role": role, "content": [*pictures, {"type": "text", "text": text}]}], sources)

    for text in ("What is this?", "what's this", "", "Name this."):
        assert name(text, "x") == "b"
        assert name(text, "new") is None
    for text, items in (("What colour is it?", ["x"]), ("What is this?", []), ("What is this?", ["x", "new"])):
        assert name(text, *items) is None
    assert name("What is this?", "x", role="assistant") is None
    assert recogniser.name([], {}) is None

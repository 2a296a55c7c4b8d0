"""Mutated files of other tools and mutated pictures: read, left out and named, or refused in a short sentence."""

import copy
import io
import json
import random
import shutil

import numpy as np
import pytest
from PIL import Image

from linkcontext.data import images
from linkcontext.data.images import Upload
from linkcontext.errors import InputError
from linkcontext.source import import_files

pytestmark = pytest.mark.heavy

LONGEST = 2_000  # characters of a message: no value of a file is repeated whole
VALUES = (None, True, 0, -1, 1.5, float("nan"), float("inf"), 10**30, "", "x", "a" * 5_000, "\0", "é", "../x", "/etc")
VALUES = (*VALUES, [], {}, [[]], {"a": 1}, ["x"], [None], [1, 2], "<image>", "data:image/png;base64,AAAA", "A", "on")
SEED_QUESTION = {"question_id": "1", "question_type_id": 1, "data_id": "a.png", "data_type": "image", "question": "?"}
LAYOUTS = [
    (
        "seed",
        "seed.json",
        {
            "question_type": {"Scene": 1},
            "questions": [SEED_QUESTION | {f"choice_{each}": each for each in "abcd"} | {"answer": "A"}],
        },
    ),
    ("vl-checklist", "Attribute/vg/color.json", [["a.png", {"POS": ["a red cup"], "NEG": ["a blue cup"]}]]),
    ("visual-genome", "attributes.json", [{"image_id": 1, "attributes": [{"names": ["cup"], "attributes": ["red"]}]}]),
    (
        "visual-genome",
        "relationships.json",
        [
            {
                "image_id": 1,
                "relationships": [{"predicate": "on", "subject": {"name": "a"}, "object": {"name": "b"}}],
            }
        ],
    ),
    (
        "conversations",
        "llava.json",
        [
            {
                "id": "g",
                "image": "a.png",
                "conversations": [{"from": "human", "value": "<image>\n?"}, {"from": "gpt", "value": "A"}],
            }
        ],
    ),
    (
        "conversations",
        "messages.json",
        [
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "?"}]},
                    {"role": "assistant", "content": "A", "loss": False},
                ],
                "images": ["a.png"],
            }
        ],
    ),
    ("vl-icl", "task/query.json", [{"id": "1", "image": ["a.png"], "question": "?", "answer": "x"}]),
]


def places(value, path=()):
    """The paths of all values inside a value, its own first."""
    yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inside:
        yield from places(each, (*path, key))


def mutated(value, chance):
    value = copy.deepcopy(value)
    for _ in range(chance.choice([1, 1, 2])):
        path, new = chance.choice(list(places(value))), copy.deepcopy(chance.choice(VALUES))
        if not path:
            return new
        parent = value
        for key in path[:-1]:
            parent = parent[key]
        if isinstance(parent, dict) and chance.random() < 0.15:
            del parent[path[-1]]
        else:
            parent[path[-1]] = new
    return value


def test_mutated_records_of_other_tools(tmp_path, count):
    chance, root, out = random.Random(7), tmp_path / "files", tmp_path / "out"
    (root / "task").mkdir(parents=True)
    for name in ("a.png", "1.jpg"):
        Image.new("RGB", (9, 9), "red").save(root / name)
    (root / "task" / "support.json").write_text(json.dumps(LAYOUTS[-1][2]))
    read = 0
    for _ in range(count(3_000)):
        layout, name, value = chance.choice(LAYOUTS)
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(mutated(value, chance)))
        source = path.parent if layout == "vl-icl" else path
        try:
            result = import_files(layout, str(source), str(root), str(out) if chance.random() < 0.5 else None)
            sentences = (*result.contents, *result.problems)
            read += 1
        except InputError as error:
            sentences = (str(error),)
        assert max(map(len, sentences)) < LONGEST, sentences
        shutil.rmtree(out, ignore_errors=True)
    assert read


def pictures():
    """Good pictures in every format and in many modes."""
    noise = np.random.default_rng(3).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    modes = [image.convert(mode) for mode in ("L", "P", "CMYK", "F", "LA", "RGBA", "1", "YCbCr", "I")]
    modes.append(Image.fromarray(noise[..., 0].astype(np.uint16) * 16))
    for kind, each in (
        *((kind, image) for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP")),
        *(("TIFF", m) for m in modes),
    ):
        file = io.BytesIO()
        each.save(file, kind)
        yield file.getvalue()


def test_mutated_pictures(count):
    chance, good, read = random.Random(8), list(pictures()), 0
    for number in range(count(10_000)):
        content = bytearray(chance.choice(good))
        for _ in range(chance.choice([1, 2, 5, 20])):
            if chance.random() < 0.85:
                content[chance.randrange(len(content))] = chance.randrange(256)
            else:
                del content[1 + chance.randrange(len(content)) :]
        upload = Upload("a.png", bytes(content))
        try:
            summary = images.summarize(upload)
            assert len(summary.pixels) == 32, number
            read += 1
        except InputError as error:
            assert str(error).startswith("a.png: "), error
            assert len(str(error)) < LONGEST
    assert read

"""NVRD in the folder that its download script writes, with pictures of noise."""

import json

import pytest
from PIL import Image

from linkcontext.errors import InputError
from linkcontext.source import open_data


def noise(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise((8, 8), 20 + seed).save(path)


@pytest.fixture
def sample_data(tmp_path):
    """Two known objects and one of each other category, changed in two ways at levels 1 and 12."""
    root = tmp_path / "data" / "sample-data"
    objects = ["known/bat", "known/ice-cream", "novel/shape_14", "modified/shape-shape/boar_toaster"]
    for number, path in enumerate(objects):
        noise(root / f"{path}.png", number)
        folder, _, name = path.rpartition("/")
        for change in ("noise", "add"):
            for level in (1, 12):
                noise(root / folder / "perturbations_comp" / change / f"{name}_{level}.png", number)
    words = zip(objects, ("fliggen", "dax", "spimton", "blonket"), strict=True)
    mapping = [{"fp": f"sample-data/{path}.png", "ref": word, "freq": 1} for path, word in words]
    mapping[-1]["fp"] = "sample-data/modified/shape-shape/obj-obj/boar_toaster.png"  # as its author has them
    (root.parent / "nonce_word_mapping.json").write_text(json.dumps(mapping))
    return root


def test_objects_are_classes_with_nonce_words(sample_data):
    dataset = open_data(f"nvrd:{sample_data}", strict=True)
    assert dataset.names() == {
        "known/bat": "fliggen",
        "known/ice-cream": "dax",
        "modified/shape-shape/boar_toaster": "blonket",
        "novel/shape_14": "spimton",
    }
    of_shape = {(i.split, i.facts["change"], i.facts["severity"]) for i in dataset.by_class()["novel/shape_14"]}
    changed = {(f"severity-{n:02d}", change, n) for n in (1, 12) for change in ("noise", "add")}
    assert of_shape == {("original", "", 0), *changed}
    assert {i.facts["category"] for i in dataset.items} == {"known", "novel", "shape-shape"}


def test_what_does_not_belong_is_left_out(sample_data):
    noise(sample_data / "known/no-word.png", 9)
    noise(sample_data / "known/perturbations_comp/noise/no-word_3.png", 9)
    noise(sample_data / "elsewhere/bat.png", 9)
    (sample_data / "known/ice-cream.png").unlink()
    dataset = open_data(f"nvrd:{sample_data}")
    assert "known/ice-cream" not in dataset.names()
    nameless, alone, others = dataset.problems
    assert "without a word in nonce_word_mapping.json: 1 (known/no-word)" in nameless
    assert "without the original of their object: 4 (" in alone
    assert "do not lie where NVRD puts them: 1 (elsewhere/bat.png)" in others
    with pytest.raises(InputError, match="without a word"):
        open_data(f"nvrd:{sample_data}", strict=True)


def test_bad_folders_get_a_sentence(sample_data, tmp_path):
    with pytest.raises(InputError, match=r"no such folder.*download_dataset\.py"):
        open_data("nvrd:gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"nonce_word_mapping\.json is neither in it nor in the folder above"):
        open_data(f"nvrd:{tmp_path / 'empty'}")
    mapping = sample_data.parent / "nonce_word_mapping.json"
    records = json.loads(mapping.read_text())
    mapping.write_text(json.dumps([*records, {"fp": "other/known/bat.png", "ref": "wug"}, {"fp": "known/x.png"}]))
    problems = open_data(f"nvrd:{sample_data}").problems
    assert any("known/bat.png has two words, 'fliggen' and 'wug'" in line for line in problems)
    assert any("`ref` is missing" in line for line in problems)
    mapping.write_text("[]")
    with pytest.raises(InputError, match="holds no picture that can be used"):
        open_data(f"nvrd:{sample_data}")

"""The bundle: packed and put together again, the same model; damaged, a sentence."""

import json
import lzma

import pytest
import torch
from safetensors.torch import load
from tiny_models import save_bundle
from transformers import AutoModelForImageTextToText, AutoProcessor, CLIPModel

from linkcontext.errors import InputError
from linkcontext.models import bundled


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Standard folders of models with random weights, by name."""
    return save_bundle(tmp_path_factory.mktemp("build"))


@pytest.fixture
def packed(folders, tmp_path, monkeypatch):
    out = tmp_path / "weights"
    bundled.write_bundle(folders, out, {"size": "nano"})
    monkeypatch.setattr(bundled, "weights_folder", lambda: out)
    monkeypatch.setenv("LINKCONTEXT_CACHE", str(tmp_path / "cache"))
    return out


def test_a_packed_model_comes_back_as_a_standard_folder(packed, folders):
    assert bundled.available() == ("mini", "mini-base", "mini-clip")
    for name in ("mini-base", "mini"):
        network = AutoModelForImageTextToText.from_pretrained(bundled.folder(name), dtype=torch.float32)
        before = AutoModelForImageTextToText.from_pretrained(folders[name], dtype=torch.float32)
        for (key, a), b in zip(network.state_dict().items(), before.state_dict().values(), strict=True):
            torch.testing.assert_close(a, b.half().float(), rtol=0, atol=0, msg=key)
        processor = AutoProcessor.from_pretrained(bundled.folder(name))
        assert processor.tokenizer.eos_token == "<|end|>"
    CLIPModel.from_pretrained(bundled.folder("mini-clip"))


def test_what_models_share_is_stored_once(packed, folders):
    assert {path.name for path in packed.iterdir()} == {"weights.safetensors.xz", "files.json"}
    models = json.loads((packed / "files.json").read_text())["models"]
    towers = [
        {
            key.split("vision_model.")[-1].removeprefix("vision_tower."): value
            for key, value in models[name]["tensors"].items()
            if "vision_" in key
        }
        for name in bundled.NAMES
    ]
    shared = set(towers[0]) & set(towers[1]) & set(towers[2])
    assert len(shared) > 20
    assert all(tower[key] == towers[0][key] for tower in towers for key in shared)
    stored = load(lzma.decompress((packed / "weights.safetensors.xz").read_bytes()))
    named = {digest for model in models.values() for digest in model["tensors"].values()}
    assert set(stored) == named
    assert len(named) < sum(len(model["tensors"]) for model in models.values()) - 2 * len(shared) + 1


def test_damaged_weights_are_refused_and_nothing_is_left(packed, tmp_path):
    path = packed / "weights.safetensors.xz"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"weights.safetensors.xz: damaged"):
        bundled.folder("mini")
    assert not list((tmp_path / "cache" / "models").iterdir())


def test_unknown_and_missing_bundles(packed):
    with pytest.raises(InputError, match="not among the bundled models"):
        bundled.folder("maxi")
    (packed / "files.json").unlink()
    with pytest.raises(InputError, match="carries no bundled weights"):
        bundled.folder("mini")


def test_the_card_says_how_it_was_made(packed):
    assert json.loads((packed / "files.json").read_text())["card"] == {"size": "nano"}

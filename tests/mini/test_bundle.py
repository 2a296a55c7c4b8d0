"""The bundle: packed and put together again, the same model; damaged, a sentence."""

import json

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForImageTextToText, AutoProcessor, CLIPModel

from linkcontext.errors import InputError
from linkcontext.models import bundled


@pytest.fixture
def packed(nano_build, tmp_path, monkeypatch):
    out = tmp_path / "weights"
    bundled.pack(nano_build, out, {"size": "nano"})
    monkeypatch.setattr(bundled, "weights_folder", lambda: out)
    monkeypatch.setenv("LINKCONTEXT_CACHE", str(tmp_path / "cache"))
    return out


def test_a_packed_model_comes_back_as_a_standard_folder(packed, nano_build):
    assert bundled.available() == ("mini", "mini-base", "mini-clip")
    for name in ("mini-base", "mini"):
        network = AutoModelForImageTextToText.from_pretrained(bundled.folder(name), dtype=torch.float32)
        before = AutoModelForImageTextToText.from_pretrained(nano_build[name], dtype=torch.float32)
        for (key, a), b in zip(network.state_dict().items(), before.state_dict().values(), strict=True):
            torch.testing.assert_close(a, b.bfloat16().float(), rtol=0, atol=0, msg=key)
        processor = AutoProcessor.from_pretrained(bundled.folder(name))
        assert processor.tokenizer.eos_token == "<|end|>"
    CLIPModel.from_pretrained(bundled.folder("mini-clip"))


def test_the_vision_tower_is_stored_once(packed):
    sizes = {path.name: path.stat().st_size for path in packed.iterdir()}
    assert set(sizes) == {
        "vision.safetensors",
        "mini-clip.safetensors",
        "mini-base.safetensors",
        "mini.safetensors",
        "files.json",
    }
    with safe_open(packed / "mini.safetensors", "pt") as file:
        assert not [key for key in file.keys() if "vision" in key]  # noqa: SIM118


def test_damaged_weights_are_refused_and_nothing_is_left(packed, tmp_path):
    path = packed / "mini.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"mini.safetensors: damaged"):
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

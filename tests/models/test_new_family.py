"""A family is added by one record: the example of docs/adding.md, on a tiny architecture that transformers lacks."""

import json
import shutil
from dataclasses import replace

import pytest
from transformers import AutoConfig, AutoModelForImageTextToText, LlavaConfig, LlavaForConditionalGeneration

from linkcontext import cli
from linkcontext.models import families


class TinyConfig(LlavaConfig):
    model_type = "tiny_vl"


class TinyVL(LlavaForConditionalGeneration):
    config_class = TinyConfig


@pytest.fixture(scope="module")
def tiny(nano, tmp_path_factory):
    """A checkpoint of the architecture, in the folder of its model."""
    AutoConfig.register("tiny_vl", TinyConfig, exist_ok=True)
    AutoModelForImageTextToText.register(TinyConfig, TinyVL, exist_ok=True)
    llava = LlavaForConditionalGeneration.from_pretrained(nano)
    settings = {name: value for name, value in llava.config.to_dict().items() if name != "model_type"}
    network = TinyVL(TinyConfig(**settings))
    network.load_state_dict(llava.state_dict())
    folder = tmp_path_factory.mktemp("models") / "tiny"
    shutil.copytree(nano, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    network.save_pretrained(folder)
    return folder


@pytest.fixture
def evaluated(tiny, pictures, tmp_path, capsys):
    """Evaluate the model; gives its predictions and what is printed."""

    def run(name):
        flags = [
            "--model",
            str(tiny),
            "--data",
            str(pictures),
            "--shots",
            "0",
            "2",
            "--episodes",
            "2",
            "--explain",
            "0",
        ]
        cli.main(["eval", *flags, "--out", str(tmp_path / name)])
        lines = (tmp_path / name / "predictions.jsonl").read_text().splitlines()
        return [json.loads(line)["candidates"] for line in lines], capsys.readouterr().out

    return run


def words(predictions):
    return [(one["class"], one["name"], one["tokens"]) for candidates in predictions for one in candidates]


def numbers(predictions):
    return [one[key] for candidates in predictions for one in candidates for key in ("logprob", "null_logprob")]


def test_a_family_is_one_record(evaluated, documented, monkeypatch):
    usual, _ = evaluated("usual")
    (example,) = documented("A family")
    namespace = {}
    exec(example, namespace)
    family, calls = namespace["TINY"], []

    def encode_images(core, inputs, count, copies):
        calls.append(count)
        return family.encode_images(core, inputs, count, copies)

    monkeypatch.setattr(families, "FAMILIES", (replace(family, encode_images=encode_images), *families.FAMILIES))
    with_record, out = evaluated("record")
    assert "engine: prefix-cache" in out
    assert calls
    assert words(with_record) == words(usual)
    # Matrix products of batches of another size, or at another address, may differ in their last bits.
    assert numbers(with_record) == pytest.approx(numbers(usual), rel=1e-5)
    assert numbers(usual)
    monkeypatch.setattr(families, "FAMILIES", (replace(family, prefix_lm=True), *families.FAMILIES))
    _, out = evaluated("reference")
    assert "engine: reference (Tiny reads its prompt in both directions" in out

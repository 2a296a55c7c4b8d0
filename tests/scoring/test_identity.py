"""Digests of a model change with everything its answers depend on, and with nothing else."""

import hashlib
import json
import shutil

import pytest
import torch

from linkcontext.episodes.scaffold import SCAFFOLDS, build_messages
from linkcontext.models.loading import load_model
from linkcontext.models.model import Model
from linkcontext.records import Turn
from linkcontext.scoring.identity import (
    UNKNOWN,
    digest_of,
    measured,
    measured_by_server,
    of_model,
    prompts,
    without_keys,
)

WEIGHTS = "a" * 64


@pytest.fixture
def changed(nano, tmp_path):
    """A copy of the nano model with one file changed by a function of its JSON or text."""

    def change(name, edit):
        folder = tmp_path / "changed"
        shutil.copytree(nano, folder)
        path = folder / name
        path.write_text(edit(path.read_text()))
        return load_model(str(folder), device="cpu")

    return change


def with_value(*keys, value):
    """An edit that sets a value in a JSON file."""

    def edit(text):
        values = json.loads(text)
        inner = values
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        return json.dumps(values)

    return edit


def differing(a, b):
    """The names of digests that differ."""
    assert a.keys() == b.keys()
    return {name for name in a if a[name] != b[name]}


@pytest.mark.parametrize(
    ("file", "edit", "names"),
    [
        ("config.json", with_value("text_config", "rms_norm_eps", value=1e-3), {"configuration"}),
        ("config.json", with_value("transformers_version", value="5.0.0"), set()),
        ("processor_config.json", with_value("image_processor", "image_std", value=[0.9] * 3), {"processor"}),
        ("tokenizer.json", with_value("normalizer", value={"type": "Lowercase"}), {"processor"}),
        ("chat_template.jinja", lambda text: text.replace("assistant", "helper"), {"chat_template"}),
        ("chat_template.jinja", lambda text: "{# a comment #}" + text, set()),
        ("generation_config.json", with_value("repetition_penalty", value=1.5), {"generation"}),
        ("generation_config.json", with_value("transformers_version", value="5.0.0"), set()),
    ],
)
def test_a_digest_changes_with_what_it_names(nano_model, changed, file, edit, names):
    assert differing(measured(nano_model), measured(changed(file, edit))) == names


def test_one_weight_changes_the_digest_of_the_weights(nano_model, nano):
    other = load_model(str(nano), device="cpu")
    assert measured(other) == measured(nano_model)
    with torch.no_grad():
        next(other.network.parameters()).view(-1)[-1] += 1
    assert differing(measured(nano_model), measured(other)) == {"weights"}


def test_padding_and_truncation_of_earlier_calls_change_nothing(nano_model, nano):
    other = load_model(str(nano), device="cpu")
    other.tokenizer(["a", "a lum of dax"], padding=True, truncation=True, max_length=3)
    backend = other.tokenizer.backend_tokenizer
    assert backend.padding
    assert backend.truncation
    assert measured(other) == measured(nano_model)


def test_an_adapter_is_known_by_its_files_or_its_name(nano_model, tmp_path):
    def adapter(named):
        return measured(Model("m", "m", nano_model.network, nano_model.processor, adapter=named))["adapter"]

    assert adapter(None) is None
    assert adapter("some/adapter") == "some/adapter"
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "adapter_model.safetensors").write_bytes(b"weights")
        (tmp_path / folder / "README.md").write_text(folder)  # is no part of it
    assert adapter(str(tmp_path / "a")) == adapter(str(tmp_path / "b"))
    (tmp_path / "b" / "adapter_model.safetensors").write_bytes(b"others")
    assert adapter(str(tmp_path / "a")) != adapter(str(tmp_path / "b"))


def test_the_digest_of_prompts_changes_with_text_picture_answer_and_order(nano_model):
    def conversation(item="x", shown="lum", answer=None):
        return build_messages([Turn(item, "", shown)], SCAFFOLDS["turns"], Turn("q", "", ""), answer)

    digest = prompts(nano_model, [conversation(), conversation(answer="dax")])
    assert prompts(nano_model, iter([conversation(), conversation(answer="dax")])) == digest
    others = [
        [conversation(item="y"), conversation(answer="dax")],
        [conversation(shown="dax"), conversation(answer="dax")],
        [conversation(), conversation(answer="lum")],
        [conversation(answer="dax"), conversation()],
        [conversation()],
    ]
    digests = {prompts(nano_model, conversations) for conversations in others}
    assert len(digests | {digest}) == 6
    assert of_model(nano_model, others[4]) == {**measured(nano_model), "prompts": prompts(nano_model, others[4])}


@pytest.mark.parametrize(
    ("server", "weights"),
    [
        ({"measured": {"weights": WEIGHTS, "adapter": None}}, WEIGHTS),
        ({}, UNKNOWN),
        ({"measured": WEIGHTS}, UNKNOWN),
        ({"measured": {"weights": WEIGHTS + "a"}}, UNKNOWN),
        ({"measured": {"weights": WEIGHTS.upper()}}, UNKNOWN),
        ({"measured": {"weights": 5}}, UNKNOWN),
    ],
)
def test_a_servers_weights_are_known_if_it_reports_a_digest(server, weights):
    assert measured_by_server({"id": "one", **server}) == {"weights": weights, "server": {"id": "one", **server}}


def test_a_digest_does_not_depend_on_the_order_of_keys():
    assert digest_of({"a": 1, "b": [1, 2]}) == digest_of({"b": [1, 2], "a": 1}) != digest_of({"a": 1, "b": [2, 1]})
    assert digest_of({"a": 1}) == hashlib.sha256(b'{"a": 1}').hexdigest()
    assert without_keys({"a": 1, "b": 2}, ("b", "c")) == {"a": 1}

"""Idefics with its real processor, from a saved folder through the command line."""

import json

import pytest
import torch
from families import FAKE, FAMILIES
from PIL import Image
from tokenizers import AddedToken
from transformers import IdeficsImageProcessorPil, IdeficsProcessor

from linkcontext import cli
from linkcontext.episodes.render import encode
from linkcontext.episodes.scaffold import SCAFFOLDS, build_messages
from linkcontext.models.families import wrap_processor
from linkcontext.models.idefics import UTTERANCE, IdeficsChatProcessor
from linkcontext.models.loading import load_model
from linkcontext.records import Turn

TURNS = [Turn("0", "", "lum"), Turn("1", "", "dax")]


@pytest.fixture(scope="module", params=["base", "instruct"])
def folder(request, tmp_path_factory):
    network, stand = FAMILIES["idefics"]()
    words = stand.tokenizer
    if request.param == "instruct":
        words.add_tokens([AddedToken(UTTERANCE, special=True, normalized=False)], special_tokens=True)
    words.chat_template = None
    root = tmp_path_factory.mktemp("idefics") / request.param
    network.save_pretrained(root)
    IdeficsProcessor(IdeficsImageProcessorPil(image_size=16), words).save_pretrained(root)
    return root


def test_a_conversation_by_hand(folder):
    model = load_model(str(folder), device="cpu")
    assert isinstance(model.processor, IdeficsChatProcessor)
    end = f"{UTTERANCE}\n" if folder.name == "instruct" else "\n"
    messages = build_messages(TURNS[:1], SCAFFOLDS["turns"], Turn("1", "", ""))
    text = model.chat_template.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    picture = f"{FAKE}<image>{FAKE}"
    assert text == (
        f"<bos>User:{picture}What is this?{end}Assistant: lum{end}User:{picture}What is this?{end}Assistant:"
    )
    shown = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    made = model.processor(text=[text], images=[shown], padding=True, return_tensors="pt")
    assert model.tokenizer.decode(made["input_ids"][0]) == text
    # A token reads the last picture before it: none, then the first from its mark on, then the second.
    image = model.placeholder
    marks = [i for i, token in enumerate(made["input_ids"][0].tolist()) if token == image]
    reads = made["image_attention_mask"][0].tolist()
    assert [reads[marks[0] - 1], reads[marks[0]], reads[marks[1] - 1], reads[-1]] == [[0, 0], [1, 0], [1, 0], [0, 1]]
    assert not torch.equal(made["pixel_values"][0, 0], made["pixel_values"][0, 1])


def test_an_answer_is_its_name_and_what_ends_it(folder):
    model = load_model(str(folder), device="cpu")
    told = encode(build_messages(TURNS[:1], SCAFFOLDS["turns"], Turn("1", "", ""), "dax"), model.chat_template, "last")
    learnt = [label for label in told.labels if label >= 0]
    assert model.tokenizer.decode(learnt).strip(" ") == "dax" + (UTTERANCE if folder.name == "instruct" else "\n")
    assert model.network.generation_config.eos_token_id == [model.tokenizer.eos_token_id, learnt[-1]]


def test_eval_runs_it_and_says_what_it_is(folder, tmp_path, capsys):
    shape = ["--classes", "4", "--images", "4", "--size", "32", "--seed", "1"]
    cli.main(["world", "--isekai", "pair", *shape, "--out", str(tmp_path / "w")])
    asked = ["eval", "--benchmark", "isekai", "--data", str(tmp_path / "w"), "--model", str(folder), "--device", "cpu"]
    replies, scores = [], []
    for engine in ("auto", "reference"):
        out = tmp_path / engine
        cli.main([*asked, "--shots", "0", "1", "2", "--scoring", "both", "--engine", engine, "--out", str(out)])
        assert json.loads((out / "metrics.json").read_text())["counters"]["engine"] == engine.replace(
            "auto", "prefix-cache"
        )
        found = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
        replies.append([p["reply"] for p in found])
        scores.append([c["logprob"] for p in found for c in p["candidates"]])
    assert replies[0] == replies[1]
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)
    label = "isekai-pair: published, other images, total shots; this run is of Idefics (open Flamingo in transformers)"
    for name in ("report.md", "report.html"):
        assert f"{label}, not OpenFlamingo" in (tmp_path / "auto" / name).read_text()


def test_idefics2_has_the_space_between_a_picture_and_a_word_in_its_text():
    class Idefics2Processor:
        tokenizer = image_processor = chat_template = None
        image_token, fake_image_token = "<image>", "<fake>"

        def apply_chat_template(self, messages, **options):
            return messages

        def __call__(self, **options):
            return options

    processor = wrap_processor(Idefics2Processor())
    for text, written in {
        "User:<image>What?": "User:<image> What?",
        "<image> What?": "<image> What?",
        "<image>\nWhat?": "<image>\nWhat?",
        "<image><image><end>": "<image><image><end>",  # before a mark the processor writes none
    }.items():
        assert processor.apply_chat_template(text, tokenize=False) == written
    assert processor(text=["a"]) == {"text": ["a"]}

"""What a request may hold: limits, and the fields of other servers."""

import base64
import io
import json

import pytest
from PIL import Image

from linkcontext.errors import InputError
from linkcontext.serve.openai_protocol import ECHO, PARTS, STOP_CHARS, STOPS, Limits, parse_conversation, read_request

LIMITS = Limits(pictures=3, pixels=10_000, text=1000)
ASK = {"model": "mini", "messages": [{"role": "user", "content": "What is this?"}]}


def read(**more):
    return read_request(json.dumps(ASK | more).encode(), LIMITS)


def picture(width, height, colour=0):
    file = io.BytesIO()
    Image.new("L", (width, height), colour).save(file, "PNG")
    address = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": address}}


def build_messages(*parts):
    return parse_conversation(read(messages=[{"role": "user", "content": list(parts)}]).messages, LIMITS)


@pytest.mark.parametrize(
    "fields",
    [
        {"top_p": 1, "top_k": -1, "n": 1, "presence_penalty": 0, "frequency_penalty": 0.0, "repetition_penalty": 1.0},
        {"seed": 7, "user": "me", "metadata": {"a": "b"}, "store": True, "service_tier": "auto", "logit_bias": {}},
        {"response_format": {"type": "text"}, "modalities": ["text"], "tools": [], "tool_choice": "none"},
        {"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}},
        {"safety_identifier": "x", "prompt_cache_key": "y", "parallel_tool_calls": False, "functions": None},
        {"max_completion_tokens": 10**30, "temperature": 0, "best_of": 1, "no_repeat_ngram_size": 0, "min_tokens": 0},
    ],
)
def test_fields_that_make_no_difference_are_accepted(fields):
    assert read(**fields).ignored == []


def test_what_would_change_a_sampled_answer_is_named():
    assert read(temperature=0.7, top_p=0.9, top_k=40, min_p=0.1).ignored == ["temperature", "top_p", "top_k", "min_p"]
    assert read(temperature=1).ignored == ["temperature"]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"temperature": 2.5}, "temperature: "),
        ({"temperature": "warm"}, "temperature: "),
        ({"presence_penalty": 1}, "presence_penalty: "),
        ({"repetition_penalty": 1.2}, "repetition_penalty: "),
        ({"logit_bias": {"5": 1}}, "logit_bias: "),
        ({"response_format": {"type": "json_object"}}, "response_format.type: "),
        ({"tools": [{"type": "function"}]}, "tools: not supported"),
        ({"n": 2}, "n: "),
        ({"min_tokens": 5}, "min_tokens: "),
        ({"stop": ["x"] * (STOPS + 1)}, "stop: list should have at most 16 items"),
        ({"stop": "x" * (STOP_CHARS + 1)}, "stop.0: string should have at most 256 characters"),
        ({"stop": ["x" * (STOP_CHARS + 1)]}, "stop.0: string should have at most 256 characters"),
        ({"stop": ["x"] * 1_000_000}, "more values than a request can need"),
        ({"stop": [1] * 1_000_000}, "more values than a request can need"),
        ({"stop": [[]] * 50_000}, "stop"),
        ({"messages": [{"role": "user", "content": "x"}] * (PARTS + 1)}, "messages"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}] * 3000}] * 2},
            "messages: has 6,000 texts",
        ),
        ({"messages": [{}] * 4000}, "messages.0.role: field required"),
        ({f"field{number}": 1 for number in range(100)}, "an object has 102 fields"),
        ({"model": "x" * 1000}, "model: string should have at most 256 characters"),
        ({"x" * 100_000: 1}, "not supported"),
        ({"metadata": {"a": json.loads("[" * 190 + "]" * 190)}, "n": 2}, "n: "),
    ],
)
def test_other_fields_and_values_are_refused_by_name(fields, sentence):
    with pytest.raises(InputError) as refused:
        read(**fields)
    assert sentence in str(refused.value)
    assert len(str(refused.value)) < 2 * ECHO
    assert str(refused.value).endswith(".")


@pytest.mark.parametrize("body", [b'{"model":' * 100_000, b"[" * 1000 + b"]" * 1000, b'{"n": 1' + b"0" * 10_000 + b"}"])
def test_nesting_and_numbers_have_limits(body):
    with pytest.raises(InputError):
        read_request(body, LIMITS)


def test_quotes_and_commas_in_a_text_are_no_values():
    text = '"a", [b], {c}, ' * 20_000
    request = read_request(json.dumps(ASK | {"messages": [{"role": "user", "content": text}]}).encode(), Limits())
    assert request.messages[0].content == text


def test_texts_are_measured_together_before_anything_reads_them():
    half = {"type": "text", "text": "x" * 500}
    assert build_messages(half, half).pixels == 0
    with pytest.raises(InputError, match="their texts have 1,001 characters, and at most 1,000"):
        build_messages(half, half, {"type": "text", "text": "x"})


def test_pictures_have_a_number_and_pixels_together():
    assert build_messages(picture(100, 50), picture(100, 50, 9)).pixels == 10_000
    assert build_messages(picture(100, 100), picture(100, 100)).pixels == 10_000  # one picture, shown twice
    with pytest.raises(InputError, match=r"messages.0.content.1: has 100 x 51 pixels, and .* may have 10,000 together"):
        build_messages(picture(100, 50), picture(100, 51))
    with pytest.raises(InputError, match=r"messages.0.content.3: a request may have 3 pictures"):
        build_messages(*[picture(4, 4)] * 4)

"""Connecting to a server: which model it is, what is sent, and that no key gets into a message."""

from types import SimpleNamespace

import pytest

from linkcontext.config import ModelConfig
from linkcontext.errors import InputError
from linkcontext.evaluation.open_model import open_model
from linkcontext.models.prompting import Prompting
from linkcontext.scoring.connection import ServerConnection, _whole, connect
from linkcontext.scoring.remote import RemoteModel
from linkcontext.scoring.replicas import Refused, Replica, Replicas

QUESTION = [{"role": "user", "content": "What is this?"}]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    """The user's own variables choose nothing."""
    for name in ("OPENAI_MODEL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("models", "why"),
    [
        (
            "<html>Welcome to nginx!</html>",
            "not an endpoint that is compatible with OpenAI's. Does the address end in /v1",
        ),
        ({"status": "up"}, "not an endpoint that is compatible with OpenAI's"),
        ({"data": [{"name": "one"}]}, "not an endpoint that is compatible with OpenAI's"),
        ({"data": ["one"]}, "not an endpoint that is compatible with OpenAI's"),
        (["one"], "not an endpoint that is compatible with OpenAI's"),
        ({"object": "list", "data": []}, "the server has no model"),
    ],
)
def test_what_is_no_such_server_is_a_sentence(standing, models, why):
    with standing(models=models) as (address, _):
        for name in (address, f"{address}#one"):
            with pytest.raises(InputError, match=why):
                connect(name)


def test_the_model_is_the_one_named_then_the_variable_then_the_only_one(standing, monkeypatch):
    with standing() as (address, _):
        with pytest.raises(InputError, match=r"the server has one, two\. Choose one: openai:http.*#NAME"):
            connect(address)
        with pytest.raises(InputError, match=r"the server has no three\. There are one, two"):
            connect(f"{address}#three")
        monkeypatch.setenv("OPENAI_MODEL", "two")
        made = connect(address)
        assert (made.name, made.url, made.model) == (address, address.removeprefix("openai:"), "two")
        assert connect(f"{address}#one").model == "one"
        monkeypatch.setenv("OPENAI_MODEL", "three")
        with pytest.raises(InputError, match="the server has no three"):
            connect(address)
    monkeypatch.delenv("OPENAI_MODEL")
    with standing(models={"data": [{"id": "a/b#c", "object": "model"}]}) as (address, _):
        assert connect(address).model == connect(f"{address}#a/b#c").model == "a/b#c"


def test_what_cannot_be_reached_is_a_sentence():
    for name, why in (
        ("openai:", r"Write openai:http://localhost:8000/v1#NAME"),
        ("openai:localhost:8000", r"Write openai:http://localhost:8000/v1#NAME"),
        ("openai:http://127.0.0.1:9/v1", r"no answer \(.*\)\. Is a server running there"),
    ):
        with pytest.raises(InputError, match=why):
            connect(name)


@pytest.mark.parametrize("address", ["http://[::1", "http://h:99999/v1", f"http://{'a' * 300}/v1", "http://\u2028/v1"])
def test_what_is_no_address_is_a_sentence(address):
    with pytest.raises(InputError, match="no address"):
        connect(f"openai:{address}#one")


@pytest.mark.parametrize("key", ["sk-SECRET\n", "sk-S\u00c9CRET", "sk-\x7fSECRET", "sk-\tSECRET"])
def test_no_error_repeats_the_key(standing, monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with standing() as (address, requests):
        if key.strip() == "sk-SECRET":  # as `cat` gives it
            connect(f"{address}#one").complete(QUESTION, 1)
            assert requests[0]["key"] == "Bearer sk-SECRET"
            return
        with pytest.raises(InputError, match="OPENAI_API_KEY") as error:
            connect(f"{address}#one")
    assert "SECRET" not in str(error.value)


@pytest.mark.parametrize("address", ["http://user:PASSWORD@127.0.0.1:9/v1", "http://127.0.0.1:9/v1?key=PASSWORD"])
def test_an_address_with_a_password_is_refused_without_repeating_it(address):
    with pytest.raises(InputError, match="OPENAI_API_KEY") as error:
        connect(f"openai:{address}#one")
    assert "PASSWORD" not in str(error.value)


def test_a_request_is_greedy_and_free_of_penalties_unless_the_models_own_settings_are_wanted(standing):
    sent = {"model": "one", "messages": QUESTION, "max_tokens": 5, "temperature": 0, "key": "Bearer none"}
    penalties = {"presence_penalty": 0, "frequency_penalty": 0}
    with standing() as (address, requests):
        answer = connect(f"{address}#one").complete(QUESTION, 5)
        assert answer.choices[0].message.content == " It is a lum. "
        connect(f"{address}#one").complete(QUESTION, 5, prompt_logprobs=0)
        connect(f"{address}#one", Prompting(generation_config="model")).complete(QUESTION, 5)
    assert requests == [sent | penalties, sent | penalties | {"prompt_logprobs": 0}, sent]


def test_a_server_gets_the_variables_of_the_chat_template(standing):
    prompting = Prompting(chat_template_kwargs='{"enable_thinking": false}')
    with standing() as (address, requests):
        connect(f"{address}#one", prompting).complete(QUESTION, 5)
        connect(f"{address}#one").complete(QUESTION, 5)
    assert requests[0]["chat_template_kwargs"] == {"enable_thinking": False}
    assert "chat_template_kwargs" not in requests[1]


def test_a_refusal_has_the_servers_message(standing):
    with standing(refused=("seed",)) as (address, _):
        served = connect(f"{address}#one")
        with pytest.raises(Refused, match=r"refuses \(400\): Unrecognized request argument supplied: seed") as error:
            served.complete(QUESTION, 1, seed=3)
        assert served.url in str(error.value)
        assert isinstance(error.value, InputError)


def test_what_a_server_reports_has_nothing_that_changes_by_itself(standing):
    """vLLM gives the time of the request, and a new permission with each list."""
    model = {"id": "one", "object": "model", "created": 1, "owned_by": "me", "root": "some/model", "permission": ["x"]}
    with standing(models={"object": "list", "data": [{**model, "id": "two", "root": "other"}, model]}) as (address, _):
        served = connect(f"{address}#one")
        first = served.reported()
        model.update(created=2, permission=["y"])
        assert served.reported() == first
    sent = {"id": "one", "object": "model", "owned_by": "me", "root": "some/model"}
    assert {name: first[name] for name in sent} == sent
    assert {"created", "permission"}.isdisjoint(first)
    assert first["system_fingerprint"] is None


def test_a_description_has_what_was_chosen_and_no_key():
    prompting = Prompting(chat_template_kwargs='{"a": 1}', generation_config="model")
    client = SimpleNamespace(api_key="sk-SECRET")
    replicas = Replicas([Replica("http://h/v1", client)])
    made = ServerConnection("openai:http://h/v1#one", "one", replicas, prompting)
    assert made.describe() == {
        "name": "openai:http://h/v1#one",
        "source": "http://h/v1",
        "class": "served",
        "served_name": "one",
        "chat_template_kwargs": {"a": 1},
        "generation_config": "model",
    }


def vllm(owner):
    return {"object": "list", "data": [{"id": "one", "object": "model", "created": 1, "owned_by": owner}]}


def test_only_vllm_gets_settings_of_the_image_processor(standing):
    with standing(models=vllm("vllm")) as (address, requests):
        config = ModelConfig(f"{address}#one", max_pixels=450, processor_kwargs='{"max_pixels": 9}')
        model = open_model(config)
        model.connection.complete([{"role": "user", "content": "?"}], 1)
        assert requests[-1]["mm_processor_kwargs"] == {"max_pixels": 9}
        assert "reduced to at most 450 pixels before they are sent" in model.card.describe()["pictures"]
        assert model.card.identity([])["pictures"] == model.card.describe()["pictures"]
    with standing(models=vllm("me")) as (address, _):
        with pytest.raises(InputError, match=r"--processor-kwargs: .* is not a vLLM server"):
            open_model(ModelConfig(f"{address}#one", processor_kwargs='{"max_pixels": 9}'))
        assert isinstance(open_model(ModelConfig(f"{address}#one", max_pixels=450)), RemoteModel)


@pytest.mark.parametrize("choices", [{"a": 1}, [], None, [{"message": None}], [{"message": {"content": 5}}]])
def test_an_answer_without_a_text_is_no_reply(choices):
    completion = SimpleNamespace(choices=choices)
    if isinstance(choices, list) and choices:
        message = choices[0]["message"]
        completion = SimpleNamespace(choices=[SimpleNamespace(message=message and SimpleNamespace(**message))])
    with pytest.raises(ValueError, match=r"no message|not a text"):
        _whole(completion)

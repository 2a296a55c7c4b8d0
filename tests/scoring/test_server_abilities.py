"""What a server can do is tried on small conversations, and what it cannot do is said."""

from types import SimpleNamespace

import pytest
from fake_vllm import FakeVllm

from linkcontext.errors import InputError
from linkcontext.scoring.remote_logprobs import NotLogprobs
from linkcontext.scoring.replicas import Replica, Replicas
from linkcontext.scoring.server_abilities import abilities, read_prompt


def pool_of(*urls):
    """Servers of one model."""
    return Replicas([Replica(url, None) for url in urls or ("http://a/v1",)])


def test_a_server_with_all_fields_is_scored_from_generated_tokens(caplog):
    able = abilities(FakeVllm(), pool_of(), "http://a/v1")
    assert able.answers.end == "<end>"
    assert not able.no_trie
    assert not caplog.text


@pytest.mark.parametrize(
    ("server", "why"),
    [
        (FakeVllm(refuses=("logprob_token_ids",)), "refuses to give log-probabilities of chosen tokens"),
        (FakeVllm(masked=True), "log-probabilities that differ by"),  # processed_logprobs
        (FakeVllm(few=True), "fewer tokens"),
        (FakeVllm(before_answer=("<think>", "</think>")), "not the beginning of the name"),
    ],
)
def test_a_server_that_cannot_is_read_whole_and_it_is_said(server, why, caplog):
    able = abilities(server, pool_of(), "http://a/v1")
    assert not able.answers.refusal
    assert why in able.no_trie
    assert "http://a/v1: answers are scored from whole prompts" in caplog.text
    assert why in caplog.text


def test_a_server_without_prompt_logprobs_gives_replies_and_it_is_said(caplog):
    able = abilities(FakeVllm(no_prompt_logprobs=True), pool_of(), "http://a/v1")
    assert able.answers.refusal == able.no_trie == "it gives no prompt_logprobs"
    assert "replies are matched instead" in caplog.text


def test_servers_of_different_models_are_refused():
    first, second = FakeVllm(), FakeVllm(cut=3)  # another tokenizer

    def complete(messages, new_tokens, only=None, **fields):
        server = second if only is not None and only.url.startswith("http://b") else first
        return server(messages, new_tokens, **fields)

    two = pool_of("http://a/v1", "http://b/v1")
    with pytest.raises(InputError, match=r"http://b/v1: gives other log-probabilities than the first server"):
        abilities(complete, two, "")
    assert not abilities(first, two, "").no_trie


@pytest.mark.parametrize("others", ["a", "b"])
def test_servers_are_compared_with_the_first_wherever_shared_requests_go(others):
    """Requests that name no server go to one of them, which may be the second."""
    servers = {"http://a/v1": FakeVllm(), "http://b/v1": FakeVllm(cut=3)}

    def complete(messages, new_tokens, only=None, **fields):
        return servers[only.url if only else f"http://{others}/v1"](messages, new_tokens, **fields)

    with pytest.raises(InputError, match=r"http://b/v1: gives other log-probabilities than the first server"):
        abilities(complete, pool_of("http://a/v1", "http://b/v1"), "")


def test_one_server_that_refuses_a_field_has_all_read_whole():
    servers = {"http://a/v1": FakeVllm(), "http://b/v1": FakeVllm(refuses=("logprob_token_ids",))}

    def complete(messages, new_tokens, only=None, **fields):
        return servers[only.url if only else "http://a/v1"](messages, new_tokens, **fields)

    able = abilities(complete, pool_of("http://a/v1", "http://b/v1"), "")
    assert "refuses to give log-probabilities of chosen tokens" in able.no_trie


def sending(rows):
    """A server with these `prompt_logprobs`."""
    return lambda *_args, **_more: SimpleNamespace(model_extra={"prompt_logprobs": rows})


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), -9999, 0.5, None, "-1.5", True])
def test_what_cannot_be_a_log_probability_is_refused(value):
    rows = [None, {"1": {"logprob": -1.0, "decoded_token": "a"}}, {"2": {"logprob": value, "decoded_token": "b"}}]
    with pytest.raises(InputError, match="not that of a token: it has to be above -9999"):
        read_prompt(sending(rows), [])


@pytest.mark.parametrize("row", [None, {}, {"2": {}}, {"2": None}, [], -1.5, "x"])
def test_prompt_logprobs_of_another_form_are_none(row):
    """A row that is missing must not be skipped: an answer without it would seem likelier."""
    rows = [None, {"1": {"logprob": -1.0}}, row, {"3": {"logprob": -1.0}}]
    with pytest.raises(NotLogprobs, match="for every token of a prompt"):
        read_prompt(sending(rows), [])
    assert "for every token of a prompt" in abilities(sending(rows), pool_of(), "").answers.refusal
    assert read_prompt(sending(None), []) == []


class Other(FakeVllm):
    """The same tokens, and other weights."""

    def logprob(self, before, token, allowed=None):
        """A nat less of everything."""
        return super().logprob(before, token, allowed) - 1


def test_a_server_that_comes_back_with_another_model_is_refused():
    """Its list of models says the same: only what it computes tells."""
    here = {"server": FakeVllm()}
    pool = pool_of()

    def complete(messages, new_tokens, only=None, **fields):
        return here["server"](messages, new_tokens, **fields)

    abilities(complete, pool, "")
    (replica,), (compared,) = pool.all, pool.rechecks
    compared(replica)
    for other in (Other(), FakeVllm(cut=3)):
        here["server"] = other
        with pytest.raises(InputError, match=r"http://a/v1: gives other log-probabilities than the first server did"):
            compared(replica)

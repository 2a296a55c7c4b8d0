"""What a server can do is tried on small conversations, and what it cannot do is said."""

import pytest
from fake_vllm import FakeVllm

from linkcontext.errors import InputError
from linkcontext.scoring.replicas import Replica
from linkcontext.scoring.server_abilities import abilities

ONE = [Replica("http://a/v1", None)]


def test_a_server_with_all_fields_is_scored_from_generated_tokens(caplog):
    able = abilities(FakeVllm(), ONE, "http://a/v1")
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
    able = abilities(server, ONE, "http://a/v1")
    assert not able.answers.refusal
    assert why in able.no_trie
    assert "http://a/v1: every candidate's prompt is read whole" in caplog.text
    assert why in caplog.text


def test_a_server_without_prompt_logprobs_gives_replies_and_it_is_said(caplog):
    able = abilities(FakeVllm(no_prompt_logprobs=True), ONE, "http://a/v1")
    assert able.answers.refusal == able.no_trie == "it gives no prompt_logprobs"
    assert "replies are taken instead" in caplog.text


def test_servers_of_different_models_are_refused():
    first, second = FakeVllm(), FakeVllm(cut=3)  # another tokenizer

    def complete(messages, new_tokens, only=None, **fields):
        server = second if only is not None and only.url.startswith("http://b") else first
        return server(messages, new_tokens, **fields)

    two = [*ONE, Replica("http://b/v1", None)]
    with pytest.raises(InputError, match=r"http://b/v1: gives other log-probabilities than the first server"):
        abilities(complete, two, "")
    assert not abilities(first, two, "").no_trie

"""Log-probabilities of answers from a server's tokens, by hand: every template is a list of tokens."""

import pytest

from linkcontext.errors import InputError
from linkcontext.scoring.protocol import ScoringRequest
from linkcontext.scoring.remote_logprobs import (
    OTHER,
    AnswerFormat,
    Token,
    answer_format,
    answer_logprob,
    other_answer,
)
from linkcontext.scoring.replicas import Refused

LOGPROBS = {"dax": -3.0, "i": -0.5, " ": -0.25, "<|end|>": -1.0, "\n": -8.0}


def tokens(*texts):
    """Tokens with these texts; a text is its own id."""
    return [Token(text, LOGPROBS.get(text, -16.0), text) for text in texts]


def a_server(reply=(), answer=(), end=("<|end|>",), shuts=True):
    """A server whose template writes `reply` where the model is to speak, `answer` before a given answer, and `end`
    after it. It ignores continue_final_message unless it `shuts` answers."""

    def read(messages, add_generation_prompt=True, continue_final_message=False):
        (*_, last) = messages
        if last["role"] == "user":
            return tokens("user:", "?", "assistant:", *(reply if add_generation_prompt else ()))
        written = tokens("user:", "?", "assistant:", *answer, last["content"][0]["text"])
        return written if continue_final_message and shuts else written + tokens(*end)

    return read


def written_anew(_messages, add_generation_prompt=True, continue_final_message=False):
    """A server whose prompts share nothing when they end in another way."""
    return tokens(f"{add_generation_prompt}", f"{continue_final_message}", "dax", "<|end|>")


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ({}, AnswerFormat(0, "<|end|>", 0)),
        ({"end": ("<|end|>", "\n")}, AnswerFormat(0, "<|end|>", 1)),
        ({"end": (" ", "<|end|>", "\n", "\n")}, AnswerFormat(0, " <|end|>", 2)),  # the space belongs to the end
        ({"end": ("\n", " ")}, AnswerFormat(0, "\n", 1)),  # all white space: the first token is the end
        ({"answer": (" ",)}, AnswerFormat(1, "<|end|>", 0)),  # the model generates the space itself
        ({"answer": (" ", "\n")}, AnswerFormat(2, "<|end|>", 0)),
        ({"reply": (" ",), "answer": (" ",)}, AnswerFormat(0, "<|end|>", 0)),  # it is in the prompt of a reply too
        # An empty reasoning is written before a given answer, and no model has to generate it.
        ({"reply": ("<think>",), "answer": ("<think>", "</think>", "\n")}, AnswerFormat(0, "<|end|>", 0)),
    ],
)
def test_a_format_is_what_the_template_writes_around_an_answer(template, expected):
    assert answer_format(a_server(**template)) == expected


@pytest.mark.parametrize(
    ("read", "why"),
    [
        (lambda _messages, **_: [], "it gives no prompt_logprobs"),
        (a_server(end=()), "writes nothing behind an answer"),
        (a_server(shuts=False, end=("\n",)), "writes nothing behind an answer"),
        (lambda _messages, **_: tokens("user:", "?"), "continue_final_message"),
        (written_anew, "continue_final_message"),
    ],
)
def test_a_server_that_does_not_give_an_answers_tokens_is_refused_with_the_reason(read, why):
    refusal = answer_format(read).refusal
    assert why in refusal
    assert answer_format(read) == AnswerFormat(refusal=refusal)


def test_a_server_that_refuses_the_request_is_quoted():
    def read(_messages, **_):
        raise Refused("http://x: the server refuses (400): unknown field prompt_logprobs")

    assert answer_format(read).refusal == "http://x: the server refuses (400): unknown field prompt_logprobs"


def test_an_answer_is_summed_from_where_it_differs_from_another_to_its_end_token():
    other = tokens("assistant:", OTHER, "<|end|>", "\n")
    closed = tokens("assistant:", "dax", "i", "<|end|>", "\n")
    assert answer_logprob(other, closed, AnswerFormat(0, "<|end|>", 1)) == (-3.0 - 0.5 - 1.0, 3)
    assert answer_logprob(other, closed, AnswerFormat(0, "\n", 0)) == (-3.0 - 0.5 - 1.0 - 8.0, 4)


def test_white_space_before_an_answer_belongs_to_it_up_to_the_gap():
    other, closed = tokens("assistant:", " ", " ", OTHER), tokens("assistant:", " ", " ", "dax", "<|end|>")
    for gap, spaces in ((0, 0), (1, 1), (2, 2), (3, 2)):
        expected = (-3.0 - 1.0 - 0.25 * spaces, 2 + spaces)
        assert answer_logprob(other, closed, AnswerFormat(gap, "<|end|>", 0)) == expected


def test_a_token_is_known_by_its_id_and_not_by_its_text():
    """A byte of a character has no text of its own."""
    other = [Token("1", -16.0, "assistant:"), Token("2", -16.0, "�"), Token("9", -16.0, "�")]
    closed = [Token("1", -16.0, "assistant:"), Token("2", -16.0, "�"), Token("3", -2.0, "�"), Token("4", -1.0, "")]
    assert answer_logprob(other, closed, AnswerFormat()) == (-3.0, 2)


def test_the_other_answer_has_the_same_conversation_and_a_text_that_no_name_has():
    prompt = [{"role": "user", "content": [{"type": "text", "text": "?"}]}]
    answer = {"role": "assistant", "content": [{"type": "text", "text": "dax"}]}
    other = other_answer(ScoringRequest(prompt, ([*prompt, answer],)))
    assert other == [*prompt, {"role": "assistant", "content": [{"type": "text", "text": OTHER}]}]
    assert answer["content"] == [{"type": "text", "text": "dax"}]  # the request is as it was


def test_an_answer_without_tokens_is_no_certain_answer():
    """A server that stops giving prompt_logprobs in the middle of a run."""
    read = [Token("1", -1.0, "a"), Token("2", -1.0, "b")]
    for other, closed in (([], []), (read, []), ([], read), (read, read)):
        with pytest.raises(InputError, match="no log-probabilities of an answer's tokens"):
            answer_logprob(other, closed, AnswerFormat())

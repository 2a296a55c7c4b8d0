"""Answers scored from generated tokens have the figures of whole prompts, for any candidates."""

import pytest
from fake_vllm import FakeVllm

from linkcontext.scoring.protocol import ScoringRequest
from linkcontext.scoring.remote_logprobs import answer_format
from linkcontext.scoring.remote_trie import MOST_IDS, TrieScorer, Unservable
from linkcontext.scoring.server_abilities import read_prompt, score_by_reads


def message(role, *parts):
    """A message of texts; None is a picture."""
    content = [{"type": "image", "image": "x"} if part is None else {"type": "text", "text": part} for part in parts]
    return {"role": role, "content": content}


def request(*names, question="What is this?"):
    """One turn of support, and a query."""
    prompt = [message("user", None, question), message("assistant", "wug"), message("user", None, question)]
    return ScoringRequest(prompt, tuple([*prompt, message("assistant", name)] for name in names))


def whole(server, asked):
    """The oracle: every answer's prompt read whole."""

    def read(messages, **more):
        return read_prompt(server, messages, **more)

    answers = answer_format(read)
    return answers, score_by_reads(read, asked, answers)


@pytest.mark.parametrize(
    "names",
    [
        ("dax",),
        ("dax", "lum"),
        ("lumpa", "lumi"),  # the same first token
        ("dax", "dax"),
        ("da", "daxi", "daxilum"),  # one begins the other
        ("a", "b", "c", "d", "e", "f"),
        ("a long name with spaces", "another one", "a long name without"),
        ("日本語", "日本"),
    ],
)
@pytest.mark.parametrize("after_end", [(), ("\n",)])
def test_scores_are_those_of_whole_prompts(names, after_end):
    server, asked = FakeVllm(after_end=after_end), request(*names)
    answers, expected = whole(server, asked)
    assert answers.tail == len(after_end)
    scores = TrieScorer(server, answers.tail).score(asked)
    assert [count for _, count in scores] == [count for _, count in expected]
    assert [value for value, _ in scores] == pytest.approx([value for value, _ in expected])


def test_no_prompt_is_read_for_its_log_probabilities_and_a_known_ending_costs_a_request_a_node_at_most():
    server, asked = FakeVllm(), request("lumpa", "daxi")
    scorer = TrieScorer(server, 0)
    scorer.score(asked)
    first = len(server.requests)
    other = request("lumpa", "daxi")
    other.messages[0]["content"][0]["image"] = "another picture"
    scorer.score(other)
    assert len(server.requests) - first <= 6  # behind "", lu, lump, lumpa, da and daxi
    assert not any("prompt_logprobs" in fields for _, _, fields in server.requests)
    scorer.score(request("lumpa", "daxi", question="And this?"))
    assert len(server.requests) > first + 2 * len(other.answers)  # another ending: its tokens are read


def test_more_tokens_than_a_request_may_name_are_asked_for_in_turn():
    names = [f"{a}{b}" for a in "abcdefghijklmn" for b in "opqrstuvwxyz"]
    assert len(names) > MOST_IDS
    server, asked = FakeVllm(), request(*names)
    answers, expected = whole(server, asked)
    assert TrieScorer(server, answers.tail).score(asked) == [pytest.approx(pair) for pair in expected]
    assert all(len(fields.get("logprob_token_ids", ())) <= MOST_IDS for _, _, fields in server.requests)


@pytest.mark.parametrize(
    ("server", "why"),
    [
        (FakeVllm(few=True), "fewer tokens"),
        (FakeVllm(before_answer=("<think>",)), "not the beginning of the name"),
    ],
)
def test_a_server_that_differs_is_noticed(server, why):
    asked = request("lumpa", "daxi", "wugs")
    answers, _ = whole(server, asked)
    with pytest.raises(Unservable, match=why):
        TrieScorer(server, answers.tail).score(asked)


def test_a_beginning_that_is_written_in_other_tokens_is_not_scored():
    class Merges(FakeVllm):
        """Writes an answer's first two letters as one token only where the answer is whole."""

        def ids(self, messages, add_generation_prompt=True, continue_final_message=False):
            self.cut = 1 if continue_final_message else 2
            return super().ids(messages, add_generation_prompt, continue_final_message)

    with pytest.raises(Unservable, match="in another way"):
        TrieScorer(Merges(), 0).score(request("lumpa", "daxi", "wugs"))


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), -9999.0, 0.5, None, "-1.5"])
def test_values_that_are_no_log_probabilities_are_not_scored(value):
    class Broken(FakeVllm):
        """Gives one value to every token."""

        def choice(self, rows, generated, fields):
            return super().choice([[(token, value) for token, _ in row] for row in rows], generated, fields)

    with pytest.raises(Unservable, match="cannot be the log-probabilities of tokens"):
        TrieScorer(Broken(), 0).score(request("lumpa", "daxi"))


def test_fewer_tokens_than_positions_are_not_scored():
    """Without the tokens nobody knows what a position stands behind."""

    class Short(FakeVllm):
        def choice(self, rows, generated, fields):
            return super().choice(rows, generated[:1], fields)

    with pytest.raises(Unservable, match="fewer tokens than log-probabilities"):
        TrieScorer(Short(), 0).score(request("lumpa", "daxi"))


def test_a_request_without_answers_has_no_scores():
    assert TrieScorer(FakeVllm(), 0).score(request()) == []

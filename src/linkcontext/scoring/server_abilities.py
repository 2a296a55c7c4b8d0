"""What a server can be asked for log-probabilities: found out once, from small conversations with drawn pictures."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from linkcontext.episodes.scaffold import SCAFFOLDS, Message, build_messages
from linkcontext.errors import InputError
from linkcontext.models.synthetic_images import CHECKED
from linkcontext.records import Turn
from linkcontext.scoring.protocol import ScoringRequest
from linkcontext.scoring.remote_logprobs import (
    AnswerFormat,
    NotLogprobs,
    Token,
    TokenLogprobs,
    answer_format,
    answer_logprob,
    checked_logprob,
    other_answer,
)
from linkcontext.scoring.remote_trie import TrieScorer, Unservable
from linkcontext.scoring.replicas import Refused, Replica, Replicas

log = logging.getLogger("linkcontext")
NAMES = ("dax", "lum a")
# What two ways of computing an answer's log-probability may differ by in half precision. One that is masked or
# penalised is off by several nats.
TOLERANCE = 0.3

Complete = Callable[..., Any]  # messages, new tokens, and more fields of a request: the server's completion


@dataclass(frozen=True, slots=True)
class ServerAbilities:
    """How answers are scored on a server."""

    answers: AnswerFormat  # its `refusal` is why they are not scored at all
    no_trie: str  # why they are not scored from generated tokens; empty if they are


def abilities(complete: Complete, replicas: Replicas, url: str) -> ServerAbilities:
    """Find out what servers can do, and say what they cannot. Raises `InputError` if they are of different models.

    From then on a server that was away is compared again before it is asked.
    """
    first, *others = replicas.all

    def read(messages: list[Message], **more: Any) -> TokenLogprobs:
        return read_prompt(complete, messages, only=first, **more)

    answers = answer_format(read)
    if answers.refusal:
        log.warning("%s: answers are not scored by likelihood; replies are matched instead: %s", url, answers.refusal)
        return ServerAbilities(answers, answers.refusal)
    if answers.end.isspace():
        log.warning(
            "%s: its chat template writes %r after an answer, which is probably not the model's end token. "
            "Likelihoods include it.",
            url,
            answers.end,
        )
    request = _small_request()
    reference = score_by_reads(read, request, answers)
    for replica in others:
        _check_same(complete, replica, request, answers, reference)
    replicas.rechecks.append(lambda replica: _check_same(complete, replica, request, answers, reference))
    refusals = (
        _trie_refusal(TrieScorer(partial(complete, only=replica), answers.tail), request, reference)
        for replica in replicas.all
    )
    if no_trie := next(filter(None, refusals), ""):
        log.warning("%s: answers are scored from whole prompts, which use no prefix cache, because %s.", url, no_trie)
    return ServerAbilities(answers, no_trie)


def read_prompt(complete: Complete, messages: list[Message], **more: Any) -> TokenLogprobs:
    """The tokens of a prompt as the server reports them; empty if it reports none.

    Raises `NotLogprobs` for anything else than a row for every token, and `InputError` for an impossible value.
    """
    answer = complete(messages, 1, prompt_logprobs=0, **more)  # 0: of the prompt's own tokens alone
    rows = (answer.model_extra or {}).get("prompt_logprobs") or []
    try:
        own = [next(iter(row.items())) for row in rows[1:]]  # the first token has none before it
        return [
            Token(token, checked_logprob(values["logprob"]), str(values.get("decoded_token") or ""))
            for token, values in own
        ]
    except (AttributeError, KeyError, TypeError, StopIteration) as error:
        raise NotLogprobs(
            "the server's prompt_logprobs do not have a log-probability for every token of a prompt"
        ) from error


def score_by_reads(
    read: Callable[..., TokenLogprobs], request: ScoringRequest, answers: AnswerFormat
) -> list[tuple[float, int]]:
    """For each candidate: its log-probability (nats, its end token included) and its number of tokens."""
    other = read(other_answer(request), add_generation_prompt=False)
    return [answer_logprob(other, read(answer, add_generation_prompt=False), answers) for answer in request.answers]


def _small_request() -> ScoringRequest:
    turns, query = [Turn(CHECKED[0], "", NAMES[0])], Turn(CHECKED[1], "", "")
    prompt, *answered = (build_messages(turns, SCAFFOLDS["turns"], query, answer) for answer in (None, *NAMES))
    return ScoringRequest(prompt, tuple(answered))


def _trie_refusal(scorer: TrieScorer, request: ScoringRequest, reference: Sequence[tuple[float, int]]) -> str:
    """Why generated tokens do not give what whole prompts give; empty if they do."""
    try:
        scores = scorer.score(request)
    except Refused as error:
        return f"it refuses to give log-probabilities of chosen tokens ({error})"
    except Unservable as error:
        return str(error)
    if [count for _, count in scores] != [count for _, count in reference]:
        return "generated tokens and whole prompts give answers of different lengths"
    if not (worst := _difference(scores, reference)) <= TOLERANCE:
        return f"generated tokens and whole prompts give log-probabilities that differ by {worst:.2g}"
    return ""


def _check_same(
    complete: Complete,
    replica: Replica,
    request: ScoringRequest,
    answers: AnswerFormat,
    reference: Sequence[tuple[float, int]],
) -> None:
    """Raise `InputError` if a server gives other log-probabilities than the first one did before the run."""

    def read(messages: list[Message], **more: Any) -> TokenLogprobs:
        return read_prompt(complete, messages, only=replica, **more)

    scores = score_by_reads(read, request, answers)
    same = [count for _, count in scores] == [count for _, count in reference]
    if not same or not _difference(scores, reference) <= TOLERANCE:
        raise InputError(
            f"{replica.url}: gives other log-probabilities than the first server did before the run, so it has another "
            "model, tokenizer or chat template. Figures of two models must not be mixed."
        )


def _difference(scores: Sequence[tuple[float, int]], reference: Sequence[tuple[float, int]]) -> float:
    return max(abs(a - b) for (a, _), (b, _) in zip(scores, reference, strict=True))  # all are finite

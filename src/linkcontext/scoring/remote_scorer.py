"""Scores of candidate answers from a server, in the fastest way that it allows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

from linkcontext.episodes.scaffold import Message
from linkcontext.errors import InputError
from linkcontext.scoring.protocol import ScoringRequest
from linkcontext.scoring.remote_logprobs import TokenLogprobs, answer_logprob, other_answer
from linkcontext.scoring.remote_trie import Complete, TrieScorer, Unservable
from linkcontext.scoring.replicas import Replicas
from linkcontext.scoring.server_abilities import ServerAbilities, read_prompt
from linkcontext.threads import threads

Argument = TypeVar("Argument")
Result = TypeVar("Result")


@dataclass
class RemoteScorer:
    """Scores requests through `complete`, `batch` prompts at a time."""

    complete: Complete
    abilities: ServerAbilities
    replicas: Replicas
    batch: int
    _read_whole: list[str] = field(default_factory=list, init=False, repr=False)  # why, for each such request

    def score(self, requests: Sequence[ScoringRequest]) -> list[list[tuple[float, int]]]:
        """For each request and candidate: the answer's log-probability (nats, its end token included) and its number of
        tokens.

        Raises `InputError` if the server gives no log-probabilities.
        """
        if refusal := self.abilities.answers.refusal:
            raise InputError(f"likelihoods are needed, but the server gives none: {refusal}.")
        rows: list[list[tuple[float, int]] | None] = at_once(self._from_trie, requests, self.batch, self.replicas)
        whole = iter(self._from_reads([request for request, row in zip(requests, rows, strict=True) if row is None]))
        return [next(whole) if row is None else row for row in rows]

    def way(self) -> str:
        """How answers were scored, in words."""
        if refusal := self.abilities.answers.refusal:
            return f"none: {refusal}"
        if reason := self.abilities.no_trie:
            return f"by the log-probabilities that the server gives for whole prompts, because {reason}"
        way = "by the log-probabilities that the server gives for the candidates' tokens"
        if self._read_whole:
            way += f"; {len(self._read_whole)} requests by those for whole prompts, because {self._read_whole[0]}"
        return way

    @cached_property
    def _trie(self) -> TrieScorer:
        return TrieScorer(self.complete, self.abilities.answers.tail)

    def _from_trie(self, request: ScoringRequest) -> list[tuple[float, int]] | None:
        """A request's scores from generated tokens; None if its prompts have to be read whole."""
        if self.abilities.no_trie:
            return None
        try:
            return self._trie.score(request)
        except Unservable as error:
            self._read_whole.append(str(error))
            return None

    def _from_reads(self, requests: Sequence[ScoringRequest]) -> list[list[tuple[float, int]]]:
        """The scores of requests from prompts that are read whole."""

        def read(messages: list[Message]) -> TokenLogprobs:
            return read_prompt(self.complete, messages, add_generation_prompt=False)

        closed = [
            answer for request in requests if request.answers for answer in (other_answer(request), *request.answers)
        ]
        reads = iter(at_once(read, closed, self.batch, self.replicas))
        scores = []
        for request in requests:
            other = next(reads) if request.answers else []
            scores.append([answer_logprob(other, next(reads), self.abilities.answers) for _ in request.answers])
        return scores


def at_once(
    call: Callable[[Argument], Result], arguments: Sequence[Argument], batch: int, replicas: Replicas
) -> list[Result]:
    """The results of `call` in order, computed `batch` at a time.

    After a failure no further call begins, and those that wait for a server give up.
    """
    replicas.stopped.clear()
    try:
        with threads(batch) as pool:
            return list(pool.map(call, arguments))
    except BaseException:
        replicas.stopped.set()
        raise

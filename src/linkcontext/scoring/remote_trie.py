"""Log-probabilities of candidate answers from tokens that a server generates.

vLLM gives the log-probabilities of chosen tokens (`logprob_token_ids`) at every position that it generates, before
anything is masked. One request at the end of a prompt therefore gives the first tokens of all candidates. As far as
the generated tokens follow a candidate, which `allowed_token_ids` makes likely, it also gives the tokens behind the
first. What is missing then is asked for in a further request, whose prompt ends in the first tokens of a candidate.
The figures are those of `prompt_logprobs`, which reads the prompt of every answer whole and uses no prefix cache.

An example: the candidates are "lumpa" and "lumi", with the tokens "lu" "mpa" end and "lu" "mi" end. The first request
gives the log-probability of "lu". If "lu" and "mpa" are generated, it also gives those of "mpa" and "mi", and of the
end behind "lumpa". The second request stands behind "lumi" and gives that of the end there.
"""

import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from linkcontext.episodes.scaffold import Message
from linkcontext.scoring.protocol import ScoringRequest
from linkcontext.scoring.remote_logprobs import is_logprob

MOST_IDS = 128  # token ids of a request: vLLM's limit
KEPT = 4096  # sets of candidates whose tokens are remembered
SAME = 1e-3  # log-probabilities of one position in two requests differ by less

Complete = Callable[..., Any]  # messages, new tokens, and more fields of a request: the server's completion
Path = tuple[int, ...]  # the first tokens of an answer


class Unservable(Exception):
    """Why a request cannot be scored in this way. The message is part of a sentence."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """The answers of a request: their texts, and their token ids up to the end token."""

    texts: tuple[str, ...]
    tokens: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Generated:
    """The token ids of a prompt, those generated behind it, and at each of these the log-probabilities asked for."""

    prompt: list[int]
    tokens: list[int]
    logprobs: list[dict[int, float]]


@dataclass
class TrieScorer:
    """Scores candidates through `complete`, the chat endpoint of a server.

    `tail` is the number of tokens that the server's chat template writes behind an answer's end token.
    """

    complete: Complete
    tail: int
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _candidates: dict[str, "Future[Candidates]"] = field(default_factory=dict, repr=False)
    _texts: dict[int, str] = field(default_factory=dict, repr=False)  # of tokens, as far as they were needed

    def score(self, request: ScoringRequest) -> list[tuple[float, int]]:
        """For each candidate: its log-probability (nats, its end token included) and its number of tokens.

        Raises `Unservable` where the server's tokens do not allow it.
        """
        if not request.answers:
            return []
        candidates = self._candidates_of(request)
        trie: dict[Path, dict[int, float]] = {}  # behind these tokens, the log-probabilities of next ones
        prompt: list[int] | None = None
        while (missing := _missing(candidates.tokens, trie)) is not None:
            path, ids, length = missing
            generated = self._generate(self._messages(request, candidates, path), bool(path), ids, length)
            prompt = generated.prompt if prompt is None else prompt
            if generated.prompt != [*prompt, *path]:
                raise Unservable("its chat template or tokenizer writes the beginning of an answer in another way")
            _note(trie, path, generated, ids)
        return [
            (sum(trie[tokens[:place]][token] for place, token in enumerate(tokens)), len(tokens))
            for tokens in candidates.tokens
        ]

    def _candidates_of(self, request: ScoringRequest) -> Candidates:
        """The tokens of a request's answers. They are read once for all requests that end alike."""
        key = _ending(request)
        with self._lock:
            known = self._candidates.get(key)
            if mine := known is None:
                if len(self._candidates) >= KEPT:
                    del self._candidates[next(iter(self._candidates))]
                known = self._candidates[key] = Future()
        assert known is not None
        if mine:
            try:
                known.set_result(self._read(request))
            except BaseException as error:
                known.set_exception(error)
                with self._lock:
                    self._candidates.pop(key, None)
                raise
        return known.result()

    def _read(self, request: ScoringRequest) -> Candidates:
        """The tokens of a request's answers, from prompts with each of them, and the texts of these tokens."""
        start = self._prompt_ids(request.messages, add_generation_prompt=True)
        tokens = []
        for answer in request.answers:
            closed = self._prompt_ids(answer, add_generation_prompt=False)
            if closed[: len(start)] != start or len(closed) - self.tail <= len(start):
                raise Unservable("its chat template writes something between a prompt and a given answer")
            tokens.append(tuple(closed[len(start) : len(closed) - self.tail]))
        texts = tuple("".join(part["text"] for part in answer[-1]["content"]) for answer in request.answers)
        self._learn_texts(request.messages, sorted({token for path in tokens for token in path} - {*self._texts}))
        return Candidates(texts, tuple(tokens))

    def _prompt_ids(self, messages: Sequence[Message], **more: Any) -> list[int]:
        answer = self.complete(messages, 1, return_token_ids=True, **more)
        return _ids((answer.model_extra or {}).get("prompt_token_ids"))

    def _learn_texts(self, messages: Sequence[Message], ids: list[int]) -> None:
        """Remember the texts of tokens: two answers list the same tokens, one by their ids and one by their texts."""
        for start in range(0, len(ids), MOST_IDS):
            options = {"logprobs": True, "logprob_token_ids": ids[start : start + MOST_IDS]}
            by_id, by_text = (
                _positions(self.complete(messages, 1, return_tokens_as_token_ids=as_id, **options).choices[0])[0]
                for as_id in (True, False)
            )
            if len(by_id) != len(by_text) or any(
                abs(a.logprob - b.logprob) > SAME for a, b in zip(by_id, by_text, strict=True)
            ):
                raise Unservable("it does not give the same tokens twice")
            with self._lock:
                self._texts |= {_id_of(a.token): b.token for a, b in zip(by_id, by_text, strict=True)}

    def _messages(self, request: ScoringRequest, candidates: Candidates, path: Path) -> list[Message]:
        """The conversation, with the first tokens of an answer at its end."""
        if not path:
            return request.messages
        text = "".join(self._texts[token] for token in path).lstrip()
        owner = next(place for place, tokens in enumerate(candidates.tokens) if tokens[: len(path)] == path)
        if not text or not candidates.texts[owner].lstrip().startswith(text):
            raise Unservable("an answer's first tokens have a text that is not the beginning of the name")
        answer = request.answers[owner]
        return [*answer[:-1], {**answer[-1], "content": [{"type": "text", "text": text}]}]

    def _generate(self, messages: Sequence[Message], begun: bool, ids: list[int], length: int) -> Generated:
        """At most `length` tokens out of `ids` behind a conversation, whose last message is continued if `begun`."""
        open_end = {"add_generation_prompt": False, "continue_final_message": True} if begun else {}
        answer = self.complete(
            messages,
            length,
            return_token_ids=True,
            return_tokens_as_token_ids=True,
            logprobs=True,
            logprob_token_ids=ids,
            allowed_token_ids=ids,
            **open_end,
        )
        choice = answer.choices[0]
        rows = [{_id_of(one.token): one.logprob for one in position} for position in _positions(choice)]
        tokens = _ids((choice.model_extra or {}).get("token_ids"))
        if len(tokens) < len(rows) - 1:
            raise Unservable("it gives fewer tokens than log-probabilities")
        return Generated(_ids((answer.model_extra or {}).get("prompt_token_ids")), tokens, rows)


def _missing(answers: Sequence[Path], trie: dict[Path, dict[int, float]]) -> tuple[Path, list[int], int] | None:
    """The next request: the tokens that it stands behind, the ids that it asks for, and how far it may go on.

    None if the log-probability of every token of every answer is there.
    """
    for answer in answers:
        for place, token in enumerate(answer):
            if token in trie.get(answer[:place], {}):
                continue
            path = answer[:place]
            behind = [other for other in answers if other[:place] == path and len(other) > place]
            longest = max(len(other) for other in behind)
            levels = (other[depth] for depth in range(place, longest) for other in behind if len(other) > depth)
            ids = [each for each in dict.fromkeys(levels) if each not in trie.get(path, {})]
            # Tokens of this position come first, so that each request adds to it.
            return path, ids[:MOST_IDS], longest - place
    return None


def _note(trie: dict[Path, dict[int, float]], path: Path, generated: Generated, ids: Sequence[int]) -> None:
    """Add what was generated behind `path`. Raises `Unservable` if the first position lacks one of the ids."""
    for place, row in enumerate(generated.logprobs):
        if place == 0 and not {*ids} <= {*row}:
            raise Unservable("it gives the log-probabilities of fewer tokens than it was asked for")
        here = (*path, *generated.tokens[:place])
        trie.setdefault(here, {}).update({token: row[token] for token in ids if token in row})
    if not generated.logprobs:
        raise Unservable("it gives no log-probabilities of generated tokens")


def _ending(request: ScoringRequest) -> str:
    """What two requests have in common whose answers have the same tokens: their texts behind the last picture."""
    parts = [(message["role"], part) for message in request.messages for part in message["content"]]
    pictures = [place for place, (_, part) in enumerate(parts) if part["type"] != "text"]
    answers = [answer[-1]["content"] for answer in request.answers]
    return json.dumps([parts[pictures[-1] + 1 if pictures else 0 :], answers])


def _positions(choice: Any) -> list[list[Any]]:
    """At each generated position the tokens that the server gives log-probabilities of."""
    try:
        positions = [[*position.top_logprobs] for position in choice.logprobs.content]
    except (AttributeError, TypeError):
        positions = []
    if not positions:
        raise Unservable("it gives no log-probabilities of generated tokens")
    for one in (one for position in positions for one in position):
        if not isinstance(one.token, str) or not is_logprob(one.logprob):
            raise Unservable("it gives values that cannot be the log-probabilities of tokens")
    return positions


def _id_of(token: str) -> int:
    """The id in "token_id:123"."""
    number = token.rpartition(":")[2]
    if not token.startswith("token_id:") or not number.isdecimal():
        raise Unservable("it gives the texts of tokens where their ids are asked for")
    return int(number)


def _ids(values: Any) -> list[int]:
    if not isinstance(values, list) or not values or not all(isinstance(value, int) for value in values):
        raise Unservable("it does not give the ids of tokens")
    return values

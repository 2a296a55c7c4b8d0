"""The one thread that a served model works in: who waits, who is answered, and who has left.

Requests that wait at the same time are answered together: what their prompts share is computed once, and none can see
another's. What was computed for a conversation is kept for its next turn.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from linkcontext.episodes.scaffold import Message
from linkcontext.errors import InputError
from linkcontext.inference.kv_cache import PrefixCache
from linkcontext.inference.vision import ImageFeatures
from linkcontext.scoring.local import LocalModel
from linkcontext.scoring.protocol import PromptEnd, Sources
from linkcontext.serve.openai_protocol import prompt_logprobs, token_logprob
from linkcontext.serve.prefix_cache import Shelf

log = logging.getLogger("linkcontext")
TOGETHER = 16  # requests that are answered at once
UNFINISHED = "\ufffd"  # what the first bytes of a character are decoded to


@dataclass(frozen=True, slots=True)
class Begun:
    """The prompt is understood."""

    prompt_tokens: int
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class Piece:
    """More of the answer. A token's piece may be empty: a character can take several."""

    text: str
    logprobs: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Done:
    """The answer is over."""

    reason: str  # stop | length
    tokens: int
    prompt_logprobs: list[dict[str, Any] | None] | None


@dataclass(frozen=True, slots=True)
class Failed:
    """There is no answer."""

    status: int
    why: str


Told = Begun | Piece | Done | Failed


@dataclass(eq=False)
class Job:
    """A request that waits for its answer. `tell` may be called from any thread."""

    messages: list[Message]
    sources: Sources
    seen: Mapping[str, ImageFeatures]  # what is known of pictures that may have no file any more
    ending: PromptEnd
    new_tokens: int
    stops: tuple[str, ...]
    top: int | None  # how many likely tokens are told beside each; None where no likelihoods are wanted
    reads: bool  # whether the prompt's own likelihoods are wanted
    pixels: int = 0  # of the client's pictures
    name: str | None = None  # the answer, if it is the name of a taught picture: the model is not run
    tell: Callable[[Told], object] = lambda told: None
    gone: bool = False  # the client has left
    length: int = 0  # of the prompt, in tokens
    said: list[int] = field(default_factory=list)
    text: str = ""  # told so far
    reason: str = "stop"
    stopped: bool = False  # by one of `stops`
    over: bool = False

    def leave(self, watch: "asyncio.Future[None]") -> None:
        """Note that the client has left, unless the watch was cancelled."""
        if not watch.cancelled():
            self.gone = True

    def end(self, told: Done | Failed) -> None:
        """Tell the last thing, once."""
        if not self.over:
            self.over = True
            self.tell(told)


class Desk:
    """A scorer in a thread of its own."""

    def __init__(self, scorer: LocalModel, shelf: Shelf) -> None:
        self.scorer, self.shelf = scorer, shelf
        self.waiting: deque[Job] = deque()
        self.changed = threading.Condition()
        self.closing = False
        self.thread = threading.Thread(target=self._work, name="model", daemon=True)
        self.thread.start()

    def put(self, job: Job) -> None:
        """Let a job wait for its turn."""
        with self.changed:
            self.waiting.append(job)
            self.changed.notify()

    def close(self) -> None:
        """Stop; what waits is not answered."""
        with self.changed:
            self.closing = True
            self.changed.notify()
        self.thread.join()

    def _work(self) -> None:
        while jobs := self._next():
            self._answer(jobs)

    def _next(self) -> list[Job]:
        """Jobs that can be answered together, those that wait longest first; none at the end."""
        with self.changed:
            self.changed.wait_for(lambda: self.waiting or self.closing)
            if self.closing:
                for job in self.waiting:
                    job.end(Failed(503, "the server is stopping."))
                return []
            first = self.waiting[0]
            found = [job for job in self.waiting if (job.ending, job.reads) == (first.ending, first.reads)][:TOGETHER]
            for job in found:
                self.waiting.remove(job)
            return found

    def _answer(self, jobs: list[Job]) -> None:
        try:
            self.scorer.sources.clear()
            ready = [job for job in jobs if self._begin(job)]
            for kept, those in self._alike(ready):
                self._say(those, kept)
        except InputError as error:
            self._one_by_one(jobs, Failed(400, str(error)))
        except Exception as error:  # whatever a network throws, the next request finds the thread alive
            log.exception("a request failed")
            self._one_by_one(jobs, Failed(500, f"the model failed ({type(error).__name__})."))
        finally:
            self.scorer.sources.clear()
            self.scorer.eyes.evict()

    def _one_by_one(self, jobs: list[Job], failed: Failed) -> None:
        """After a failure of many together: each by itself, but for those who heard a part of their answer."""
        left = [job for job in jobs if not job.over]
        for job in left:
            if len(left) == 1 or job.said:
                job.end(failed)
            else:
                self._answer([job])

    def _begin(self, job: Job) -> bool:
        """Whether a job can be answered; if not, it is told why."""
        if job.gone:
            job.end(Done("stop", 0, None))
            return False
        self.scorer.sources |= job.sources
        for content, features in job.seen.items():
            if content not in self.scorer.eyes:
                self.scorer.eyes.pin(content, features)
        try:
            job.length = len(self.scorer.prompt(job.messages, job.ending).ids)
        except InputError as error:
            job.end(Failed(400, str(error)))
            return False
        free = self.scorer.loaded.context - job.length
        if free < 1:
            job.end(Failed(400, f"the prompt takes all {job.length} tokens of the model's context. Shorten it."))
            return False
        job.new_tokens = min(job.new_tokens, free)
        return True

    def _alike(self, jobs: list[Job]) -> list[tuple[PrefixCache | None, list[Job]]]:
        """The jobs, together where they go on with the same of what is kept."""
        found: dict[int, tuple[PrefixCache | None, list[Job]]] = {}
        for job in jobs:
            whole = job.reads or job.ending != "none"
            kept = None if whole else self.shelf.find(job.messages)
            found.setdefault(id(kept), (kept, []))[1].append(job)
        return list(found.values())

    def _say(self, jobs: list[Job], kept: PrefixCache | None) -> None:
        read: list[Any] = [None] * len(jobs)
        prompts, ending = [job.messages for job in jobs], jobs[0].ending
        on = self.shelf.take(kept, prompts) if kept is not None else None
        for job in jobs:
            job.tell(Begun(job.length, len(on) if on is not None else 0))
        if jobs[0].reads:
            decode = self.scorer.loaded.tokenizer.decode
            read = [
                prompt_logprobs(ids, values, [decode([token]) for token in ids])
                for ids, values in self.scorer.prompt_logprobs(prompts, ending)
            ]
        most = max(job.new_tokens for job in jobs)
        if self.shelf.room and ending == "none" and not jobs[0].reads:
            on = self.scorer.prefill(prompts, on)
            if on is not None:
                self.shelf.put(on)
        self.scorer.generate(prompts, most, on, lambda n, *heard: self._heard(jobs[n], *heard), ending)
        for job, row in zip(jobs, read, strict=True):
            if not job.stopped:
                self._tell(job, self._decoded(job).rstrip(), [])
            job.end(Done(job.reason, len(job.said), row))

    def _heard(self, job: Job, token: int, logits: Tensor) -> bool:
        """A token of the answer; whether there is to be another."""
        if job.gone:
            return False
        job.said.append(token)
        whole = self._decoded(job)
        ends = [at for at in map(whole.find, job.stops) if at >= 0]
        job.stopped = bool(ends)
        # What may turn out to be no part of the answer waits: half a character, half a stop, space at the end.
        half = max((len(text) - 1 for text in job.stops), default=0)
        sure = whole[: min(ends)] if ends else whole[: max(0, len(whole) - half)].rstrip(UNFINISHED)
        self._tell(job, sure.rstrip(), self._likelihoods(job, token, logits))
        if len(job.said) == job.new_tokens and not ends:
            job.reason = "length"
        return not ends and job.reason == "stop"

    def _decoded(self, job: Job) -> str:
        text: str = self.scorer.loaded.tokenizer.decode(job.said, skip_special_tokens=True)
        return text.lstrip()

    def _tell(self, job: Job, sure: str, logprobs: list[dict[str, Any]]) -> None:
        """What is new in an answer so far."""
        more = sure[len(job.text) :]
        if more or logprobs:
            job.text += more
            job.tell(Piece(more, logprobs))

    def _likelihoods(self, job: Job, token: int, logits: Tensor) -> list[dict[str, Any]]:
        """How likely a token was, and those that were likeliest, as OpenAI's protocol has it."""
        if job.top is None:
            return []
        values, decode = logits.float().log_softmax(-1), self.scorer.loaded.tokenizer.decode
        likeliest = values.topk(job.top)
        top = [
            token_logprob(decode([other]), value)
            for value, other in zip(likeliest.values.tolist(), likeliest.indices.tolist(), strict=True)
        ]
        return [{**token_logprob(decode([token]), float(values[token])), "top_logprobs": top}]

"""The thread that runs a served model.

Requests that wait at the same time are answered together: what their prompts share is computed once, and no request
can see another's prompt. The KV cache of a conversation is kept for its next turn.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from linkcontext.config import HeadName
from linkcontext.episodes.scaffold import Message
from linkcontext.errors import InputError
from linkcontext.inference.image_features import ImageFeatures
from linkcontext.inference.kv_cache import PrefixCache
from linkcontext.scoring.local import LocalModel
from linkcontext.scoring.protocol import PromptEnd, Sources
from linkcontext.serve.openai_protocol import prompt_logprobs, token_logprob
from linkcontext.serve.prefix_cache import PrefixCacheLRU

log = logging.getLogger("linkcontext")
MAX_BATCH = 16  # requests that are answered together
UNFINISHED = "\ufffd"  # what the first bytes of a character are decoded to


@dataclass(frozen=True, slots=True)
class Started:
    """The prompt was read."""

    prompt_tokens: int
    cached_tokens: int  # of these, not computed again


@dataclass(frozen=True, slots=True)
class Delta:
    """More text of the answer. It may be empty: one character can take several tokens."""

    text: str
    logprobs: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Finished:
    """The answer is complete."""

    reason: str  # stop | length
    tokens: int
    prompt_logprobs: list[dict[str, Any] | None] | None


@dataclass(frozen=True, slots=True)
class Failed:
    """The request is not answered."""

    status: int
    message: str


Event = Started | Delta | Finished | Failed


@dataclass(eq=False)
class GenerationRequest:
    """A request to generate an answer, and its state while it is answered.

    `on_event` gets its events, from any thread; the last one is `Finished` or `Failed`.
    """

    messages: list[Message]
    sources: Sources
    features: Mapping[str, ImageFeatures]  # of pictures whose files may be gone
    ending: PromptEnd
    new_tokens: int
    stops: tuple[str, ...]
    top_logprobs: int | None  # alternatives for each token; None if no log-probabilities are wanted
    wants_prompt_logprobs: bool
    pixels: int = 0  # of the client's pictures
    taught_name: str | None = None  # the answer, if the request asks for the name of a taught picture
    named_by: HeadName | None = None  # the head that answers a request for a name instead of the model
    name: Callable[[], str] | None = None  # asks that head
    on_event: Callable[[Event], object] = lambda event: None
    cancelled: bool = False  # the client has disconnected
    prompt_tokens: int = 0
    token_ids: list[int] = field(default_factory=list)  # generated so far
    text: str = ""  # sent so far
    reason: str = "stop"
    stopped: bool = False  # by one of `stops`
    finished: bool = False

    def cancel(self, disconnect: "asyncio.Future[None]") -> None:
        """Note that the client has disconnected, unless the watch for that was itself cancelled."""
        if not disconnect.cancelled():
            self.cancelled = True

    def answer_with(self, text: str) -> None:
        """Answer with a text that is known without a prompt."""
        self.on_event(Started(0, 0))
        self.on_event(Delta(text, []))
        self.finish(Finished("stop", 0, None))

    def finish(self, event: Finished | Failed) -> None:
        """Send the last event, once."""
        if not self.finished:
            self.finished = True
            self.on_event(event)


class ModelWorker:
    """A model in a thread of its own, and the requests that wait for it."""

    def __init__(self, local_model: LocalModel, prefix_cache: PrefixCacheLRU) -> None:
        self.local_model, self.prefix_cache = local_model, prefix_cache
        self.tokenizer = local_model.loaded.tokenizer
        self.waiting: deque[GenerationRequest] = deque()
        self.changed = threading.Condition()
        self.closing = False
        self.thread = threading.Thread(target=self._run, name="model", daemon=True)
        self.thread.start()

    def submit(self, request: GenerationRequest) -> None:
        """Queue a request."""
        with self.changed:
            self.waiting.append(request)
            self.changed.notify()

    def close(self) -> None:
        """Stop the thread. Requests that wait fail with status 503."""
        with self.changed:
            self.closing = True
            self.changed.notify()
        self.thread.join()

    def _run(self) -> None:
        while requests := self._next_batch():
            self._answer(requests)

    def _next_batch(self) -> list[GenerationRequest]:
        """Wait for requests that can be answered together, the oldest first; none when closing."""
        with self.changed:
            self.changed.wait_for(lambda: self.waiting or self.closing)
            if self.closing:
                for request in self.waiting:
                    request.finish(Failed(503, "the server is stopping."))
                return []
            first = self.waiting[0]
            kind = first.ending, first.wants_prompt_logprobs
            batch = [one for one in self.waiting if (one.ending, one.wants_prompt_logprobs) == kind][:MAX_BATCH]
            for request in batch:
                self.waiting.remove(request)
            return batch

    def _answer(self, requests: list[GenerationRequest]) -> None:
        try:
            self.local_model.sources.clear()
            for request in requests:
                self._name(request)
            ready = [request for request in requests if not request.finished and self._prepare(request)]
            for prefix, group in self._by_prefix(ready):
                self._generate(group, prefix)
        except InputError as error:
            self._retry_alone(requests, Failed(400, str(error)))
        except Exception as error:  # whatever a network raises, the thread must live on for the next request
            log.exception("a request failed")
            self._retry_alone(requests, Failed(500, f"the model failed ({type(error).__name__})."))
        finally:
            self.local_model.sources.clear()
            self.local_model.eyes.evict()

    def _name(self, request: GenerationRequest) -> None:
        """Answer a request for a name that a head gives. It needs no prompt, and has no tokens."""
        if request.name is None or request.cancelled:
            return
        try:
            name = request.name()
        except InputError as error:
            request.finish(Failed(400, str(error)))
            return
        request.answer_with(name)

    def _retry_alone(self, requests: list[GenerationRequest], failure: Failed) -> None:
        """After a failure, answer each request alone, except those that were sent a part of their answer."""
        unfinished = [request for request in requests if not request.finished]
        for request in unfinished:
            if len(unfinished) == 1 or request.token_ids:
                request.finish(failure)
            else:
                self._answer([request])

    def _prepare(self, request: GenerationRequest) -> bool:
        """Give the model a request's pictures and measure its prompt. False if it is not to be answered."""
        if request.cancelled:
            request.finish(Finished("stop", 0, None))
            return False
        eyes = self.local_model.eyes
        self.local_model.sources |= request.sources
        for content, features in request.features.items():
            if content not in eyes:
                eyes.pin(content, features)
        try:
            request.prompt_tokens = len(self.local_model.prompt(request.messages, request.ending).ids)
        except InputError as error:
            request.finish(Failed(400, str(error)))
            return False
        room = self.local_model.loaded.context - request.prompt_tokens
        if room < 1:
            message = f"the prompt takes all {request.prompt_tokens} tokens of the model's context. Shorten it."
            request.finish(Failed(400, message))
            return False
        request.new_tokens = min(request.new_tokens, room)
        return True

    def _by_prefix(self, requests: list[GenerationRequest]) -> list[tuple[PrefixCache | None, list[GenerationRequest]]]:
        """Group requests by the cached prefix that they continue."""
        groups: dict[int, tuple[PrefixCache | None, list[GenerationRequest]]] = {}
        for request in requests:
            whole = request.wants_prompt_logprobs or request.ending != "none"
            prefix = None if whole else self.prefix_cache.match(request.messages)
            groups.setdefault(id(prefix), (prefix, []))[1].append(request)
        return list(groups.values())

    def _generate(self, requests: list[GenerationRequest], entry: PrefixCache | None) -> None:
        """Answer requests that continue the same cached prefix, or none."""
        prompts, ending = [request.messages for request in requests], requests[0].ending
        prefix = self.prefix_cache.fork(entry, prompts) if entry is not None else None
        for request in requests:
            request.on_event(Started(request.prompt_tokens, len(prefix) if prefix is not None else 0))
        rows: list[Any] = [None] * len(requests)
        if requests[0].wants_prompt_logprobs:
            rows = [
                prompt_logprobs(ids, values, [self.tokenizer.decode([token]) for token in ids])
                for ids, values in self.local_model.prompt_logprobs(prompts, ending)
            ]
        elif self.prefix_cache.max_bytes and ending == "none":
            prefix = self.local_model.prefill(prompts, prefix)
            if prefix is not None:
                self.prefix_cache.add(prefix)
        most = max(request.new_tokens for request in requests)
        self.local_model.generate(
            prompts, most, prefix, lambda n, token, logits: self._on_token(requests[n], token, logits), ending
        )
        for request, row in zip(requests, rows, strict=True):
            if not request.stopped:
                self._send(request, self._decoded(request).rstrip(), [])
            request.finish(Finished(request.reason, len(request.token_ids), row))

    def _on_token(self, request: GenerationRequest, token: int, logits: Tensor) -> bool:
        """Add a generated token to an answer. Returns whether generation continues."""
        if request.cancelled:
            return False
        request.token_ids.append(token)
        text = self._decoded(request)
        ends = [at for at in map(text.find, request.stops) if at >= 0]
        request.stopped = bool(ends)
        # Text that may not belong to the answer is held back: half a character, half a stop string, trailing space.
        half = max((len(stop) - 1 for stop in request.stops), default=0)
        certain = text[: min(ends)] if ends else text[: max(0, len(text) - half)].rstrip(UNFINISHED)
        self._send(request, certain.rstrip(), self._token_logprobs(request, token, logits))
        if len(request.token_ids) == request.new_tokens and not ends:
            request.reason = "length"
        return not ends and request.reason == "stop"

    def _decoded(self, request: GenerationRequest) -> str:
        text: str = self.tokenizer.decode(request.token_ids, skip_special_tokens=True)
        return text.lstrip()

    def _send(self, request: GenerationRequest, text: str, logprobs: list[dict[str, Any]]) -> None:
        """Send the part of an answer's text that was not sent yet."""
        new = text[len(request.text) :]
        if new or logprobs:
            request.text += new
            request.on_event(Delta(new, logprobs))

    def _token_logprobs(self, request: GenerationRequest, token: int, logits: Tensor) -> list[dict[str, Any]]:
        """The log-probability of a token and of the most likely ones, in the shape of OpenAI's protocol."""
        if request.top_logprobs is None:
            return []
        values, decode = logits.float().log_softmax(-1), self.tokenizer.decode
        likeliest = values.topk(request.top_logprobs)
        top = [
            token_logprob(decode([other]), value)
            for value, other in zip(likeliest.values.tolist(), likeliest.indices.tolist(), strict=True)
        ]
        return [{**token_logprob(decode([token]), float(values[token])), "top_logprobs": top}]

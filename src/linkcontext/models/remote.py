"""A model behind an endpoint of OpenAI's kind: vLLM, SGLang, `linkcontext serve`. It is asked as a `Scorer` is.

How likely an answer is, is read from `prompt_logprobs`: an extension of vLLM's, which gives for every token of a prompt
its own log-probability. The answer stands in the prompt as the assistant's message, closed; `add_generation_prompt` and
`continue_final_message` say how a prompt ends. A server that ignores these fields is asked for replies alone.
"""

import base64
import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, TypeVar
from urllib.parse import urlsplit

from linkcontext.data.images import png, portable
from linkcontext.episodes.marks import USUAL_MARKS, refuse_marks
from linkcontext.episodes.prompt import SCAFFOLDS, Message, conversation
from linkcontext.errors import InputError
from linkcontext.models.score import Ask, Sources
from linkcontext.models.vision import CHECKED, DRAWN, drawn
from linkcontext.records import Turn
from linkcontext.threads import threads

log = logging.getLogger("linkcontext")
PREFIX = "openai:"
RETRIES = 8  # of a request that is refused because the server has too much to do
SECONDS = 600.0  # until a server that says nothing is given up
Thing = TypeVar("Thing")
Found = TypeVar("Found")
Read = list[tuple[str, float]]  # of each token of a prompt but the first: its id, and its log-probability


@dataclass(frozen=True)
class Served:
    """A model that a server has. `name` is what the user wrote, `model` what the server calls it."""

    name: str
    url: str
    model: str
    client: Any

    def describe(self) -> dict[str, Any]:
        """What a run records about its model."""
        return {"name": self.name, "source": self.url, "class": "served", "served_name": self.model}

    def complete(self, messages: list[dict[str, Any]], new_tokens: int, **more: Any) -> Any:
        """What the server says to a conversation, greedily. `more` are fields that OpenAI does not have."""
        ask = self.client.chat.completions.create
        options = {"max_tokens": new_tokens, "temperature": 0, "extra_body": more}
        return _told(self.url, lambda: ask(model=self.model, messages=messages, **options))


def connect(name: str) -> Served:
    """The model `openai:URL#NAME`. Without a name: $OPENAI_MODEL, or the only one there is.

    The key is $OPENAI_API_KEY. Raises `InputError` where nobody answers, or there is no such model.
    """
    try:
        import openai  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise InputError("--model openai:URL needs the openai package: pip install 'linkcontext[openai]'.") from error
    url, _, wanted = name.removeprefix(PREFIX).partition("#")
    if urlsplit(url).scheme not in ("http", "https"):
        raise InputError(f"--model {name}: no address. Write openai:http://localhost:8000/v1#NAME.")
    key = os.environ.get("OPENAI_API_KEY") or "none"  # most servers of one's own want none
    client = openai.OpenAI(base_url=url, api_key=key, max_retries=RETRIES, timeout=SECONDS)
    there = _there(url, client)
    if not there:
        raise InputError(f"--model {name}: the server has no model.")
    wanted = wanted or os.environ.get("OPENAI_MODEL", "")
    if not wanted and len(there) != 1:
        raise InputError(f"--model {name}: the server has {', '.join(there)}. Choose one: openai:{url}#NAME.")
    if wanted and wanted not in there:
        raise InputError(f"--model {name}: the server has no {wanted}. There are {', '.join(there)}.")
    return Served(name, url, wanted or there[0], client)


def _there(url: str, client: Any) -> list[str]:
    """The names of a server's models."""
    try:
        found = [model.id for model in _told(url, client.models.list).data]
    except (AttributeError, TypeError):  # a page, or JSON of another shape: the client takes any
        found = [None]
    if not all(isinstance(name, str) for name in found):
        raise InputError(f"{url}: not an endpoint of OpenAI's kind. Does the address end in /v1?")
    return found


def _told(url: str, ask: Callable[[], Any]) -> Any:
    """What a server answers; an `InputError` with its own words where it refuses."""
    import openai  # noqa: PLC0415 - an extra

    try:
        return ask()
    except openai.APIStatusError as error:
        why = error.body.get("message") if isinstance(error.body, dict) else error.message
        raise Refused(f"{url}: the server refuses ({error.status_code}): {why}") from error
    except openai.APIConnectionError as error:
        why = str(error.__cause__ or error)
        raise InputError(f"{url}: no answer ({why}). Is a server running there?") from error


class Refused(InputError):
    """A server that answers, and says no."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A prompt as it is sent: which tokens are made of it, the server alone knows."""

    messages: list[Message]

    def sha256(self) -> str:
        """What the server was asked: a hash of words and pictures."""
        return hashlib.sha256(json.dumps(self.messages).encode()).hexdigest()


@dataclass
class Remote:
    """Asks a server about prompts, `batch` at a time."""

    served: Served
    sources: Sources
    batch: int = 16
    engine: str = "openai"
    marks: re.Pattern[str] = USUAL_MARKS

    @cached_property
    def trial(self) -> tuple[int, str]:
        """How many tokens a closed message has behind its last word; 0 where the server gives no likelihoods, and why.

        A small conversation is read three times: up to its answer, with it, and closed.
        """
        turn, query = Turn(CHECKED[0], "", "lum"), Turn(CHECKED[1], "", "")
        asked, told = (conversation([turn], SCAFFOLDS["turns"], query, answer) for answer in (None, "dax"))
        try:
            before = self._read(asked)
            goes_on = self._read(told, add_generation_prompt=False, continue_final_message=True)
            closed = self._read(told, add_generation_prompt=False)
        except Refused as error:
            return self._without(str(error))
        if not before or not goes_on or not closed:
            return self._without("it gives no prompt_logprobs")
        tail = len(closed) - len(goes_on)
        if tail < 1 or _shared(closed, goes_on) < len(goes_on) or not _shared(before, goes_on) < len(goes_on):
            return self._without("its prompts do not end as add_generation_prompt and continue_final_message say")
        return tail, "by the log-probabilities that the server gives"

    def _without(self, why: str) -> tuple[int, str]:
        log.warning("%s: answers are not scored, replies are taken instead: %s", self.served.url, why)
        return 0, f"none: {why}"

    @property
    def scores(self) -> bool:
        """Whether the server tells how likely an answer is."""
        return self.trial[0] > 0

    def counters(self) -> dict[str, Any]:
        """What a run records of how it was computed."""
        where = f"{self.served.model} at {self.served.url}"
        return {"engine": self.engine, "engine_reason": where, "scored": self.trial[1]}

    def prompt(self, messages: list[Message]) -> Sent:
        """The prompt, to be recorded."""
        return Sent(messages)

    def check(self, messages: list[Message]) -> None:
        """Whether the server takes a conversation, else an `InputError` with its own words."""
        self.served.complete([self._said(message) for message in messages], 1)

    def score(self, asks: Sequence[Ask]) -> list[list[tuple[float, int]]]:
        """For each prompt and candidate: the answer's log-probability (nats, its end included) and its tokens."""
        if not asks:
            return []
        tail, why = self.trial
        if not tail:
            raise InputError(f"{self.served.url}: likelihoods are asked for, and there are {why}.")
        told = [answer for ask in asks for answer in ask.answers]
        begun = self._at_once(lambda ask: self._read(ask.messages), asks)
        closed = iter(self._at_once(lambda answer: self._read(answer, add_generation_prompt=False), told))
        return [[_answer(read, next(closed), tail) for _ in ask.answers] for ask, read in zip(asks, begun, strict=True)]

    def generate(self, prompts: Sequence[list[Message]], new_tokens: int = 24) -> list[str]:
        """The model's own answers, greedily."""

        def reply(messages: list[Message]) -> str:
            found = self.served.complete([self._said(message) for message in messages], new_tokens)
            return (found.choices[0].message.content or "").strip()

        return self._at_once(reply, prompts)

    def _at_once(self, ask: Callable[[Thing], Found], things: Sequence[Thing]) -> list[Found]:
        """What `ask` gives for each of them, in order. After one that fails, those not yet begun are left out."""
        with threads(self.batch) as pool:
            return list(pool.map(ask, things))

    def _read(self, messages: list[Message], **more: Any) -> Read:
        """The tokens of a prompt as the server reads it; empty where it does not tell."""
        sent = [self._said(message) for message in messages]
        found = self.served.complete(sent, 1, prompt_logprobs=0, **more)  # 0: of the prompt's own tokens alone
        rows = getattr(found, "prompt_logprobs", None) or []
        own = [next(iter(row.items())) for row in rows if row]  # the first token has none before it
        return [(token, float(told["logprob"])) for token, told in own]

    def _said(self, message: Message) -> dict[str, Any]:
        """A message as OpenAI's protocol has it."""
        parts = message["content"]
        for part in parts:
            if part["type"] == "text":
                refuse_marks(part["text"], self.marks, f"a message of the {message['role']}")
        if all(part["type"] == "text" for part in parts):
            return {"role": message["role"], "content": "".join(part["text"] for part in parts)}
        return {"role": message["role"], "content": [self._part(part) for part in parts]}

    def _part(self, part: dict[str, str]) -> dict[str, Any]:
        if part["type"] == "text":
            return part
        item = part["image"]
        return {"type": "image_url", "image_url": {"url": _uri(item, None if item in DRAWN else self.sources[item][1])}}


def _answer(before: Read, closed: Read, tail: int) -> tuple[float, int]:
    """An answer's log-probability and tokens: from where the prompt ends to the one token that ends the answer."""
    said = closed[_shared(before, closed) : len(closed) - tail + 1]
    return sum(value for _, value in said), len(said)


def _shared(a: Read, b: Read) -> int:
    """How many tokens two prompts begin with together."""
    differs = (i for i, (one, other) in enumerate(zip(a, b, strict=False)) if one[0] != other[0])
    return next(differs, min(len(a), len(b)))


@lru_cache(maxsize=256)  # a support's pictures are sent again with every query
def _uri(item: str, path: Any) -> str:
    kind, content = ("image/png", png(drawn(item))) if path is None else portable(path)
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"

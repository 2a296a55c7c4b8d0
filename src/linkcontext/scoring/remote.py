"""A model behind an endpoint of OpenAI's kind: vLLM, SGLang, `linkcontext serve`. It is asked as a `LocalModel` is.

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
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from linkcontext.data.images import png, portable
from linkcontext.episodes.prompt import SCAFFOLDS, Message, conversation
from linkcontext.episodes.special_tokens import USUAL_MARKS, refuse_marks
from linkcontext.errors import InputError
from linkcontext.inference.generation import without_thought
from linkcontext.inference.vision import CHECKED, DRAWN, drawn
from linkcontext.models.prompting import REPLY_TOKENS, USUAL_PROMPTING, Prompting
from linkcontext.records import Turn
from linkcontext.scoring.local import UNFINISHED_THOUGHT, ScoringRequest, Sources
from linkcontext.threads import threads

log = logging.getLogger("linkcontext")
PREFIX = "openai:"
RETRIES = 8  # of a request that is refused because the server has too much to do
SECONDS = 600.0  # until a server that says nothing is given up
Thing = TypeVar("Thing")
Found = TypeVar("Found")
NEUTRAL = {"repetition_penalty": 1.0}
HEADER = re.compile(r"[\x20-\x7e]+")  # what a header of HTTP can carry
OTHER = "\ue000"  # a character that no name begins with


class Token(NamedTuple):
    """A token of a prompt, as a server reads it."""

    id: str
    logprob: float
    text: str


TokenLogprobs = list[Token]  # of each token of a prompt but the first


@dataclass(frozen=True)
class ServerConnection:
    """A model that a server has. `name` is what the user wrote, `model` what the server calls it."""

    name: str
    url: str
    model: str
    client: Any
    prompting: Prompting = USUAL_PROMPTING

    def describe(self) -> dict[str, Any]:
        """What a run records about its model."""
        return {
            "name": self.name,
            "source": self.url,
            "class": "served",
            "served_name": self.model,
            "chat_template_kwargs": self.prompting.template_kwargs,
            "generation_config": self.prompting.generation_config,
        }

    def complete(self, messages: list[dict[str, Any]], new_tokens: int, **more: Any) -> Any:
        """What the server says to a conversation, greedily. `more` are fields that OpenAI does not have."""
        ask = self.client.chat.completions.create
        if kwargs := self.prompting.template_kwargs:
            more |= {"chat_template_kwargs": kwargs}
        options: dict[str, Any] = {"max_tokens": new_tokens, "temperature": 0, "extra_body": more}
        if self.prompting.generation_config == "clean":
            options |= {"presence_penalty": 0, "frequency_penalty": 0}
        return _told(self.url, lambda: ask(model=self.model, messages=messages, **options))


def connect(name: str, prompting: Prompting = USUAL_PROMPTING) -> ServerConnection:
    """The model `openai:URL#NAME`. Without a name: $OPENAI_MODEL, or the only one there is.

    The key is $OPENAI_API_KEY. Raises `InputError` where nobody answers, or there is no such model.
    """
    try:
        import openai  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise InputError("--model openai:URL needs the openai package: pip install 'linkcontext[openai]'.") from error
    url, _, wanted = name.removeprefix(PREFIX).partition("#")
    _check_address(url, name)
    key = os.environ.get("OPENAI_API_KEY", "").strip() or "none"  # most servers of one's own want none
    if not HEADER.fullmatch(key):  # an error of the client's would repeat the key
        raise InputError("OPENAI_API_KEY: the key holds a letter that cannot be sent. Is it the key alone?")
    client = openai.OpenAI(base_url=url, api_key=key, max_retries=RETRIES, timeout=SECONDS)
    there = _there(url, client)
    if not there:
        raise InputError(f"--model {name}: the server has no model.")
    wanted = wanted or os.environ.get("OPENAI_MODEL", "")
    if not wanted and len(there) != 1:
        raise InputError(f"--model {name}: the server has {', '.join(there)}. Choose one: openai:{url}#NAME.")
    if wanted and wanted not in there:
        raise InputError(f"--model {name}: the server has no {wanted}. There are {', '.join(there)}.")
    return ServerConnection(name, url, wanted or there[0], client, prompting)


def _check_address(url: str, name: str) -> None:
    """Raise an `InputError` for an invalid address, or one with a password, which a run would write down."""
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and bool((parts.hostname or "").encode("idna")) and parts.port != 0
    except ValueError:
        whole = False
    else:
        if parts.username is not None or parts.password is not None or parts.query:
            raise InputError(
                f"--model {PREFIX}{parts.scheme}://...: an address with a user, a password or a query would be written "
                "into the files of a run. Give the key in OPENAI_API_KEY, and the address without it."
            )
    if not whole:
        raise InputError(f"--model {name}: no address. Write openai:http://localhost:8000/v1#NAME.")


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
class PromptRecord:
    """A prompt as it is sent: which tokens are made of it, the server alone knows."""

    messages: list[Message]

    def sha256(self) -> str:
        """What the server was asked: a hash of words and pictures."""
        return hashlib.sha256(json.dumps(self.messages).encode()).hexdigest()


@dataclass
class RemoteModel:
    """Asks a server about prompts, `batch` at a time."""

    served: ServerConnection
    sources: Sources
    batch: int = 16
    engine: str = "openai"
    marks: re.Pattern[str] = USUAL_MARKS
    cut_short: int = 0  # replies that ended inside of their reasoning
    _gap: int = 0  # characters of white space between where the model is to speak and an answer that is given
    _end: str = ""  # what the server's chat template writes behind an answer
    _generated: bool = False

    @cached_property
    def trial(self) -> tuple[int, str]:
        """How many tokens a closed message has after the end of its answer, -1 if the server gives no likelihoods; and
        how answers are scored, or why not.

        A small conversation is read four times: up to its answer, with it, closed, and closed with another answer.
        """
        turn, query = Turn(CHECKED[0], "", "lum"), Turn(CHECKED[1], "", "")
        asked, told = (conversation([turn], SCAFFOLDS["turns"], query, answer) for answer in (None, "dax"))
        try:
            before = self._read(asked)
            goes_on = self._read(told, add_generation_prompt=False, continue_final_message=True)
            closed = self._read(told, add_generation_prompt=False)
            other = self._read(_other_answer(ScoringRequest(asked, (told,))), add_generation_prompt=False)
        except Refused as error:
            return self._without(str(error))
        if not before or not goes_on or not closed or not other:
            return self._without("it gives no prompt_logprobs")
        behind = closed[len(goes_on) :]
        if _shared(closed, goes_on) < len(goes_on) or not _shared(before, goes_on) < len(goes_on):
            return self._without("its prompts do not end as add_generation_prompt and continue_final_message say")
        if not behind:
            return self._without("its chat template writes nothing behind an answer, so that an end cannot be scored")
        written = other[len(before) : _shared(other, closed)]  # by the template, behind where the model is to speak
        if _shared(before, other) == len(before) and all(token.text.isspace() for token in written):
            gap = "".join(token.text for token in other[len(before) :])
            self._gap = len(gap) - len(gap.lstrip())
        # Some templates write a space before the end token, which belongs to the end then.
        end = next((i for i, token in enumerate(behind) if not token.text.isspace()), 0)
        self._end = "".join(token.text for token in behind[: end + 1])
        if self._end.isspace():
            log.warning(
                "%s: its chat template writes %r behind an answer, which is hardly the model's end token. "
                "Likelihoods include it.",
                self.served.url,
                self._end,
            )
        return len(behind) - end - 1, "by the log-probabilities that the server gives"

    def _without(self, why: str) -> tuple[int, str]:
        log.warning("%s: answers are not scored, replies are taken instead: %s", self.served.url, why)
        return -1, f"none: {why}"

    @cached_property
    def neutral(self) -> dict[str, float]:
        """The penalty that is not in OpenAI's protocol at its neutral value, or nothing if the server refuses it.

        A server's own default may be the checkpoint's generation config, which penalises the very names that a prompt
        teaches.
        """
        if self.served.prompting.generation_config == "model":
            return {}
        try:
            self.served.complete([{"role": "user", "content": "Hello"}], 1, **NEUTRAL)
        except Refused as error:
            log.warning(
                "%s: does not take repetition_penalty (%s). Replies may be penalised as its own settings say.",
                self.served.url,
                error,
            )
            return {}
        return NEUTRAL

    @property
    def scores(self) -> bool:
        """Whether the server tells how likely an answer is."""
        return self.trial[0] >= 0

    def counters(self) -> dict[str, Any]:
        """What a run records of how it was computed."""
        where = f"{self.served.model} at {self.served.url}"
        counters: dict[str, Any] = {"engine": self.engine, "engine_reason": where, "scored": self.trial[1]}
        if self.scores:
            counters["end_of_answer"] = f"{self._end!r}, as the server's chat template writes it"
        if self._generated:
            counters["penalties"] = self._penalties
        if self.cut_short:
            counters["replies_cut_in_reasoning"] = self.cut_short
        return counters

    @property
    def _penalties(self) -> str:
        """Which penalties apply to the server's replies, in words."""
        if self.served.prompting.generation_config == "model":
            return "the server's own"
        return "none" if self.neutral else "none of OpenAI's; the server's own repetition_penalty"

    def prompt(self, messages: list[Message]) -> PromptRecord:
        """The prompt, to be recorded."""
        return PromptRecord(messages)

    def check(self, messages: list[Message]) -> None:
        """Whether the server takes a conversation, else an `InputError` with its own words."""
        self.served.complete([self._said(message) for message in messages], 1)

    def score(self, asks: Sequence[ScoringRequest]) -> list[list[tuple[float, int]]]:
        """For each prompt and candidate: the answer's log-probability (nats, its end included) and its tokens."""
        if not asks:
            return []
        tail, why = self.trial
        if tail < 0:
            raise InputError(f"{self.served.url}: likelihoods are asked for, and there are {why}.")
        closed = [answer for ask in asks if ask.answers for answer in (_other_answer(ask), *ask.answers)]
        reads = iter(self._at_once(lambda answer: self._read(answer, add_generation_prompt=False), closed))
        scores = []
        for ask in asks:
            other = next(reads) if ask.answers else []
            scores.append([_answer(other, next(reads), self._gap, tail) for _ in ask.answers])
        return scores

    def generate(self, prompts: Sequence[list[Message]], new_tokens: int = REPLY_TOKENS) -> list[str]:
        """The model's own answers, greedily, without reasoning."""
        if not prompts:
            return []
        self._generated = True
        neutral = self.neutral

        def reply(messages: list[Message]) -> str | None:
            found = self.served.complete([self._said(message) for message in messages], new_tokens, **neutral)
            return without_thought((found.choices[0].message.content or "").strip())

        replies = self._at_once(reply, prompts)
        if cut := sum(text is None for text in replies):
            if not self.cut_short:
                log.warning(UNFINISHED_THOUGHT)
            self.cut_short += cut
        return [text or "" for text in replies]

    def _at_once(self, ask: Callable[[Thing], Found], things: Sequence[Thing]) -> list[Found]:
        """What `ask` gives for each of them, in order. After one that fails, those not yet begun are left out."""
        with threads(self.batch) as pool:
            return list(pool.map(ask, things))

    def _read(self, messages: list[Message], **more: Any) -> TokenLogprobs:
        """The tokens of a prompt as the server reads it; empty where it does not tell."""
        sent = [self._said(message) for message in messages]
        answer = self.served.complete(sent, 1, prompt_logprobs=0, **more)  # 0: of the prompt's own tokens alone
        rows = getattr(answer, "prompt_logprobs", None) or []
        own = [next(iter(row.items())) for row in rows if row]  # the first token has none before it
        return [Token(token, float(values["logprob"]), values.get("decoded_token") or "") for token, values in own]

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


def _other_answer(ask: ScoringRequest) -> list[Message]:
    """The messages of a candidate with an answer that begins like no candidate.

    The common beginning is all that the chat template writes before an answer. It can be longer than a prompt for a
    reply: templates of models that reason write an empty reasoning before a given answer.
    """
    message = ask.answers[0][-1]
    return [*ask.answers[0][:-1], {**message, "content": [{"type": "text", "text": OTHER}]}]


def _answer(other: TokenLogprobs, closed: TokenLogprobs, gap: int, tail: int) -> tuple[float, int]:
    """An answer's log-probability and number of tokens: from where it differs from another answer to its end.

    Up to `gap` characters of white space before it belong to it, because the model would have to generate them.
    """
    start = _shared(other, closed)
    while start and closed[start - 1].text.isspace() and len(closed[start - 1].text) <= gap:
        start -= 1
        gap -= len(closed[start].text)
    tokens = closed[start : len(closed) - tail]
    return sum(token.logprob for token in tokens), len(tokens)


def _shared(a: TokenLogprobs, b: TokenLogprobs) -> int:
    """How many tokens two prompts begin with together."""
    differs = (i for i, (one, other) in enumerate(zip(a, b, strict=False)) if one.id != other.id)
    return next(differs, min(len(a), len(b)))


@lru_cache(maxsize=256)  # a support's pictures are sent again with every query
def _uri(item: str, path: Any) -> str:
    kind, content = ("image/png", png(drawn(item))) if path is None else portable(path)
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"

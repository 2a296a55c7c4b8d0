"""A model behind a server that speaks OpenAI's protocol, for everything that takes a `ScoringModel`.

Answers are scored by the log-probabilities that the server gives for the tokens of a prompt (`remote_logprobs`). From a
server that gives none, replies are taken instead.
"""

import base64
import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any, Never, Self, TypeVar

from linkcontext.data.images import image_size, open_image, png, portable
from linkcontext.data.manifest import Dataset
from linkcontext.episodes.scaffold import Message
from linkcontext.episodes.special_tokens import USUAL_MARKS, refuse_marks
from linkcontext.errors import InputError
from linkcontext.inference.image_features import ImageFeatures
from linkcontext.inference.kv_cache import PrefixCache
from linkcontext.models.picture_options import reduced, reduced_size
from linkcontext.models.prompting import REPLY_TOKENS, Prompting
from linkcontext.models.synthetic_images import SYNTHETIC, synthetic_image
from linkcontext.scoring.connection import Refused, ServerConnection
from linkcontext.scoring.engine_names import EngineName
from linkcontext.scoring.identity import digest_of, measured_by_server
from linkcontext.scoring.protocol import Capability, ModelCard, PromptEnd, ScoringRequest, Sources
from linkcontext.scoring.remote_logprobs import (
    AnswerFormat,
    Token,
    TokenLogprobs,
    answer_format,
    answer_logprob,
    other_answer,
)
from linkcontext.scoring.replies import ReplyCleaner
from linkcontext.threads import threads

log = logging.getLogger("linkcontext")
Argument = TypeVar("Argument")
Result = TypeVar("Result")
NO_FEATURES = "a server shows no features of pictures"
NEUTRAL = {"repetition_penalty": 1.0}


@dataclass(frozen=True, slots=True)
class PromptRecord:
    """A prompt as it is sent. Only the server knows its tokens."""

    messages: list[Message]

    @property
    def ids(self) -> tuple[int, ...]:
        """Empty: the tokens are not known here."""
        return ()

    def sha256(self) -> str:
        """A hash of the text and of the pictures' ids."""
        return hashlib.sha256(json.dumps(self.messages).encode()).hexdigest()


class RemotePictures:
    """Pictures that only the server encodes."""

    def features(self, items: Sequence[str], alone: bool = False) -> Never:
        """Raises `InputError`."""
        raise InputError(f"{NO_FEATURES}.")

    def pin(self, item: str, features: ImageFeatures) -> Never:
        """Raises `InputError`."""
        raise InputError(f"{NO_FEATURES}.")

    def without_refused(self, dataset: Dataset, items: Iterable[str], strict: bool) -> Dataset:
        """The data set: whether its image processor takes a picture, the server says when it gets one."""
        return dataset

    def save(self) -> None:
        """Nothing: there are no features."""


@dataclass
class RemoteModel:
    """A model of a server, asked `batch` prompts at a time."""

    connection: ServerConnection
    sources: Sources = field(default_factory=dict)
    batch: int = 16
    pictures: RemotePictures = field(default_factory=RemotePictures, init=False)
    engine: str = field(default="openai", init=False)
    _replies: ReplyCleaner = field(default_factory=ReplyCleaner, init=False, repr=False)
    _generated: bool = field(default=False, init=False)

    @cached_property
    def card(self) -> ModelCard:
        """Name, prompting and special tokens, and what the server reports. It checks the context limit itself."""
        server = self.connection
        return ModelCard(server.name, server.prompting, USUAL_MARKS, None, server.describe, self._identity)

    def _identity(self, conversations: Iterable[Sequence[Message]]) -> dict[str, Any]:
        """What the server reports about its model, and a digest of the conversations' texts and picture ids."""
        reported = measured_by_server(self.connection.reported())
        pictures = self.connection.picture_options
        more = {"pictures": pictures} if pictures else {}
        return {**reported, **more, "prompts": digest_of([*map(list, conversations)])}

    @property
    def loaded(self) -> Never:
        """Raises `InputError`: the weights are not here."""
        raise InputError(f"{self.card.name}: {self.lacks('token ids')}.")

    def lacks(self, capability: Capability) -> str:
        """Why the model cannot do this; empty if it can."""
        if capability == "log-probabilities":
            return self._format.refusal
        return {
            "image features": NO_FEATURES,
            "token ids": "its tokenizer and weights are with the server",
            "shared prefixes": "every prompt is sent whole",
        }[capability]

    def counters(self) -> dict[str, Any]:
        """What metrics.json records about how a run was computed."""
        refusal = self.lacks("log-probabilities")
        counters: dict[str, Any] = {
            "engine": self.engine,
            "engine_reason": f"{self.connection.model} at {self.connection.url}",
            "scored": f"none: {refusal}" if refusal else "by the log-probabilities that the server gives",
        }
        if not refusal:
            counters["end_of_answer"] = f"{self._format.end!r}, as the server's chat template writes it"
        if self._generated:
            counters["penalties"] = _penalties(self.card.prompting.generation_config == "model", bool(self._neutral))
        return counters | self._replies.counters()

    def with_pictures(
        self,
        sources: Sources,
        batch: int = 16,
        engine: EngineName = "auto",
        memory_gb: float | None = None,
        keep_features: bool = True,
    ) -> Self:
        """The same model for other pictures. Raises `InputError` for what only the server can choose."""
        if engine != "auto" or memory_gb is not None:
            raise InputError(f"--engine, --memory-gb: {self.card.name} is computed by its server. Leave them out.")
        return replace(self, sources=sources, batch=batch)

    def clone(self, prompting: Prompting | None = None) -> Self:
        """A copy, prompted in another way if `prompting` is given."""
        return replace(self, connection=replace(self.connection, prompting=prompting or self.connection.prompting))

    def prompt(self, messages: list[Message]) -> PromptRecord:
        """The prompt as it is recorded."""
        return PromptRecord(messages)

    def length(self, messages: list[Message]) -> None:
        """None: only the server knows its tokens."""

    def check(self, messages: list[Message]) -> None:
        """Raise an `InputError` with the server's message if it refuses a conversation."""
        self.connection.complete([self._sent(message) for message in messages], 1)

    def score(self, requests: Sequence[ScoringRequest], on: PrefixCache | None = None) -> list[list[tuple[float, int]]]:
        """For each request and candidate: the answer's log-probability (nats, its end token included) and its number of
        tokens."""
        if not requests:
            return []
        if refusal := self.lacks("log-probabilities"):
            raise InputError(f"{self.connection.url}: likelihoods are asked for, and there are none: {refusal}.")
        closed = [
            answer for request in requests if request.answers for answer in (other_answer(request), *request.answers)
        ]
        reads = iter(self._at_once(lambda answer: self._read(answer, add_generation_prompt=False), closed))
        scores = []
        for request in requests:
            other = next(reads) if request.answers else []
            scores.append([answer_logprob(other, next(reads), self._format) for _ in request.answers])
        return scores

    def generate(
        self, prompts: Sequence[list[Message]], new_tokens: int = REPLY_TOKENS, on: PrefixCache | None = None
    ) -> list[str]:
        """Greedy replies, without reasoning."""
        if not prompts:
            return []
        self._generated = True
        neutral = self._neutral

        def reply(messages: list[Message]) -> str:
            completion = self.connection.complete([self._sent(m) for m in messages], new_tokens, **neutral)
            return completion.choices[0].message.content or ""

        return self._replies.clean(self._at_once(reply, prompts))

    def prompt_logprobs(self, prompts: Sequence[list[Message]], end: PromptEnd) -> list[tuple[list[int], list[float]]]:
        """The token ids of each prompt and their log-probabilities (nats). The first token's id is not given: -1."""
        if refusal := self.lacks("log-probabilities"):
            raise InputError(f"{self.connection.url}: there are no log-probabilities of prompts: {refusal}.")
        more = {
            "none": {},
            "open": {"add_generation_prompt": False, "continue_final_message": True},
            "closed": {"add_generation_prompt": False},
        }[end]
        reads = self._at_once(lambda messages: self._read(messages, **more), prompts)
        return [([-1, *(int(t.id) for t in tokens)], [0.0, *(t.logprob for t in tokens)]) for tokens in reads]

    def prefill(self, prompts: Sequence[list[Message]], on: PrefixCache | None = None) -> None:
        """None: whatever prompts share, the server keeps it or computes it again."""

    def prefix_tree(self, conversations: Sequence[list[Message]]) -> Never:
        """Raises `InputError`: prompts are sent whole."""
        raise InputError(f"{self.card.name}: {self.lacks('shared prefixes')}.")

    @cached_property
    def _format(self) -> AnswerFormat:
        """How the server ends answers, or why they cannot be scored."""
        style = answer_format(self._read)
        if style.refusal:
            log.warning("%s: answers are not scored, replies are taken instead: %s", self.connection.url, style.refusal)
        elif style.end.isspace():
            log.warning(
                "%s: its chat template writes %r behind an answer, which is hardly the model's end token. "
                "Likelihoods include it.",
                self.connection.url,
                style.end,
            )
        return style

    @cached_property
    def _neutral(self) -> dict[str, float]:
        """The penalty that is not in OpenAI's protocol at its neutral value; empty if the server refuses the field.

        A server's own default may be the checkpoint's generation config, which penalises the very names that a prompt
        teaches.
        """
        if self.card.prompting.generation_config == "model":
            return {}
        try:
            self.connection.complete([{"role": "user", "content": "Hello"}], 1, **NEUTRAL)
        except Refused as error:
            log.warning(
                "%s: does not take repetition_penalty (%s). Replies may be penalised as its own settings say.",
                self.connection.url,
                error,
            )
            return {}
        return NEUTRAL

    def _at_once(self, call: Callable[[Argument], Result], arguments: Sequence[Argument]) -> list[Result]:
        """The results of `call` in order, computed `batch` at a time. After a failure no further call begins."""
        with threads(self.batch) as pool:
            return list(pool.map(call, arguments))

    def _read(self, messages: list[Message], **more: Any) -> TokenLogprobs:
        """The tokens of a prompt as the server reports them; empty if it reports none."""
        sent = [self._sent(message) for message in messages]
        answer = self.connection.complete(sent, 1, prompt_logprobs=0, **more)  # 0: of the prompt's own tokens alone
        rows = (answer.model_extra or {}).get("prompt_logprobs") or []
        own = [next(iter(row.items())) for row in rows if row]  # the first token has none before it
        return [Token(token, float(values["logprob"]), values.get("decoded_token") or "") for token, values in own]

    def _sent(self, message: Message) -> dict[str, Any]:
        """A message in OpenAI's protocol, after a check for special tokens in its texts."""
        parts = message["content"]
        for part in parts:
            if part["type"] == "text":
                refuse_marks(part["text"], self.card.special_tokens, f"a message of the {message['role']}")
        if all(part["type"] == "text" for part in parts):
            return {"role": message["role"], "content": "".join(part["text"] for part in parts)}
        most = self.connection.pictures.max_pixels
        return {"role": message["role"], "content": [_part(part, self.sources, most) for part in parts]}


def _part(part: dict[str, str], sources: Sources, most: int | None = None) -> dict[str, Any]:
    """A part of a message in OpenAI's protocol, pictures as data URIs of at most `most` pixels."""
    if part["type"] == "text":
        return part
    item = part["image"]
    path = None if item in SYNTHETIC else sources[item][1]
    return {"type": "image_url", "image_url": {"url": _data_uri(item, path, most)}}


@lru_cache(maxsize=256)  # a support's pictures are sent again with every query
def _data_uri(item: str, path: Any, most: int | None) -> str:
    """A picture of at most `most` pixels as a data URI; without a path it is one that is drawn here."""
    if path is not None and reduced_size(size := image_size(path), most) == size:
        kind, content = portable(path)
    else:
        kind, content = "image/png", png(reduced(synthetic_image(item) if path is None else open_image(path), most))
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _penalties(own: bool, neutral: bool) -> str:
    """Which penalties apply to the server's replies, in words."""
    if own:
        return "the server's own"
    return "none" if neutral else "none of OpenAI's; the server's own repetition_penalty"

"""A model behind a server that speaks OpenAI's protocol, for everything that takes a `ScoringModel`.

Answers are scored by the log-probabilities that a server gives for chosen tokens behind a prompt (`remote_trie`), or
for all tokens of a prompt (`remote_logprobs`). From a server that gives none, replies are taken instead.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Never, Self, TypeVar

from linkcontext.episodes.scaffold import Message
from linkcontext.episodes.special_tokens import USUAL_MARKS
from linkcontext.errors import InputError
from linkcontext.inference.kv_cache import PrefixCache
from linkcontext.models.prompting import REPLY_TOKENS, Prompting
from linkcontext.scoring.connection import ServerConnection
from linkcontext.scoring.engine_names import EngineName
from linkcontext.scoring.identity import digest_of, measured_by_server
from linkcontext.scoring.protocol import Capability, ModelCard, PromptEnd, ScoringRequest, Sources
from linkcontext.scoring.remote_pictures import NO_FEATURES, RemotePictures, sent_message
from linkcontext.scoring.remote_scorer import RemoteScorer, at_once
from linkcontext.scoring.replicas import Refused
from linkcontext.scoring.replies import ReplyCleaner
from linkcontext.scoring.server_abilities import ServerAbilities, abilities, read_prompt

log = logging.getLogger("linkcontext")
Argument = TypeVar("Argument")
Result = TypeVar("Result")
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


@dataclass
class RemoteModel:
    """A model of a server, asked `batch` prompts at a time."""

    connection: ServerConnection
    sources: Sources = field(default_factory=dict, repr=False)
    batch: int = 16
    pictures: RemotePictures = field(default_factory=RemotePictures, init=False, repr=False)
    engine: str = field(default="openai", init=False, repr=False)
    _replies: ReplyCleaner = field(default_factory=ReplyCleaner, init=False, repr=False)
    _generated: bool = field(default=False, init=False, repr=False)
    _known: dict[Prompting, ServerAbilities] = field(default_factory=dict, repr=False)  # shared by copies

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
            return self._abilities.answers.refusal
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
            "scored": self._scorer.way(),
        }
        if not refusal:
            end = self._abilities.answers.end
            counters["end_of_answer"] = f"{end!r}, as the server's chat template writes it"
        if self._generated:
            counters["penalties"] = _penalties(self.card.prompting.generation_config == "model", bool(self._neutral))
        return counters | self._replies.counters()

    def with_pictures(
        self,
        sources: Sources,
        batch: int | None = None,
        engine: EngineName = "auto",
        memory_gb: float | None = None,
        keep_features: bool = True,
    ) -> Self:
        """The same model for other pictures. Raises `InputError` for what only the server can choose."""
        if engine != "auto" or memory_gb is not None:
            raise InputError(f"--engine, --memory-gb: {self.card.name} is computed by its server. Leave them out.")
        return replace(self, sources=sources, batch=self.batch if batch is None else batch)

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
        self._complete(messages, 1)

    def score(self, requests: Sequence[ScoringRequest], on: PrefixCache | None = None) -> list[list[tuple[float, int]]]:
        """For each request and candidate: the answer's log-probability (nats, its end token included) and its number of
        tokens."""
        if not requests:
            return []
        return self._scorer.score(requests)

    def generate(
        self, prompts: Sequence[list[Message]], new_tokens: int = REPLY_TOKENS, on: PrefixCache | None = None
    ) -> list[str]:
        """Greedy replies, without reasoning."""
        if not prompts:
            return []
        self._generated = True
        neutral = self._neutral

        def reply(messages: list[Message]) -> str:
            return _reply(self._complete(messages, new_tokens, **neutral).choices[0].message)

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
        reads = self._at_once(lambda messages: read_prompt(self._complete, messages, **more), prompts)
        return [([-1, *(int(t.id) for t in tokens)], [0.0, *(t.logprob for t in tokens)]) for tokens in reads]

    def prefill(self, prompts: Sequence[list[Message]], on: PrefixCache | None = None) -> None:
        """None: whatever prompts share, the server keeps it or computes it again."""

    def prefix_tree(self, conversations: Sequence[list[Message]]) -> Never:
        """Raises `InputError`: prompts are sent whole."""
        raise InputError(f"{self.card.name}: {self.lacks('shared prefixes')}.")

    @property
    def _abilities(self) -> ServerAbilities:
        """What the server can be asked for log-probabilities, and how it ends answers."""
        prompting = self.connection.prompting
        if prompting not in self._known:
            connection = self.connection
            self._known[prompting] = abilities(self._complete, connection.replicas, connection.url)
        return self._known[prompting]

    @cached_property
    def _scorer(self) -> RemoteScorer:
        return RemoteScorer(self._complete, self._abilities, self.connection.replicas, self.batch)

    @cached_property
    def _neutral(self) -> dict[str, float]:
        """The penalty that is not in OpenAI's protocol at its neutral value; empty if the server refuses the field.

        A server's own default may be the checkpoint's generation config, which penalises the very names that a prompt
        teaches.
        """
        if self.card.prompting.generation_config == "model":
            return {}
        try:
            self.connection.complete([{"role": "user", "content": "Hello"}], 1, None, **NEUTRAL)
        except Refused as error:
            log.warning(
                "%s: does not accept repetition_penalty (%s). The server's own penalties may apply to replies.",
                self.connection.url,
                error,
            )
            return {}
        return NEUTRAL

    def _at_once(self, call: Callable[[Argument], Result], arguments: Sequence[Argument]) -> list[Result]:
        return at_once(call, arguments, self.batch, self.connection.replicas)

    def _complete(self, messages: Sequence[Message], new_tokens: int, **more: Any) -> Any:
        """The server's completion of a conversation."""
        most, special = self.connection.pictures.max_pixels, self.card.special_tokens
        sent = [sent_message(message, self.sources, most, special) for message in messages]
        return self.connection.complete(sent, new_tokens, **more)


def _reply(message: Any) -> str:
    """A reply's text. Reasoning that the server separates (a reasoning parser) counts where nothing follows it."""
    reasoning = {"reasoning", "reasoning_content"} & {*(message.model_extra or {})}
    thought = next((message.model_extra[name] for name in reasoning if message.model_extra[name]), None)
    return message.content or (f"<think>{thought}" if thought else "")


def _penalties(own: bool, neutral: bool) -> str:
    """Which penalties apply to the server's replies, in words."""
    if own:
        return "the server's own"
    return "none" if neutral else "none of OpenAI's; the server's own repetition_penalty"

"""A model on this machine: prompts run on a prefix tree, with every picture encoded once, or whole (reference engine).

Which engine runs, `EngineChoice` decides. What prompts share is computed once on a tree; `prefill` keeps it.
"""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessorList

from linkcontext.data.images import open_image
from linkcontext.episodes.render import IGNORE, Tokens
from linkcontext.episodes.scaffold import Message
from linkcontext.errors import InputError
from linkcontext.inference.decoding import adjusted, decode_greedy, dense_attention, logits_processors
from linkcontext.inference.engine import MIN_TOKENS
from linkcontext.inference.greedy import AdjustLogits, OnToken
from linkcontext.inference.kv_cache import PrefixCache, prefix_key
from linkcontext.inference.prefix_tree import Ints, PrefixTree, merge
from linkcontext.inference.vision import VisionEncoder
from linkcontext.models.model import Model
from linkcontext.models.prompting import REPLY_TOKENS, Prompting
from linkcontext.scoring import identity
from linkcontext.scoring.engine_choice import EngineChoice
from linkcontext.scoring.engine_names import EngineName
from linkcontext.scoring.pictures import PromptPictures
from linkcontext.scoring.prompts import PromptEncoder
from linkcontext.scoring.protocol import Capability, ModelCard, PromptEnd, ScoringModel, ScoringRequest, Sources
from linkcontext.scoring.reference import ReferenceEngine
from linkcontext.scoring.replies import ReplyCleaner
from linkcontext.scoring.selfcheck import SelfCheck
from linkcontext.scoring.trees import TreeBuilder


class LocalModel:
    """A loaded model bound to pictures. `batch` is how many whole prompts the reference engine runs at once.

    Predictions depend neither on it nor on `memory_gb`, which bounds a pass (default: the free memory).
    """

    def __init__(
        self,
        loaded: Model,
        eyes: VisionEncoder | None = None,
        sources: Sources | None = None,
        batch: int = 16,
        requested: EngineName = "auto",
        memory_gb: float | None = None,
    ) -> None:
        self.loaded = loaded
        self.eyes = VisionEncoder(loaded, open_image, memory_gb=memory_gb) if eyes is None else eyes
        self.pictures = PromptPictures(self.eyes, {} if sources is None else sources)
        self._encoder = PromptEncoder(loaded)
        self._trees = TreeBuilder(self._encoder, self.pictures)
        self._reference = ReferenceEngine(loaded, self._encoder, self.pictures, batch)
        self._replies = ReplyCleaner()
        self.choice = EngineChoice(loaded, SelfCheck(self._trees, self._reference), requested, memory_gb)

    # What it is

    def __repr__(self) -> str:
        """The model's name and its device."""
        return f"LocalModel({self.loaded.name!r}, {self.loaded.device})"

    @cached_property
    def card(self) -> ModelCard:
        """Name, prompting, special tokens, context limit and identity."""
        model = self.loaded
        about = partial(identity.of_model, model)
        return ModelCard(model.name, model.prompting, model.marks, model.context, model.describe, about)

    @property
    def sources(self) -> Sources:
        """Where the pictures come from: item id -> (content hash, path)."""
        return self.pictures.sources

    @sources.setter
    def sources(self, sources: Sources) -> None:
        self.pictures.sources = sources

    @property
    def engine(self) -> str:
        """The engine that runs prompts: `prefix-cache`, `tree` or `reference`."""
        return self.choice.name_and_reason[0]

    def lacks(self, capability: Capability) -> str:
        """Why the model cannot do this; empty if it can. The reference engine has no features and shares nothing."""
        whole = capability in ("image features", "shared prefixes") and self.choice.whole_prompts
        return f"its engine runs whole prompts ({self.choice.name_and_reason[1]})" if whole else ""

    def counters(self) -> dict[str, Any]:
        """What metrics.json records about how a run was computed."""
        engine, why = self.choice.name_and_reason
        return {"engine": engine, "engine_reason": why, **self._replies.counters(), **self.eyes.counters()}

    def with_pictures(
        self,
        sources: Sources,
        batch: int | None = None,
        engine: EngineName = "auto",
        memory_gb: float | None = None,
        keep_features: bool = True,
    ) -> Self:
        """The same weights for other pictures, whose features are kept on the disk unless `keep_features` is False.

        The batch, engine and memory that were requested stay where no others are.
        """
        batch = self._reference.batch if batch is None else batch
        engine = self.choice.requested if engine == "auto" else engine
        memory_gb = self.choice.memory_gb if memory_gb is None else memory_gb
        eyes = VisionEncoder(self.loaded, open_image, use_disk=keep_features, memory_gb=memory_gb)
        return type(self)(self.loaded, eyes, sources, batch, engine, memory_gb)

    def clone(self, prompting: Prompting | None = None) -> Self:
        """A copy that chooses its engine anew, because that depends on the wording, and shares the image features."""
        loaded = replace(self.loaded, prompting=prompting or self.loaded.prompting)
        choice = self.choice
        return type(self)(loaded, self.eyes, self.sources, self._reference.batch, choice.requested, choice.memory_gb)

    # Prompts

    def prompt(self, messages: list[Message], end: PromptEnd = "none") -> Tokens:
        """The tokens of a prompt, up to where the answer is to begin. Longer than the context is an `InputError`."""
        text, short = self._encoder.encode(messages, end)
        self._encoder.check_length(len(short.ids), short)  # before pictures, which only add to it, are encoded
        ids = self._token_ids(text, short)
        self._encoder.check_length(len(ids), short)
        return Tokens(tuple(ids), (IGNORE,) * len(ids), short.pictures)

    def length(self, messages: list[Message]) -> int:
        """How many tokens a conversation has with its pictures, whether or not they fit the context."""
        return len(self._token_ids(*self._encoder.encode(messages, "none")))

    def check(self, messages: list[Message]) -> None:
        """Raise an `InputError` if a conversation with its answer exceeds the context or the memory.

        Where a tree spells it in another way than the model's own processor, the reference engine is used from now on.
        """
        text, short = self._encoder.encode(messages, "last")
        whole = self._reference.token_ids(text, short)
        self._encoder.check_length(len(whole), short)
        if self.choice.whole_prompts:
            return
        self.choice.room(len(whole), MIN_TOKENS)
        if self._trees.expand(short).ids.tolist() != whole:
            self.choice.fall_back("its processor spells these prompts in another way")

    def _token_ids(self, text: str, short: Tokens) -> list[int]:
        """The tokens of a conversation, each picture with all of its tokens."""
        if self.choice.whole_prompts:
            return self._reference.token_ids(text, short)
        ids: list[int] = self._trees.expand(short).ids.tolist()
        return ids

    # Scores and replies

    def score(self, requests: Sequence[ScoringRequest], on: PrefixCache | None = None) -> list[list[tuple[float, int]]]:
        """For each request and candidate: the answer's log-probability (nats, its end token included) and its number of
        tokens. The prefix `on` is not computed again if all prompts begin with all of it."""
        self._begin(request.messages for request in requests)
        answers = [answer for request in requests for answer in request.answers]
        if not answers:
            return [[] for _ in requests]
        if self.choice.whole_prompts:
            scored = self._reference.score(answers)
        else:
            inputs = self._trees.merge(answers, "last", on)
            values = self.choice.engine(inputs, "prefix-cache" if inputs.cached else self.engine).scores(inputs)
            scored = [(value, len(tokens)) for value, tokens in zip(values, inputs.tree.answers, strict=True)]
        left = iter(scored)
        return [[next(left) for _ in request.answers] for request in requests]

    def prompt_logprobs(self, prompts: Sequence[list[Message]], end: PromptEnd) -> list[tuple[list[int], list[float]]]:
        """For each prompt its tokens and the log-probability (nats) of each after those before it; 0 for the first."""
        self._begin(prompts)
        if self.choice.whole_prompts:
            return [self._reference.prompt_logprobs(messages, end) for messages in prompts]
        lines = [replace(line, answer=np.arange(len(line.ids)) > 0) for line in self._trees.sequences(prompts, end)]
        inputs = self._trees.inputs(merge(lines))
        values = self.choice.engine(inputs, self.engine).logprobs(inputs).numpy()
        paths = [inputs.tree.path(i) for i in range(len(lines))]
        return [(inputs.tree.ids[path].tolist(), values[path].tolist()) for path in paths]

    def generate(
        self,
        prompts: Sequence[list[Message]],
        new_tokens: int = REPLY_TOKENS,
        on: PrefixCache | None = None,
        on_token: OnToken | None = None,
        end: PromptEnd = "none",
    ) -> list[str]:
        """Greedy replies, without special tokens and without reasoning; `on` as in `score`.

        `on_token` is called with each new token and ends the reply by returning False.
        """
        if not prompts:
            return []
        self._begin(prompts)
        model = self.loaded
        if self.choice.whole_prompts:
            replies = self._reference.generate(prompts, new_tokens, end, on_token, model.generation)
        else:
            inputs = self._trees.merge(prompts, end, on)
            with dense_attention(model.network):
                shape = _logits_shaper(model) if model.generation else None
                engine = self.choice.engine(inputs, self.engine)
                replies = decode_greedy(engine, inputs, new_tokens, model.ends, on_token, shape)
        texts = [model.tokenizer.decode(ids, skip_special_tokens=True) for ids in replies]
        return self._replies.clean(texts, [self._encoder.encode(messages, end)[0] for messages in prompts])

    # Shared prefixes

    def prefill(self, prompts: Sequence[list[Message]], on: PrefixCache | None = None) -> PrefixCache | None:
        """Compute the common prefix of the prompts and return its key-value cache; `on` is a prefix to extend.

        A prompt's last token, whose output is the next token, is left out. None with the reference engine.
        """
        self._begin(prompts)
        if self.choice.whole_prompts:
            return None
        inputs = self._trees.merge(prompts, "none", on)
        length = inputs.tree.shared_length
        if length <= inputs.cached:
            return on
        cache = self.choice.engine(inputs, "prefix-cache").prefill(inputs, length)
        key, images = prefix_key(inputs.tree, length, self.pictures.contents)
        return PrefixCache(key, images, cache, divisible=not self.choice.own_cache)

    def prefix_key(self, prompts: Sequence[list[Message]]) -> tuple[Ints, tuple[str, ...]]:
        """The common prefix of the prompts as `PrefixCache` describes it, without computing it."""
        self._begin(prompts)
        tree = self._trees.merge(prompts, "none").tree
        return prefix_key(tree, tree.shared_length, self.pictures.contents)

    def prefix_tree(self, conversations: Sequence[list[Message]]) -> tuple[PrefixTree, dict[int, str]]:
        """What conversations with their answers share, merged; and the item id of each picture number in it."""
        if why := self.lacks("shared prefixes"):
            raise InputError(f"there is no prefix tree: {why}.")
        self._begin(conversations)
        tree = self._trees.merge(conversations, "last").tree
        return tree, self.pictures.items(conversations)

    # Parts

    def _begin(self, conversations: Iterable[list[Message]]) -> None:
        """Encode all pictures that are about to be needed, so that the vision encoder gets many at a time."""
        if not self.choice.whole_prompts:
            self.pictures.begin(conversations)


def scoring_model(model: ScoringModel | Model) -> ScoringModel:
    """The model itself, or a `LocalModel` of a loaded `Model`, which 0.1 gave to learners, dialogues and pages."""
    match model:
        case Model():
            warnings.warn(
                "A learner takes a scoring model: give it linkcontext.scoring.local.LocalModel(model). A loaded model "
                "is taken until linkcontext 0.3.",
                DeprecationWarning,
                stacklevel=3,
            )
            return LocalModel(model)
        case _:
            return model


def _logits_shaper(model: Model) -> AdjustLogits:
    """A function that applies the checkpoint's generation config to the logits of each prompt."""
    processors: dict[int, LogitsProcessorList] = {}

    def shape(n: int, ids: list[int], logits: Tensor) -> Tensor:
        if n not in processors:  # the reply has no token yet
            processors[n] = logits_processors(model.generation, model.ends, len(ids), model.device)
        return adjusted(processors[n], torch.tensor(ids, device=model.device), logits)

    return shape

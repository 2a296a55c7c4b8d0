"""What a model can be asked, whether it is loaded on this machine or runs behind a server.

`LocalModel` runs prompts on a prefix tree, or whole through the model's own processor (its reference engine);
`RemoteModel` sends them to a server. Commands take either. What a model cannot do it says when it is asked:
`model.lacks("image features")` is the reason, or an empty string.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

from linkcontext.data.manifest import Dataset
from linkcontext.episodes.scaffold import Message
from linkcontext.errors import InputError
from linkcontext.inference.image_features import ImageFeatures
from linkcontext.inference.kv_cache import PrefixCache
from linkcontext.inference.prefix_tree import PrefixTree
from linkcontext.models.model import Model
from linkcontext.models.prompting import REPLY_TOKENS, Prompting
from linkcontext.scoring.engine_names import EngineName

# How a prompt ends. none: the assistant is to speak; open: in the middle of its last message; closed: behind that.
PromptEnd = Literal["none", "open", "closed"]
Sources = dict[str, tuple[str, Any]]  # item id -> (content hash, path)
# log-probabilities: of candidate answers, and of a prompt's tokens. image features: what the vision encoder makes of a
# picture. token ids: the tokenizer and the weights are here. shared prefixes: what prompts share is computed once.
Capability = Literal["log-probabilities", "image features", "token ids", "shared prefixes"]


@dataclass(frozen=True, slots=True)
class ScoringRequest:
    """A prompt's messages, and for each candidate the messages with that answer."""

    messages: list[Message]
    answers: tuple[list[Message], ...]


class Prompt(Protocol):
    """A prompt as a model reads it."""

    @property
    def ids(self) -> tuple[int, ...]:
        """Its token ids; empty where only a server knows them."""
        ...

    def sha256(self) -> str:
        """A hash of its text and its pictures."""
        ...


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What every model says about itself."""

    name: str  # as the user wrote it
    prompting: Prompting
    special_tokens: re.Pattern[str]  # no text of a prompt may contain one
    context: int | None  # most tokens of a prompt; None where a server does not say
    describe: Callable[[], dict[str, Any]]  # what config.json records about the model
    # Digests of all that answers depend on, and of conversations as the model reads them (`prompts`).
    identity: Callable[[Iterable[Sequence[Message]]], dict[str, Any]]


class PictureAccess(Protocol):
    """The pictures that a model is bound to."""

    def features(self, items: Sequence[str], alone: bool = False) -> list[ImageFeatures]:
        """The features of pictures, in order. `alone`: each is the only picture of its prompt.

        Ask first whether the model lacks "image features".
        """
        ...

    def without_refused(self, dataset: Dataset, items: Iterable[str], strict: bool) -> Dataset:
        """The data set without those of `items` that the image processor refuses; the same object if there are none.

        With `strict`, raises `InputError` for the first.
        """
        ...

    def pin(self, item: str, features: ImageFeatures) -> None:
        """Use these features of a picture, which were computed earlier, as long as the model is bound to it."""
        ...

    def save(self) -> None:
        """Write features that are new to the disk."""
        ...


class ScoringModel(Protocol):
    """A model bound to pictures: `sources` maps the item ids of its prompts to content hashes and paths."""

    sources: Sources

    @property
    def card(self) -> ModelCard:
        """Name, prompting, special tokens, context limit and identity."""
        ...

    @property
    def pictures(self) -> PictureAccess:
        """The pictures of `sources`."""
        ...

    @property
    def engine(self) -> str:
        """How prompts are computed; recorded with every prediction."""
        ...

    @property
    def loaded(self) -> Model:
        """The network with its processor. Raises `InputError` where the model lacks "token ids"."""
        ...

    def lacks(self, capability: Capability) -> str:
        """Why the model cannot do this; empty if it can."""
        ...

    def counters(self) -> dict[str, Any]:
        """What metrics.json records about how a run was computed."""
        ...

    def with_pictures(
        self,
        sources: Sources,
        batch: int | None = None,
        engine: EngineName = "auto",
        memory_gb: float | None = None,
        keep_features: bool = True,
    ) -> Self:
        """The same model for other pictures. Predictions depend on none of the other arguments.

        `keep_features`: read image features from the disk, and write new ones.
        """
        ...

    def clone(self, prompting: Prompting | None = None) -> Self:
        """A copy that chooses its engine anew and shares the image features; with another prompting if given."""
        ...

    def prompt(self, messages: list[Message]) -> Prompt:
        """The prompt as the model reads it. Raises `InputError` where it is known to be too long."""
        ...

    def length(self, messages: list[Message]) -> int | None:
        """How many tokens a conversation has with its pictures, whether or not they fit the context; None where only a
        server knows."""
        ...

    def check(self, messages: list[Message]) -> None:
        """Raise an `InputError` if a conversation with its answer cannot be computed."""
        ...

    def score(self, requests: Sequence[ScoringRequest], on: PrefixCache | None = None) -> list[list[tuple[float, int]]]:
        """For each request and candidate: the answer's log-probability (nats, its end token included) and its number of
        tokens.

        `on` is a prefix from `prefill`, which is not computed again. Raises `InputError` where the model lacks
        "log-probabilities".
        """
        ...

    def generate(
        self, prompts: Sequence[list[Message]], new_tokens: int = REPLY_TOKENS, on: PrefixCache | None = None
    ) -> list[str]:
        """Greedy replies of at most `new_tokens` tokens, without special tokens and without reasoning."""
        ...

    def prompt_logprobs(self, prompts: Sequence[list[Message]], end: PromptEnd) -> list[tuple[list[int], list[float]]]:
        """For each prompt its token ids and the log-probability (nats) of each token after those before it.

        The first token has log-probability 0; its id is -1 where a server does not give it.
        """
        ...

    def prefill(self, prompts: Sequence[list[Message]], on: PrefixCache | None = None) -> PrefixCache | None:
        """Compute the common prefix of the prompts and return its key-value cache; `on` is a prefix to extend.

        None where the model lacks "shared prefixes".
        """
        ...

    def prefix_tree(self, conversations: Sequence[list[Message]]) -> tuple[PrefixTree, dict[int, str]]:
        """What conversations with their answers share, merged; and the item id of each picture number in it.

        Raises `InputError` where the model lacks "shared prefixes".
        """
        ...


def require(model: ScoringModel, capability: Capability, by: str) -> None:
    """Raise an `InputError` that names what needs a capability (`by`: a flag or command) if the model lacks it."""
    if why := model.lacks(capability):
        raise InputError(f"{by} needs {capability}, and {model.card.name} gives none: {why}.")

"""How likely a model finds each candidate answer, and what it answers when nobody helps it.

Prompts become lines of a tree, and an engine runs them: `cached` and `packed` run what lines share once, with
every picture encoded once; `naive` runs every line as a prompt of its own through the model's own processor. It is
the oracle and serves any model. Before a model's first tree, a small one is compared with the oracle.
"""

import inspect
import logging
import re
import sys
from collections.abc import Iterable, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import takewhile
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from cachetools import LRUCache
from PIL import Image
from torch import Tensor
from transformers import LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from linkcontext.data.images import open_image
from linkcontext.episodes.prompt import (
    IGNORE,
    SCAFFOLDS,
    Message,
    Tokens,
    Words,
    closed,
    conversation,
    render,
    tokenize,
)
from linkcontext.episodes.prompt import pictures as shown
from linkcontext.errors import InputError
from linkcontext.inference.engine import (
    CASCADE_MAX_TOKENS,
    CPU_MAX_TOKENS,
    GPU_MAX_TOKENS,
    MIN_TOKENS,
    WIDTH,
    AdjustLogits,
    Engine,
    OnToken,
    TreeInputs,
)
from linkcontext.inference.generation import clean_generation, logits_processors, shaped, without_thought
from linkcontext.inference.kv_cache import PrefixCache, prefix_key
from linkcontext.inference.losses import tree_losses
from linkcontext.inference.memory import free_memory, room
from linkcontext.inference.prefix_tree import ImageTokens, Ints, PrefixTree, TokenSequence, expand_images, merge
from linkcontext.inference.vision import CHECKED, DRAWN, ImageFeatures, VisionEncoder, chunks, drawn
from linkcontext.models.families import is_causal, prefix_lm, unsupported_reason
from linkcontext.models.loading import Model
from linkcontext.models.prompting import REPLY_TOKENS
from linkcontext.records import Turn

log = logging.getLogger("linkcontext")
EngineName = Literal["auto", "packed", "cached", "naive"]
# How a prompt ends. none: the assistant is to speak; open: in the middle of its last message; closed: behind that.
PromptEnd = Literal["none", "open", "closed"]
Sources = dict[str, tuple[str, Any]]  # item id -> (content hash, path)
# Rounding: what a sum of log-probabilities may differ by between two orders of the same operations.
TOLERANCE, HALF_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}, 0.3
# Bytes of texts with their tokens, and of expanded prompts, that are kept: an episode has few texts, and what was
# taught is asked about again and again.
TEXTS, LINES = 128_000_000, 64_000_000
TOKEN = 48  # bytes that a token takes in a `Tokens`: its id, a label, and a place for each
READ = 256  # tokens whose likelihood is looked up at once
UNFINISHED_THOUGHT = (
    "a reply ended inside of its reasoning and holds no answer: give more --max-new-tokens, or turn the reasoning off "
    """with --chat-template-kwargs '{"enable_thinking": false}'."""
)
Shapes = Sequence[tuple[int | None, int | None]]
SHAPES: Shapes = (
    (None, None),
    (2 * MIN_TOKENS, None),
)  # room and width with which a small tree is tried: whole, and in passes


@dataclass(frozen=True, slots=True)
class ScoringRequest:
    """A prompt's messages, and for each candidate the messages with that answer."""

    messages: list[Message]
    answers: tuple[list[Message], ...]


@dataclass
class LocalModel:
    """Runs prompts on a model. `batch` is how many naive sequences go through it at once.

    Figures depend neither on it nor on `memory_gb`, which bounds what a pass may take (default: what is free).
    """

    model: Model
    eyes: VisionEncoder
    sources: Sources
    batch: int = 16
    asked: EngineName = "auto"
    memory_gb: float | None = None
    cut_short: int = 0  # replies that ended inside of their reasoning
    _encoded: MutableMapping[Any, tuple[str, Tokens]] = field(
        default_factory=lambda: LRUCache(TEXTS, _text_bytes), repr=False
    )
    _numbers: dict[tuple[str, bool], int] = field(default_factory=dict, repr=False)  # (content, alone) -> place
    _pictures: list[ImageFeatures] = field(default_factory=list, repr=False)
    # A line's key has the ids of its spellings, which stay theirs as long as these are kept beside it.
    _lines: MutableMapping[Any, tuple[TokenSequence, list[ImageTokens]]] = field(
        default_factory=lambda: LRUCache(LINES, _line_bytes), repr=False
    )

    @property
    def marks(self) -> re.Pattern[str]:
        """The model's own marks, which no text may hold."""
        return self.model.marks

    @property
    def engine(self) -> str:
        """`cached`, `packed` or `naive`."""
        return self.choice[0]

    @cached_property
    def choice(self) -> tuple[str, str]:
        """The engine and why it is this one."""
        if self.asked == "naive":
            return "naive", "asked for"
        network = self.model.network
        why = unsupported_reason(network)
        if why is not None:
            return self._fallback(why)
        name = self.asked if self.asked != "auto" else "cached"
        if name == "packed" and self.skips():
            return name, "a small tree gave what whole prompts give, with FlexAttention"
        why = self._tried()
        return (name, "a small tree gave what whole prompts give") if why is None else self._fallback(why)

    def skips(self, learns: bool = False) -> bool:
        """Let attention skip what nobody sees (FlexAttention), for passes over whole trees; whether it does.

        On a GPU, in plain causal layers, and where a small tree gives what whole prompts give; with `learns` a pass
        backward is tried as well.
        """
        network, text = self.model.network, self.model.network.get_decoder()
        usual = text.config._attn_implementation
        if (
            self.model.device.type != "cuda"
            or usual != "sdpa"
            or not is_causal(network)
            or not text._supports_flex_attn
        ):
            return False
        text.set_attn_implementation("flex_attention")
        why = self._tried(learns=learns)
        if why is not None:
            text.set_attn_implementation(usual)
            log.warning("without FlexAttention: %s", why)
        return why is None

    def _tried(self, shapes: Shapes = SHAPES, learns: bool = False) -> str | None:
        """Why a small tree does not give what whole prompts give, or None; with room and width of the engine."""
        try:
            return self._check(shapes, learns)
        except (InputError, RuntimeError, TypeError, ValueError, AttributeError, LookupError) as error:
            # Whatever a foreign network throws at its first small tree, the oracle can still serve it.
            said = str(error).strip() or type(error).__name__
            return f"a small tree could not be run ({said.splitlines()[0]})"

    def _fallback(self, why: str) -> tuple[str, str]:
        if self.asked != "auto":
            raise InputError(f"--engine {self.asked}: {why}. Use --engine auto or naive.")
        log.warning("engine naive, one prompt at a time: %s", why)
        return "naive", why

    def counters(self) -> dict[str, Any]:
        """What a run records of how it was computed."""
        engine, why = self.choice
        cut = {"replies_cut_in_reasoning": self.cut_short} if self.cut_short else {}
        return {"engine": engine, "engine_reason": why, **cut, **self.eyes.counters()}

    def prompt(self, messages: list[Message], ending: PromptEnd = "none") -> Tokens:
        """The tokens of a prompt, up to where the answer is to begin. Longer than the context is an `InputError`."""
        text, short = self._encode(messages, ending)
        self._fits(len(short.ids), short)  # before pictures, which only add to it, are looked at
        tokens = self._spelled(text, short)
        self._fits(len(tokens.ids), short)
        return tokens

    def length(self, messages: list[Message]) -> int:
        """How many tokens a conversation has with its pictures, whether or not they fit the context."""
        return len(self._spelled(*self._encode(messages, "none")).ids)

    def check(self, messages: list[Message]) -> None:
        """Whether a conversation with its answer fits the context and the memory, else an `InputError`; and whether the
        tree spells it as the model's own processor does, else the engine is naive from here on."""
        text, short = self._encode(messages, "last")
        whole = self._by_processor(text, short)
        self._fits(len(whole), short)
        if self.engine == "naive":
            return
        self._room(len(whole), MIN_TOKENS)
        if self._laid(short).ids.tolist() != whole:
            self.choice = self._fallback("its processor spells these prompts in another way")

    def _fits(self, length: int, short: Tokens) -> None:
        fits(length, short, self.model.context)

    def hold(self, prompts: Sequence[list[Message]], on: PrefixCache | None = None) -> PrefixCache | None:
        """Run what several prompts begin with, to be kept for those that come; `on` is kept already, and stays.

        A prompt's last token, which says what comes next, is left to be run. None where the engine is naive, which
        runs every prompt whole.
        """
        self._look(prompts)
        if self.engine == "naive":
            return None
        grown = self._tree(prompts, "none", on)
        length = _together(grown.tree)
        if length <= grown.held:
            return on
        cache = self._engine(grown, "cached").prefill(grown, length)
        return PrefixCache(*prefix_key(grown.tree, length, self._contents), cache)

    def begins(self, prompts: Sequence[list[Message]]) -> tuple[Ints, tuple[str, ...]]:
        """What several prompts begin with together, as `PrefixCache` tells it; what `hold` would keep."""
        self._look(prompts)
        tree = self._tree(prompts, "none").tree
        return prefix_key(tree, _together(tree), self._contents)

    @property
    def _contents(self) -> list[str]:
        return [f"{content}+alone" if alone else content for content, alone in self._numbers]

    def score(self, asks: Sequence[ScoringRequest], on: PrefixCache | None = None) -> list[list[tuple[float, int]]]:
        """For each prompt and candidate: the answer's log-probability (nats, its end included) and its tokens.

        What is held is not run again, where all prompts begin with all of it.
        """
        self._look(ask.messages for ask in asks)
        flat = [answer for ask in asks for answer in ask.answers]
        if not flat:
            return [[] for _ in asks]
        if self.engine == "naive":
            scored = self._score_naive(flat)
        else:
            grown = self._tree(flat, "last", on)
            values = self._engine(grown, "cached" if grown.held else self.engine).scores(grown)
            scored = [(value, len(asked)) for value, asked in zip(values, grown.tree.answers, strict=True)]
        found = iter(scored)
        return [[next(found) for _ in ask.answers] for ask in asks]

    def read(self, prompts: Sequence[list[Message]], ending: PromptEnd) -> list[tuple[list[int], list[float]]]:
        """The tokens of each prompt, and how likely (nats) each is after those before it; the first is taken as 0."""
        self._look(prompts)
        if self.engine == "naive":
            return [self._read_naive(messages, ending) for messages in prompts]
        lines = [replace(line, answer=np.arange(len(line.ids)) > 0) for line in self._lines_of(prompts, ending)]
        grown = TreeInputs(merge(lines), self._pictures)
        values = self._engine(grown, self.engine).logprobs(grown).numpy()
        paths = [grown.tree.path(i) for i in range(len(lines))]
        return [(grown.tree.ids[path].tolist(), values[path].tolist()) for path in paths]

    def generate(
        self,
        prompts: Sequence[list[Message]],
        new_tokens: int = REPLY_TOKENS,
        on: PrefixCache | None = None,
        on_token: OnToken | None = None,
        ending: PromptEnd = "none",
    ) -> list[str]:
        """The model's own answers, greedily, without special tokens and without reasoning; `on` as in `score`.

        `on_token` is told each token as it comes, and ends the answer where it says False.
        """
        if not prompts:
            return []
        self._look(prompts)
        if self.engine == "naive":
            return self._generate_naive(prompts, new_tokens, on_token, ending)
        grown, text = self._tree(prompts, ending, on), self.model.network.get_decoder()
        usual = text.config._attn_implementation
        if usual == "flex_attention":  # word by word there are no blocks to skip
            text.set_attn_implementation("sdpa")
        try:
            shape = self._shape(prompts, ending) if self.model.generation else None
            said = self._engine(grown, self.engine).replies(grown, new_tokens, self.model.ends, on_token, shape)
        finally:
            if usual == "flex_attention":
                text.set_attn_implementation(usual)
        return self._replies(said, prompts, ending)

    def _shape(self, prompts: Sequence[list[Message]], ending: PromptEnd) -> AdjustLogits:
        """A function that applies the checkpoint's generation config to the logits of each prompt."""
        device = self.model.device
        chosen: dict[int, LogitsProcessorList] = {}

        def shape(n: int, ids: list[int], logits: Tensor) -> Tensor:
            if n not in chosen:  # nothing is said yet
                chosen[n] = logits_processors(self.model.generation, self.model.ends, len(ids), device)
            return shaped(chosen[n], torch.tensor(ids, device=device), logits)

        return shape

    def _replies(
        self, sequences: Sequence[list[int]], prompts: Sequence[list[Message]], ending: PromptEnd
    ) -> list[str]:
        """Generated tokens as texts. Unfinished reasoning gives an empty reply, and is counted."""
        texts = [self.model.tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in sequences]
        begun = [self._encode(messages, ending)[0] for messages in prompts]
        replies = [without_thought(text, prompt) for text, prompt in zip(texts, begun, strict=True)]
        if cut := sum(text is None for text in replies):
            if not self.cut_short:
                log.warning(UNFINISHED_THOUGHT)
            self.cut_short += cut
        return [text or "" for text in replies]

    def _look(self, conversations: Iterable[list[Message]]) -> None:
        """See all pictures that are about to be needed, so that the tower gets many at a time."""
        if self.engine == "naive":
            return
        self._numbers, self._pictures = {}, []
        wanted = _looks(shown(messages) for messages in conversations)
        self.eyes.evict({self.eyes.key(self.sources.get(item, (item,))[0], alone) for item, alone in wanted})
        self._see(wanted)

    def _see(self, wanted: Iterable[tuple[str, bool]]) -> None:
        for alone in (False, True):
            items = [item for item, single in wanted if single == alone]
            self.eyes.encode([(item, *self.sources.get(item, (item, None))) for item in items], alone)

    def tree(self, conversations: Sequence[list[Message]]) -> tuple[PrefixTree, dict[int, str]]:
        """What conversations with their answers share, merged, and the pictures in it: number -> item id."""
        self._look(conversations)
        tree = self._tree(conversations, "last").tree
        shows = [(item, len(items) == 1) for items in map(shown, conversations) for item in items]
        return tree, {self._numbers[self.sources[item][0], alone]: item for item, alone in shows}

    # Words

    def _encode(self, messages: list[Message], supervise: str) -> tuple[str, Tokens]:
        """A conversation's text and tokens, each picture one mark. Which pictures they are makes no difference."""
        spoken = tuple((m["role"], tuple(part.get("text") for part in m["content"])) for m in messages)
        key = (supervise, spoken)
        if (encoded := self._encoded.get(key)) is None:
            text, spans = rendered(messages, supervise, self.model.chat_template)
            labelled = "none" if supervise in ("open", "closed") else supervise
            encoded = text, tokenize(text, spans, (), self.model.chat_template, labelled)
            if len(encoded[1].ids) <= self.model.context and _text_bytes(encoded) <= TEXTS:  # else it is refused
                self._encoded[key] = encoded
        text, tokens = encoded
        return text, Tokens(tokens.ids, tokens.labels, tuple(shown(messages)))

    def _spelled(self, text: str, short: Tokens) -> Tokens:
        """Tokens in which every picture takes the room it has."""
        ids = self._by_processor(text, short) if self.engine == "naive" else self._laid(short).ids.tolist()
        return Tokens(tuple(ids), (IGNORE,) * len(ids), short.pictures)

    def _by_processor(self, text: str, short: Tokens) -> list[int]:
        """The tokens that the model's own processor makes of a conversation."""
        ids: list[int] = self._processed([text], [short.pictures], "right")["input_ids"][0].tolist()
        return ids

    def _open(self, item: str) -> Image.Image:
        return drawn(item) if item in DRAWN else open_image(self.sources[item][1])

    # Trees

    def _tree(
        self, conversations: Sequence[list[Message]], supervise: str, on: PrefixCache | None = None
    ) -> TreeInputs:
        """What the conversations share, merged; on top of what is held, where they all begin with it."""
        tree = merge(self._lines_of(conversations, supervise))
        if on is None or tree.segments[0].subtree_end < len(tree) or tree.segments[0].end < len(on):
            return TreeInputs(tree, self._pictures)
        rows, pictures = prefix_key(tree, len(on), self._contents)
        if pictures != on.images or not np.array_equal(rows, on.key):
            return TreeInputs(tree, self._pictures)
        return TreeInputs(tree, self._pictures, on.cache, len(on))

    def _lines_of(self, conversations: Sequence[list[Message]], supervise: str) -> list[TokenSequence]:
        """Each conversation up to the end of its answer: what a template adds behind it is not asked for."""
        said = [self._encode(messages, supervise)[1] for messages in conversations]
        lines = [self._laid(short) for short in said]
        length, longest = max((len(line.ids), i) for i, line in enumerate(lines))
        self._fits(length, said[longest])
        ends = [np.flatnonzero(line.answer)[-1:] for line in lines]
        return [line[: end[0] + 1] if len(end) else line for line, end in zip(lines, ends, strict=True)]

    def _laid(self, short: Tokens) -> TokenSequence:
        """A conversation as the language model gets it: marks replaced by pictures as they are spelled."""
        alone, numbers = len(short.pictures) == 1, []
        for item in short.pictures:
            picture = item if item in DRAWN else self.sources[item][0], alone
            if picture not in self._numbers:
                if self.eyes.key(*picture) not in self.eyes:  # mostly many were looked at together
                    self._see(_looks([short.pictures]))
                self._numbers[picture] = len(self._pictures)
                self._pictures.append(self.eyes.get(*picture))
            numbers.append(self._numbers[picture])
        # Which pictures they are only changes their numbers: an episode has few texts and many conversations.
        spellings = [self._pictures[n].spelling for n in numbers]
        key = short.ids, short.labels, tuple(map(id, spellings))
        if (kept := self._lines.get(key)) is None:
            kept = expand_images(short, self.eyes.mark, range(len(numbers)), spellings), spellings
            if len(kept[0].ids) <= self.model.context and _line_bytes(kept) <= LINES:  # else it is refused
                self._lines[key] = kept
        line = kept[0]
        return replace(line, picture=np.array([*numbers, -1])[line.picture])

    def _engine(self, grown: TreeInputs, name: str) -> Engine:
        """The engine with as much room as there is memory for."""
        tree = grown.tree
        width = self._width if name == "cached" else None
        usual = GPU_MAX_TOKENS if self.model.device.type == "cuda" else CASCADE_MAX_TOKENS if width else CPU_MAX_TOKENS
        found = self._room(int(tree.depth.max()) + 1, len(tree) if name == "packed" else min(usual, len(tree)))
        if name == "packed" and found < len(tree):
            log.warning("%d tokens do not fit into one pass: the trunk is cached", len(tree))
        return Engine(self.model.network, found, width)

    @cached_property
    def _width(self) -> int | None:
        """How long branches may be that are attended to apart, where the network takes that."""
        network = self.model.network
        usual = network.config.get_text_config()._attn_implementation
        if self.model.device.type != "cpu" or usual != "sdpa" or not is_causal(network):
            return None
        why = self._tried(((2 * MIN_TOKENS, MIN_TOKENS),))
        if why is not None:
            log.warning("attention to branches and trunk together: %s", why)
        return WIDTH if why is None else None

    def _room(self, longest: int, most: int) -> int:
        memory = free_memory(self.model.device) if self.memory_gb is None else self.memory_gb * 1e9
        return room(self.model.network, longest, memory, most)

    def _check(self, shapes: Shapes, learns: bool) -> str | None:
        """Whether a small tree gives what the oracle gives; if not, what the difference is."""
        grown, oracle = self._small
        network, dtype = self.model.network, self.model.network.dtype
        worst = max(
            abs(a - b)
            for room, width in shapes
            for a, b in zip(Engine(network, room or len(grown.tree), width).scores(grown), oracle, strict=True)
        )
        if not worst <= TOLERANCE.get(dtype, HALF_TOLERANCE):
            return f"its forward does not follow masks or positions (a small tree is off by {worst:.2g})"
        if learns:  # some kernels have no way back; a norm of the first layer is small, and behind all of them
            first = next(p for p in network.get_decoder().layers[0].parameters() if p.ndim == 1)
            pictures = [replace(seen, tokens=seen.tokens.clone()) for seen in grown.pictures]
            torch.autograd.grad(tree_losses(network, [TreeInputs(grown.tree, pictures)]).nats.sum(), [first])
        return None

    @cached_property
    def _small(self) -> tuple[TreeInputs, list[float]]:
        """A small tree, and what the oracle makes of its lines."""
        turns = [Turn(CHECKED[0], "", "lum"), Turn(CHECKED[1], "", "dax")]
        queries = [Turn(item, "", "") for item in CHECKED]
        scaffold = SCAFFOLDS["turns"]
        answers = [
            conversation(turns[:k], scaffold, query, name)
            for k in (0, 2)
            for query in queries
            for name in ("dax", "lum a")
        ]
        text, short = self._encode(answers[-1], "last")
        if self._laid(short).ids.tolist() != self._by_processor(text, short):
            raise InputError("its processor spells pictures differently when there are several")
        return self._tree(answers, "last"), [value for value, _ in self._score_naive(answers)]

    # Whole prompts, the oracle

    def _processed(self, texts: Sequence[str], shown: Sequence[tuple[str, ...]], side: str) -> dict[str, Tensor]:
        """What the model's own processor makes of texts and their pictures: every key it gives goes to the model."""
        return self.model.processed(texts, [[self._open(item) for item in items] for items in shown], side)

    @torch.inference_mode()
    def _score_naive(self, conversations: Sequence[list[Message]]) -> list[tuple[float, int]]:
        """For each conversation the log-probability of its last answer and its tokens."""
        said = [self._encode(messages, "last") for messages in conversations]
        scores: dict[int, tuple[float, int]] = {}
        # Sequences of like length together, so that little is computed for padding.
        order = sorted(range(len(said)), key=lambda i: (len(said[i][1].pictures), len(said[i][1].ids)))
        for chunk in chunks(order, self.batch):
            inputs = self._processed([said[i][0] for i in chunk], [said[i][1].pictures for i in chunk], "right")
            lengths = inputs["attention_mask"].sum(1).tolist()
            rows = [inputs["input_ids"][row, :n].tolist() for row, n in enumerate(lengths)]
            spans = [answer_span(ids, said[i][1]) for ids, i in zip(rows, chunk, strict=True)]
            for i, n in zip(chunk, lengths, strict=True):
                self._fits(n, said[i][1])
            if (kinds := inputs.get("token_type_ids")) is not None and prefix_lm(self.model.network):
                for row, (start, _) in enumerate(spans):
                    kinds[row, start:] = 1  # an answer is read from left to right
            # Only the answers' positions are needed, and a vocabulary is wide.
            length = inputs["input_ids"].shape[1]
            given = self.model.place(inputs)
            kept = length + 1 - min(start for start, _ in spans)
            logits = self.model.network(**given, use_cache=False, **_kept(self.model.network, kept)).logits
            shift = length - logits.shape[1]
            for row, (i, (start, end)) in enumerate(zip(chunk, spans, strict=True)):
                ids = torch.tensor(rows[row][start:end], device=logits.device)
                at = logits[row, start - 1 - shift : end - 1 - shift].float()
                scores[i] = float(F.log_softmax(at, -1).gather(1, ids[:, None]).double().sum()), end - start
        return [scores[i] for i in range(len(said))]

    @torch.inference_mode()
    def _read_naive(self, messages: list[Message], ending: PromptEnd) -> tuple[list[int], list[float]]:
        """One prompt's tokens and how likely each is."""
        if prefix_lm(self.model.network):
            raise InputError("the model reads its prompt in both directions: a prompt's tokens have no likelihood.")
        text, short = self._encode(messages, ending)
        given = self.model.place(self._processed([text], [short.pictures], "right"))
        ids = given["input_ids"][0]
        self._fits(len(ids), short)
        logits = self.model.network(**given, use_cache=False).logits[0, :-1]
        found = [0.0]
        for start in range(0, len(logits), READ):
            rows, said = logits[start : start + READ].float(), ids[1 + start : 1 + start + READ]
            found += F.log_softmax(rows, -1).gather(1, said[:, None])[:, 0].tolist()
        return ids.tolist(), found

    @torch.inference_mode()
    def _generate_naive(
        self, prompts: Sequence[list[Message]], new_tokens: int, on_token: OnToken | None, ending: PromptEnd
    ) -> list[str]:
        said = [self._encode(messages, ending) for messages in prompts]
        replies: list[list[int]] = [[]] * len(said)
        words, ends, taken = self.model.tokenizer, self.model.ends, self.model.generation
        pad = int(words.pad_token_id if words.pad_token_id is not None else words.eos_token_id)
        order = sorted(range(len(said)), key=lambda i: (len(said[i][1].pictures), len(said[i][1].ids)))
        for chunk in chunks(order, 1 if taken else self.batch):
            inputs = self._processed([said[i][0] for i in chunk], [said[i][1].pictures for i in chunk], "left")
            length = inputs["input_ids"].shape[1]
            for i, n in zip(chunk, inputs["attention_mask"].sum(1).tolist(), strict=True):
                self._fits(n, said[i][1])
            given = self.model.place(inputs)
            listening = _Listening(chunk, on_token, set(ends)) if on_token is not None else None
            with clean_generation(self.model.network, ends, pad):
                out = self.model.network.generate(
                    **given,
                    max_new_tokens=new_tokens,
                    do_sample=False,
                    num_beams=1,
                    return_dict_in_generate=True,
                    output_scores=listening is not None,
                    logits_processor=logits_processors(taken, ends, length, self.model.device),
                    stopping_criteria=StoppingCriteriaList([listening] if listening is not None else []),
                )
            for i, ids in zip(chunk, out.sequences[:, length:].tolist(), strict=True):
                replies[i] = list(takewhile(lambda token: token not in ends, ids))
        return self._replies(replies, prompts, ending)


def rendered(messages: Sequence[Message], ending: str, words: Words) -> tuple[str, list[tuple[int, int]]]:
    """A conversation as text with an ending (`PromptEnd`, or which answers count), and the spans of its answers."""
    text, spans = render(messages, words, reply=ending == "none")
    if ending == "open":
        return text[: spans[-1][1]], []
    return (text if ending == "none" else closed(text, spans, words)), spans


def fits(length: int, short: Tokens, context: int) -> None:
    """Raise an `InputError` with the sum where a prompt of `length` tokens is longer than the context."""
    if length > context:
        count = len(short.pictures)
        words = len(short.ids) - count
        raise InputError(
            f"the prompt needs {length} tokens ({(length - words) / max(1, count):.4g} a picture x {count} "
            f"pictures + {words} of text), and the model's context is {context}: about "
            f"{int(context * count / length)} pictures fit. Use fewer shots per class, fewer ways, or a "
            "model with a longer context."
        )


def _text_bytes(encoded: tuple[str, Tokens]) -> int:
    """About how many bytes a text and its tokens take, with the key that repeats the text."""
    text, tokens = encoded
    return 2 * sys.getsizeof(text) + TOKEN * len(tokens.ids)


def _line_bytes(kept: tuple[TokenSequence, list[ImageTokens]]) -> int:
    """About how many bytes a line takes, with the key that repeats its tokens; spellings are shared."""
    line = kept[0]
    arrays = line.ids, line.picture, line.slot, line.position, line.answer
    return sum(array.nbytes for array in arrays) + TOKEN * len(line.ids)


def _looks(groups: Iterable[Sequence[str]]) -> list[tuple[str, bool]]:
    """The pictures of conversations, and whether each is alone: most models see it the same in both cases."""
    return list(dict.fromkeys((item, len(items) == 1) for items in groups for item in items))


def _together(tree: PrefixTree) -> int:
    """With how many tokens all lines begin, but for the last of a line, which has to be run."""
    first = tree.segments[0]
    return first.end - (0 in tree.leaves) if first.subtree_end == len(tree) else 0


class _Listening(StoppingCriteria):  # type: ignore[misc] # transformers has no types
    """Tells what is said in each row of a batch, and ends the rows that are not listened to any more."""

    def __init__(self, numbers: Sequence[int], on_token: OnToken, ends: set[int]) -> None:
        self.numbers, self.on_token, self.ends = numbers, on_token, ends
        self.over = [False] * len(numbers)

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """bool[rows]: which are over."""
        for row, token in enumerate(input_ids[:, -1].tolist()):
            if not self.over[row]:
                ended = token in self.ends
                self.over[row] = ended or not self.on_token(self.numbers[row], token, scores[-1][row])
        return torch.tensor(self.over, device=input_ids.device)


def answer_span(ids: Sequence[int], short: Tokens) -> tuple[int, int]:
    """Where the answer of `short` stands in what a processor made of it."""
    asked = [i for i, label in enumerate(short.labels) if label != IGNORE]
    # Counted from behind: pictures take more room in front. A processor may add something at the very end.
    answer, end = [short.ids[i] for i in asked], len(ids) - (len(short.ids) - 1 - asked[-1])
    while list(ids[end - len(answer) : end]) != answer:
        end -= 1
        if end < len(answer):
            raise InputError("the model's processor changes an answer's tokens, so that they can't be found.")
    return end - len(answer), end


def _kept(network: Any, count: int) -> dict[str, int]:
    """The argument that makes logits of the last positions only, for networks that have it."""
    return {"logits_to_keep": count} if "logits_to_keep" in inspect.signature(network.forward).parameters else {}

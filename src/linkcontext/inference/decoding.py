"""Greedy decoding: of all sequences of a prefix tree at once, and the settings that both engines decode with."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, device
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from linkcontext.errors import InputError
from linkcontext.inference.engine import Engine
from linkcontext.inference.forward import TreeInputs
from linkcontext.inference.greedy import AdjustLogits, GreedyReplies, OnToken
from linkcontext.inference.masks import layer_masks
from linkcontext.inference.prefix_tree import Ints, gather
from linkcontext.inference.schedule import ForwardPass
from linkcontext.inference.state_cache import StateEngine
from linkcontext.models.families import decoder_of

if TYPE_CHECKING:
    from transformers import Cache
TreeEngine = Engine | StateEngine


def decode_greedy(
    engine: TreeEngine,
    inputs: TreeInputs,
    new_tokens: int,
    ends: Sequence[int],
    on_token: OnToken | None = None,
    adjust_logits: AdjustLogits | None = None,
) -> list[list[int]]:
    """For each sequence of a tree the tokens that follow it greedily. The arguments are those of `GreedyReplies`."""
    replies = GreedyReplies(inputs.tree, new_tokens, set(ends), on_token, adjust_logits)
    match engine:
        case StateEngine():
            engine.decode(inputs, replies)
        case Engine():
            _decode_side_by_side(engine, inputs, replies)
    return replies.replies


def _decode_side_by_side(engine: Engine, inputs: TreeInputs, replies: GreedyReplies) -> None:
    """Continue all sequences that end in one pass at once, as tokens of one row."""
    tree = inputs.tree
    last = np.array([tree.segments[leaf].end - 1 for leaf in tree.leaves])  # the last token of each sequence
    passes = engine.passes(inputs)
    with engine.session(inputs, passes, cached=True) as cache:
        assert cache is not None
        for run in passes:
            hidden = engine.hidden(inputs, run, cache)
            if len(mine := np.flatnonzero(np.isin(last, run.tokens))):
                _Decoder(engine, inputs, cache, replies).decode(run, hidden, mine, last[mine])


@dataclass
class _Open:
    """The sequences that are not finished, in rows: the tokens they attend to, and where they stand."""

    sequences: list[int]
    sees: Tensor  # bool[rows, keys]
    depth: Tensor  # int64[rows, keys]: of the keys, in each row
    position: Tensor  # int64[rows]: of the last token
    own_depth: Tensor  # int64[rows]: of the last token
    image: Tensor  # int64[rows]: the last image, for cross-attention

    def continued(self, rows: list[int], where: torch.device) -> "_Open":
        """These rows, each with one more token, which attends to itself and which no other row attends to."""
        kept = torch.tensor(rows, device=where)
        own_depth = self.own_depth[kept] + 1
        own = torch.eye(len(rows), dtype=torch.bool, device=where)
        return _Open(
            [self.sequences[i] for i in rows],
            torch.cat([self.sees[kept], own], 1),
            torch.cat([self.depth[kept], own_depth[None].expand(len(rows), -1)], 1),
            self.position[kept] + 1,
            own_depth,
            self.image[kept],
        )


@dataclass
class _Decoder:
    """Continues the sequences that end in one pass, one token at a time, all of them at once."""

    engine: Engine
    inputs: TreeInputs
    cache: "Cache"
    replies: GreedyReplies

    def decode(self, run: ForwardPass, hidden: Tensor, sequences: Ints, last: Ints) -> None:
        """Continue `sequences` int64[rows], whose last tokens int64[rows] are in the pass.

        `hidden` float[n, width] are the states of the pass.
        """
        device, forward = self.engine.device, self.engine.forward
        rows = self._start(run, sequences, last)
        places = {int(token): place for place, token in enumerate(run.tokens)}
        states = hidden[torch.tensor([places[int(token)] for token in last], device=device)]
        for _ in range(self.replies.new_tokens):
            going, tokens = self.replies.extend(rows.sequences, forward.logits(states))
            if not going:
                return
            rows = rows.continued(going, device)
            masks = layer_masks(forward.network, rows.sees[None], (rows.own_depth[:, None] - rows.depth)[None])
            axes = len(self.inputs.tree.position)
            positions = rows.position[None, None].expand(axes, 1, -1)
            new = tokens[torch.tensor(going, device=device)][None]
            embeds, more = forward.embed(new, torch.zeros_like(new, dtype=torch.bool))
            if forward.family.cross_attention is not None:
                more |= forward.cross_attention([self.inputs], rows.image[None])
            states = forward.decode(embeds, masks, positions, self.cache, more)[0]

    def _start(self, run: ForwardPass, sequences: Ints, last: Ints) -> _Open:
        tree, device, forward = self.inputs.tree, self.engine.device, self.engine.forward
        crosses = forward.family.cross_attention is not None
        image = forward.last_image(tree, last) if crosses else np.full(len(last), -1)
        keys = np.concatenate([run.cached, run.tokens])
        depth = torch.from_numpy(gather(tree.depth, keys)).to(device)
        return _Open(
            sequences.tolist(),
            torch.from_numpy(tree.can_attend(last, keys)).to(device),
            depth[None].expand(len(last), -1),
            torch.from_numpy(tree.position[:, last].max(0)).to(device),
            torch.from_numpy(tree.depth[last]).to(device),
            torch.from_numpy(image).to(device),
        )


@contextmanager
def clean_generation(network: PreTrainedModel, ends: Sequence[int], padding: int) -> Iterator[None]:
    """Inside the block the network's `generate` has no settings but its end tokens.

    transformers takes what a call leaves out from the checkpoint's generation config, and some of that cannot be
    overridden by the call.
    """
    usual = network.generation_config
    network.generation_config = GenerationConfig(eos_token_id=list(ends), pad_token_id=padding)
    try:
        yield
    finally:
        network.generation_config = usual


@contextmanager
def dense_attention(network: PreTrainedModel) -> Iterator[None]:
    """Inside the block a language model with FlexAttention uses SDPA: a single token has no blocks to skip."""
    text = decoder_of(network)
    usual = text.config._attn_implementation
    if usual == "flex_attention":
        text.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        if usual == "flex_attention":
            text.set_attn_implementation(usual)


def logits_processors(
    settings: Mapping[str, Any], ends: Sequence[int], length: int, where: device
) -> LogitsProcessorList:
    """The logits processors of a checkpoint's generation config (`Model.generation`) after a prompt of `length` tokens.

    They take one sequence at a time, because padding would count as generated tokens. Raises `InputError` for a setting
    that cannot be used.
    """
    from transformers import generation as hf  # noqa: PLC0415 - most runs need none of it

    made: dict[str, Callable[..., LogitsProcessor]] = {
        "sequence_bias": hf.SequenceBiasLogitsProcessor,
        "repetition_penalty": hf.RepetitionPenaltyLogitsProcessor,
        "no_repeat_ngram_size": hf.NoRepeatNGramLogitsProcessor,
        "bad_words_ids": lambda value: hf.NoBadWordsLogitsProcessor(value, list(ends)),
        "min_length": lambda value: hf.MinLengthLogitsProcessor(value, list(ends), str(where)),
        "min_new_tokens": lambda value: hf.MinNewTokensLengthLogitsProcessor(length, value, list(ends), str(where)),
        "exponential_decay_length_penalty": lambda value: hf.ExponentialDecayLengthPenalty(value, list(ends), length),
        "suppress_tokens": lambda value: hf.SuppressTokensLogitsProcessor(value, str(where)),
        "begin_suppress_tokens": lambda value: hf.SuppressTokensAtBeginLogitsProcessor(value, length, str(where)),
    }
    processors = LogitsProcessorList()
    for name, make in made.items():
        if not settings.get(name):  # 0 and an empty list are neutral
            continue
        try:
            processors.append(make(settings[name]))
        except (TypeError, ValueError) as error:
            raise InputError(
                f"--generation-config model: its {name} {settings[name]!r} cannot be used ({error}). Leave the flag "
                "out."
            ) from error
    return processors


def adjusted(processors: LogitsProcessorList, ids: Tensor, logits: Tensor) -> Tensor:
    """float32[vocabulary]: the logits that follow `ids`, changed."""
    changed: Tensor = processors(ids[None], logits[None].float())
    return changed[0]

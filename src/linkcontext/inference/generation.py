"""Greedy replies that are the same in every engine, with clean settings or with the checkpoint's penalties."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, device
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    MinLengthLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    PreTrainedModel,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
)
from transformers.generation import ExponentialDecayLengthPenalty

from linkcontext.errors import InputError

THOUGHT = "<think>", "</think>"  # what reasoning stands between, in the models that reason


@contextmanager
def clean_generation(network: PreTrainedModel, ends: Sequence[int], padding: int) -> Iterator[None]:
    """Inside the block the network's `generate` has no settings but its end tokens: transformers takes what a call
    leaves out from the checkpoint's generation config, and some of that cannot be overridden."""
    usual = network.generation_config
    network.generation_config = GenerationConfig(eos_token_id=list(ends), pad_token_id=padding)
    try:
        yield
    finally:
        network.generation_config = usual


@contextmanager
def dense_attention(network: PreTrainedModel) -> Iterator[None]:
    """Inside the block a language model with FlexAttention uses SDPA: a single token has no blocks to skip."""
    text = network.get_decoder()
    usual = text.config._attn_implementation
    if usual == "flex_attention":
        text.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        if usual == "flex_attention":
            text.set_attn_implementation(usual)


def logits_processors(taken: Mapping[str, Any], ends: Sequence[int], length: int, where: device) -> LogitsProcessorList:
    """The logits processors of a checkpoint's generation config (`Model.generation`) after a prompt of `length` tokens.

    They take one sequence at a time, because padding would count as tokens that were said.
    """
    made: dict[str, Callable[..., LogitsProcessor]] = {
        "sequence_bias": SequenceBiasLogitsProcessor,
        "repetition_penalty": RepetitionPenaltyLogitsProcessor,
        "no_repeat_ngram_size": NoRepeatNGramLogitsProcessor,
        "bad_words_ids": lambda value: NoBadWordsLogitsProcessor(value, list(ends)),
        "min_length": lambda value: MinLengthLogitsProcessor(value, list(ends), str(where)),
        "min_new_tokens": lambda value: MinNewTokensLengthLogitsProcessor(length, value, list(ends), str(where)),
        "exponential_decay_length_penalty": lambda value: ExponentialDecayLengthPenalty(value, list(ends), length),
        "suppress_tokens": lambda value: SuppressTokensLogitsProcessor(value, str(where)),
        "begin_suppress_tokens": lambda value: SuppressTokensAtBeginLogitsProcessor(value, length, str(where)),
    }
    processors = LogitsProcessorList()
    for name, make in made.items():
        if not taken.get(name):  # 0 and an empty list are neutral
            continue
        try:
            processors.append(make(taken[name]))
        except (TypeError, ValueError) as error:
            raise InputError(
                f"--generation-config model: its {name} {taken[name]!r} cannot be used ({error}). Leave the flag out."
            ) from error
    return processors


def shaped(processors: LogitsProcessorList, ids: Tensor, logits: Tensor) -> Tensor:
    """float32[vocabulary]: the logits that follow `ids`, changed."""
    changed: Tensor = processors(ids[None], logits[None].float())
    return changed[0]


def without_thought(reply: str, prompt: str = "") -> str | None:
    """A reply without the reasoning before it; None if the reasoning is not finished.

    `prompt` is the text before the reply: some templates write the beginning of the reasoning themselves.
    """
    begin, end = THOUGHT
    if end in reply:
        return reply.rpartition(end)[2].strip()
    begun = prompt.rfind(begin) > prompt.rfind(end) or reply.lstrip().startswith(begin)
    return None if begun else reply

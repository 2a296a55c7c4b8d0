"""The reference engine: every prompt whole through the model's own processor and forward.

It serves any model, and is what faster engines are compared with. Training reads whole conversations with the same
functions (`answer_span`, `answer_logits`).
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel, StoppingCriteria, StoppingCriteriaList

from linkcontext.episodes.render import IGNORE, Tokens
from linkcontext.episodes.scaffold import Message
from linkcontext.errors import InputError
from linkcontext.inference.decoding import clean_generation, logits_processors
from linkcontext.inference.greedy import OnToken
from linkcontext.inference.vision import chunks
from linkcontext.models.families import family_of
from linkcontext.models.model import Model
from linkcontext.scoring.pictures import PromptPictures
from linkcontext.scoring.prompts import PromptEncoder
from linkcontext.scoring.protocol import PromptEnd

ROWS = 256  # tokens whose log-probabilities are computed at once
Encoded = tuple[str, Tokens]  # a conversation's text, and its tokens with one for each picture


@dataclass
class ReferenceEngine:
    """Runs whole prompts, `batch` at a time. Figures do not depend on the batch."""

    loaded: Model
    encoder: PromptEncoder
    pictures: PromptPictures
    batch: int = 16

    def token_ids(self, text: str, short: Tokens) -> list[int]:
        """The tokens that the model's own processor makes of a conversation."""
        ids: list[int] = self._processed([(text, short)], "right")["input_ids"][0].tolist()
        return ids

    @torch.inference_mode()
    def score(self, conversations: Sequence[list[Message]]) -> list[tuple[float, int]]:
        """For each conversation the log-probability of its last answer (nats), and how many tokens that has."""
        encoded = [self.encoder.encode(messages, "last") for messages in conversations]
        scores: dict[int, tuple[float, int]] = {}
        for chunk in self._chunks(encoded, self.batch):
            inputs = self._processed([encoded[i] for i in chunk], "right")
            lengths = inputs["attention_mask"].sum(1).tolist()
            rows = [inputs["input_ids"][row, :n].tolist() for row, n in enumerate(lengths)]
            spans = [answer_span(ids, encoded[i][1]) for ids, i in zip(rows, chunk, strict=True)]
            for i, n in zip(chunk, lengths, strict=True):
                self.encoder.check_length(n, encoded[i][1])
            logits = answer_logits(self.loaded, inputs, spans)
            for i, ids, (start, end), at in zip(chunk, rows, spans, logits, strict=True):
                answer = torch.tensor(ids[start:end], device=at.device)
                scores[i] = float(F.log_softmax(at, -1).gather(1, answer[:, None]).double().sum()), end - start
        return [scores[i] for i in range(len(encoded))]

    @torch.inference_mode()
    def prompt_logprobs(self, messages: list[Message], end: PromptEnd) -> tuple[list[int], list[float]]:
        """One prompt's tokens, and the log-probability (nats) of each after those before it; 0 for the first."""
        if family_of(self.loaded.network.config).prefix_lm:
            raise InputError("the model reads its prompt in both directions: a prompt's tokens have no likelihood.")
        text, short = self.encoder.encode(messages, end)
        inputs = self.loaded.place(self._processed([(text, short)], "right"))
        ids = inputs["input_ids"][0]
        self.encoder.check_length(len(ids), short)
        logits = self.loaded.network(**inputs, use_cache=False).logits[0, :-1]
        values = [0.0]
        for start in range(0, len(logits), ROWS):
            rows, targets = logits[start : start + ROWS].float(), ids[1 + start : 1 + start + ROWS]
            values += F.log_softmax(rows, -1).gather(1, targets[:, None])[:, 0].tolist()
        return ids.tolist(), values

    @torch.inference_mode()
    def generate(
        self,
        prompts: Sequence[list[Message]],
        new_tokens: int,
        end: PromptEnd = "none",
        on_token: OnToken | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> list[list[int]]:
        """The tokens of greedy replies, without the end token. `settings` are those of the checkpoint's generation
        config that apply, and `on_token` is as in `LocalModel.generate`."""
        model, settings = self.loaded, settings or {}
        encoded = [self.encoder.encode(messages, end) for messages in prompts]
        replies: list[list[int]] = [[]] * len(encoded)
        words, ends = model.tokenizer, model.ends
        pad = int(words.pad_token_id if words.pad_token_id is not None else words.eos_token_id)
        for chunk in self._chunks(encoded, 1 if settings else self.batch):
            inputs = self._processed([encoded[i] for i in chunk], "left")
            length = inputs["input_ids"].shape[1]
            for i, n in zip(chunk, inputs["attention_mask"].sum(1).tolist(), strict=True):
                self.encoder.check_length(n, encoded[i][1])
            listener = _TokenListener(chunk, on_token, set(ends)) if on_token is not None else None
            with clean_generation(model.network, ends, pad):
                out = model.network.generate(
                    **model.place(inputs),
                    max_new_tokens=new_tokens,
                    do_sample=False,
                    num_beams=1,
                    return_dict_in_generate=True,
                    output_scores=listener is not None,
                    logits_processor=logits_processors(settings, ends, length, model.device),
                    stopping_criteria=StoppingCriteriaList([listener] if listener is not None else []),
                )
            for i, ids in zip(chunk, out.sequences[:, length:].tolist(), strict=True):
                replies[i] = list(takewhile(lambda token: token not in ends, ids))
        return replies

    def _chunks(self, encoded: Sequence[Encoded], size: int) -> Sequence[Sequence[int]]:
        """Indices in groups of sequences of similar length, so that little is computed for padding."""
        order = sorted(range(len(encoded)), key=lambda i: (len(encoded[i][1].pictures), len(encoded[i][1].ids)))
        return list(chunks(order, size))

    def _processed(self, encoded: Sequence[Encoded], side: str) -> dict[str, Tensor]:
        """What the model's own processor makes of conversations: every key it gives goes to the model."""
        images = [[self.pictures.open(item) for item in short.pictures] for _, short in encoded]
        return self.loaded.processed([text for text, _ in encoded], images, side)


class _TokenListener(StoppingCriteria):  # type: ignore[misc] # transformers has no types
    """Calls a function with each new token of a batch, and ends the rows for which it returns False."""

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
    """Start and end of the answer of `short` in the tokens that a processor made of the conversation.

    Raises `InputError` if the processor changed them.
    """
    supervised = [i for i, label in enumerate(short.labels) if label != IGNORE]
    # Counted from behind: pictures take more room in front. A processor may add something at the very end.
    answer, end = [short.ids[i] for i in supervised], len(ids) - (len(short.ids) - 1 - supervised[-1])
    while list(ids[end - len(answer) : end]) != answer:
        end -= 1
        if end < len(answer):
            raise InputError("the model's processor changes an answer's tokens, so that they can't be found.")
    return end - len(answer), end


def answer_logits(model: Model, inputs: dict[str, Tensor], spans: Sequence[tuple[int, int]]) -> list[Tensor]:
    """float32[tokens, vocabulary] for each row of processed inputs: the logits that its answer, at `spans`, follows."""
    if (kinds := inputs.get("token_type_ids")) is not None and family_of(model.network.config).prefix_lm:
        for row, (start, _) in enumerate(spans):
            kinds[row, start:] = 1  # an answer is read from left to right
    # Only the answers' positions are needed, and a vocabulary is wide.
    length = inputs["input_ids"].shape[1]
    last = length + 1 - min(start for start, _ in spans)
    logits = model.network(**model.place(inputs), use_cache=False, **_only_last(model.network, last)).logits
    shift = length - logits.shape[1]
    return [logits[row, start - 1 - shift : end - 1 - shift].float() for row, (start, end) in enumerate(spans)]


def _only_last(network: PreTrainedModel, count: int) -> dict[str, int]:
    """The argument that computes logits of the last positions only, for networks that have it."""
    return {"logits_to_keep": count} if "logits_to_keep" in inspect.signature(network.forward).parameters else {}

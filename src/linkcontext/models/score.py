"""How likely a model finds each candidate answer, and what it answers when nobody helps it.

Two ways to run a prompt, and both give the same figures: with features, where every picture was encoded once and
all that shares a support shares its keys and values too (the Llava family), and whole, where pictures go through
the model's own processor with every prompt. The second is slower and serves any model; `Scorer.engine` says which.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache

from linkcontext.data.images import open_image
from linkcontext.episodes.prompt import IGNORE, Message, Tokens, encode, expand
from linkcontext.errors import InputError
from linkcontext.models.load import Model, grey
from linkcontext.models.vision import GREY, Eyes, chunks

Sources = dict[str, tuple[str, Any]]  # item id -> (content hash, path)


@dataclass(frozen=True, slots=True)
class Ask:
    """A prompt's messages, and for each candidate the messages with that answer."""

    messages: list[Message]
    answers: tuple[list[Message], ...]


@dataclass(frozen=True, slots=True)
class Branch:
    """One sequence for the model: a prompt's tokens and, at the end, `answer` tokens of an answer with its end."""

    tokens: Tokens
    text: str
    answer: int = 0


def _after(branch: Branch, start: int) -> Branch:
    """What follows a branch's trunk: its last picture and all after it."""
    tokens = branch.tokens
    return Branch(Tokens(tokens.ids[start:], tokens.labels[start:], tokens.pictures[-1:]), "", branch.answer)


@dataclass
class Scorer:
    """Runs prompts on a model. `batch` is how many sequences go through it at once; figures do not depend on it."""

    model: Model
    eyes: Eyes
    sources: Sources
    batch: int = 16

    @property
    def engine(self) -> str:
        """`features` or `whole`."""
        return "features" if self.model.takes_features else "whole"

    def prompt(self, messages: list[Message]) -> Branch:
        """The tokens of a prompt, up to where the answer is to begin. Longer than the context is an `InputError`."""
        text = self.model.template.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        short = encode(messages, self.model.template, "none", reply=True)
        tokens = self._expanded(short, text)
        if len(tokens.ids) > self.model.context:
            taken, shown = len(tokens.ids) - len(short.ids), len(tokens.pictures)
            raise InputError(
                f"the prompt needs {len(tokens.ids)} tokens ({shown} pictures take {taken + shown}, the text "
                f"{len(short.ids) - shown}), and the model's context is {self.model.context}. Use fewer shots per "
                "class, fewer ways, or a model with a longer context."
            )
        return Branch(tokens, text)

    def branches(self, ask: Ask) -> list[Branch]:
        """The sequences of a prompt with each candidate's answer. The prompt's tokens are asserted to come first."""
        prompt = self.prompt(ask.messages).tokens
        found = []
        for messages in ask.answers:
            text = self.model.template.apply_chat_template(messages, tokenize=False, add_generation_prompt=False)
            short = encode(messages, self.model.template, "last")
            answered = [i for i, label in enumerate(short.labels) if label != IGNORE]
            whole = self._expanded(short, text)
            end = len(whole.ids) - (len(short.ids) - 1 - answered[-1])
            tokens = Tokens(whole.ids[:end], whole.labels[:end], whole.pictures)
            start = end - len(answered)
            assert tokens.ids[:start] == prompt.ids, "the prompt's tokens are not the first of the whole conversation's"
            found.append(Branch(tokens, text, len(answered)))
        return found

    def _expanded(self, short: Tokens, text: str) -> Tokens:
        """Tokens in which every picture takes the room it has: as many as it has features, or as the processor says."""
        self._look(short.pictures)
        if self.engine == "features":
            return expand(short, self.model.placeholder, lambda item: len(self._seen(item).tokens))
        ids = self._processed([text], [short.pictures], "right")["input_ids"][0].tolist()
        return Tokens(tuple(ids), (IGNORE,) * len(ids), short.pictures)

    def _processed(self, texts: list[str], shown: list[tuple[str, ...]], side: str) -> dict[str, Tensor]:
        """What the model's own processor makes of texts and their pictures: every key it gives goes to the model."""
        images = [[self._open(item) for item in items] for items in shown]
        special = self.model.template.adds_special_tokens(texts[0])
        return dict(
            self.model.processor(
                text=texts,
                images=images if any(images) else None,
                padding=True,
                padding_side=side,
                add_special_tokens=special,
                return_tensors="pt",
            )
        )

    @torch.inference_mode()
    def score(self, asks: Sequence[Ask]) -> list[list[tuple[float, int]]]:
        """For each prompt and candidate: the answer's log-probability (nats, its end included) and its tokens."""
        each = [self.branches(ask) for ask in asks]
        flat = [branch for row in each for branch in row]
        scores = [0.0] * len(flat)
        groups: dict[Any, list[int]] = {}
        for i, branch in enumerate(flat):
            groups.setdefault(self._trunk(branch), []).append(i)
        for trunk, members in groups.items():
            # Sequences of like length together, so that little is computed for padding.
            members.sort(key=lambda i: len(flat[i].tokens.ids))
            cache = self._prefill(flat[members[0]], len(trunk[0])) if trunk[0] else None
            for chunk in chunks(members, self.batch):
                for i, value in zip(chunk, self._run([flat[i] for i in chunk], len(trunk[0]), cache), strict=True):
                    scores[i] = value
        found = iter(zip(scores, (b.answer for b in flat), strict=True))
        return [[next(found) for _ in row] for row in each]

    @torch.inference_mode()
    def generate(self, prompts: Sequence[list[Message]], new_tokens: int = 24) -> list[str]:
        """The model's own answers, greedily, without special tokens."""
        found = [self.prompt(messages) for messages in prompts]
        order = sorted(range(len(found)), key=lambda i: len(found[i].tokens.ids))
        replies = [""] * len(found)
        for chunk in chunks(order, self.batch):
            inputs = self._inputs([found[i] for i in chunk], left=True)
            start = 0 if "inputs_embeds" in inputs else inputs["input_ids"].shape[1]
            out = self.model.network.generate(
                **inputs, max_new_tokens=new_tokens, do_sample=False, num_beams=1, pad_token_id=self._pad
            )
            for i, ids in zip(chunk, out[:, start:], strict=True):
                replies[i] = self.model.words.decode(ids, skip_special_tokens=True).strip()
        return replies

    @property
    def _pad(self) -> int:
        words = self.model.words
        return int(words.pad_token_id if words.pad_token_id is not None else words.eos_token_id)

    def _trunk(self, branch: Branch) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """What stands before a sequence's last picture: its tokens and pictures. Empty where nothing can be shared."""
        tokens = branch.tokens
        if self.engine == "whole" or len(tokens.pictures) < 2:
            return (), ()
        last = len(self._seen(tokens.pictures[-1]).tokens)
        at = [i for i, token in enumerate(tokens.ids) if token == self.model.placeholder][-last]
        return tokens.ids[:at], tokens.pictures[:-1]

    def _prefill(self, branch: Branch, length: int) -> DynamicCache:
        """Keys and values of a sequence's first tokens."""
        tokens = branch.tokens
        trunk = Branch(Tokens(tokens.ids[:length], tokens.labels[:length], tokens.pictures[:-1]), "")
        cache = DynamicCache(config=self.model.network.config.get_text_config())
        self.model.network(**self._inputs([trunk], left=False), past_key_values=cache, logits_to_keep=1)
        return cache

    def _run(self, branches: list[Branch], start: int, trunk: DynamicCache | None) -> list[float]:
        """Log-probabilities of the branches' answers, in one forward pass of what follows `start` tokens of trunk."""
        if trunk is not None:
            branches = [_after(branch, start) for branch in branches]
        inputs: dict[str, Any] = self._inputs(branches, left=False)
        length = inputs["attention_mask"].shape[1]
        # Only the answers' positions are needed, and a vocabulary is wide.
        kept = length - min(len(b.tokens.ids) - b.answer - 1 for b in branches)
        if trunk is not None:
            before = torch.ones(len(branches), start, dtype=torch.long, device=self.model.device)
            inputs["attention_mask"] = torch.cat([before, inputs["attention_mask"]], 1)
            cache = copy.deepcopy(trunk)
            cache.batch_repeat_interleave(len(branches))
            inputs["past_key_values"] = cache
        logits = self.model.network(**inputs, use_cache=trunk is not None, logits_to_keep=kept).logits
        shift = length - logits.shape[1]
        values = []
        for row, branch in enumerate(branches):
            end = len(branch.tokens.ids)
            ids = torch.tensor(branch.tokens.ids[end - branch.answer :], device=logits.device)
            at = logits[row, end - branch.answer - 1 - shift : end - 1 - shift].float()
            values.append(float(F.log_softmax(at, -1).gather(1, ids[:, None]).double().sum()))
        return values

    def _inputs(self, branches: list[Branch], left: bool) -> dict[str, Tensor]:
        device, side = self.model.device, "left" if left else "right"
        if self.engine == "whole":
            found = self._processed([b.text for b in branches], [b.tokens.pictures for b in branches], side)
            return {k: v.to(device) for k, v in found.items()}
        rows = [branch.tokens for branch in branches]
        length = max(len(row.ids) for row in rows)
        ids = torch.full((len(rows), length), self._pad)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            span = slice(length - len(row.ids), length) if left else slice(0, len(row.ids))
            ids[i, span], mask[i, span] = torch.tensor(row.ids), 1
        ids, mask = ids.to(device), mask.to(device)
        embeds = self.model.network.get_input_embeddings()(ids)
        seen = [self._seen(item).tokens for row in rows for item in row.pictures]
        if seen:
            where = (ids == self.model.placeholder) & mask.bool()
            embeds = embeds.masked_scatter(where[:, :, None], torch.cat(seen).to(embeds))
        return {"inputs_embeds": embeds, "attention_mask": mask}

    def _open(self, item: str) -> Any:
        return grey() if item == GREY else open_image(self.sources[item][1])

    def _look(self, shown: Sequence[str]) -> None:
        if self.engine == "features":
            self.eyes.look((item, *self.sources[item]) for item in shown if item != GREY)

    def _seen(self, item: str) -> Any:
        return self.eyes.nothing() if item == GREY else self.eyes.seen[self.sources[item][0]]

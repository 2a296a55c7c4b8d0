"""A model in training: which of its numbers learn, and what a batch of examples costs.

`forward` is all that is ever called in training, so that DistributedDataParallel and FSDP2 see one forward. What the
frozen eyes see in a picture is computed once. Where what follows them learns, it starts from there in every step
(`Family.projector`), or the picture is encoded anew in every step it comes in.
"""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel

from linkcontext.data.images import open_image
from linkcontext.episodes.render import IGNORE, Tokens, encode, end_last_answer, render_text
from linkcontext.episodes.scaffold import Message
from linkcontext.episodes.scaffold import image_ids as shown
from linkcontext.errors import InputError
from linkcontext.inference import depth_first
from linkcontext.inference.engine import CASCADE_MAX_TOKENS, MAX_BRANCH
from linkcontext.inference.forward import TreeInputs
from linkcontext.inference.image_features import ImageFeatures
from linkcontext.inference.losses import tree_losses
from linkcontext.inference.packing import pack
from linkcontext.inference.prefix_tree import ImageTokens, TokenSequence, expand_images, merge
from linkcontext.inference.vision import MEMORY, VisionEncoder
from linkcontext.models.chat_template import ChatTemplate
from linkcontext.models.families import decoder_of, family_of, parts
from linkcontext.models.model import Model
from linkcontext.models.synthetic_images import BLANK, synthetic_image
from linkcontext.scoring.reference import answer_logits, answer_span
from linkcontext.seeds import key
from linkcontext.train.checkpoint import SCALE
from linkcontext.train.mixture import Example

log = logging.getLogger("linkcontext")
Look = tuple[str, bool]  # a picture's content, and whether it is alone in its conversation


@dataclass(frozen=True, slots=True)
class Read:
    """An example and the tokens of its conversations, each up to the end of its last answer."""

    example: Example
    tokens: tuple[Tokens, ...]

    @property
    def learnt(self) -> int:
        """How many tokens carry the loss."""
        return sum(label != IGNORE for tokens in self.tokens for label in tokens.labels)


def read(example: Example, template: ChatTemplate) -> Read:
    """Render an example's conversations with a model's chat template, each up to the end of its last answer."""
    conversations = []
    for messages in example.conversations:
        tokens = encode(messages, template, "last")
        end = max(i for i, label in enumerate(tokens.labels) if label != IGNORE) + 1
        conversations.append(Tokens(tokens.ids[:end], tokens.labels[:end], tokens.pictures))
    return Read(example, tuple(conversations))


def train_parts(network: PreTrainedModel, trained: Sequence[str], rank: int, targets: str, seed: int) -> None:
    """Let the named parts learn and, with a `rank`, LoRA adapters (alpha twice the rank) on layers by name.

    Raises `InputError` where the pattern matches nothing, or a layer of a part that is trained whole.
    """
    network.requires_grad_(False)
    parameters = parts(network)
    whole = [p for part in trained for p in parameters[part].values()]
    if rank:
        _adapt(network, rank, targets, {id(p) for p in whole}, seed)
    for p in whole:  # after the adapters, whose making freezes everything else
        p.requires_grad_(True)
    for p in network.parameters():
        if p.requires_grad:  # small steps vanish in half precision
            p.data = p.data.float()
    if not any(p.requires_grad for p in network.parameters()):
        raise InputError(f"--train {' '.join(trained)}: no part of the model would be trained. Name one.")


def _adapt(network: PreTrainedModel, rank: int, targets: str, whole: set[int], seed: int) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise InputError("--lora-rank needs the peft package: pip install 'linkcontext[lora]'.") from error
    try:
        wanted = re.compile(targets)
    except re.error as error:
        raise InputError(f"--lora-targets {targets}: not a regular expression ({error}).") from error
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    chosen = [name for name in linear if wanted.search(name)]
    if not chosen:
        raise InputError(
            f"--lora-targets {targets}: matches none of the model's {len(linear)} linear layers, which are called "
            f"like {linear[len(linear) // 2]}. Correct the pattern."
        )
    both = [name for name in chosen if id(network.get_submodule(name).weight) in whole]
    if both:
        raise InputError(f"--lora-targets {targets}: {both[0]} is in a part that --train trains whole. Choose one.")
    torch.manual_seed(key("train", seed, "lora") % 2**63)
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=SCALE * rank, target_modules=chosen), network)


class Trainee(nn.Module):
    """A model whose forward gives what examples cost."""

    def __init__(self, model: Model, refused: str | None = None, cascade: bool = False) -> None:
        super().__init__()
        self.cascade = cascade  # branches are computed by cascade attention
        self.network, self.model = model.network, model
        self.refused = refused  # why it reads no trees; conversations then go one by one
        learning = {
            part for part, named in parts(model.network).items() if any(p.requires_grad for p in named.values())
        }
        self.eyes_learn = bool(learning & {"vision", "projector"})
        self.eyes = VisionEncoder(model, open_image, use_disk=not self.eyes_learn)
        self.projector = family_of(model.network.config).projector
        self.projects = self.projector is not None and "vision" not in learning
        self._given: dict[str, tuple[ImageTokens, Tensor]] = {}  # what the projector is given of a picture
        # For FSDP: the units that are gathered and freed again, the same in every process whatever the pictures.
        self._no_split_modules = [type(decoder_of(model.network).layers[0]).__name__]

    def forward(self, reads: Sequence[Read]) -> tuple[Tensor, int]:
        """The sum of nats over all tokens that are learnt, and how many tokens that took."""
        if self.refused is not None:
            return self._one_by_one(reads)
        groups, seen = self._laid(reads)
        # Under a mask the trees of a batch are rows of like length; otherwise only small ones share a pass.
        room = MAX_BRANCH if self.cascade else max(len(line.ids) for lines in groups for line in lines)
        trees = pack(groups, room)
        losses = tree_losses(self.network, [TreeInputs(tree, seen) for tree in trees], self.cascade)
        cost = (losses.nats * losses.weight).sum()
        if self.eyes_learn and not seen:  # every process must use every number that learns
            cost = cost + 0.0 * self._see([(BLANK, True)], {})[0].embeddings.sum()
        return cost, sum(map(len, trees))

    def add_gradients(self, reads: Sequence[Read], scale: float) -> tuple[Tensor, int]:
        """Add the gradients of `scale` times the cost that `forward` gives, one example after the other and each tree
        depth first. Gives what `forward` gives, without gradients.

        Raises `InputError` where the model reads no trees.
        """
        if self.refused is not None:
            raise InputError(f"--depth-first: {self.refused}. Leave it out.")
        nats, tokens = 0.0, 0
        for each in reads:  # each with features of its own, which lead back to what made them once
            (lines,), seen = self._laid([each])
            tree = TreeInputs(merge(lines), seen)
            cost = depth_first.add_gradients(self.network, tree, CASCADE_MAX_TOKENS, MAX_BRANCH, scale)
            nats, tokens = nats + cost.nats, tokens + len(tree.tree)
        return torch.tensor(nats), tokens

    @torch.no_grad()
    def check(self, one: Read) -> None:
        """Try an example. Raises `InputError` where a conversation does not fit into the model's context.

        Where the model's own processor spells it in another way, conversations will go one by one.
        """
        if self.refused is None:
            ((line, *_), *_), _ = self._laid([one])
            whole = self._processed(one.example, one.example.conversations[0])["input_ids"][0]
            if whole[: len(line.ids)].tolist() != line.ids.tolist():
                self.refused = "its processor spells such a conversation in another way"
                log.warning("one conversation at a time: %s", self.refused)
        else:
            self._whole(one.example, one.example.conversations[0], one.tokens[0])

    def _laid(self, reads: Sequence[Read]) -> tuple[list[list[TokenSequence]], list[ImageFeatures]]:
        """The lines of each example, and what is seen in the pictures by the numbers they have there."""
        numbers: dict[Look, int] = {}
        places = {content: path for each in reads for content, path in each.example.pictures.values()}
        standing: list[list[list[int]]] = []  # the numbers of each conversation's pictures
        for each in reads:
            standing.append([])
            for tokens in each.tokens:
                looks = [(each.example.pictures[item][0], len(tokens.pictures) == 1) for item in tokens.pictures]
                standing[-1].append([numbers.setdefault(look, len(numbers)) for look in looks])
        seen = self._see(list(numbers), places)
        groups = [
            [self._line(tokens, n, seen, each.example.id) for tokens, n in zip(each.tokens, mine, strict=True)]
            for each, mine in zip(reads, standing, strict=True)
        ]
        return groups, seen

    def _line(self, tokens: Tokens, numbers: Sequence[int], seen: Sequence[ImageFeatures], name: str) -> TokenSequence:
        line = expand_images(
            tokens.ids,
            tokens.labels,
            self.eyes.preprocessor.image_token,
            numbers,
            self.eyes.preprocessor.in_prompt([seen[n].image_tokens for n in numbers]),
        )
        if len(line.ids) > self.model.context:
            raise InputError(
                f"{name}: a conversation with {len(numbers)} pictures needs {len(line.ids)} tokens, and the model's "
                f"context is {self.model.context}. Use a smaller --support, or a model with a longer context."
            )
        return line

    def _see(self, looks: Sequence[Look], places: Mapping[str, Path]) -> list[ImageFeatures]:
        """What the language model gets of pictures, with gradients where what makes it learns."""
        if not self.eyes_learn:
            self.eyes.evict()
            with torch.autocast(self.model.device.type, enabled=False):  # kept on the disk for other runs too
                for alone in (False, True):
                    wanted = [(c, places[c]) for c, single in looks if single == alone]
                    self.eyes.encode(wanted, alone)
            return [self.eyes.get(*look) for look in looks]
        if not self.projects:
            encoded: dict[Look, ImageFeatures] = {}
            for alone in (False, True):
                mine = [look for look in looks if look[1] == alone]
                encoded |= zip(mine, self.eyes.encode_images([_open(c, places) for c, _ in mine], alone), strict=True)
            return [encoded[look] for look in looks]
        self._catch([content for content, _ in looks], places)
        known = {content: self._given[content] for content, _ in looks}
        if not known:
            return []
        rows = self.network.model.get_submodule(self.projector)(torch.stack([given for _, given in known.values()]))
        seen = {
            content: ImageFeatures(spelling, row)
            for (content, (spelling, _)), row in zip(known.items(), rows, strict=True)
        }
        return [seen[content] for content, _ in looks]

    @torch.no_grad()
    def _catch(self, contents: Sequence[str], places: Mapping[str, Path]) -> None:
        """Note what the projector is given of pictures that were not seen before, and forget the oldest."""
        new = [content for content in dict.fromkeys(contents) if content not in self._given]
        taken = sum(given.nbytes for _, given in self._given.values())
        for old in [content for content in self._given if content not in contents]:
            if taken <= MEMORY:
                break
            taken -= self._given.pop(old)[1].nbytes
        for batch in self.eyes.batches([(content, places.get(content)) for content in new]):
            caught: list[Tensor] = []
            projector = self.network.model.get_submodule(self.projector)
            hook = projector.register_forward_pre_hook(lambda _, given, caught=caught: caught.append(given[0]))
            try:
                seen = self.eyes.encode_preprocessed(batch)
            finally:
                hook.remove()
            rows = torch.cat(caught)
            self._given |= {
                content: (features.image_tokens, row.clone())
                for (content, features), row in zip(seen.items(), rows, strict=True)
            }

    def _one_by_one(self, reads: Sequence[Read]) -> tuple[Tensor, int]:
        """Every conversation by itself, through the model's own processor and forward."""
        costs, count = [], 0
        for each in reads:
            for messages, tokens in zip(each.example.conversations, each.tokens, strict=True):
                cost, length = self._whole(each.example, messages, tokens)
                costs.append(cost)
                count += length
        return torch.stack(costs).sum(), count

    def _whole(self, example: Example, messages: list[Message], tokens: Tokens) -> tuple[Tensor, int]:
        """The loss of the last answer (a sum of nats), and how many tokens the conversation has."""
        inputs = self._processed(example, messages)
        ids = inputs["input_ids"][0]
        try:
            start, end = answer_span(ids.tolist(), tokens)
        except InputError as error:
            raise InputError(f"{example.id}: {error} Use another --scaffold.") from error
        if len(ids) > self.model.context:
            raise InputError(
                f"{example.id}: needs {len(ids)} tokens, and the model's context is {self.model.context}. Use a "
                "smaller --support."
            )
        (logits,) = answer_logits(self.model, inputs, [(start, end)])
        return F.cross_entropy(logits, ids[start:end], reduction="sum"), len(ids)

    def _processed(self, example: Example, messages: list[Message]) -> dict[str, Tensor]:
        """A conversation as the model's own processor makes it."""
        text = end_last_answer(*render_text(messages, self.model.chat_template), self.model.chat_template)
        images = [open_image(example.pictures[item][1]) for item in shown(messages)]
        return self.model.place(self.model.processed([text], [images], "right"))


def _open(content: str, places: Mapping[str, Path]) -> Any:
    return open_image(places[content]) if content in places else synthetic_image(content)


@contextmanager
def at_rest(trainee: Any) -> Iterator[None]:
    """The network as it is in use: whole where it is in pieces (FSDP2), without dropout."""
    sharded = isinstance(trainee, FSDPModule)
    if sharded:
        trainee.unshard()
    trainee.eval()
    network = trainee.network
    half = network.dtype != torch.float32
    try:
        with torch.autocast(trainee.model.device.type, network.dtype) if half else nullcontext():
            yield
    finally:
        trainee.train()
        if sharded:
            trainee.reshard()

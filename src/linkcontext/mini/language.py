"""Stages 2 and 3: the language model. mini-base learns to name, describe and count; mini learns to link.

Both read conversations rendered by the same code that words every evaluation prompt, and both get their
pictures from a pool of features that the frozen vision tower computed once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import (
    CLIPModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from linkcontext.episodes.render import IGNORE, Tokens, encode, expand_placeholders
from linkcontext.episodes.scaffold import SCAFFOLDS, build_messages
from linkcontext.inference.forward import TreeInputs
from linkcontext.inference.image_features import ImageFeatures
from linkcontext.inference.losses import tree_losses
from linkcontext.inference.prefix_tree import ImageTokens, PrefixTree, expand_images, pack
from linkcontext.mini import clip, stage
from linkcontext.mini import conversations as talk
from linkcontext.mini import start as circuits
from linkcontext.mini.pool import Pool
from linkcontext.mini.recipe import Recipe
from linkcontext.mini.tokenizer import ASSISTANT, CHAT_TEMPLATE, CONTEXT, IMAGE, SPECIAL
from linkcontext.models.chat_template import ChatTemplate
from linkcontext.seeds import key
from linkcontext.worlds.folder import taught_names


def configuration(recipe: Recipe, clip: CLIPModel, tokenizer: PreTrainedTokenizerFast) -> LlavaConfig:
    """A standard Llava: all tokens of the tower's last layer, a two-layer projector, a Llama with tied embeddings."""
    text = LlamaConfig(
        vocab_size=recipe.vocabulary,
        hidden_size=recipe.width,
        intermediate_size=recipe.mlp,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.width // 32,
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_type": "default", "rope_theta": circuits.THETA},
        attention_bias=True,  # a head that looks a fixed distance back needs a constant
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlavaConfig(
        vision_config=clip.config.vision_config,
        text_config=text,
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=recipe.tokens_per_image,
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        tie_word_embeddings=True,
    )


def start(
    recipe: Recipe, clip: CLIPModel, tokenizer: PreTrainedTokenizerFast, features: Tensor
) -> LlavaForConditionalGeneration:
    """A fresh model around the trained vision tower."""
    torch.manual_seed(key("mini-base", "weights") % 2**63)
    model = LlavaForConditionalGeneration(configuration(recipe, clip, tokenizer))
    model.model.vision_tower.load_state_dict(clip.vision_model.state_dict())
    model.model.vision_tower.requires_grad_(False)
    circuits.prepare(model, features[:, ::4], tokenizer.convert_tokens_to_ids(ASSISTANT), recipe.tokens_per_image)
    return model


def processor(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    """The processor that is saved beside the weights."""
    return LlavaProcessor(
        clip.image_processor(recipe),
        tokenizer,
        patch_size=recipe.patch,
        vision_feature_select_strategy="full",
        chat_template=CHAT_TEMPLATE,
        image_token=IMAGE,
        num_additional_image_tokens=1,
    )


@dataclass(frozen=True, slots=True)
class Batch:
    """Conversations as rows of trees, and what is seen in their pictures."""

    trees: list[PrefixTree]
    features: Tensor  # float32[pictures, tokens, vision_width], by the numbers that the trees have for them


class Writer:
    """Conversations into tokens and features."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, pools: dict[str, Pool], recipe: Recipe) -> None:
        self.tokenizer, self.pools, self.recipe = tokenizer, pools, recipe
        self.template = ChatTemplate(processor(recipe, tokenizer))
        self.image = tokenizer.convert_tokens_to_ids(IMAGE)
        slots = np.arange(recipe.tokens_per_image)
        self.spelling = ImageTokens(np.full(len(slots), self.image), slots, slots[None])
        words = {tokenizer.decode([i]) for i in range(len(SPECIAL), recipe.vocabulary)}
        self.vocabulary = sorted(w for w in words if w.isascii() and w.isalpha() and w.islower())
        self.taught_names = taught_names(recipe.taught)
        self.taught_facts = pools["taught"].facts()

    def tokens(self, said: talk.Conversation) -> Tokens:
        """One conversation; answers whose class is new carry no loss."""
        messages = build_messages(said.turns, SCAFFOLDS["turns"])
        tokens = encode(messages, self.template, "every")
        labels, answer = list(tokens.labels), -1
        for i, label in enumerate(tokens.labels):
            if label != IGNORE and tokens.labels[i - 1] == IGNORE:
                answer += 1
            if label != IGNORE and not said.supervised[answer]:
                labels[i] = IGNORE
        return Tokens(tokens.ids, tuple(labels), tokens.pictures)

    def batch(self, rows: Sequence[Tokens], device: torch.device, stream: np.random.Generator | None = None) -> Batch:
        """Lay out rows and collect their pictures. With a stream, features are shifted as other pictures' would be."""
        count, lines = 0, []
        for row in rows:
            shown = len(row.pictures)
            lines.append(
                [expand_images(row.ids, row.labels, self.image, range(count, count + shown), [self.spelling] * shown)]
            )
            count += shown
        features = [self._features(row.pictures, stream) for row in rows if row.pictures]
        empty = torch.empty(0, self.recipe.tokens_per_image, self.recipe.vision_width)
        trees = pack(lines, max(len(line.ids) for (line,) in lines))
        return Batch(trees, torch.cat(features or [empty]).to(device))

    def _features(self, pictures: Sequence[str], stream: np.random.Generator | None) -> Tensor:
        rows = []
        for picture in pictures:
            name, concept, number = picture.split("/")
            rows.append(self.pools[name].features[int(concept), int(number)])
        features = torch.stack(rows).float()
        if stream is not None and stream.random() < 0.5:
            # Photographs lie elsewhere than drawings, and nearer together: draw the whole conversation towards its
            # middle and move it by the way from one picture to another, so that only differences within it count.
            pool = self.pools["fresh"].features
            a, b = (
                pool[int(stream.integers(len(pool))), int(stream.integers(pool.shape[1]))].float() for _ in range(2)
            )
            middle = features.mean(0)
            features = middle + float(stream.uniform(0.3, 1.0)) * (features - middle) + float(stream.random()) * (a - b)
        return features


def loss(model: LlavaForConditionalGeneration, batch: Batch) -> tuple[Tensor, float]:
    """Mean cross-entropy over the supervised tokens, and how often the first token of an answer is right."""
    slots = np.arange(batch.features.shape[1])
    spelling = ImageTokens(np.full(len(slots), model.config.image_token_id), slots, slots[None])
    projected = model.model.multi_modal_projector(batch.features) if len(batch.features) else ()
    found = tree_losses(
        model, [TreeInputs(tree, [ImageFeatures(spelling, row) for row in projected]) for tree in batch.trees]
    )
    first = torch.from_numpy(np.concatenate([tree.answer_starts for tree in batch.trees])).to(found.right.device)
    return (found.nats * found.weight).sum() / found.weight.sum(), found.right[first].float().mean().item()


def induction_batch(recipe: Recipe, name: str, step: int, device: torch.device) -> Batch:
    """Text only: random tokens and the same again."""
    length = 96
    rows = []
    for i in range(max(1, recipe.tokens // length)):
        ids, known = talk.induction(recipe.vocabulary, len(SPECIAL), length, talk.stream(f"{name}/induction", step, i))
        rows.append(Tokens(tuple(ids), tuple(t if k else IGNORE for t, k in zip(ids, known, strict=True)), ()))
    lines = [[expand_images(row.ids, row.labels, -1, (), ())] for row in rows]
    return Batch(pack(lines, length), torch.empty(0, 1, recipe.vision_width, device=device))


def bridge_batch(writer: Writer, name: str, step: int, device: torch.device) -> Batch:
    """Link conversations with random words in the picture's place: the same look-up, in a space where it is easy."""
    recipe, rows = writer.recipe, []
    for i in range(_rows(recipe, 8)):
        stream = talk.stream(f"{name}/bridge", step, i)
        shape = talk.LinkShape(ways=4, turns=8, repeats=1.0, hard=0.0)
        said = writer.tokens(talk.link(shape, "fresh", *_extent(writer), writer.vocabulary, stream))
        tokens = expand_placeholders(said, writer.image, lambda _: recipe.tokens_per_image)
        ids = np.array(tokens.ids)
        of = {
            picture: stream.integers(len(SPECIAL), recipe.vocabulary, recipe.tokens_per_image)
            for picture in tokens.pictures
        }
        ids[ids == writer.image] = np.concatenate([of[p] for p in tokens.pictures])
        rows.append(Tokens(tuple(ids.tolist()), tokens.labels, ()))
    return writer.batch(rows, device)


def _rows(recipe: Recipe, turns: int) -> int:
    """How many conversations of so many turns make a step."""
    return max(1, recipe.tokens // (turns * (recipe.tokens_per_image + 10)))


def _extent(writer: Writer) -> tuple[int, int]:
    n, pictures, *_ = writer.pools["fresh"].features.shape
    return n, pictures


def taught_batch(writer: Writer, name: str, step: int, device: torch.device, incoherent: float) -> Batch:
    """Turns about taught concepts that have nothing to do with one another, a share of them after wrong names."""
    recipe = writer.recipe
    turns = int(talk.stream(f"{name}/turns", step, 0).integers(1, 9))
    rows = []
    for i in range(_rows(recipe, turns + 2)):
        stream = talk.stream(f"{name}/taught", step, i)
        make = talk.incoherent if stream.random() < incoherent else talk.taught
        rows.append(writer.tokens(make(writer.taught_facts, writer.taught_names, recipe.pictures, turns, stream)))
    return writer.batch(rows, device)


def link_batch(
    writer: Writer, shape: talk.LinkShape, name: str, step: int, device: torch.device, pool: str = "fresh"
) -> Batch:
    """Invented names for concepts, asked for again."""
    n, pictures, *_ = writer.pools[pool].features.shape
    streams = [talk.stream(f"{name}/link", step, i) for i in range(_rows(writer.recipe, shape.turns))]
    known = writer.taught_names if pool == "taught" else ()
    rows = [writer.tokens(talk.link(shape, pool, n, pictures, writer.vocabulary, stream, known)) for stream in streams]
    return writer.batch(rows, device, streams[0])


def train_base(model: LlavaForConditionalGeneration, writer: Writer, folder: Path, device: torch.device) -> None:
    """Stage 2: one step in four is text induction, the others are about taught concepts."""
    recipe = writer.recipe

    def step_loss(step: int) -> tuple[Tensor, dict[str, float]]:
        if step % 4 == 0:
            value, right = loss(model, induction_batch(recipe, "base", step, device))
            return value, {"induction": right}
        value, right = loss(model, taught_batch(writer, "base", step, device, incoherent=0.5))
        return value, {"taught": right}

    stage.run("mini-base", model, step_loss, stage.Schedule(recipe.base_lr, recipe.base_steps), folder)


def link_shape(progress: float, stream: np.random.Generator) -> talk.LinkShape:
    """What a step of stage 3 practises: exact repeats at first, then new pictures, longer, and hard neighbours."""
    easy = max(0.1, 1.0 - 8 * progress)  # the share of steps in which looking up is enough
    if stream.random() < easy:
        return talk.LinkShape(ways=4, turns=8, repeats=float(stream.choice([1.0, 0.6])), hard=0.0)
    ways = int(stream.choice([2, 2, 2, 3, 4, 5]))
    turns = int(stream.choice([6, 10, 18, 33], p=[0.25, 0.3, 0.25, 0.2]))
    return talk.LinkShape(ways=ways, turns=max(turns, 2 * ways), repeats=0.0, hard=0.3)


def train_link(model: LlavaForConditionalGeneration, writer: Writer, folder: Path, device: torch.device) -> None:
    """Stage 3: of eight steps one is text only, one is replay of stage 2, one gives taught concepts new names."""
    recipe = writer.recipe

    def step_loss(step: int) -> tuple[Tensor, dict[str, float]]:
        progress = step / recipe.tune_steps
        kind = step % 8
        if kind == 0:
            make = bridge_batch if progress < 0.25 and step % 16 else None
            batch = make(writer, "link", step, device) if make else induction_batch(recipe, "link", step, device)
            value, right = loss(model, batch)
            return value, {"bridge" if make else "induction": right}
        if kind == 4:
            value, right = loss(model, taught_batch(writer, "link", step, device, incoherent=0.0))
            return value, {"taught": right}
        shape = link_shape(progress, talk.stream("link/shape", step, 0))
        pool = "taught" if kind == 6 else "fresh"
        value, right = loss(model, link_batch(writer, shape, "link", step, device, pool))
        label = "look-up" if shape.repeats else f"link{shape.ways}"
        return value, {label: right}

    stage.run("mini", model, step_loss, stage.Schedule(recipe.tune_lr, recipe.tune_steps), folder)

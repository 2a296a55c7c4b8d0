"""The language models. `mini-base` learns to name, describe and count; `mini` learns that, and to link.

    python recipes/mini/language.py base --out runs/mini       # after tower.py; resumable
    python recipes/mini/language.py link --out runs/mini
    python recipes/mini/language.py letters --out runs/mini    # after link, or from the mini that ships

The first two begin as `circuits.py` sets them, and both learn what taught concepts are called. They differ in what
stands before a question. In the conversations of `mini-base` names are often wrong, so that the circuits' findings are
of no use and it learns not to listen. In those of `mini` new names are given and asked for again. The circuits stay as
they are: what they compare is general before training and would be special to the world after it. What learns is
everything else, and how loud their findings are. `mini` does not begin from `mini-base`, whose later layers have learnt
to take the findings back: after 600 steps of links from there, two unseen concepts shown once were told apart in .79 of
300 questions; the start itself does so in .93 of 400.

`letters` goes on from `mini` with multiple choice: questions that say their answer ("It is a dax. What is it? A. wug
B. dax"), questions about what is seen, and questions for names that were just given. No weights that ship had it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import circuits
import clip
import conversations as talk
import features
import numpy as np
import stage
import torch
import tyro
import words
from safetensors.torch import load_file
from tokenizer import ASSISTANT, CHAT_TEMPLATE, CONTEXT, IMAGE, SPECIAL, USER
from torch import Tensor, nn
from tower import EDGE, PATCH, SHARES, Heads, Source, normalise, real_batch, world_batch
from tower import configuration as tower_configuration
from tower import words as tower_words
from transformers import (
    AutoTokenizer,
    CLIPImageProcessorPil,
    CLIPModel,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from linkcontext.episodes.render import IGNORE, Tokens, encode
from linkcontext.inference.forward import TreeInputs
from linkcontext.inference.image_features import ImageFeatures
from linkcontext.inference.losses import tree_losses
from linkcontext.inference.packing import pack
from linkcontext.inference.prefix_tree import ImageTokens, expand_images
from linkcontext.models import bundled
from linkcontext.models.chat_template import ChatTemplate
from linkcontext.models.saving import save_model
from linkcontext.seeds import key
from linkcontext.storage import replacing
from linkcontext.worlds.folder import TAUGHT, taught_names

WIDTH, MLP, LAYERS, HEADS, HEAD = 384, 512, 4, 3, 192
TAUGHT_PICTURES, FRESH_CONCEPTS, FRESH_PICTURES, REAL_PICTURES = 40, 1600, 20, 14
TOKENS = 4096  # a step
SHIPPED = Path(__file__).parent / "checkpoints" / "heads.safetensors"  # what reads the tower of the package
GAUSS = "gauss"  # the pool of things that no picture ever showed


@dataclass
class Language:
    """Train a language model."""

    stage: tyro.conf.Positional[Literal["base", "link", "letters"]]
    out: Path = Path("runs/mini")
    pictures: Path = Path("~/.cache/linkcontext/pictures")
    steps: int = 1600
    lr: float = 1e-3
    threads: int = 1
    device: str = "cpu"
    control: bool = False
    """For `base`: without the conversations under wrong names."""


def configuration(seen: CLIPModel, tokenizer: PreTrainedTokenizerFast, tokens: int) -> LlavaConfig:
    """A standard Llava around a Qwen3: attention by cosine, heads of any width, no biases (vLLM knows none)."""
    text = Qwen3Config(
        architectures=["Qwen3ForCausalLM"],
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=MLP,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        head_dim=HEAD,
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_type": "default", "rope_theta": circuits.THETA},
        attention_bias=False,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlavaConfig(
        vision_config=seen.config.vision_config,
        text_config=text,
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=tokens,
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        tie_word_embeddings=True,
    )


@torch.no_grad()
def read_tower(heads: Heads, sources: dict[str, Source]) -> circuits.Reading:
    """How the projector begins: what two views of one thing have in common, by place, then over all places."""
    scenery, _ = world_batch(64, -1, 0)
    batches = [world_batch(96, step, 9)[0] for step in range(-20, -4)]
    for source in sources.values():
        batches += [real_batch(source, 96, scenery, step, 9) for step in range(-20, -20 + max(1, 16 // len(sources)))]
    views = []
    for batch in batches:
        tokens = heads.model.vision_model(pixel_values=normalise(batch)).last_hidden_state
        views.append(heads.whitening(tokens).view(2, -1, heads.slots, tokens.shape[-1]))
    one, two = torch.cat(views, 1)
    directions, places = _units(one, two, WIDTH)
    read = [torch.einsum("nud,ud->nu", each[:, places], directions) for each in (one, two)]
    values, vectors = torch.linalg.eigh(torch.cov(torch.cat(read).T))
    return circuits.Reading(
        mean=heads.whitening.mean,
        whitening=heads.whitening.matrix,
        place=heads.place.weight,
        place_bias=heads.place.bias,
        directions=directions,
        places=places,
        mixture=vectors.flip(1)[:, : circuits.CONTENT].T,
        spread=values.flip(0)[: circuits.CONTENT].sqrt(),
    )


def _units(one: Tensor, two: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` strongest directions, over all places, in which two views float32[N, T, D] of the same things vary
    together: float32[count, D], and their places int64[count]."""
    strengths, rows = [], []
    for place in range(one.shape[1]):
        a, b = (each[:, place] - each[:, place].mean(0) for each in (one, two))
        values, vectors = torch.linalg.eigh(a.T @ b + b.T @ a)
        strengths.append(values)
        rows.append(vectors.T)
    chosen = torch.stack(strengths).flatten().topk(count).indices.sort().values
    return torch.cat(rows)[chosen], chosen // one.shape[2]


def start(
    heads: Heads, tokenizer: PreTrainedTokenizerFast, sources: dict[str, Source]
) -> LlavaForConditionalGeneration:
    """The model that training begins with, around a trained tower."""
    torch.manual_seed(key("mini-base", "weights") % 2**63)
    model = LlavaForConditionalGeneration(configuration(heads.model, tokenizer, heads.slots))
    model.model.vision_tower.load_state_dict(heads.model.vision_model.state_dict())
    generator = torch.Generator().manual_seed(key("mini-base", "start") % 2**63)
    turn, mark = (tokenizer.convert_tokens_to_ids(token) for token in (USER, ASSISTANT))
    circuits.prepare(model, read_tower(heads, sources), turn, mark, circuits.Strength(), generator)
    return model


def load_tower(path: Path) -> Heads:
    """The tower that `tower.py` left at `path`, or the one that ships."""
    weights = {k: v.float() for k, v in load_file(path if path.is_file() else SHIPPED).items()}
    if not path.is_file():
        print(f"{path} is not there: the language model reads with the tower that ships.", flush=True)
        shipped = load_file(bundled.folder("mini-clip") / "model.safetensors")
        weights |= {f"model.{k}": v.float() for k, v in shipped.items()}
    layers = 1 + max(int(k.split(".layers.")[1].split(".")[0]) for k in weights if "vision_model.encoder.layers" in k)
    heads = Heads(CLIPModel(tower_configuration(tower_words(), layers)))
    heads.load_state_dict(weights)
    return heads.eval().requires_grad_(False)


def optimizer(model: LlavaForConditionalGeneration) -> torch.optim.AdamW:
    """AdamW over what learns; rows of circuits get no gradient and no decay."""
    model.requires_grad_(False)
    text = model.model.language_model
    b = circuits.blocks(text.config.hidden_size)
    free: list[nn.Parameter] = []
    guarded: list[nn.Parameter] = []
    for number, layer in enumerate(text.layers):
        attention = layer.self_attn
        fixed = circuits.FIXED.get(number, 0) * HEAD  # rows of the heads that are circuits come first
        free += list(layer.mlp.parameters())
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj):
            if fixed:
                guarded.append(projection.weight.requires_grad_(True))
                if projection is not attention.o_proj:
                    still(projection.weight, 0, torch.arange(fixed))
                elif number < circuits.COMPARING:
                    still(projection.weight, 1, torch.arange(fixed))
            else:
                free.append(projection.weight.requires_grad_(True))
        for projection in (attention.o_proj, layer.mlp.down_proj):
            still(projection.weight.requires_grad_(True), 0, circuits.kept(b, number))
        if not fixed:
            free += [attention.q_norm.weight, attention.k_norm.weight, layer.input_layernorm.weight]
        free.append(layer.post_attention_layernorm.weight)
    free.append(text.norm.weight)
    groups: list[dict[str, Any]] = [
        {"params": [p for p in free if p.ndim > 1], "weight_decay": 0.02},
        {"params": [p for p in free if p.ndim <= 1], "weight_decay": 0.0},
        {"params": guarded, "weight_decay": 0.0, "scale": 0.5},
    ]
    still(text.embed_tokens.weight.requires_grad_(True), 1, circuits.kept(b, 0))
    groups.append({"params": [text.embed_tokens.weight], "weight_decay": 0.0, "scale": 0.2})
    for group in groups:
        for parameter in group["params"]:
            parameter.requires_grad_(True)
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98))


def still(weight: nn.Parameter, dimension: int, rows: Tensor) -> None:
    """Keep some rows, or columns, of a weight as they are."""
    weight.register_hook(lambda grad: grad.index_fill(dimension, rows, 0.0))


class Writer:
    """Conversations into rows of trees, and what is seen in their pictures."""

    def __init__(
        self,
        model: LlavaForConditionalGeneration,
        tokenizer: PreTrainedTokenizerFast,
        pools: dict[str, features.Features],
    ) -> None:
        self.model, self.tokenizer, self.pools = model, tokenizer, pools
        self.template = ChatTemplate(reader(tokenizer))
        self.image = tokenizer.convert_tokens_to_ids(IMAGE)
        self.tokens = model.config.image_seq_length
        slots = np.arange(self.tokens)
        self.spelling = ImageTokens(np.full(self.tokens, self.image), slots, slots[None])
        self.blocks = circuits.blocks(WIDTH)

    def encode(self, exchanges: Sequence[talk.Exchange]) -> Tokens:
        """One conversation; replies without loss are read only."""
        tokens = encode(talk.messages(exchanges), self.template, "every")
        labels, answer = list(tokens.labels), -1
        for i, label in enumerate(tokens.labels):
            if label != IGNORE and tokens.labels[i - 1] == IGNORE:
                answer += 1
            if label != IGNORE and not exchanges[answer].loss:
                labels[i] = IGNORE
        return Tokens(tokens.ids, tuple(labels), tokens.pictures)

    def seen(self, pictures: Sequence[str], strange: np.random.Generator | None) -> Tensor:
        """What the language model gets in the pictures' places, float32[pictures, tokens, width]."""
        if pictures[0].startswith(GAUSS):
            return self._gauss(pictures)
        rows = []
        for picture in pictures:
            pool, cls, number = picture.split("/")
            rows.append(self.pools[pool].of(int(cls), int(number)))
        seen = self.model.model.multi_modal_projector(torch.stack(rows).float().to(self.model.device))
        return seen if strange is None else self._turned(seen, strange)

    def _turned(self, seen: Tensor, stream: np.random.Generator) -> Tensor:
        """The same pictures to other eyes: what they show in a random rotation and with uneven gains."""
        out = seen.clone()
        generator = torch.Generator().manual_seed(int(stream.integers(2**62)))
        block, size = self.blocks.seen, circuits.CONTENT
        rotation = torch.linalg.qr(torch.randn(size, size, generator=generator))[0]
        gains = (0.5 * float(stream.random()) * torch.randn(size, generator=generator)).exp()
        turned = (gains / gains.square().mean().sqrt())[:, None] * rotation
        out[..., block] = seen[..., block] @ turned.to(seen.device)
        return out

    def _gauss(self, pictures: Sequence[str]) -> Tensor:
        """Things that are points in space: "gauss/NUMBER OF THE WORLD-noise/class/picture" around a centre."""
        b, rows = self.blocks, []
        for picture in pictures:
            world, cls, number = picture.split("/")
            _, at, noise, size = world.split("-")
            row = torch.zeros(self.tokens, WIDTH)
            row[:, b.constant], row[:, b.patch] = circuits.CONSTANT_SIZE, circuits.PATCH_SIZE
            middle, centre, apart = (
                torch.randn(circuits.CONTENT, generator=torch.Generator().manual_seed(key("g", *name) % 2**63))
                for name in ((at,), (at, cls), (at, cls, number))
            )
            point = middle + centre + float(noise) * apart
            place = int(key("g", at, cls, number, "place") % self.tokens)
            row[place, b.seen] = float(size) * point * 4 / point.norm()
            rows.append(row)
        return torch.stack(rows).to(self.model.device)

    def loss(self, rows: Sequence[Tokens], strange: Sequence[np.random.Generator | None]) -> tuple[Tensor, float]:
        """Mean cross-entropy over the labelled tokens, and how often the first token of an answer is right."""
        count, lines = 0, []
        seen: list[ImageFeatures] = []
        for row, stream in zip(rows, strange, strict=True):
            shown = len(row.pictures)
            lines.append(
                [expand_images(row.ids, row.labels, self.image, range(count, count + shown), [self.spelling] * shown)]
            )
            count += shown
            if shown:
                seen += [ImageFeatures(self.spelling, one) for one in self.seen(row.pictures, stream)]
        trees = pack(lines, max(len(line.ids) for (line,) in lines))
        result = tree_losses(self.model, [TreeInputs(tree, seen) for tree in trees])
        first = torch.from_numpy(np.concatenate([tree.answer_starts for tree in trees]))
        return (result.nats * result.weight).sum() / result.weight.sum(), result.right.cpu()[
            first
        ].float().mean().item()


class Course:
    """What each step reads."""

    def __init__(self, writer: Writer, namer: words.Namer, name: str, links: bool) -> None:
        self.writer, self.namer, self.name, self.links = writer, namer, name, links
        pools = writer.pools
        self.taught = talk.Taught(pools["taught"].facts(), taught_names(), TAUGHT_PICTURES)
        self.pools = {
            n: talk.Pool(
                n,
                p.members(),
                p.facts(),
                self.taught.names if n == "taught" else (),
                neighbours=n == "fresh",
            )
            for n, p in pools.items()
        }

    def _rows(self, step: int, draw: Callable[[np.random.Generator], list[talk.Exchange]]) -> list[Tokens]:
        """Conversations until a step has its tokens."""
        rows, total = [], 0
        while total < TOKENS:
            row = self.writer.encode(draw(talk.stream(self.name, step, len(rows))))
            rows.append(row)
            total += len(row.ids) + len(row.pictures) * (self.writer.tokens - 1)
        return rows

    def repeat(self, step: int) -> tuple[Tensor, float]:
        """Random tokens and the same again."""
        length, rows = 96, []
        for i in range(TOKENS // length // 2):
            stream = talk.stream(f"{self.name}/repeat", step, i)
            ids, known = talk.repeat(len(self.writer.tokenizer), len(SPECIAL), length, stream)
            rows.append(Tokens(tuple(ids), tuple(t if k else IGNORE for t, k in zip(ids, known, strict=True)), ()))
        return self.writer.loss(rows, [None] * len(rows))

    def facts(self, step: int, misnamed: float) -> tuple[Tensor, float]:
        """Turns about taught concepts, a share of them after wrong names."""
        chance = talk.stream(f"{self.name}/turns", step, 0)
        turns = 1 if not misnamed and chance.random() < 0.5 else int(chance.integers(2, 9))

        def draw(stream: np.random.Generator) -> list[talk.Exchange]:
            if stream.random() < misnamed:
                return talk.misnamed(self.taught, turns, self.namer, stream)
            return talk.facts(self.taught, turns, stream, 0.0 if self.links else 0.5)

        rows = self._rows(step, draw)
        return self.writer.loss(rows, [None] * len(rows))

    def letters(self, step: int) -> tuple[Tensor, float]:
        """Letters of answers that are in the question."""
        turns = int(talk.stream(f"{self.name}/turns", step, 0).integers(1, 9))
        rows = self._rows(step, lambda stream: talk.letters(turns, self.namer, stream))
        return self.writer.loss(rows, [None] * len(rows))

    def choices(self, step: int) -> tuple[Tensor, float]:
        """Letters for what taught concepts are called and look like."""
        turns = int(talk.stream(f"{self.name}/turns", step, 0).choice([1, 1, 2, 4, 8]))
        rows = self._rows(step, lambda stream: talk.choices(self.taught, turns, stream))
        return self.writer.loss(rows, [None] * len(rows))

    def link(self, step: int, choices: float = 0.1) -> tuple[Tensor, float]:
        """New names for things of one pool, or of none."""
        chance = talk.stream(f"{self.name}/shape", step, 0)
        ways = int(chance.choice([2, 2, 2, 3, 4, 5, 6, 8, 10]))
        # Half of the conversations are short: a picture or two of each thing, then questions.
        turns = max(int(chance.choice([4, 6, 10, 18, 33], p=[0.3, 0.25, 0.2, 0.15, 0.1])), 2 * ways)
        names = list(self.pools)
        real = [n for n in names if n not in ("taught", "fresh")]
        kind = chance.random()
        pool = "taught" if kind < 0.12 else "fresh" if kind < 0.5 or not real else str(chance.choice(real))
        if kind > 0.85:
            noise, size = float(chance.uniform(0.5, 1.6)), float(chance.uniform(0.5, 1.5))
            world = f"{GAUSS}-{step}-{noise:.2f}-{size:.2f}"
            self.pools[world] = talk.Pool(world, [turns + 2] * (ways + 1))
            pool = world
        if pool in real:  # few pictures of a class: repeats would teach to look for duplicates
            turns = min(turns, 7 * ways)
        shape = talk.LinkShape(
            ways=ways,
            turns=turns,
            repeats=1.0 if chance.random() < 0.1 else 0.0,
            hard=0.3,
            talk=0.25,
            attributes=0.15 if pool in ("taught", "fresh") else 0.0,
            choices=choices,
            others=0.1,
        )
        chosen = self.pools[pool]
        rows = self._rows(step, lambda stream: talk.Linker(shape, chosen, self.namer, stream).draw())
        if pool.startswith(GAUSS):
            del self.pools[pool]
        strange = [talk.stream(f"{self.name}/strange", step, i) for i in range(len(rows))]
        return self.writer.loss(rows, [s if s.random() < 0.5 else None for s in strange])


def train_base(course: Course, control: bool) -> Callable[[int], tuple[Tensor, dict[str, float]]]:
    """One step in six is repetition, the others are about taught concepts."""

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        if step % 6 == 0:
            value, right = course.repeat(step)
            return value, {"repeat": right}
        value, right = course.facts(step, misnamed=0.0 if control else 0.5)
        return value, {"facts": right}

    return loss


def train_link(course: Course) -> Callable[[int], tuple[Tensor, dict[str, float]]]:
    """Of ten steps one is repetition, four are about taught concepts, five link."""

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        kind = step % 10
        if kind == 0:
            value, right = course.repeat(step)
            return value, {"repeat": right}
        if kind % 2:
            value, right = course.link(step)
            return value, {"link": right}
        value, right = course.facts(step, misnamed=0.0)
        return value, {"facts": right}

    return loss


def train_letters(course: Course) -> Callable[[int], tuple[Tensor, dict[str, float]]]:
    """Of ten steps seven have choices: two say the answer, two are about what is seen, three about new names."""
    kinds = ("repeat", "letters", "choices", "names", "facts", "names", "letters", "choices", "names", "link")
    draw: dict[str, Callable[[int], tuple[Tensor, float]]] = {
        "repeat": course.repeat,
        "letters": course.letters,
        "choices": course.choices,
        "names": partial(course.link, choices=0.8),
        "facts": partial(course.facts, misnamed=0.0),
        "link": course.link,
    }

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        kind = kinds[step % len(kinds)]
        value, right = draw[kind](step)
        return value, {kind: right}

    return loss


def folder_of_mini(folder: Path) -> Path:
    """The folder of what `link` left, or of the `mini` that ships."""
    if folder.is_dir():
        return folder
    print(f"{folder} is not there: training goes on from the mini that ships.", flush=True)
    return bundled.folder("mini")


def world_pool(heads: Heads, name: str, vectors: Tensor, each: int, out: Path) -> features.Features:
    """Features of `each` pictures of every concept, encoded once."""
    pictures = features.world_pictures(vectors, each, name)
    path = out / f"pool.{name}.safetensors"
    return features.build(heads.model.vision_model, pictures, [each] * len(vectors), vectors, path)


def build_pools(heads: Heads, sources: dict[str, Source], out: Path, stage: str) -> dict[str, features.Features]:
    """Features of the taught concepts; to link, of fresh ones and of the real pictures too."""
    pools = {"taught": world_pool(heads, "taught", features.taught(TAUGHT), TAUGHT_PICTURES, out)}
    if stage == "base":
        return pools
    pools["fresh"] = world_pool(heads, "fresh", features.fresh(FRESH_CONCEPTS), FRESH_PICTURES, out)
    vision, empty = heads.model.vision_model, torch.zeros(0, 0)
    for name, source in sources.items():
        sizes = [min(REAL_PICTURES, len(m)) if len(m) > 4 else min(REAL_PICTURES, 8) for m in source.members]
        pictures = features.real_pictures(source, REAL_PICTURES)
        pools[name] = features.build(vision, pictures, sizes, empty, out / f"pool.{name}.safetensors")
        print(name, len(sizes), "classes", flush=True)
    return pools


def known_words(sources: dict[str, Source]) -> list[str]:
    """Words that name the real pictures."""
    return sorted({word for source in sources.values() for word in source.words()})


def image_processor() -> CLIPImageProcessorPil:
    """Pictures as the tower is trained on them: the whole picture, squared."""
    return clip.image_processor(EDGE)


def reader(tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    """What turns pictures and conversations into the model's inputs."""
    return LlavaProcessor(
        image_processor(),
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="full",
        chat_template=CHAT_TEMPLATE,
        image_token=IMAGE,
        num_additional_image_tokens=1,
    )


def save(model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """A standard Hugging Face folder, which vLLM loads too."""
    with replacing(folder) as new:
        save_model(model, reader(tokenizer), new)


def main() -> None:
    """Train one stage."""
    config = tyro.cli(Language, description=__doc__)
    torch.set_num_threads(config.threads)
    heads = load_tower(config.out / "tower.safetensors")
    folder = config.pictures.expanduser()
    sources = {n: Source(folder / n) for n in SHARES if (folder / n / "source.json").is_file()}
    listed = known_words(sources)
    if not (config.out / "tokenizer").is_dir():
        words.build(listed).save_pretrained(config.out / "tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(config.out / "tokenizer")
    pools = build_pools(heads, sources, config.out, config.stage)
    if config.stage == "letters":
        name, train = "mini-letters", train_letters
        begin = folder_of_mini(config.out / "mini")
        tokenizer = AutoTokenizer.from_pretrained(begin)
        model = LlavaForConditionalGeneration.from_pretrained(begin, dtype=torch.float32)
    else:
        if config.stage == "link":
            name, train = "mini", train_link
        else:
            name = "mini-control" if config.control else "mini-base"
            train = partial(train_base, control=config.control)
        model = start(heads, tokenizer, sources)
        save(model, tokenizer, config.out / "start")
    model.to(config.device)
    course = Course(Writer(model, tokenizer, pools), words.Namer(listed), name, links=config.stage != "base")
    schedule = stage.Schedule(config.lr, config.steps)
    stage.run(name, model, train(course), schedule, config.out, optimizer(model))
    save(model.cpu(), tokenizer, config.out / name)


if __name__ == "__main__":
    main()

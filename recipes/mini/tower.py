"""The bundled models' vision tower, trained on the procedural world and on real pictures from packages.

    python recipes/mini/pictures.py                        # once: the real pictures
    python recipes/mini/tower.py --out runs/mini           # resumable

A step reads pairs of pictures of one class, from two of the sources: the world (fresh concepts in every step, half of
them hard neighbours of the other half), icons of one name by several authors, letters in several fonts, objects seen
from several sides, single pictures seen twice. A pair is told from the other pairs of its source (InfoNCE), by the
first token and by all tokens in their places, evened out by a running whitening. That whitening is where the projector
of the language model begins. Which place a token has stays readable from it by a linear map, since the projector binds
content to places. On the world captions and attributes are learnt too.

The tower that ships was grown (`--grow-from`) from the one that shipped before it: 48 pixels, 4 layers, 2,300 steps on
the world alone. From nothing the same has not been timed.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import augment
import clip
import numpy as np
import stage
import torch
import torch.nn.functional as F
import tyro
from safetensors.torch import save_file
from tokenizer import TEXT_START, build_tokenizer
from torch import Generator, Tensor, nn
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

from linkcontext.seeds import key
from linkcontext.worlds import concepts, questions, render

EDGE, PATCH = 64, 16
CONTENT = 128  # what a language model compares of a picture
SHARES = {"world": 0.36, "iconify": 0.2, "furniture": 0.16, "fonts": 0.14, "clipart": 0.14}


@dataclass
class Tower:
    """Train the vision tower."""

    out: Path = Path("runs/mini")
    pictures: Path = Path("~/.cache/linkcontext/pictures")
    steps: int = 6200
    pairs: int = 64
    """Pairs of each of the two sources of a step."""
    grow_from: Path | None = None
    """A CLIP folder whose weights it begins with; its pictures may be smaller and its layers fewer."""
    lr: float = 4e-4
    layers: int = 6
    threads: int = 1
    device: str = "cpu"


class Source:
    """Pictures uint8[N, 64, 64, 4] on the disk, by class."""

    def __init__(self, folder: Path) -> None:
        self.name, self.folder = folder.name, folder
        self.pictures = np.load(folder / "pictures.npy", mmap_mode="r")
        classes = np.load(folder / "class_id.npy")
        order = np.argsort(classes, kind="stable")
        bounds = np.flatnonzero(np.diff(classes[order])) + 1
        self.members = np.split(order, bounds)

    def words(self) -> list[str]:
        """What its classes are called in plain words, where they have names."""
        listed = json.loads((self.folder / "classes.json").read_text(encoding="utf-8"))
        names = {str(one["name"]).lower() for one in listed}
        return [n for n in names if n.isascii() and n.replace(" ", "").isalpha() and 2 < len(n) < 24]

    def pairs(self, count: int, rng: np.random.Generator) -> Tensor:
        """Two pictures of each of `count` classes, float32[2 * count, 4, H, W], premultiplied."""
        chosen = rng.choice(len(self.members), count, replace=False)
        two = [rng.choice(self.members[c], 2, replace=len(self.members[c]) == 1) for c in chosen]
        return self.read(np.array(two).T.reshape(-1))

    def read(self, rows: np.ndarray) -> Tensor:
        """Pictures by number, float32[N, 4, H, W], premultiplied."""
        pictures = torch.from_numpy(np.stack([self.pictures[r] for r in rows])).movedim(-1, 1).float() / 255
        if pictures.shape[1] == 3:
            pictures = torch.cat([pictures, torch.ones_like(pictures[:, :1])], 1)
        return pictures if pictures.shape[-1] == EDGE else F.interpolate(pictures, (EDGE, EDGE), mode="area")


def real_batch(source: Source, count: int, scenery: Tensor, step: int, slot: int) -> Tensor:
    """Two views of each of `count` classes of a source, float32[2 * count, 3, H, W] in 0..1."""
    name = ("mini-tower", source.name, step, slot)
    generator = Generator().manual_seed(key(*name) % 2**63)
    pictures = source.pairs(count, np.random.default_rng(key(*name, "rows")))
    classes = torch.arange(count).repeat(2)
    pictures = augment.identity(pictures, classes, generator)
    return augment.views(pictures, classes, scenery, generator, strength=0.7)


def world_batch(count: int, step: int, slot: int) -> tuple[Tensor, Tensor]:
    """Two views of each of `count` fresh concepts, half of them neighbours of the others, and their vectors."""
    generator = Generator().manual_seed(key("mini-tower", "world", step, slot) % 2**63)
    things = torch.rand(count // 2, concepts.LENGTH, generator=generator)
    alike = concepts.neighbours(things, torch.rand(count // 2, concepts.CHANGES, generator=generator))
    vectors = torch.cat([things, alike])
    instances = torch.rand(2 * count, render.LENGTH, generator=generator)
    drawn = render.render(vectors.repeat(2, 1), instances, EDGE).movedim(-1, 1).float() / 255
    classes = torch.arange(count).repeat(2)
    return augment.soften(drawn, classes, generator, share=0.2).clamp_(0, 1), vectors


def normalise(pictures: Tensor) -> Tensor:
    """Pictures in 0..1 to what the tower reads."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (clip.MEAN, clip.STD))
    return (pictures - mean) / std


class Whitening(nn.Module):
    """Running ZCA of all tokens: what makes a plain cosine of tokens in their places a good comparison.

    A map that training finds for the comparison becomes special to the pictures it was trained on; this one keeps
    every direction and only evens them out, so the tower alone learns, and what it learns carries over to new pictures.
    """

    FLOOR = 0.02  # of the mean eigenvalue

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(tokens, width))
        self.register_buffer("square", torch.eye(width))
        self.register_buffer("matrix", torch.eye(width))

    @torch.no_grad()
    def update(self, tokens: Tensor, momentum: float) -> None:
        """Take in a batch float32[N, tokens, width]."""
        self.mean.lerp_(tokens.mean(0), 1 - momentum)
        rows = tokens.flatten(0, 1)
        self.square.lerp_(rows.T @ rows / len(rows), 1 - momentum)
        middle = self.mean.mean(0)
        values, vectors = torch.linalg.eigh(self.square - torch.outer(middle, middle))
        values = values.clamp(min=0)
        self.matrix.copy_(vectors @ torch.diag((values + values.mean() * self.FLOOR).rsqrt()) @ vectors.T)

    def forward(self, tokens: Tensor) -> Tensor:
        """Whitened tokens in their places, float32[N, tokens * width]."""
        return ((tokens - self.mean) @ self.matrix).flatten(1)


class Heads(nn.Module):
    """CLIP and what is read from it in training."""

    def __init__(self, model: CLIPModel) -> None:
        super().__init__()
        width = model.config.vision_config.hidden_size
        self.slots = (EDGE // model.config.vision_config.patch_size) ** 2 + 1
        self.model = model
        self.first = nn.Linear(width, CONTENT, bias=False)
        self.whitening = Whitening(self.slots, width)
        self.place = nn.Linear(width, self.slots)
        self.attributes = nn.Linear(width, clip.ATTRIBUTES)
        self.temperature = nn.Parameter(torch.tensor([2.3, 2.3, 2.8, 2.3]))  # pooled, first, whitened, text

    def contrast(self, features: Tensor, which: int, groups: int) -> tuple[Tensor, Tensor]:
        """Symmetric InfoNCE of float32[groups * 2 * N, D] (all first views of a group, then all second ones)."""
        first, second = F.normalize(features.float(), dim=-1).view(groups, 2, -1, features.shape[-1]).unbind(1)
        logits = first @ second.transpose(1, 2) * self.temperature[which].exp().clamp(max=50)
        target = torch.arange(first.shape[1], device=first.device).expand(groups, -1)
        loss = F.cross_entropy(logits.transpose(1, 2), target) + F.cross_entropy(logits, target)
        return loss / 2, (logits.argmax(2) == target).float().mean(1)


def configuration(tokenizer: PreTrainedTokenizerFast, layers: int) -> CLIPConfig:
    """A standard CLIP. A text's feature is read at its end token."""
    text = {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": clip.CAPTION_TOKENS,
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.convert_tokens_to_ids(TEXT_START),
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        "hidden_size": 192,
        "intermediate_size": 768,
        "num_hidden_layers": layers,
        "num_attention_heads": 6,
        "image_size": EDGE,
        "patch_size": PATCH,
    }
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=192)


def words() -> PreTrainedTokenizerFast:
    """The text tower's tokenizer: the world's sentences."""
    return build_tokenizer(2048)


def grown(old: CLIPModel, layers: int) -> CLIPModel:
    """The same tower for larger pictures (positions are interpolated), with further layers that begin as identity."""
    config = old.config.to_dict()
    config["vision_config"] |= {"image_size": EDGE, "num_hidden_layers": layers}
    model = CLIPModel(type(old.config)(**config))
    state = old.state_dict()
    at = "vision_model.embeddings.position_embedding.weight"
    table = state.pop(at)
    state.pop("vision_model.embeddings.position_ids", None)
    edge = round((len(table) - 1) ** 0.5)
    new = EDGE // old.config.vision_config.patch_size
    square = table[1:].T.reshape(1, -1, edge, edge)
    wider = F.interpolate(square, (new, new), mode="bicubic", align_corners=False)[0].flatten(1).T
    state[at] = torch.cat([table[:1], wider])
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and all(".layers." in m or "position_ids" in m for m in missing)
    with torch.no_grad():
        for layer in model.vision_model.encoder.layers[old.config.vision_config.num_hidden_layers :]:
            for last in (layer.self_attn.out_proj, layer.mlp.fc2):
                last.weight.zero_()
                last.bias.zero_()
    return model


def choose(step: int, names: Sequence[str]) -> list[str]:
    """Two different sources for a step."""
    weights = np.array([SHARES[n] for n in names])
    rng = np.random.default_rng(key("mini-tower", "sources", step))
    return [str(n) for n in rng.choice(list(names), min(2, len(names)), replace=False, p=weights / weights.sum())]


class Objective:
    """The loss of a step."""

    def __init__(
        self, heads: Heads, tokenizer: PreTrainedTokenizerFast, sources: dict[str, Source], pairs: int
    ) -> None:
        self.heads, self.tokenizer, self.sources, self.pairs = heads, tokenizer, sources, pairs
        self.device = heads.place.weight.device
        self.scenery = torch.cat([normal for normal, _ in (world_batch(64, -1, i) for i in range(4))])

    def __call__(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Loss and figures."""
        heads, count = self.heads, self.pairs
        chosen = choose(step, ["world", *self.sources])
        batches, vectors, where = [], None, 0
        for slot, name in enumerate(chosen):
            if name == "world":
                pictures, vectors = world_batch(count, step, slot)
                where = slot
            else:
                pictures = real_batch(self.sources[name], count, self.scenery, step, slot)
            batches.append(pictures)
        groups = len(batches)
        with torch.autocast(self.device.type, torch.bfloat16):
            seen = heads.model.vision_model(pixel_values=normalise(torch.cat(batches)).to(self.device))
            tokens = seen.last_hidden_state
            pooled = heads.model.visual_projection(seen.pooler_output)
            first = heads.first(tokens[:, 0])
        tokens = tokens.float()
        heads.whitening.update(tokens.detach(), 0.0 if step == 0 else 0.95)
        by_pooled, _ = heads.contrast(pooled, 0, groups)
        by_first, _ = heads.contrast(first, 1, groups)
        by_place, right = heads.contrast(heads.whitening(tokens), 2, groups)
        place = (heads.place(tokens) - torch.eye(heads.slots, device=self.device)).square().sum(2).mean()
        value = 0.3 * by_pooled + 0.5 * by_first + 1.5 * by_place + 2.0 * place
        figures = {"place": place.item()} | {name: right[i].item() for i, name in enumerate(chosen)}
        if vectors is not None:
            value = value + self._world(pooled.view(groups, 2, count, -1)[where].float(), vectors)
        return value, figures

    def _world(self, pooled: Tensor, vectors: Tensor) -> Tensor:
        heads = self.heads
        quarter = len(vectors) // 3
        captions = [questions.caption(f) for f in concepts.facts(concepts.decode(vectors[:quarter]))]
        read = clip.tokens(captions, self.tokenizer, self.device)
        text = heads.model.get_text_features(**read).pooler_output
        by_text, _ = heads.contrast(torch.cat([pooled[0][:quarter], text]), 3, 1)
        there = clip.attributes(concepts.decode(vectors)).repeat(2, 1).to(self.device)
        return 0.15 * by_text + 2.0 * F.binary_cross_entropy_with_logits(heads.attributes(pooled.flatten(0, 1)), there)


def main() -> None:
    """Train the tower."""
    config = tyro.cli(Tower, description=__doc__)
    torch.set_num_threads(config.threads)
    torch.manual_seed(key("mini-tower", "weights") % 2**63)
    reader = words()
    if config.grow_from is None:
        model = CLIPModel(configuration(reader, config.layers))
        clip.start_patches_from_cosines(model)
    else:
        model = grown(CLIPModel.from_pretrained(config.grow_from, dtype=torch.float32), config.layers)
    heads = Heads(model).to(config.device)
    folder = config.pictures.expanduser()
    sources = {n: Source(folder / n) for n in SHARES if (folder / n / "source.json").is_file()}
    print("sources:", {n: len(s.members) for n, s in sources.items()}, flush=True)
    objective = Objective(heads, reader, sources, config.pairs)
    stage.run("tower", heads, objective, stage.Schedule(config.lr, config.steps, warmup=100), config.out)
    save_file({k: v.cpu().contiguous() for k, v in heads.state_dict().items()}, config.out / "tower.safetensors")
    (config.out / "tower.json").write_text(json.dumps({"steps": config.steps, "sources": list(sources)}))


if __name__ == "__main__":
    main()

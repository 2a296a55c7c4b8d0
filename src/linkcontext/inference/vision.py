"""What a model sees in a picture, computed once for each picture: in this run, and on this machine."""

import inspect
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from linkcontext.data.images import Upload, open_image
from linkcontext.errors import InputError
from linkcontext.inference.prefix_tree import ImageTokens, Ints
from linkcontext.models.families import uses_cross_attention
from linkcontext.models.feature_store import Features, fingerprint
from linkcontext.models.loading import Model, grey
from linkcontext.models.unreadable import naming

GREY = "grey"  # the item id of the picture that shows nothing
CHECKED = ("checked:0", "checked:1")  # of the two that an engine is checked with
DRAWN = (GREY, *CHECKED)
BATCH = 32
MEMORY = 4 * 2**30  # bytes of features that are kept at hand; others are read from the disk or made again
SHARD = 256  # pictures that are written to the disk together
# What a processor gives that belongs to the text and not to a picture.
OF_TEXT = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "image_attention_mask")
Thing = TypeVar("Thing")


def chunks(things: Sequence[Thing], size: int) -> Iterator[Sequence[Thing]]:
    """The things in order, so many at a time; the last chunk may be shorter."""
    return (things[start : start + size] for start in range(0, len(things), size))


@dataclass(frozen=True, slots=True)
class ImageFeatures:
    """A picture as the language model gets it."""

    spelling: ImageTokens
    tokens: Tensor  # float[T, width]: the features
    pooled: Tensor | None = None  # float32[vision width]: the tower's own summary, where it has one
    deep: Tensor | None = None  # float[layers, T, width]: what is added in the first layers (Qwen3-VL)

    @property
    def mean(self) -> Tensor:
        """float32[width]: the mean of the tokens the language model receives."""
        return self.tokens.float().mean(0)

    @property
    def nbytes(self) -> int:
        """The bytes of its features."""
        return sum(part.nbytes for part in (self.tokens, self.pooled, self.deep) if part is not None)

    def to_tensors(self) -> dict[str, Tensor]:
        """The tensors as they are written to files, on the CPU."""
        features = {"tokens": self.tokens, "pooled": self.pooled, "deep": self.deep}
        written = {name: value.cpu() for name, value in features.items() if value is not None}
        layout = {"ids": self.spelling.ids, "slots": self.spelling.slots, "shift": self.spelling.shift}
        return written | {name: torch.from_numpy(values) for name, values in layout.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], device: torch.device) -> "ImageFeatures":
        """The inverse of `to_tensors`."""
        spelling = ImageTokens(*(tensors[name].numpy() for name in ("ids", "slots", "shift")))
        return cls(
            spelling, **{name: tensors[name].to(device) for name in ("tokens", "pooled", "deep") if name in tensors}
        )


@dataclass(frozen=True, slots=True)
class Preprocessed:
    """The processor's output for a picture: what the vision encoder takes."""

    ids: list[int]  # the tokens that stand for the picture in a prompt
    inputs: dict[str, Tensor]

    @property
    def nbytes(self) -> int:
        """The bytes of the inputs."""
        return sum(part.nbytes for part in self.inputs.values())


Picture = Path | Upload | Preprocessed  # what a picture is read from
Sight = tuple[Tensor, Tensor | None, Tensor | None]  # tokens, pooled and deep of `ImageFeatures`


@dataclass
class VisionEncoder:
    """A model's vision with a memory. `calls` counts the pictures encoded: each distinct one once, if ever.

    With `kept`, features are also read from and written to the disk. `memory` bounds the bytes of features that
    `forget` leaves (default: `MEMORY`). Without `counting` no list of the pictures is kept, which would grow with them.
    """

    model: Model
    features: dict[str, ImageFeatures] = field(default_factory=dict)
    calls: int = 0
    kept: bool = False
    memory: int | None = None
    counting: bool = True
    recalled: int = 0  # pictures that came from the disk
    _unsaved: dict[str, ImageFeatures] = field(default_factory=dict, repr=False)
    _held: set[str] = field(default_factory=set, repr=False)  # what never leaves
    _known: set[str] = field(default_factory=set, repr=False)  # the contents of all pictures ever looked at
    # A spelling lives as long as a picture or a prompt that has it: pictures of new sizes have new spellings.
    _spellings: MutableMapping[tuple[bytes, bytes, bytes], ImageTokens] = field(
        default_factory=WeakValueDictionary, repr=False
    )
    _frames: dict[int, tuple[str, int, list[int]]] = field(default_factory=dict, repr=False)
    _squared: list[int] = field(default_factory=list, repr=False)

    @torch.inference_mode()
    def encode(self, pictures: Iterable[tuple[str, str, Picture | None]], alone: bool = False) -> None:
        """Encode the pictures, (item id, content hash, path), that were not seen before.

        `alone` says that each is the only one of its prompt. The path of a picture that is no data is None.
        Pictures are opened one at a time: of a large one only what the processor makes of it is kept.
        """
        new = {self.key(content, alone): path for _, content, path in pictures}
        new = {key: path for key, path in new.items() if key not in self.features}
        if self.kept and new:
            for key, row in self._store.get(new).items():
                seen = ImageFeatures.from_tensors(row, self.model.device)
                self.features[key] = replace(seen, spelling=self._one(seen.spelling))
                self.recalled += 1
        if self.counting:
            self._known |= {key.removesuffix("+alone") for key, path in new.items() if path is not None}
        left = [(key, path) for key, path in new.items() if key not in self.features]
        for chunk in chunks(left, BATCH):
            inputs = [self._read(key, path, alone) for key, path in chunk]
            self.features |= dict(zip((key for key, _ in chunk), self._encode(inputs, alone), strict=True))
            self.calls += sum(path is not None for _, path in chunk)
        if self.kept:
            self._unsaved |= {key: self.features[key] for key, path in left if path is not None}
            if len(self._unsaved) >= SHARD:
                self.save()

    def _read(self, key: str, path: Picture | None, alone: bool) -> Preprocessed:
        if isinstance(path, Preprocessed):
            return path
        if path is None:
            return self.preprocess(drawn(key.removesuffix("+alone")), alone)
        image = open_image(path)
        with naming(path, image):
            return self.preprocess(image, alone)

    def evict(self, wanted: Collection[str] = ()) -> None:
        """Remove the oldest features until at most `memory` bytes are left; those of `wanted` keys stay."""
        most = MEMORY if self.memory is None else self.memory
        taken = sum(seen.nbytes for seen in self.features.values())
        for key in list(self.features):
            if taken <= most:
                return
            if key not in self._unsaved and key not in self._held and key not in wanted:
                taken -= self.features.pop(key).nbytes

    def __contains__(self, key: object) -> bool:
        """Whether the features of an image are in memory. `key` is as `key()` gives it."""
        return key in self.features

    def pin(self, content: str, seen: ImageFeatures) -> None:
        """Know what the same eyes saw in a picture of several, from now on: there may be no file to look at again."""
        if content not in self.features:
            self.features[content] = replace(seen, spelling=self._one(seen.spelling))
        self._held.add(content)

    def get(self, content: str, alone: bool = False) -> ImageFeatures:
        """What was seen in a picture that was looked at."""
        return self.features[self.key(content, alone)]

    def key(self, content: str, alone: bool) -> str:
        """The key in `seen` of a picture's features, `alone` in its prompt or beside others."""
        return f"{content}+alone" if alone and self.resolution_depends_on_count else content

    @cached_property
    def fixed_resolution(self) -> bool:
        """Whether every picture is brought to one size, whatever its shape: LLaVA with a tower of CLIP's."""
        config = self.model.network.config
        return bool(config.model_type == "llava" and config.vision_config.model_type == "clip_vision_model")

    @cached_property
    def resolution_depends_on_count(self) -> bool:
        """Whether a picture is seen otherwise among others: LLaVA-OneVision looks less closely then."""
        return bool(self.model.network.config.model_type == "llava_onevision")

    def save(self) -> None:
        """Write to the disk what is new."""
        if self._unsaved:
            self._store.put({content: seen.to_tensors() for content, seen in self._unsaved.items()})
            self._unsaved = {}

    def counters(self) -> dict[str, int]:
        """Distinct pictures seen, how often the tower ran for them, and how many came from the disk."""
        return {"pictures": len(self._known), "encoder_calls": self.calls, "pictures_from_disk": self.recalled}

    def encode_images(self, images: Sequence[Image.Image], alone: bool = False) -> list[ImageFeatures]:
        """Features of RGB pictures, in order. Pictures of one size go through the tower together."""
        return self._encode([self.preprocess(image, alone) for image in images], alone)

    def preprocess(self, image: Image.Image, alone: bool = False) -> Preprocessed:
        """The processor's output for an RGB picture. Needs no weights, and can run in another thread with another
        processor."""
        if self.fixed_resolution:  # one spelling serves all
            made = dict(self.model.processor.image_processor([image], return_tensors="pt"))
            return Preprocessed(self._square(), made)
        return Preprocessed(*self._spell(image, self._copies(alone)))

    def _copies(self, alone: bool) -> int:
        return 2 if self.resolution_depends_on_count and not alone else 1

    def _encode(self, pictures: Sequence[Preprocessed], alone: bool) -> list[ImageFeatures]:
        copies = self._copies(alone)
        groups: dict[tuple[tuple[str, torch.Size], ...], list[int]] = {}
        for i, picture in enumerate(pictures):
            groups.setdefault(tuple((k, v.shape) for k, v in picture.inputs.items()), []).append(i)
        features: dict[int, ImageFeatures] = {}
        for members in groups.values():
            inputs = {k: torch.cat([pictures[i].inputs[k] for i in members]) for k in pictures[members[0]].inputs}
            rows = self._features(inputs, len(members), copies)
            if rows is None:  # the features of several pictures come in one piece, or there are several to a picture
                rows = [row for i in members for row in self._features(pictures[i].inputs, 1, copies) or ()]
            for i, (tokens, pooled, deep) in zip(members, rows, strict=True):
                ids = np.array(pictures[i].ids, np.int64)
                spelling = ImageTokens(ids, self._slots(ids, len(tokens)), self._shift(ids, pictures[i].inputs))
                features[i] = ImageFeatures(self._one(spelling), tokens, pooled, deep)
        return [features[i] for i in range(len(pictures))]

    def _one(self, spelling: ImageTokens) -> ImageTokens:
        """One object for all pictures that are spelled alike, so that what is made of it is made once."""
        said = spelling.ids.tobytes(), spelling.slots.tobytes(), spelling.shift.tobytes()
        return self._spellings.setdefault(said, spelling)

    def _slots(self, ids: Ints, features: int) -> Ints:
        """Which feature stands at which token of a picture's spelling."""
        here = ids == self.model.placeholder
        if uses_cross_attention(
            self.model.network
        ):  # the features stand beside the words; what follows the mark reads them
            return np.where(here, 0, -1)
        if here.sum() != features:
            raise InputError(
                f"its processor leaves room for {here.sum()} features of a picture, and its tower gives {features}"
            )
        return np.where(here, np.cumsum(here) - 1, -1)

    @property
    def mark(self) -> int:
        """The one token that a chat template writes for a picture."""
        return self._frame(1)[1]

    def _frame(self, copies: int) -> tuple[str, int, list[int]]:
        """A text with one picture so many times, the token that stands for it, and the text's tokens."""
        if copies not in self._frames:
            template, processor = self.model.chat_template, self.model.processor
            said = {"role": "user", "content": [{"type": "image", "image": ""}, {"type": "text", "text": "?"}]}
            text = template.apply_chat_template([said] * copies, tokenize=False, add_generation_prompt=False)
            ids: list[int] = template(text, return_offsets_mapping=True)["input_ids"]
            names = [getattr(processor, name, None) for name in ("boi_token", "image_token", "placeholder")]
            known = [self.model.tokenizer.convert_tokens_to_ids(name) for name in names if name]
            marks = [token for token in (*known, self.model.placeholder) if ids.count(token) == copies]
            if not marks:
                raise InputError("its chat template writes no mark for a picture")
            self._frames[copies] = text, marks[0], ids
        return self._frames[copies]

    def _spell(self, image: Image.Image, copies: int) -> tuple[list[int], dict[str, Tensor]]:
        """The tokens that stand for a picture, and what the tower wants to know of it, so many times."""
        text, mark, short = self._frame(copies)
        made = self.model.processor(
            text=[text],
            images=[[image] * copies],
            padding=True,
            padding_side="right",
            add_special_tokens=self.model.chat_template.adds_special_tokens(text),
            return_tensors="pt",
        )
        ids = made["input_ids"][0].tolist()
        before, taken = short.index(mark), (len(ids) - len(short)) // copies + 1
        spelled = ids[before : before + taken]
        if ids != [t for token in short for t in (spelled if token == mark else [token])]:
            raise InputError("its processor changes the text around a picture")
        return spelled, {k: v for k, v in made.items() if k not in OF_TEXT}

    def _square(self) -> list[int]:
        """The tokens that stand for any picture, where all are brought to one size."""
        if not self._squared:
            self._squared, _ = self._spell(grey(), 1)
        return self._squared

    def _features(self, inputs: dict[str, Tensor], count: int, copies: int) -> list[Sight] | None:
        """For each of `count` pictures tokens, summary and deep features; None where they cannot be told apart."""
        network = self.model.network
        given = {k: v.to(self.model.device) for k, v in inputs.items()}
        given = {k: v.to(network.dtype) if v.is_floating_point() else v for k, v in given.items()}
        if uses_cross_attention(network):
            return _crossing(network.model, given["pixel_values"])
        core, pooled = network.model, []
        towers = [getattr(core, n) for n in ("vision_tower", "vision_model", "visual") if hasattr(core, n)]
        if not towers:
            raise InputError(f"the tower of {type(network).__name__} is not where those of known families are")
        wanted = inspect.signature(core.get_image_features).parameters
        # The tower's summary is overwritten on its way out: it is taken where it is made.
        hook = towers[0].register_forward_hook(lambda _m, _i, out: pooled.append(getattr(out, "pooler_output", None)))
        try:
            found = core.get_image_features(**{k: v for k, v in given.items() if k in wanted})
        finally:
            hook.remove()
        rows, deep = found.pooler_output, getattr(found, "deepstack_features", None)
        rows = rows[::copies] if copies > 1 else rows
        if count == 1:
            tokens = [_flat(rows)]
        elif len(rows) == count:
            tokens = [row.flatten(0, -2) for row in rows]
        else:
            return None
        summary = pooled[0] if pooled and isinstance(pooled[0], Tensor) and pooled[0].shape[0] == count else None
        if summary is not None and summary.ndim != 2:
            summary = None
        return [
            (
                tokens[i],
                None if summary is None else summary[i].float(),
                torch.stack([_apart(layer, tokens)[i] for layer in deep]) if deep else None,
            )
            for i in range(count)
        ]

    def _shift(self, ids: Ints, inputs: dict[str, Tensor]) -> Ints:
        """Positions of a picture's tokens, counted from its first."""
        core = self.model.network.model
        if not hasattr(core, "get_rope_index"):
            return np.arange(len(ids))[None]
        words = torch.from_numpy(ids)[None]
        kinds = (words == self.model.placeholder).int()
        found = core.get_rope_index(words, mm_token_type_ids=kinds, image_grid_thw=inputs["image_grid_thw"])[0]
        return np.asarray(found[:, 0].cpu().numpy(), np.int64)

    @cached_property
    def _store(self) -> Features:
        """The features of this encoder on the disk."""
        core, processor = self.model.network.model, self.model.processor
        text = core.get_decoder() if hasattr(core, "get_decoder") else None
        own = {id(p) for p in text.parameters()} if text is not None else set()
        weights = {k: v for k, v in core.state_dict(keep_vars=True).items() if id(v) not in own}
        told = json.dumps(
            {
                "processor": json.loads(processor.image_processor.to_json_string()),
                "class": type(processor).__name__,
                "config": self.model.network.config.to_dict(),
                "frame": self._frame(1)[2],
            },
            sort_keys=True,
            default=str,
        )
        return Features.of(fingerprint({k: v.detach() for k, v in weights.items()}, told))


def _apart(layer: Any, tokens: list[Tensor]) -> Sequence[Tensor]:
    """One layer's features by picture; transformers 5.17 gives those of all pictures in one piece."""
    return torch.split(layer, [len(row) for row in tokens]) if isinstance(layer, Tensor) else layer


def _crossing(core: Any, pixels: Tensor) -> list[Sight]:
    """Pictures for cross-attention: float[T, width] each, after the resampler where there is one."""
    found = core.vision_model(pixel_values=pixels.flatten(0, 1), interpolate_pos_encoding=False)
    tokens = found.last_hidden_state
    if core.config.use_resampler:
        tokens = core.perceiver_resampler(tokens)
    return [(row, pooled.float(), None) for row, pooled in zip(tokens, found.pooler_output, strict=True)]


def _flat(rows: Any) -> Tensor:
    """One picture's features, in however many pieces, as [T, width]."""
    return torch.cat([row.flatten(0, -2) if row.ndim > 1 else row[None] for row in rows])


def drawn(item: str) -> Image.Image:
    """The pictures that are no data: one that shows nothing, and two unlike each other."""
    if item == GREY:
        return grey()
    edge = (96, 64) if item == CHECKED[0] else (64, 96)
    stream = np.random.default_rng(CHECKED.index(item))
    small = Image.fromarray(stream.integers(0, 256, (8, 8, 3), np.uint8))
    return small.resize(edge, Image.Resampling.BICUBIC)


def nearest(query: Tensor, supports: list[Tensor], classes: list[str]) -> tuple[str | None, str | None]:
    """The class of the nearest centroid and of the nearest support, by cosine; None where there is no support.

    `query` and each of `supports` are float[width]; `classes` has a class id for each support.
    """
    if not supports:
        return None, None
    query, known = F.normalize(query, dim=-1), F.normalize(torch.stack(supports), dim=-1)
    names = sorted(set(classes))
    centroids = torch.stack([known[[c == name for c in classes]].mean(0) for name in names])
    centroid = names[int((F.normalize(centroids, dim=-1) @ query).argmax())]
    return centroid, classes[int((known @ query).argmax())]

"""The vision encoder of a model: the features of each image, computed once in a run and once on a machine."""

import json
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor

from linkcontext.inference.image_features import ImageFeatures
from linkcontext.inference.image_preprocessor import ImagePreprocessor, Preprocessed
from linkcontext.inference.memory import free_memory, image_bytes
from linkcontext.models.calls import Features
from linkcontext.models.feature_store import FeatureStore, fingerprint
from linkcontext.models.model import Model
from linkcontext.models.synthetic_images import synthetic_image
from linkcontext.models.unreadable import naming

log = logging.getLogger("linkcontext")
BATCH = 32  # most images that are encoded together
MEMORY = 4 * 2**30  # bytes of features that are kept in memory; others are read from disk or computed again
SHARD = 256  # images that are written to disk together
ALONE = "+alone"  # ends the key of an image that is the only one of its prompt, where that makes a difference
Thing = TypeVar("Thing")
OpenImage = Callable[[Any], Image.Image]  # opens what the caller calls a picture: RGB


def chunks(things: Sequence[Thing], size: int) -> Iterator[Sequence[Thing]]:
    """The things in order, `size` at a time; the last chunk may be shorter."""
    return (things[start : start + size] for start in range(0, len(things), size))


@dataclass
class VisionEncoder:
    """Encodes images, each once, and keeps their features in memory and optionally on disk.

    An image is known by the hash of its content. Of a model whose resolution depends on the number of images, an image
    that is alone in its prompt has features of its own: see `key`.

    Args:
        model: the model whose vision tower is used.
        open_image: opens the pictures that are given to `encode`.
        features: features that are known already, by key.
        use_disk: read features from disk, and write new ones.
        max_bytes: how many bytes of features `evict` leaves in memory. Default: 4 GB.
        memory_gb: how much memory images may take that are encoded together. Default: what is free.
        count_images: keep the hashes of all images for `counters`. A server does without, because the list would grow.
    """

    model: Model
    open_image: OpenImage
    features: dict[str, ImageFeatures] = field(default_factory=dict)
    use_disk: bool = False
    max_bytes: int | None = None
    memory_gb: float | None = None
    count_images: bool = True
    calls: int = 0  # images that were encoded
    from_disk: int = 0  # images whose features were read from disk
    _unsaved: dict[str, ImageFeatures] = field(default_factory=dict, repr=False)
    _pinned: set[str] = field(default_factory=set, repr=False)
    _known: set[str] = field(default_factory=set, repr=False)
    _warned: bool = field(default=False, repr=False)

    @cached_property
    def preprocessor(self) -> ImagePreprocessor:
        """Calls the model's processor."""
        return ImagePreprocessor(self.model)

    @property
    def fixed_resolution(self) -> bool:
        """Whether all images have equally many tokens, whatever their shape."""
        return self.preprocessor.family.fixed_resolution

    @torch.inference_mode()
    def encode(self, images: Iterable[tuple[str, Any]], alone: bool = False) -> None:
        """Encode the images whose features are not known yet.

        `images` are pairs of a content hash and a picture: what `open_image` opens, a `Preprocessed` image, or None for
        a synthetic image, whose hash is its id. With `alone` each is the only image of its prompt. Images are opened
        one at a time: of a large one only the processor's output is kept. Raises `InputError` for a picture that
        cannot be opened or that the processor refuses.
        """
        new = {self.key(content, alone): picture for content, picture in images}
        new = {key: picture for key, picture in new.items() if key not in self.features}
        if self.use_disk and new:
            for key, row in self._store.get(new).items():
                self.features[key] = ImageFeatures.from_tensors(row, self.model.device)
                self.from_disk += 1
        if self.count_images:
            self._known |= {key.removesuffix(ALONE) for key, picture in new.items() if picture is not None}
        left = [(key, picture) for key, picture in new.items() if key not in self.features]
        for batch in self.batches(left, alone):
            self.features |= self.encode_preprocessed(batch, alone)
        self.calls += sum(picture is not None for _, picture in left)
        if self.use_disk:
            self._unsaved |= {key: self.features[key] for key, picture in left if picture is not None}
            if len(self._unsaved) >= SHARD:
                self.save()

    def batches(self, images: Iterable[tuple[str, Any]], alone: bool = False) -> Iterator[dict[str, Preprocessed]]:
        """Preprocessed images by key, in order, as many at a time as fit into memory, and at most `BATCH`.

        An image that does not fit is a batch by itself. The pairs are as for `encode`.
        """
        batch: dict[str, Preprocessed] = {}
        taken = room = 0.0
        for key, picture in images:
            inputs = self._preprocess(key, picture, alone)
            needed = image_bytes(self.model.network, inputs.inputs)
            if batch and (len(batch) == BATCH or taken + needed > room):
                yield batch
                batch = {}
            if not batch:
                taken, room = 0.0, free_memory(self.model.device) if self.memory_gb is None else self.memory_gb * 1e9
                self._warn_if_large(picture, needed, room)
            batch[key] = inputs
            taken += needed
        if batch:
            yield batch

    def _warn_if_large(self, picture: Any, needed: float, room: float) -> None:
        if needed > room and not self._warned:
            self._warned = True
            log.warning(
                "%s: encoding this picture alone takes about %.2g GB, and only %.2g GB may be used. Reduce large "
                "pictures with --max-pixels (in Python, max_pixels).",
                picture,
                needed / 1e9,
                room / 1e9,
            )

    def encode_preprocessed(self, batch: Mapping[str, Preprocessed], alone: bool = False) -> dict[str, ImageFeatures]:
        """Features of preprocessed images by key; those of one shape are encoded together."""
        return dict(zip(batch, self._encode([*batch.values()], alone), strict=True))

    def encode_images(self, images: Sequence[Image.Image], alone: bool = False) -> list[ImageFeatures]:
        """Features of RGB images, in order, with gradients and without keeping them. Images of one size are encoded
        together."""
        return self._encode([self.preprocessor.preprocess(image, alone) for image in images], alone)

    def get(self, content: str, alone: bool = False) -> ImageFeatures:
        """The features of an image. Raises `KeyError` if they are not in memory."""
        return self.features[self.key(content, alone)]

    def __contains__(self, key: object) -> bool:
        """Whether features are in memory. `key` is as `key()` gives it."""
        return key in self.features

    def key(self, content: str, alone: bool) -> str:
        """The key of an image's features: its content hash, marked if it is alone and that makes a difference."""
        return f"{content}{ALONE}" if alone and self.preprocessor.family.resolution_depends_on_count else content

    def pin(self, content: str, features: ImageFeatures) -> None:
        """Keep the features of an image, one of several of its prompt, for good: its picture may be gone."""
        self.features.setdefault(content, features)
        self._pinned.add(content)

    def evict(self, wanted: Collection[str] = ()) -> None:
        """Remove the oldest features until at most `max_bytes` are left, but none that is pinned or in `wanted`, which
        are keys."""
        most = MEMORY if self.max_bytes is None else self.max_bytes
        taken = sum(features.nbytes for features in self.features.values())
        for key in list(self.features):
            if taken <= most:
                return
            if key not in self._unsaved and key not in self._pinned and key not in wanted:
                taken -= self.features.pop(key).nbytes

    def save(self) -> None:
        """Write new features to disk."""
        if self._unsaved:
            self._store.put({key: features.to_tensors() for key, features in self._unsaved.items()})
            self._unsaved = {}

    def counters(self) -> dict[str, int]:
        """How many distinct images were asked for, were encoded, and came from disk."""
        return {"pictures": len(self._known), "encoder_calls": self.calls, "pictures_from_disk": self.from_disk}

    def _preprocess(self, key: str, picture: Any, alone: bool) -> Preprocessed:
        if isinstance(picture, Preprocessed):
            return picture
        if picture is None:
            return self.preprocessor.preprocess(synthetic_image(key.removesuffix(ALONE)), alone)
        image = self.open_image(picture)
        with naming(picture, image):
            return self.preprocessor.preprocess(image, alone)

    def _encode(self, pictures: Sequence[Preprocessed], alone: bool) -> list[ImageFeatures]:
        """Features of preprocessed images, in order. Those with inputs of one shape are encoded together."""
        copies = self.preprocessor.copies(alone)
        groups: dict[tuple[tuple[str, torch.Size], ...], list[int]] = {}
        for i, picture in enumerate(pictures):
            groups.setdefault(tuple((k, v.shape) for k, v in picture.inputs.items()), []).append(i)
        encoded: dict[int, ImageFeatures] = {}
        for members in groups.values():
            inputs = {k: torch.cat([pictures[i].inputs[k] for i in members]) for k in pictures[members[0]].inputs}
            rows = self._features(inputs, len(members), copies)
            if rows is None:  # single images cannot be told apart in the features of several
                rows = [row for i in members for row in self._features(pictures[i].inputs, 1, copies) or ()]
            for i, row in zip(members, rows, strict=True):
                tokens = self.preprocessor.image_tokens(pictures[i], len(row.embeddings))
                encoded[i] = ImageFeatures(tokens, row.embeddings, row.pooled, row.deepstack)
        return [encoded[i] for i in range(len(pictures))]

    def _features(self, inputs: dict[str, Tensor], count: int, copies: int) -> list[Features] | None:
        placed = self.model.place(inputs)
        return self.preprocessor.family.encode_images(self.preprocessor.core, placed, count, copies)

    @cached_property
    def _store(self) -> FeatureStore:
        """The features of this encoder on disk, known by its weights, its configuration and its processor."""
        network, core, processor = self.model.network, self.preprocessor.core, self.model.processor
        decoder = core.get_decoder()
        language = set() if decoder is None else {id(p) for p in decoder.parameters()}
        weights = {k: v for k, v in core.state_dict(keep_vars=True).items() if id(v) not in language}
        description = json.dumps(
            {
                "processor": self.model.image_processing,
                "class": type(processor).__name__,
                "config": network.config.to_dict(),
                "frame": self.preprocessor.frame_ids,
            },
            sort_keys=True,
            default=str,
        )
        return FeatureStore.of(fingerprint({k: v.detach() for k, v in weights.items()}, description))

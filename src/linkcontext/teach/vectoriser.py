"""From pictures to the vectors that heads and similarities compare."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

from linkcontext.config import Augmentation
from linkcontext.data.images import Upload, hash_pixels, open_image, png
from linkcontext.evaluation.picture_vectors import PictureVectors, own_vectors
from linkcontext.inference.image_features import ImageFeatures
from linkcontext.scoring.protocol import ScoringModel
from linkcontext.teach.augmentation import augmented
from linkcontext.teach.encoder import PictureEncoder

if TYPE_CHECKING:
    from linkcontext.teach.learner import Learner


@dataclass(frozen=True, slots=True)
class PictureVectoriser:
    """Makes the vectors of pictures by a model's own vision tower, by another encoder, or by both.

    `augment` are the changed copies that taught pictures get; pictures that are asked about get none.
    """

    model: ScoringModel
    encoder: PictureEncoder | None = None
    augment: tuple[Augmentation, ...] = ()

    def of_queries(self, items: Sequence[str]) -> list[PictureVectors]:
        """The vectors of pictures, one row of each kind."""
        if not self.model.lacks("image features"):
            self.model.pictures.features(items)  # many at a time; below they are in memory
        return [self._vectors(item, []) for item in items]

    def of_taught(self, items: Sequence[str]) -> list[PictureVectors]:
        """The vectors of pictures and their changed copies."""
        return [self._vectors(item, augmented(self.open(item), self.augment) if self.augment else []) for item in items]

    def of_image(self, image: Image.Image) -> PictureVectors:
        """The vectors of an RGB image that has no id."""
        name = "an image"
        self.model.sources[name] = (hash_pixels(upload := Upload(name, png(image, compress_level=1))), upload)
        try:
            return self._vectors(name, [])
        finally:
            del self.model.sources[name]

    def open(self, item: str) -> Image.Image:
        """A picture in RGB."""
        return open_image(self.model.sources[item][1])

    def _vectors(self, item: str, copies: Sequence[Image.Image]) -> PictureVectors:
        vectors = {}
        if not self.model.lacks("image features"):
            vectors = own_vectors([*self.model.pictures.features([item]), *self._features(item, copies)])
        if self.encoder is not None:
            vectors["encoder"] = self.encoder.encode([self.open(item), *copies])
        return vectors

    def _features(self, item: str, copies: Sequence[Image.Image]) -> list[ImageFeatures]:
        """The model's features of changed copies of a picture, which are known by their number."""
        names = [f"{item}/{','.join(self.augment)}/{place}" for place in range(len(copies))]
        for name, copy in zip(names, copies, strict=True):
            self.model.sources[name] = (name, Upload(name, png(copy, compress_level=1)))
        features = self.model.pictures.features(names) if names else []
        for name in names:
            del self.model.sources[name]
        return features


def query_vectors(learner: "Learner", items: Sequence[str]) -> list[PictureVectors]:
    """The vectors of pictures that heads and similarities compare; a taught picture has its own."""
    known = {item: learner.pictures.vectors[item] for item in items if item in learner.pictures.vectors}
    new = [item for item in dict.fromkeys(items) if item not in known]
    made = dict(zip(new, PictureVectoriser(learner.model, learner.encoder).of_queries(new), strict=True))
    return [made[item] if item in made else {kind: rows[:1] for kind, rows in known[item].items()} for item in items]

"""The pictures of the prompts at hand: where they come from, and their features by number."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from PIL import Image

from linkcontext.data.images import open_image
from linkcontext.data.manifest import Dataset
from linkcontext.episodes.scaffold import Message
from linkcontext.episodes.scaffold import image_ids as shown
from linkcontext.inference.image_features import ImageFeatures
from linkcontext.inference.vision import VisionEncoder
from linkcontext.models.synthetic_images import SYNTHETIC, synthetic_image
from linkcontext.models.unreadable import without_refused
from linkcontext.scoring.protocol import Sources

Look = tuple[str, bool]  # an item id, and whether it is the only picture of its prompt


@dataclass
class PromptPictures:
    """Pictures that prompts show. A picture alone in its prompt can have other features, and then another number."""

    eyes: VisionEncoder
    sources: Sources
    seen: list[ImageFeatures] = field(default_factory=list, repr=False)  # features by number
    _numbers: dict[tuple[str, bool], int] = field(default_factory=dict, repr=False)  # (content, alone) -> number

    @property
    def contents(self) -> list[str]:
        """The content of each picture, by number."""
        return [f"{content}+alone" if alone else content for content, alone in self._numbers]

    def open(self, item: str) -> Image.Image:
        """A picture in RGB."""
        return synthetic_image(item) if item in SYNTHETIC else open_image(self.sources[item][1])

    def begin(self, conversations: Iterable[Sequence[Message]]) -> None:
        """Forget the numbers, and encode all pictures that are about to be needed, many at a time."""
        self.seen, self._numbers = [], {}
        wanted = _looks(shown(messages) for messages in conversations)
        self.eyes.evict({self.eyes.key(self._content(item), alone) for item, alone in wanted})
        self._encode(wanted)

    def numbered(self, items: Sequence[str]) -> list[int]:
        """The numbers of one prompt's pictures. Those that were not encoded yet are encoded now."""
        alone, numbers = len(items) == 1, []
        for item in items:
            picture = item if item in SYNTHETIC else self.sources[item][0], alone
            if picture not in self._numbers:
                if self.eyes.key(*picture) not in self.eyes:
                    self._encode(_looks([items]))
                self._numbers[picture] = len(self.seen)
                self.seen.append(self.eyes.get(*picture))
            numbers.append(self._numbers[picture])
        return numbers

    def items(self, conversations: Sequence[Sequence[Message]]) -> dict[int, str]:
        """The item id of each picture number that some conversations show."""
        groups = (shown(messages) for messages in conversations)
        return {self._numbers[self._content(item), alone]: item for item, alone in _looks(groups)}

    def features(self, items: Sequence[str], alone: bool = False) -> list[ImageFeatures]:
        """The features of pictures, in order; they get no numbers."""
        self.eyes.evict({self.eyes.key(self._content(item), alone) for item in items})
        self._encode([(item, alone) for item in items])
        return [self.eyes.get(self._content(item), alone) for item in items]

    def pin(self, item: str, features: ImageFeatures) -> None:
        """Use these features of a picture, whose file may be gone."""
        self.eyes.pin(self._content(item), features)

    def without_refused(self, dataset: Dataset, items: Iterable[str], strict: bool) -> Dataset:
        """The data set without those of `items` that the image processor refuses."""
        return without_refused(dataset, items, self.eyes.model, strict)

    def save(self) -> None:
        """Write features that are new to the disk."""
        self.eyes.save()

    def _content(self, item: str) -> str:
        return self.sources.get(item, (item,))[0]

    def _encode(self, wanted: Sequence[Look]) -> None:
        for alone in (False, True):
            items = [item for item, single in wanted if single == alone]
            self.eyes.encode([self.sources.get(item, (item, None)) for item in items], alone)


def _looks(groups: Iterable[Sequence[str]]) -> list[Look]:
    """The pictures of prompts, and whether each is alone: most models encode it the same in both cases."""
    return list(dict.fromkeys((item, len(items) == 1) for items in groups for item in items))

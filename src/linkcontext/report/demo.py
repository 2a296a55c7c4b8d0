"""The demo's page: what a model was shown and asked, and the table, in one file that asks the network for nothing."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from linkcontext.data.images import thumbnail_png
from linkcontext.report.tables import Grid
from linkcontext.storage import write_text

EDGE = 112  # pixels of a thumbnail
LEGEND = (
    ("shots per class", "pictures shown of each of the two things"),
    ("mini-base", "the bundled model before it learned to learn from what it is shown"),
    ("mini", "the bundled model after it"),
    (
        "right",
        "share of new pictures named right, and in brackets where it lies for other pictures of these things (95 %)",
    ),
    (
        "nearest centroid",
        "no language at all: the name whose pictures look most alike, on average, to the model's own eyes",
    ),
    ("chance", "what guessing gets"),
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A new picture, the name it has in the lesson, and the probability that the model gave to each name."""

    picture: Path
    name: str
    probabilities: dict[str, float]

    @property
    def said(self) -> str:
        """The likeliest name."""
        return max(self.probabilities, key=self.probabilities.__getitem__)

    @property
    def right(self) -> bool:
        """Whether that is the picture's."""
        return self.said == self.name


@dataclass(frozen=True, slots=True)
class Lesson:
    """Pictures shown under their names, and what was asked after them. Pictures lie below `root`."""

    title: str
    told: str  # what is special about it, in a sentence
    root: Path
    shown: dict[str, tuple[Path, ...]]
    truths: dict[str, str]  # name -> what people call it, where that is another
    asked: tuple[Asked, ...]

    @property
    def right(self) -> int:
        """How many answers are right."""
        return sum(asked.right for asked in self.asked)

    @property
    def guessing(self) -> float:
        """How many a guess would get right, on average."""
        return len(self.asked) / len(self.shown)


def write_demo(model: str, lessons: Sequence[Lesson], grid: Grid, again: str, path: Path) -> Path:
    """Write the page of what `model` was taught and asked; its path. `again` is the command that makes it.

    The second column of `grid` names models. Raises `InputError` for a picture that cannot be read any more, and
    when the page cannot be written.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(_template("demo.html.j2")).render(
        model=model,
        style=_style(),
        lessons=lessons,
        right=sum(lesson.right for lesson in lessons),
        asked=sum(len(lesson.asked) for lesson in lessons),
        guessing=sum(lesson.guessing for lesson in lessons),
        grid=grid,
        legend=_legend(grid),
        again=again,
        uri=_uri,
    )
    write_text(page, path)
    return path


def _legend(grid: Grid) -> list[tuple[str, str]]:
    """What the words of this table mean."""
    words = {heading.removesuffix(" [95 %]") for heading in grid.headings} | {line[1] for line in grid.lines}
    return [(word, meaning) for word, meaning in LEGEND if word in words]


def _template(name: str) -> str:
    return resources.files("linkcontext.report").joinpath(name).read_text(encoding="utf-8")


def _style() -> str:
    """The style of a run's report: the pages look alike."""
    _, begins, rest = _template("page.html.j2").partition("<style>")
    style, ends, _ = rest.partition("</style>")
    assert begins and ends, "page.html.j2 has no style"
    return style


def _uri(picture: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(thumbnail_png(picture, EDGE)).decode()

"""The demo's page: lessons, answers and the table, in one HTML file that loads nothing from the network."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from linkcontext.data.images import data_uri, thumbnail_png
from linkcontext.report.tables import Grid
from linkcontext.storage import write_text

EDGE = 112  # pixels of a thumbnail
LEGEND = (
    ("shots per class", "number of pictures shown of each of the two things"),
    ("mini-base", "the bundled model before it was trained to learn from its context"),
    ("mini", "the bundled model after that training"),
    ("right", "share of new pictures that were named correctly, with its 95 % interval in brackets"),
    ("auto", "the same share by the head that `linkcontext ask` uses: chosen by leaving shown pictures out in turn"),
    (
        "nearest centroid",
        "without language: the name whose pictures are most similar on average, by the model's image features",
    ),
    ("chance", "accuracy of guessing"),
)


@dataclass(frozen=True, slots=True)
class DemoQuery:
    """A query picture, its name in the lesson, and each name's probability, by the language model and by a head."""

    picture: Path
    name: str
    probabilities: dict[str, float]
    by_head: dict[str, float]

    @property
    def answer(self) -> str:
        """The most likely name."""
        return max(self.probabilities, key=self.probabilities.__getitem__)

    @property
    def answer_by_head(self) -> str:
        """The name that is most likely by the head."""
        return max(self.by_head, key=self.by_head.__getitem__)

    @property
    def right(self) -> bool:
        """Whether the answer is the picture's name."""
        return self.answer == self.name


@dataclass(frozen=True, slots=True)
class DemoLesson:
    """Pictures taught under their names, and the queries after them. All pictures are below `root`."""

    title: str
    remark: str  # a sentence
    root: Path
    support: dict[str, tuple[Path, ...]]  # paths by name
    truths: dict[str, str]  # what people call the things that were taught under another name
    queries: tuple[DemoQuery, ...]
    head: str  # a sentence about the head beside the language model

    @property
    def right(self) -> int:
        """How many answers are right."""
        return sum(query.right for query in self.queries)

    @property
    def right_by_head(self) -> int:
        """How many answers of the head are right."""
        return sum(query.answer_by_head == query.name for query in self.queries)

    @property
    def guessing(self) -> float:
        """How many answers of a guess would be right on average."""
        return len(self.queries) / len(self.support)


def write_demo(model: str, lessons: Sequence[DemoLesson], grid: Grid, again: str, path: Path) -> Path:
    """Write the page about the lessons of `model` and return its path. `again` is the command that makes the page.

    The second column of `grid` names models. Raises `InputError` if a picture can no longer be read or the page cannot
    be written.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(_template("demo.html.j2")).render(
        model=model,
        style=_style(),
        lessons=lessons,
        right=sum(lesson.right for lesson in lessons),
        by_head=sum(lesson.right_by_head for lesson in lessons),
        queries=sum(len(lesson.queries) for lesson in lessons),
        guessing=sum(lesson.guessing for lesson in lessons),
        grid=grid,
        legend=_legend(grid),
        again=again,
        uri=_uri,
    )
    write_text(page, path)
    return path


def _legend(grid: Grid) -> list[tuple[str, str]]:
    """The terms of the table with their meanings."""
    words = {heading.removesuffix(" [95 %]") for heading in grid.headings} | {line[1] for line in grid.lines}
    return [(word, meaning) for word, meaning in LEGEND if word in words]


def _template(name: str) -> str:
    return resources.files("linkcontext.report").joinpath(name).read_text(encoding="utf-8")


def _style() -> str:
    """The style of a run's report, which the demo's page shares."""
    _, begins, rest = _template("page.html.j2").partition("<style>")
    style, ends, _ = rest.partition("</style>")
    assert begins and ends, "page.html.j2 has no style"
    return style


def _uri(picture: Path) -> str:
    return data_uri("image/png", thumbnail_png(picture, EDGE))

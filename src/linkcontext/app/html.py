"""What the web page shows, as HTML. The template escapes whatever it is given: names are text."""

import base64
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from linkcontext.app.session import Session
from linkcontext.data.images import thumbnail_png
from linkcontext.report.tables import Grid
from linkcontext.teach.dialogue import Reply

SMALL, LARGE = 96, 256  # pixels of thumbnails, twice as many as they take on the page
MOST_BARS = 8  # names whose probability is drawn


def told(sentences: Sequence[str], wrong: bool = False) -> str:
    """Sentences about what happened; nothing for none."""
    return str(_macros().told(sentences, wrong)) if sentences else ""


def taught(session: Session) -> str:
    """The names and their pictures."""
    learner = session.dialogue.learner
    concepts = {name: [learner.thumbnails[item] for item in items] for name, items in learner.shown.items()}
    return str(_macros().taught(concepts, *session.dialogue.tokens()))


def answered(session: Session, picture: Path, reply: Reply) -> str:
    """A picture, what it is called, how likely each name is, and what was shown that is most like it."""
    found = reply.answer
    ranked = sorted(found.probabilities.items(), key=lambda pair: -pair[1])[:MOST_BARS] if found else []
    nearest = session.likest(found) if found else []
    return str(_macros().answered(thumbnail_png(picture, LARGE), reply, ranked, nearest))


def chat(session: Session) -> str:
    """What was said."""
    small = {path: thumbnail_png(path, SMALL) for line in session.lines for path in line.pictures}
    return str(_macros().chat(session.lines, small))


def report(name: str, page: str) -> str:
    """A run's report in a frame of its own, in which no script runs."""
    return str(_macros().report(name, page))


def table(above: str, grid: Grid) -> str:
    """A table, and what is said above it."""
    return str(_macros().table(above, grid))


@cache
def _macros() -> Any:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["b64"] = lambda png: base64.b64encode(png).decode()
    source = resources.files("linkcontext.app").joinpath("cards.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source).module

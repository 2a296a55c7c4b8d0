"""The parts of the web page as HTML. The template escapes everything it is given."""

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

SMALL, LARGE = 96, 256  # pixels of thumbnails: twice their size on the page
MAX_BARS = 8  # names whose probabilities are drawn


def notice(sentences: Sequence[str], wrong: bool = False) -> str:
    """Sentences about what happened, or about what went wrong; "" if there are none."""
    return str(_macros().notice(sentences, wrong)) if sentences else ""


def concept_cards(session: Session) -> str:
    """The taught names with their pictures, and how full the context is, unless only a server knows."""
    pictures = session.dialogue.learner.pictures
    concepts = {name: [pictures.thumbnails[item] for item in items] for name, items in pictures.by_name.items()}
    return str(_macros().concept_cards(concepts, session.dialogue.tokens()))


def answer_card(session: Session, picture: Path, reply: Reply) -> str:
    """A query picture, its name, the probabilities of the names, and the most similar taught pictures."""
    answer = reply.answer
    ranked = sorted(answer.probabilities.items(), key=lambda pair: -pair[1])[:MAX_BARS] if answer else []
    nearest = session.nearest(answer) if answer else []
    return str(_macros().answer_card(thumbnail_png(picture, LARGE), reply, ranked, nearest))


def chat_lines(session: Session) -> str:
    """The lines of the chat with their pictures."""
    thumbnails = {path: thumbnail_png(path, SMALL) for line in session.lines for path in line.pictures}
    return str(_macros().chat_lines(session.lines, thumbnails))


def report_frame(name: str, page: str) -> str:
    """A run's report in a sandboxed frame, in which no script runs."""
    return str(_macros().report_frame(name, page))


def table(caption: str, grid: Grid) -> str:
    """A table with a caption above it."""
    return str(_macros().table(caption, grid))


@cache
def _macros() -> Any:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["b64"] = lambda png: base64.b64encode(png).decode()
    source = resources.files("linkcontext.app").joinpath("fragments.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source).module

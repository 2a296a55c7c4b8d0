"""The parts of the web page as HTML. The template escapes everything it is given."""

import base64
import io
from collections.abc import Sequence
from functools import cache, lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from PIL import Image

from linkcontext.app.session import Session
from linkcontext.data.images import data_uri, open_image
from linkcontext.report.tables import Grid
from linkcontext.teach.answer import Answer
from linkcontext.teach.rejection import describe_rejection

SMALL, LARGE = 96, 256  # pixels of thumbnails: twice their size on the page
KEPT_THUMBNAILS = 2_000
MAX_BARS, FEW_BARS = 8, 3  # names whose probabilities are drawn, for one picture and for each of several
SHOWN_OF_NAME, SHOWN = 12, 150  # thumbnails of a taught name, and of all names together


def notice(sentences: Sequence[str], wrong: bool = False) -> str:
    """Sentences about what happened, or about what went wrong; "" if there are none."""
    return str(_macros().notice(sentences, wrong)) if sentences else ""


def chosen_pictures(session: Session) -> str:
    """The pictures of the next lesson."""
    pictures = [(thumbnail_uri(path, SMALL), session.stored.names.get(path, "")) for path in session.chosen]
    return str(_macros().chosen_pictures(pictures))


def concept_cards(session: Session) -> str:
    """The taught names with their pictures, and how full the context is, unless only a server knows."""
    pictures = session.dialogue.learner.pictures
    concepts = {name: [pictures.thumbnails[item] for item in items] for name, items in pictures.by_name.items()}
    shown = min(SHOWN_OF_NAME, max(2, SHOWN // max(1, len(concepts))))
    return str(_macros().concept_cards(concepts, shown, session.dialogue.tokens()))


def answer_cards(session: Session) -> str:
    """The asked pictures with their answers, as far as they are there, and what names the pictures."""
    few = len(session.asked) == 1
    cards = []
    for place, path in enumerate(session.asked):
        reply = session.answers[place] if place < len(session.answers) else None
        answer = reply.answer if reply else None
        ranked = sorted(answer.probabilities.items(), key=lambda pair: -pair[1]) if answer else []
        cards.append(
            {
                "picture": thumbnail_uri(path, LARGE),
                "sent": session.stored.names.get(path, ""),
                "reply": reply,
                "ranked": ranked[: MAX_BARS if few else FEW_BARS],
                "nearest": _nearest(session, answer) if answer else [],
            }
        )
    names = session.dialogue.learner.pictures.names
    return str(_macros().answer_cards(cards, session.question, names, _about_the_answers(session)))


def chat_lines(session: Session) -> str:
    """The lines of the chat with their pictures."""
    thumbnails = {path: thumbnail_uri(path, SMALL) for line in session.lines for path in line.pictures}
    wait = (session.wait() or "…") if session.is_reply_missing else ""
    return str(_macros().chat_lines(session.lines, thumbnails, wait))


def report_frame(name: str, page: str) -> str:
    """A run's report in a sandboxed frame, in which no script runs."""
    return str(_macros().report_frame(name, page))


def table(caption: str, grid: Grid) -> str:
    """A table with a caption above it."""
    return str(_macros().table(caption, grid))


@lru_cache(KEPT_THUMBNAILS)
def thumbnail_uri(path: Path, edge: int) -> str:
    """A stored picture as a data URI, with at most `edge` pixels on its longer side."""
    image = open_image(path)
    image.thumbnail((edge, edge), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "WEBP", quality=85)
    return data_uri("image/webp", file.getvalue())


def _nearest(session: Session, answer: Answer) -> list[tuple[str, bytes]]:
    """The taught pictures most similar to the query picture, the first most: name, PNG. Cosines would say little to a
    reader: those of unlike pictures are near 1, too."""
    thumbnails = session.dialogue.learner.pictures.thumbnails
    return [(n.name, thumbnails[n.picture]) for n in answer.nearest if n.picture in thumbnails]


def _about_the_answers(session: Session) -> list[str]:
    """What names the pictures, and when a picture is "none of these"; empty if no answer is a name that was chosen."""
    learner = session.dialogue.learner
    answers = [reply.answer for reply in session.answers if reply.answer is not None and not reply.answer.taught]
    if not answers:
        return []
    threshold = describe_rejection(learner.estimate_rejection_threshold(), learner.pictures.by_name)
    return [learner.choose_head().describe(), *([threshold] if learner.pictures.kinds else [])]


@cache
def _macros() -> Any:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["b64"] = lambda png: base64.b64encode(png).decode()
    source = resources.files("linkcontext.app").joinpath("fragments.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source).module

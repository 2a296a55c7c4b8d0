"""Answers and taught pictures as HTML for notebooks, with small pictures inside and nothing loaded from elsewhere."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from linkcontext.data.images import data_uri
from linkcontext.errors import InputError
from linkcontext.teach.given_pictures import small_picture

if TYPE_CHECKING:
    from linkcontext.teach.answer import Answer

EDGE = 64  # pixels of a small picture
PICTURES_SHOWN, NAMES_SHOWN, RANKS_SHOWN = 8, 20, 5


def answer_html(answer: "Answer") -> str:
    """The picture, the most likely names with bars, and the most similar taught pictures."""
    try:
        shown = "" if answer.picture is None else _image(small_picture(answer.picture), 96)
    except InputError:  # the file is gone
        shown = ""
    name = "none of these" if answer.name is None else answer.name
    how = "<p>This picture was taught.</p>" if answer.taught else ""
    bars = "".join(
        f"<tr><td>{escape(other)}</td><td><div style='background: #0072b2; height: .7em; "
        f"width: {120 * probability:.0f}px'></div></td><td>{probability:.1%}</td></tr>"
        for other, probability in answer.ranked(RANKS_SHOWN)
    )
    near = "".join(_image(one.thumbnail, EDGE, f"{one.name} {one.similarity:.2f}") for one in answer.nearest)
    similar = f"<div>most similar: {near}</div>" if near else ""
    return (
        f"<div style='display: flex; gap: 1em; align-items: flex-start'>{shown}<div><b>{escape(name)}</b>{how}"
        f"<table>{bars}</table>{similar}</div></div>"
    )


def taught_html(title: str, pictures: Mapping[str, Sequence[bytes]], sentences: Sequence[str] = ()) -> str:
    """A title, a line of small pictures for each name, and sentences."""
    lines = []
    for name, own in [*pictures.items()][:NAMES_SHOWN]:
        images = "".join(_image(png, EDGE, name) for png in own[:PICTURES_SHOWN])
        more = f" and {len(own) - PICTURES_SHOWN} more" if len(own) > PICTURES_SHOWN else ""
        lines.append(f"<tr><td>{escape(name)}</td><td style='text-align: left'>{images}{more}</td></tr>")
    hidden = len(pictures) - NAMES_SHOWN
    rest = [f"{hidden} more names."] if hidden > 0 else []
    texts = "".join(f"<p>{escape(sentence)}</p>" for sentence in (*rest, *sentences))
    return f"<div><b>{escape(title)}</b><table>{''.join(lines)}</table>{texts}</div>"


def _image(png: bytes, edge: int, label: str = "") -> str:
    """A small picture; its label is shown when the mouse is over it."""
    if not png:
        return ""
    text = escape(label)
    return (
        f"<img src='{data_uri('image/png', png)}' alt='{text}' title='{text}' "
        f"style='max-width: {edge}px; max-height: {edge}px; margin: 1px'>"
    )

"""The elements of the page that show what a session has taught and asked, and their values."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from linkcontext.app import html
from linkcontext.app.events import Events
from linkcontext.app.session import Session


@dataclass(frozen=True)
class View:
    """Elements that several tabs and events change.

    `chosen` has the pictures of the next lesson, `cards` and `names` what is taught, `answers` what is asked,
    `progress` what is being computed, and `head` what names pictures.
    """

    chosen: Any
    cards: Any
    names: Any
    answers: Any
    progress: Any
    head: Any

    @property
    def state(self) -> list[Any]:
        """The elements that follow every change of what is taught."""
        return [self.cards, self.names, self.answers]

    @property
    def everything(self) -> list[Any]:
        """All elements that show something of a session."""
        return [self.progress, self.chosen, *self.state, self.head]

    def answer_after(self, events: Events, end: Any) -> None:
        """Compute the answers that are missing after an event has ended, and show them."""
        events.bind(end.then, _answer, [], [self.progress, self.answers], "answer", has_own_progress=True)


def state(session: Session) -> tuple[Any, Any, Any]:
    """The values of `View.state`."""
    names = gr.Dropdown(choices=session.dialogue.learner.pictures.names, value=None)
    return html.concept_cards(session), names, html.answer_cards(session)


def everything(session: Session) -> tuple[Any, ...]:
    """The values of `View.everything`."""
    return "", html.chosen_pictures(session), *state(session), session.head


def _answer(session: Session) -> Iterator[tuple[str, str]]:
    """What is being computed, and the answers that there are."""
    count = len(session.asked)
    if count > len(session.answers):
        asking = f"Asking about {count} pictures." if count > 1 else "Asking about the picture."
        yield html.notice([session.wait() or asking]), html.answer_cards(session)
        for _ in session.answer():
            yield html.notice([f"{len(session.answers)} of {count} pictures"]), html.answer_cards(session)
    yield "", html.answer_cards(session)

"""The elements of the page's chat."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from linkcontext.app import html
from linkcontext.app.events import Events
from linkcontext.app.session import Session


class ChatElements:
    """The lines of the chat, and the box to write in."""

    def __init__(self) -> None:
        self.lines = gr.HTML(elem_id="chat-lines")
        self.box = gr.MultimodalTextbox(
            show_label=False,
            placeholder="this is a cactihog",
            file_count="multiple",
            sources=["upload"],
            max_plain_text_length=10_000,
            elem_id="chat",
        )

    def bind(self, events: Events, tab: Any) -> None:
        """Bind the events of the elements."""
        events.bind(self.box.submit, _say, [self.box], [self.lines, self.box], has_own_progress=True)
        events.bind(tab.select, html.chat_lines, [], [self.lines])


def _say(session: Session, sent: dict[str, Any]) -> Iterator[tuple[str, None]]:
    text, files = sent["text"].strip(), [Path(file) for file in sent["files"]]
    if text or files:
        session.hear(text, files)
        yield html.chat_lines(session), None
    session.reply()
    yield html.chat_lines(session), None

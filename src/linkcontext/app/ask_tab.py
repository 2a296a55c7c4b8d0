"""The elements of the page that ask about pictures and show the answers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import gradio as gr

from linkcontext.app import html
from linkcontext.app.events import Events
from linkcontext.app.session import Session
from linkcontext.app.teach_tab import camera
from linkcontext.app.view import View, everything, state
from linkcontext.config import HeadName
from linkcontext.evaluation.head_choice import DESCRIPTIONS

# "correct" is sent by the form below an answer. "revisit" is sent when the visitor comes back to the page, which may be
# after hours, or from a second tab: what the page shows may be out of date.
LISTEN = """element.addEventListener("submit", (event) => {
  event.preventDefault();
  const form = event.target;
  trigger("correct", { number: Number(form.dataset.number), name: form.elements.name.value });
});
document.addEventListener("visibilitychange", () => { if (!document.hidden) trigger("revisit", {}); });"""
HEADS = [("auto: the best on your pictures that are left out in turn", "auto")] + [
    (f"{head}: {DESCRIPTIONS[head].rpartition(' (')[0]}", head) for head in get_args(HeadName) if head in DESCRIPTIONS
]


class AskElements:
    """The elements that ask, and those that show the answers."""

    def __init__(self) -> None:
        gr.Markdown("### 2. Ask about others", elem_id="ask")
        self.query = gr.File(
            label="What is this? Drop one picture or several", elem_id="query", file_count="multiple", height=130
        )
        self.camera = camera("ask-camera")
        with gr.Row(elem_classes="lc-row"):
            self.question = gr.Textbox(
                label="Question", placeholder="What is this?", max_lines=1, min_width=160, scale=3
            )
            self.ask = gr.Button("Ask", variant="primary", size="md", min_width=90)
        self.notice = gr.HTML(elem_id="ask-notice")
        self.progress = gr.HTML(elem_id="progress")
        self.answers = gr.HTML(elem_id="answer", js_on_load=LISTEN)
        self.head = gr.Dropdown(label="Pictures are named by", choices=HEADS, value="auto")

    def bind(self, events: Events, view: View) -> None:
        """Bind the events of the elements."""
        results = [self.notice, self.answers]
        for end in (
            events.bind(self.query.upload, _ask, [self.query, self.question], [*results, self.query], show="answer"),
            events.bind(
                self.camera.input, _ask_photo, [self.camera, self.question], [*results, self.camera], show="answer"
            ),
            events.bind(self.ask.click, _ask_again, [self.question], results),
            events.bind(self.question.submit, _ask_again, [self.question], results),
            events.bind(self.head.input, _use_head, [self.head], results),
            events.bind(self.answers.correct, _correct, [], [self.notice, *view.state], carries_data=True),
        ):
            view.answer_after(events, end)
        events.bind(self.answers.revisit, _come_back, [], [self.notice, *view.everything], carries_data=True)


def _ask(session: Session, files: Sequence[str], question: str) -> Any:
    problems = session.ask([Path(file) for file in files], question)
    return html.notice(problems, True), html.answer_cards(session), None


def _ask_photo(session: Session, file: str | None, question: str) -> Any:
    problems = session.ask([Path(file)], question) if file else []
    return html.notice(problems, True), html.answer_cards(session), None


def _ask_again(session: Session, question: str) -> Any:
    session.ask([], question)
    return "", html.answer_cards(session)


def _use_head(session: Session, head: HeadName) -> Any:
    session.use_head(head)
    return "", html.answer_cards(session)


def _correct(session: Session, data: dict[str, Any]) -> Any:
    sentences = session.correct(int(data["number"]), str(data["name"]))
    return html.notice(sentences), *state(session)


def _come_back(session: Session, _: dict[str, Any]) -> Any:
    return gr.skip(), *everything(session)

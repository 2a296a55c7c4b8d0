"""The tabs of the page that teach and ask, and the chat."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from linkcontext.app import html
from linkcontext.app.events import QUEUED, bind
from linkcontext.app.session import Session
from linkcontext.data.images import open_image
from linkcontext.errors import InputError

# The browser's paths of a folder's files, as `page.FOLDER_PATHS` keeps them.
SEND_PATHS = "(session, files, paths) => [session, files, JSON.stringify(window.linkcontextPaths || [])]"


@dataclass(frozen=True, slots=True)
class Taught:
    """The elements that show what is taught, and the results of an example."""

    cards: Any
    names: Any
    changed: Any
    unseen: Any
    beside: Any
    answer: Any

    @property
    def state(self) -> list[Any]:
        """The elements that follow every change of what is taught."""
        return [self.cards, self.names]

    @property
    def example(self) -> list[Any]:
        """The elements that an example fills."""
        return [self.unseen, self.beside, self.answer]


def teach_tab(session: Any, tab: Any) -> None:
    """Add the elements of the tab that teaches and asks, and bind their events."""
    with gr.Row():
        with gr.Column(min_width=320):
            bind_lessons = _lesson_elements(session)
        with gr.Column(min_width=320):
            query = gr.File(label="What is this? Drop a picture", elem_id="query", file_count="single", height=150)
            with gr.Column(visible=False) as beside:
                gr.Markdown("Pictures of the example that were not taught. Click one to ask about it:")
                unseen = gr.Gallery(
                    show_label=False,
                    columns=6,
                    height=120,
                    allow_preview=False,
                    interactive=False,
                    buttons=[],
                    format="png",
                )
            answer = gr.HTML(elem_id="answer")
    gr.Markdown("### Taught")
    cards = gr.HTML(elem_id="taught")
    with gr.Row(elem_classes="lc-row"):
        names = gr.Dropdown(label="Name", choices=[], value=None, min_width=160)
        forget = gr.Button("Forget this name", size="md", min_width=140)
        restart = gr.Button("Start over", size="md", min_width=140)
    taught = Taught(cards, names, gr.HTML(elem_id="changed"), unseen, beside, answer)
    _pack_elements(session, taught)
    bind_lessons(taught)
    bind(query.upload, _ask, [session, query], [answer, query])
    bind(unseen.select, _ask_unseen, [session], [answer], selection=True)
    bind(forget.click, _forget, [session, names], [taught.changed, *taught.state])
    bind(restart.click, _start_over, [session], [taught.changed, *taught.state, *taught.example])
    bind(tab.select, lambda visitor: ("", *_state(visitor)), [session], [taught.changed, *taught.state])


def _lesson_elements(session: Any) -> Any:
    """Add the elements that teach; returns the function that binds their events."""
    name = gr.Textbox(label="Name", placeholder="cactihog", max_lines=1)
    pictures = gr.File(label="Pictures of it", elem_id="pictures", file_count="multiple", height=150)
    teach = gr.Button("Teach", variant="primary")
    notice = gr.HTML(elem_id="notice")
    with gr.Accordion("Many names at once: a folder or a zip", open=False):
        gr.Markdown("One folder of pictures for each name: `cactihog/1.png`, `plimbo/1.png`.")
        folder = gr.File(label="A folder of folders", elem_id="folder", file_count="directory", height=120)
        paths = gr.Textbox(visible=False)
        archive = gr.File(label="A zip of folders", elem_id="archive", file_count="single", height=120)
    with gr.Accordion("Examples to start with", open=True), gr.Row(elem_classes="lc-row"):
        seed = gr.Number(label="World", value=7, precision=0, minimum=0, maximum=999_999_999, min_width=90)
        world = gr.Button("Three invented things", size="md", min_width=140)
        digits = gr.Button("Three handwritten digits", size="md", min_width=140)

    def bind_lessons(taught: Taught) -> None:
        outputs = [notice, *taught.state]
        bind(teach.click, _teach, [session, name, pictures], [*outputs, pictures, name])
        bind(archive.upload, _teach_archive, [session, archive], [*outputs, archive])
        bind(folder.upload, _teach_folder, [session, folder, paths], [*outputs, folder], js=SEND_PATHS)
        outputs += taught.example
        bind(world.click, lambda visitor, n: _example(visitor, f"world:{int(n)}", n), [session, seed], outputs)
        bind(digits.click, lambda visitor, n: _example(visitor, "digits", n), [session, seed], outputs)

    return bind_lessons


def _pack_elements(session: Any, taught: Taught) -> None:
    """Add the elements that save and load packs, and bind their events."""
    with gr.Accordion("Save or load", open=False), gr.Row():
        with gr.Column(min_width=280):
            save = gr.Button("Make a pack")
            saved = gr.File(label="The pack, to download", interactive=False, visible=False)
        pack = gr.File(label="Open a pack", elem_id="pack", file_count="single", height=120, min_width=280)
    bind(save.click, _save, [session], [taught.changed, saved])
    bind(pack.upload, _open_pack, [session, pack], [taught.changed, *taught.state, pack])


def _teach(visitor: Session, name: str, files: list[str] | None) -> Any:
    return html.notice(visitor.teach(name, _paths(files))), *_state(visitor), None, ""


def _teach_archive(visitor: Session, file: str) -> Any:
    return html.notice(visitor.teach_archive(Path(file))), *_state(visitor), None


def _teach_folder(visitor: Session, files: list[str], listed: str) -> Any:
    names = json.loads(listed)
    if len(names) != len(files):
        raise InputError("the browser did not send the paths of the folder's files. Choose it again, or send a zip.")
    return html.notice(visitor.teach_folder(dict(zip(names, _paths(files), strict=True)))), *_state(visitor), None


def _example(visitor: Session, spec: str, number: float) -> Any:
    sentences = visitor.teach_example(spec, int(number))
    images = [open_image(path) for path in visitor.unseen]
    gallery = gr.Gallery(images, selected_index=None)
    return html.notice(sentences), *_state(visitor), gallery, gr.Column(visible=True), ""


def _ask(visitor: Session, file: str) -> Any:
    return html.answer_card(visitor, *visitor.ask(Path(file))), None


def _ask_unseen(visitor: Session, selected: gr.SelectData) -> Any:
    return html.answer_card(visitor, *visitor.ask_unseen(int(selected.index)))


def _forget(visitor: Session, name: str | None) -> Any:
    if not name:
        raise InputError("choose a name to forget.")
    return html.notice([visitor.dialogue.forget(name).text]), *_state(visitor)


def _save(visitor: Session) -> Any:
    return html.notice(["The pack is ready."]), gr.File(str(visitor.save_pack()), visible=True)


def _open_pack(visitor: Session, file: str) -> Any:
    return html.notice(visitor.open_pack(Path(file))), *_state(visitor), None


def _start_over(visitor: Session) -> Any:
    visitor.restart()
    return html.notice(["Everything is forgotten."]), *_state(visitor), gr.Gallery([]), gr.Column(visible=False), ""


def chat_tab(session: Any, tab: Any) -> None:
    """Add the elements of the chat and bind their events."""
    lines = gr.HTML(elem_id="chat")
    box = gr.MultimodalTextbox(
        show_label=False,
        placeholder="this is a cactihog",
        file_count="multiple",
        sources=["upload"],
        max_plain_text_length=10_000,
    )

    def say(visitor: Session, sent: dict[str, Any]) -> Any:
        if sent["text"].strip() or sent["files"]:
            visitor.say(sent["text"].strip(), _paths(sent["files"]))
        return html.chat_lines(visitor), None

    box.submit(say, [session, box], [lines, box], **QUEUED)
    tab.select(html.chat_lines, [session], [lines], **QUEUED)


def _state(visitor: Session) -> tuple[Any, Any]:
    """The values of `Taught.state`."""
    return html.concept_cards(visitor), gr.Dropdown(choices=visitor.dialogue.learner.pictures.names, value=None)


def _paths(files: Sequence[str] | None) -> list[Path]:
    return [Path(file) for file in files or ()]

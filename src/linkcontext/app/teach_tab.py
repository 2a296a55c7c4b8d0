"""The elements of the page that teach, show what is taught, and keep it in packs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from linkcontext.app import html
from linkcontext.app.events import Events
from linkcontext.app.packs import open_pack, save_pack
from linkcontext.app.session import Session
from linkcontext.app.view import View, everything, state
from linkcontext.errors import InputError

# The browser's paths of a folder's files, as page.js keeps them.
SEND_PATHS = "(key, files, paths) => [key, files, JSON.stringify(window.linkcontextPaths || [])]"
REMOVE = """element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-number]");
  if (button) trigger("remove", { number: Number(button.dataset.number) });
});"""


def camera(elem_id: str) -> Any:
    """A camera in a part of the page that is closed at first."""
    with gr.Accordion("Camera", open=False):
        return gr.Image(
            show_label=False,
            sources=["webcam"],
            type="filepath",
            elem_id=elem_id,
            height=240,
            webcam_options=gr.WebcamOptions(mirror=False),
        )


class LessonElements:
    """The elements that teach names, one at a time or many at once."""

    def __init__(self) -> None:
        gr.Markdown("### 1. Show it what things are called")
        self.name = gr.Textbox(label="Name", placeholder="cactihog", max_lines=1)
        self.pictures = gr.File(label="Pictures of it", elem_id="pictures", file_count="multiple", height=130)
        self.camera = camera("teach-camera")
        self.chosen = gr.HTML(elem_id="chosen", js_on_load=REMOVE)
        self.teach = gr.Button("Teach", variant="primary")
        self.notice = gr.HTML(elem_id="notice")
        with gr.Accordion("Many names at once: a folder or a zip", open=False):
            gr.Markdown("One folder of pictures for each name: `cactihog/1.png`, `plimbo/1.png`.")
            self.folder = gr.File(label="A folder of folders", elem_id="folder", file_count="directory", height=120)
            self.paths = gr.Textbox(visible=False)
            self.archive = gr.File(label="A zip of folders", elem_id="archive", file_count="single", height=120)
        with gr.Accordion("No pictures at hand? Examples to start with", open=True), gr.Row(elem_classes="lc-row"):
            self.world = gr.Button("Three invented things", size="md", min_width=140)
            self.digits = gr.Button("Three handwritten digits", size="md", min_width=140)
            self.seed = gr.Number(
                label="Example number", value=7, precision=0, minimum=0, maximum=999_999_999, min_width=90
            )

    def bind(self, events: Events, view: View) -> None:
        """Bind the events of the elements."""
        changed = [self.notice, *view.state]
        choosing = [self.notice, self.chosen]
        for event in (self.teach.click, self.name.submit):
            events.bind(event, _teach, [self.name], [*changed, self.chosen, self.name])
        events.bind(self.pictures.upload, _choose, [self.pictures], [*choosing, self.pictures])
        events.bind(self.camera.input, _choose_photo, [self.camera], [*choosing, self.camera])
        events.bind(self.chosen.remove, _unchoose, [], choosing, carries_data=True)
        events.bind(self.archive.upload, _teach_archive, [self.archive], [*changed, self.archive])
        events.bind(
            self.folder.upload, _teach_folder, [self.folder, self.paths], [*changed, self.folder], js=SEND_PATHS
        )
        for button, spec in ((self.world, "world:{}"), (self.digits, "digits")):
            end = events.bind(button.click, _example_of(spec), [self.seed], [self.notice, *view.everything], show="ask")
            view.answer_after(events, end)


class TaughtElements:
    """The elements that show what is taught, forget it, and save or load it."""

    def __init__(self) -> None:
        gr.Markdown("### Taught")
        self.cards = gr.HTML(elem_id="taught")
        self.notice = gr.HTML(elem_id="changed")
        with gr.Row(elem_classes="lc-row"):
            self.names = gr.Dropdown(label="A taught name", choices=[], value=None, min_width=160)
            self.forget = gr.Button("Forget this name", size="md", min_width=140)
            self.restart = gr.Button("Start over", size="md", min_width=140)
        with gr.Accordion("Save or load", open=False), gr.Row():
            with gr.Column(min_width=280):
                self.save = gr.Button("Make a pack")
                self.saved = gr.File(label="The pack, to download", interactive=False, visible=False)
            self.pack = gr.File(label="Open a pack", elem_id="pack", file_count="single", height=120, min_width=280)

    def bind(self, events: Events, view: View) -> None:
        """Bind the events of the elements."""
        events.bind(self.forget.click, _forget, [self.names], [self.notice, *view.state])
        events.bind(self.restart.click, _start_over, [], [self.notice, *view.everything])
        events.bind(self.save.click, _save, [], [self.notice, self.saved])
        events.bind(self.pack.upload, _open_pack, [self.pack], [self.notice, *view.everything, self.pack])


def _teach(session: Session, name: str) -> Any:
    return html.notice(session.teach(name)), *state(session), html.chosen_pictures(session), ""


def _choose(session: Session, files: Sequence[str]) -> Any:
    return html.notice(session.choose([Path(file) for file in files]), True), html.chosen_pictures(session), None


def _choose_photo(session: Session, file: str | None) -> Any:
    problems = session.choose([Path(file)]) if file else []
    return html.notice(problems, True), html.chosen_pictures(session), None


def _unchoose(session: Session, data: dict[str, Any]) -> Any:
    session.unchoose(int(data["number"]))
    return "", html.chosen_pictures(session)


def _teach_archive(session: Session, file: str) -> Any:
    return html.notice(session.teach_archive(Path(file))), *state(session), None


def _teach_folder(session: Session, files: list[str], listed: str) -> Any:
    names = json.loads(listed)
    if len(names) != len(files):
        raise InputError("the browser did not send the paths of the folder's files. Choose it again, or send a zip.")
    paths = dict(zip(names, map(Path, files), strict=True))
    return html.notice(session.teach_folder(paths)), *state(session), None


def _example_of(spec: str) -> Any:
    def teach_example(session: Session, number: float | None) -> Any:
        seed = int(number or 0)
        return html.notice(session.teach_example(spec.format(seed), seed)), *everything(session)

    return teach_example


def _forget(session: Session, name: str | None) -> Any:
    if not name:
        raise InputError("choose a name to forget.")
    return html.notice([session.forget(name)]), *state(session)


def _start_over(session: Session) -> Any:
    session.restart()
    return html.notice(["Everything is forgotten."]), *everything(session)


def _save(session: Session) -> Any:
    return html.notice(["The pack is ready."]), gr.File(str(save_pack(session)), visible=True)


def _open_pack(session: Session, file: str) -> Any:
    return html.notice(open_pack(session, Path(file))), *everything(session), None

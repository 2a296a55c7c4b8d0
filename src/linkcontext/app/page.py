"""`linkcontext app`: a web page to teach, ask and chat, and to look at runs. It asks no other machine for anything.

The model is one and everything that uses it waits its turn; what was taught is each visitor's own.
"""

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from linkcontext.app import html, runs
from linkcontext.app.session import Session
from linkcontext.data.images import open_image
from linkcontext.data.uploads import UPLOAD_BYTES
from linkcontext.errors import InputError
from linkcontext.models.loading import Model

try:
    import gradio as gr
    from starlette.datastructures import Headers
    from starlette.middleware import Middleware
    from starlette.responses import PlainTextResponse

    from linkcontext.serve.access import Hosts
except ImportError as missing:
    raise InputError("linkcontext app needs the gradio package: pip install 'linkcontext[app]'.") from missing

SHARED = Hosts(domains=("gradio.live",))  # a public address of Gradio's
WAITING = 32  # requests in the queue; a further one is told so
KEPT_S = 24 * 3600  # uploads of abandoned pages are removed after a day
FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
MONO = ("ui-monospace", "Menlo", "Consolas", "monospace")
# What a browser may load: what the page brings itself. Gradio builds functions of its own from text.
POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'self'; form-action 'self'"
)
# A browser sends the files of a folder without their folders. Their paths come beside them, as texts.
FOLDER_PATHS = """<script>
document.addEventListener("change", (event) => {
  const files = event.target.files;
  if (files && event.target.webkitdirectory) window.linkcontextPaths = Array.from(files, (f) => f.webkitRelativePath);
}, true);
</script>"""
SEND_PATHS = "(session, files, paths) => [session, files, JSON.stringify(window.linkcontextPaths || [])]"
CSS = """
.lc-cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 11rem), 1fr)); gap: .7rem; }
.lc-cards figure { margin: 0; padding: .6rem; border: 1px solid var(--border-color-primary); border-radius: .5rem; }
.lc-cards figcaption { overflow-wrap: anywhere; font-weight: 600; margin-bottom: .3rem; }
.lc-cards div, .lc-nearest, .lc-line div { display: flex; flex-wrap: wrap; gap: .3rem; }
img.lc-small { width: 48px; height: 48px; object-fit: contain; border-radius: .25rem; }
img.lc-large { width: 128px; height: 128px; object-fit: contain; border-radius: .4rem; flex: none; }
.lc-quiet { opacity: .75; font-weight: 400; font-size: .9em; margin: .4rem 0; }
.lc-row { align-items: end; }
.lc-told { border-left: 4px solid var(--color-accent); padding: .1rem .8rem; overflow-wrap: anywhere; }
.lc-told p { margin: .3rem 0; }
.lc-wrong { border-color: #c62828; }
.lc-answer { display: flex; gap: 1rem; flex-wrap: wrap; }
.lc-answer > div { flex: 1 1 12rem; min-width: 0; }
.lc-name { font-size: 1.5rem; font-weight: 600; margin: 0 0 .4rem; overflow-wrap: anywhere; }
.lc-bars { list-style: none !important; padding: 0 !important; margin: 0; }
.lc-bars li { display: grid; grid-template-columns: minmax(0, 7rem) 1fr 4rem; gap: .5rem; align-items: center;
  margin: .15rem 0; }
.lc-bars bdi { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.lc-bars li > span:last-child { text-align: right; font-variant-numeric: tabular-nums; }
.lc-track { background: var(--border-color-primary); border-radius: .3rem; height: .7rem; overflow: hidden; }
.lc-track span { display: block; height: 100%; background: var(--color-accent); }
.lc-nearest figure { margin: 0; width: 6rem; } .lc-nearest figcaption { font-size: .85em; overflow-wrap: anywhere; }
/* Newest first and laid out from below: what was said last is in sight without a script. */
.lc-chat { display: flex; flex-direction: column-reverse; gap: .5rem; max-height: 65vh; overflow-y: auto; }
.lc-line { max-width: 85%; padding: .5rem .8rem; border-radius: .8rem; align-self: flex-start; overflow-wrap: anywhere;
  background: var(--background-fill-secondary); border: 1px solid var(--border-color-primary); }
.lc-line p { margin: .15rem 0; }
.lc-you { align-self: flex-end; background: var(--color-accent-soft); }
.lc-sorry { border-left: 4px solid #c62828; }
.lc-scroll { overflow-x: auto; } .lc-scroll td, .lc-scroll th { padding: .3rem .6rem; text-align: left; }
.lc-report { width: 100%; height: 80vh; border: 1px solid var(--border-color-primary); border-radius: .5rem; }
"""


def serve(model: Model, root: Path, port: int | None = None, share: bool = False) -> None:
    """Serve the page on this machine until it is stopped; with `share` on a public address of Gradio's too."""
    with tempfile.TemporaryDirectory(prefix="linkcontext-") as folder:
        launch(model, root, Path(folder), port, share).block_thread()


def launch(model: Model, root: Path, folder: Path, port: int | None = None, share: bool = False) -> Any:
    """Start the page and return it (a `gradio.Blocks`). What is sent is kept below `folder`."""
    os.environ["GRADIO_TEMP_DIR"] = str(folder / "uploads")  # the usual one is everybody's
    page = build(model, root, folder)
    page.queue(max_size=WAITING)
    try:
        page.launch(
            server_name="127.0.0.1",
            server_port=port,
            share=share,
            quiet=not share,
            prevent_thread_lock=True,
            max_file_size=UPLOAD_BYTES,
            footer_links=[],
            ssr_mode=False,
            theme=gr.themes.Base(font=FONT, font_mono=MONO),
            css=CSS,
            head=FOLDER_PATHS,
            app_kwargs={
                "middleware": [Middleware(Inside, hosts=SHARED if share else Hosts())],
                "docs_url": None,
                "redoc_url": None,
            },
        )
    except OSError as error:
        if port is None:
            raise InputError(f"the page cannot be served: {error} Say one that is free: --port NUMBER.") from error
        raise InputError(f"--port {port}: cannot be served there. Is something else there? Choose another.") from error
    return page


class Inside:
    """Refuses requests that a page of another origin sends, and tells browsers to load nothing from elsewhere."""

    def __init__(self, app: Any, hosts: Hosts) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Refuse a request, or add the header to its answer."""

        async def sent(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode())]
            await send(message)

        if scope["type"] == "http" and (refused := self.hosts.refusal(Headers(scope=scope))):
            await PlainTextResponse(refused, 403, {"Connection": "close"})(scope, receive, send)
        else:
            await self.app(scope, receive, sent if scope["type"] == "http" else send)


def build(model: Model, root: Path, folder: Path) -> Any:
    """The page, not yet served."""

    def arrive() -> Session:
        return Session(model, Path(tempfile.mkdtemp(dir=folder)))

    with gr.Blocks(title="linkcontext", analytics_enabled=False, delete_cache=(3600, KEPT_S)) as page:
        session = gr.State(arrive, delete_callback=Session.close)
        gr.Markdown(
            f"# linkcontext\nShow **{_plain(model.name)}** a few pictures of something, say what it is called, and ask "
            "about others. Nothing is trained; what was shown stands in front of every question."
        )
        with gr.Tab("Teach & ask") as teaching:
            _teach_tab(session, teaching)
        with gr.Tab("Chat") as talking:
            _chat_tab(session, talking)
        with gr.Tab("Runs") as looking:
            _runs_tab(root, looking)
    return page


def _teach_tab(session: Any, tab: Any) -> None:
    with gr.Row():
        with gr.Column(min_width=320):
            name = gr.Textbox(label="Name", placeholder="cactihog", max_lines=1)
            pictures = gr.File(label="Pictures of it", elem_id="pictures", file_count="multiple", height=150)
            teach = gr.Button("Teach", variant="primary")
            told = gr.HTML(elem_id="told")
            with gr.Accordion("Many names at once: a folder or a zip", open=False):
                gr.Markdown("One folder of pictures for each name: `cactihog/1.png`, `plimbo/1.png`.")
                folder = gr.File(label="A folder of folders", elem_id="folder", file_count="directory", height=120)
                paths = gr.Textbox(visible=False)
                archive = gr.File(label="A zip of folders", elem_id="archive", file_count="single", height=120)
            with gr.Accordion("Examples to start with", open=True), gr.Row(elem_classes="lc-row"):
                seed = gr.Number(label="World", value=7, precision=0, minimum=0, maximum=999_999_999, min_width=90)
                world = gr.Button("Three invented things", size="md", min_width=140)
                digits = gr.Button("Three handwritten digits", size="md", min_width=140)
        with gr.Column(min_width=320):
            asked = gr.File(label="What is this? Drop a picture", elem_id="asked", file_count="single", height=150)
            with gr.Column(visible=False) as beside:
                gr.Markdown("Pictures of the example that it has not seen. Choose one to ask:")
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
    taught = gr.HTML(elem_id="taught")
    with gr.Row(elem_classes="lc-row"):
        which = gr.Dropdown(label="Name", choices=[], value=None, min_width=160)
        forget = gr.Button("Forget this name", size="md", min_width=140)
        restart = gr.Button("Start over", size="md", min_width=140)
    changed = gr.HTML(elem_id="changed")
    with gr.Accordion("Keep what was taught, or open what was kept", open=False), gr.Row():
        with gr.Column(min_width=280):
            save = gr.Button("Make a pack")
            saved = gr.File(label="The pack, to download", interactive=False, visible=False)
        kept = gr.File(label="Open a pack", elem_id="pack", file_count="single", height=120, min_width=280)
    state, example = [taught, which], [unseen, beside, answer]
    _on(teach.click, _teach_one, [session, name, pictures], [told, *state, pictures, name])
    _on(archive.upload, _teach_archive, [session, archive], [told, *state, archive])
    _on(folder.upload, _teach_folder, [session, folder, paths], [told, *state, folder], js=SEND_PATHS)
    _on(world.click, lambda s, n: _example(s, f"world:{int(n)}", n), [session, seed], [told, *state, *example])
    _on(digits.click, lambda s, n: _example(s, "digits", n), [session, seed], [told, *state, *example])
    _on(asked.upload, _ask, [session, asked], [answer, asked])
    _on(unseen.select, _ask_unseen, [session], [answer], chosen=True)
    _on(save.click, _save, [session], [changed, saved])
    _on(kept.upload, _open_pack, [session, kept], [changed, *state, kept])
    _on(forget.click, _forget_one, [session, which], [changed, *state])
    _on(restart.click, _start_over, [session], [changed, *state, *example])
    _on(tab.select, lambda visitor: ("", *_state(visitor)), [session], [changed, *state])


def _teach_one(visitor: Session, called: str, files: list[str] | None) -> Any:
    return html.told(visitor.teach(called, _paths(files))), *_state(visitor), None, ""


def _teach_archive(visitor: Session, file: str) -> Any:
    return html.told(visitor.teach_archive(Path(file))), *_state(visitor), None


def _teach_folder(visitor: Session, files: list[str], listed: str) -> Any:
    names = json.loads(listed)
    if len(names) != len(files):
        raise InputError("the browser did not say in which folders the files lie. Choose it again, or send a zip.")
    return html.told(visitor.teach_folder(dict(zip(names, _paths(files), strict=True)))), *_state(visitor), None


def _example(visitor: Session, spec: str, number: float) -> Any:
    said = visitor.teach_example(spec, int(number))
    small = [open_image(path) for path in visitor.unseen]
    return html.told(said), *_state(visitor), gr.Gallery(small, selected_index=None), gr.Column(visible=True), ""


def _ask(visitor: Session, file: str) -> Any:
    return html.answered(visitor, *visitor.ask(Path(file))), None


def _ask_unseen(visitor: Session, chosen: gr.SelectData) -> Any:
    return html.answered(visitor, *visitor.ask_unseen(int(chosen.index)))


def _forget_one(visitor: Session, called: str | None) -> Any:
    if not called:
        raise InputError("choose a name to forget.")
    return html.told([visitor.dialogue.forget(called).text]), *_state(visitor)


def _save(visitor: Session) -> Any:
    return html.told(["The pack is made."]), gr.File(str(visitor.save_pack()), visible=True)


def _open_pack(visitor: Session, file: str) -> Any:
    return html.told(visitor.open_pack(Path(file))), *_state(visitor), None


def _start_over(visitor: Session) -> Any:
    visitor.restart()
    return html.told(["Everything is forgotten."]), *_state(visitor), gr.Gallery([]), gr.Column(visible=False), ""


def _chat_tab(session: Any, tab: Any) -> None:
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
        return html.chat(visitor), None

    event = box.submit
    event(say, [session, box], [lines, box], **_QUEUED)
    tab.select(html.chat, [session], [lines], **_QUEUED)


def _runs_tab(root: Path, tab: Any) -> None:
    with gr.Row():
        first = gr.Dropdown(label="Run", choices=[], value=None, min_width=200)
        second = gr.Dropdown(label="Compare with", choices=[], value=None, min_width=200)
    with gr.Row():
        show = gr.Button("Open the report", variant="primary")
        beside = gr.Button("Compare the two")
    told, page = gr.HTML(), gr.HTML(elem_id="run")

    def listed() -> Any:
        names = runs.run_names(root)
        told = [] if names else ["No runs yet: linkcontext eval makes them, and --runs says where they lie."]
        return html.told(told), gr.Dropdown(choices=names), gr.Dropdown(choices=names)

    _on(tab.select, listed, [], [told, first, second], queued=False)

    def opened(name: str | None) -> Any:
        return html.told([]), runs.report(root, name)

    def compared(a: str | None, b: str | None) -> Any:
        return html.told([]), runs.comparison(root, a, b)

    _on(show.click, opened, [first], [told, page], queued=False)
    _on(beside.click, compared, [first, second], [told, page], queued=False)


# The model is one: whatever uses it waits for what came before.
_QUEUED: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model", "api_visibility": "private"}


def _on(
    event: Any,
    act: Callable[..., Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    js: str | None = None,
    queued: bool = True,
    chosen: bool = False,
) -> None:
    """Bind an event. What cannot be done is a sentence in the first output; what was sent is put away."""

    def guarded(*given: Any) -> Any:
        try:
            return act(*given)
        except InputError as error:
            others = [None if isinstance(output, gr.File) else gr.skip() for output in outputs[1:]]
            sentence = html.told([str(error)], True)
            return [sentence, *others] if others else sentence

    def guarded_choice(visitor: Session, choice: gr.SelectData) -> Any:
        return guarded(visitor, choice)

    options = _QUEUED if queued else {"api_visibility": "private"}
    event(guarded_choice if chosen else guarded, list(inputs), list(outputs), js=js, **options)


def _state(visitor: Session) -> tuple[Any, Any]:
    return html.taught(visitor), gr.Dropdown(choices=list(visitor.dialogue.learner.shown), value=None)


def _plain(text: str) -> str:
    """A model's name without what Markdown would make something of."""
    return "".join(letter for letter in text if letter.isalnum() or letter in "-./ ")


def _paths(files: Sequence[str] | None) -> list[Path]:
    return [Path(file) for file in files or ()]

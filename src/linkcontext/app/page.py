"""`linkcontext app`: a web page to teach, ask and chat, and to look at runs. It loads nothing from other machines.

All visitors share one model, and requests that use it wait for each other. Every visitor has a learner of their own.
"""

import os
import tempfile
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

from linkcontext.app.session import Session
from linkcontext.app.visitors import Visitors
from linkcontext.config import HeadName
from linkcontext.data.uploads import UPLOAD_BYTES
from linkcontext.errors import InputError
from linkcontext.scoring.local import scoring_model
from linkcontext.scoring.protocol import ScoringModel

try:
    import gradio as gr
    from gradio.http_server import INITIAL_PORT_VALUE  # the first port that is tried
    from starlette.datastructures import Headers
    from starlette.middleware import Middleware
    from starlette.responses import PlainTextResponse

    from linkcontext.app import html
    from linkcontext.app.ask_tab import AskElements
    from linkcontext.app.chat_tab import ChatElements
    from linkcontext.app.events import UNQUEUED, Events
    from linkcontext.app.runs_tab import runs_tab
    from linkcontext.app.teach_tab import LessonElements, TaughtElements
    from linkcontext.app.view import View, everything
    from linkcontext.serve.access import LOOPBACK, Hosts
except ImportError as missing:
    raise InputError("linkcontext app needs the gradio package: pip install 'gradio>=6'.") from missing

SHARED = Hosts(domains=("gradio.live",))  # public addresses of Gradio
MAX_QUEUE = 32  # requests; a further one gets a message
UPLOADS_S = 24 * 3600  # after which the uploads of abandoned pages are removed
FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
MONO = ("ui-monospace", "Menlo", "Consolas", "monospace")
# A browser may load nothing but what the page brings. Gradio needs unsafe-eval: it builds functions from text.
POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'self'; form-action 'self'"
)


def serve_page(
    model: ScoringModel,
    root: Path,
    port: int | None = None,
    share: bool = False,
    head: HeadName = "auto",
    ready: Callable[[str, list[str]], None] = lambda address, sentences: None,
) -> None:
    """Serve the page on this machine until it is stopped; with `share` on a public address of Gradio, too.

    `ready` is called once it is served, with its address on this machine and sentences for the user.
    """
    with tempfile.TemporaryDirectory(prefix="linkcontext-") as folder:
        page = launch(model, root, Path(folder), port, share, head)
        ready(page.local_url, addresses(page, port, share))
        page.block_thread()


def addresses(page: Any, port: int | None, share: bool = False) -> list[str]:
    """Sentences about where a page is served, and why not where `port` and `share` asked for it."""
    sentences = []
    if port is None and page.server_port != INITIAL_PORT_VALUE:
        sentences.append(f"Port {INITIAL_PORT_VALUE} is in use by another program, so this page uses another one.")
    sentences.append(f"linkcontext app: {page.local_url} (Ctrl-C stops it)")
    if share:
        sentences.append(
            f"public address: {page.share_url}"
            if page.share_url
            else "There is no public address: Gradio's servers could not be reached."
        )
    return sentences


def launch(
    model: ScoringModel,
    root: Path,
    folder: Path,
    port: int | None = None,
    share: bool = False,
    head: HeadName = "auto",
) -> Any:
    """Start the page and return it (a `gradio.Blocks`). Uploads are stored below `folder`.

    Raises `InputError` if the port cannot be used.
    """
    os.environ["GRADIO_TEMP_DIR"] = str(folder / "uploads")  # Gradio's default is shared by all users of the machine
    page = build_page(model, root, folder, head)
    page.queue(max_size=MAX_QUEUE)
    own = resources.files("linkcontext.app")
    try:
        page.launch(
            server_name="127.0.0.1",
            server_port=port,
            share=share,
            quiet=True,
            prevent_thread_lock=True,
            max_file_size=UPLOAD_BYTES,
            footer_links=[],
            ssr_mode=False,
            theme=gr.themes.Base(font=FONT, font_mono=MONO),
            css=own.joinpath("style.css").read_text(encoding="utf-8"),
            head=f"<script>{own.joinpath('page.js').read_text(encoding='utf-8')}</script>",
            app_kwargs={
                "middleware": [Middleware(SameOrigin, hosts=SHARED if share else LOOPBACK)],
                "docs_url": None,
                "redoc_url": None,
            },
        )
    except OSError as error:
        if port is None:
            raise InputError(f"the page cannot be served: {error} Choose a free port: --port NUMBER.") from error
        raise InputError(
            f"--port {port}: the page cannot be served on this port. Is it in use? Choose another."
        ) from error
    return page


class SameOrigin:
    """An ASGI middleware that refuses requests from pages of other origins and adds a content security policy."""

    def __init__(self, app: Any, hosts: Hosts) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Refuse a request, or pass it on and add the policy to its response."""

        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode())]
            await send(message)

        if scope["type"] == "http" and (refused := self.hosts.refusal(Headers(scope=scope))):
            await PlainTextResponse(refused, 403, {"Connection": "close"})(scope, receive, send)
        else:
            await self.app(scope, receive, send_with_policy if scope["type"] == "http" else send)


def build_page(model: ScoringModel, root: Path, folder: Path, head: HeadName = "auto") -> Any:
    """Build the page (a `gradio.Blocks`) without serving it."""
    model = scoring_model(model)
    visitors = Visitors(lambda: Session(model, Path(tempfile.mkdtemp(dir=folder)), head))
    with gr.Blocks(title="linkcontext", analytics_enabled=False, delete_cache=(3600, UPLOADS_S)) as page:
        key = gr.BrowserState("", storage_key="linkcontext", secret="linkcontext")
        events = Events(visitors, key)
        gr.Markdown(
            f"# linkcontext\nShow **{_plain(model.card.name)}** a few pictures of something, say what it is called, "
            "and ask about others. The model's weights do not change."
        )
        with gr.Tab("Teach & ask") as teach_tab, gr.Row():
            with gr.Column(min_width=320):
                lessons = LessonElements()
                taught = TaughtElements()
            with gr.Column(min_width=320):
                asking = AskElements()
        with gr.Tab("Chat") as chat_tab:
            chat = ChatElements()
        with gr.Tab("Runs") as tab:
            runs_tab(root, tab)
        view = View(lessons.chosen, taught.cards, taught.names, asking.answers, asking.progress, asking.head)
        for elements in (lessons, asking, taught):
            elements.bind(events, view)
        events.bind(teach_tab.select, everything, [], view.everything)
        chat.bind(events, chat_tab)

        # The key does not wait for the model, which another visitor may use; what the session has to show does.
        opened = page.load(visitors.open, [key], [key], **UNQUEUED)
        events.bind(opened.then, everything, [], view.everything)
        events.bind(opened.then, html.chat_lines, [], [chat.lines])
    return page


def _plain(text: str) -> str:
    """A model's name without characters that have a meaning in Markdown."""
    return "".join(letter for letter in text if letter.isalnum() or letter in "-./ ")

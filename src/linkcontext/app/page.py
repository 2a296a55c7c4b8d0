"""`linkcontext app`: a web page to teach, ask and chat, and to look at runs. It loads nothing from other machines.

All visitors share one model, and requests that use it wait for each other. Every visitor has a learner of their own.
"""

import os
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

from linkcontext.app.session import Session
from linkcontext.data.uploads import UPLOAD_BYTES
from linkcontext.errors import InputError
from linkcontext.scoring.local import scoring_model
from linkcontext.scoring.protocol import ScoringModel

try:
    import gradio as gr
    from starlette.datastructures import Headers
    from starlette.middleware import Middleware
    from starlette.responses import PlainTextResponse

    from linkcontext.app.runs_tab import runs_tab
    from linkcontext.app.tabs import chat_tab, teach_tab
    from linkcontext.serve.access import LOOPBACK, Hosts
except ImportError as missing:
    raise InputError("linkcontext app needs the gradio package: pip install 'linkcontext[app]'.") from missing

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
# A browser sends the files of a folder without their paths. This script keeps the paths, which are sent as a text.
FOLDER_PATHS = """<script>
document.addEventListener("change", (event) => {
  const files = event.target.files;
  if (files && event.target.webkitdirectory) window.linkcontextPaths = Array.from(files, (f) => f.webkitRelativePath);
}, true);
</script>"""


def serve_page(model: ScoringModel, root: Path, port: int | None = None, share: bool = False) -> None:
    """Serve the page on this machine until it is stopped; with `share` on a public address of Gradio, too."""
    with tempfile.TemporaryDirectory(prefix="linkcontext-") as folder:
        launch(model, root, Path(folder), port, share).block_thread()


def launch(model: ScoringModel, root: Path, folder: Path, port: int | None = None, share: bool = False) -> Any:
    """Start the page and return it (a `gradio.Blocks`). Uploads are stored below `folder`.

    Raises `InputError` if the port cannot be used.
    """
    os.environ["GRADIO_TEMP_DIR"] = str(folder / "uploads")  # Gradio's default is shared by all users of the machine
    page = build_page(model, root, folder)
    page.queue(max_size=MAX_QUEUE)
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
            css=resources.files("linkcontext.app").joinpath("style.css").read_text(encoding="utf-8"),
            head=FOLDER_PATHS,
            app_kwargs={
                "middleware": [Middleware(SameOrigin, hosts=SHARED if share else LOOPBACK)],
                "docs_url": None,
                "redoc_url": None,
            },
        )
    except OSError as error:
        if port is None:
            raise InputError(f"the page cannot be served: {error} Choose a free port: --port NUMBER.") from error
        raise InputError(f"--port {port}: cannot be served there. Is the port in use? Choose another.") from error
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


def build_page(model: ScoringModel, root: Path, folder: Path) -> Any:
    """Build the page (a `gradio.Blocks`) without serving it."""
    model = scoring_model(model)

    def new_session() -> Session:
        return Session(model, Path(tempfile.mkdtemp(dir=folder)))

    with gr.Blocks(title="linkcontext", analytics_enabled=False, delete_cache=(3600, UPLOADS_S)) as page:
        session = gr.State(new_session, delete_callback=Session.close)
        gr.Markdown(
            f"# linkcontext\nShow **{_plain(model.card.name)}** a few pictures of something, say what it is called, "
            "and ask about others. The model's weights do not change."
        )
        with gr.Tab("Teach & ask") as tab:
            teach_tab(session, tab)
        with gr.Tab("Chat") as tab:
            chat_tab(session, tab)
        with gr.Tab("Runs") as tab:
            runs_tab(root, tab)
    return page


def _plain(text: str) -> str:
    """A model's name without characters that have a meaning in Markdown."""
    return "".join(letter for letter in text if letter.isalnum() or letter in "-./ ")

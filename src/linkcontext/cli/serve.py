"""The commands that serve a model: app, a web page on this machine, and serve, an endpoint for OpenAI clients."""

import importlib.util
import math
import os
import sys
import webbrowser
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from linkcontext.cli.teach import TrustPack
from linkcontext.cli.terminal import console
from linkcontext.config import HeadName, ModelConfig
from linkcontext.errors import InputError
from linkcontext.metavars import WITHOUT_DEFAULT, Folder, NameList, OptionalCount, OptionalText

if TYPE_CHECKING:
    from linkcontext.serve.openai_protocol import Limits


@dataclass(frozen=True, slots=True)
class App:
    """Serve a web page on this machine to teach, ask and chat, and to look at runs. It needs the gradio package."""

    model: Annotated[ModelConfig, tyro.conf.arg(name="model")] = field(default_factory=ModelConfig)
    runs: Folder = "runs"
    """The folder whose runs are listed."""
    port: OptionalCount = None
    """Default: the first free port from 7860."""
    head: HeadName = "auto"
    """What names pictures at first; it can be changed on the page (see `linkcontext teach --help`)."""
    no_open: bool = False
    """Do not open the page in a browser. It is not opened either where there is no display."""
    share: bool = False
    """Serve the page on a public address of Gradio's servers, too. Anyone who knows the address can use it."""

    def run(self) -> None:
        """Serve the page until stopped."""
        from linkcontext.app.page import serve_page
        from linkcontext.evaluation.open_model import open_model

        if self.port is not None:
            _check_port(self.port, 1)
        console.print(f"Loading {self.model.model} ...", markup=False, soft_wrap=True)
        serve_page(open_model(self.model), Path(self.runs), self.port, self.share, self.head, self._ready)

    def _ready(self, address: str, sentences: list[str]) -> None:
        """Print where the page is, and open it in a browser."""
        for sentence in sentences:
            console.print(sentence, markup=False, soft_wrap=True)
        if not self.no_open and _has_display():
            webbrowser.open(address)


@dataclass(frozen=True, slots=True)
class Serve:
    """Serve a model and packs over OpenAI's chat protocol (docs/serve.md)."""

    model: Annotated[ModelConfig, tyro.conf.arg(name="model")] = field(default_factory=ModelConfig)
    pack: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=FILE ...", help_behavior_hint="")] = ()
    """NAME=FILE: a pack that `linkcontext teach` wrote. Requests for the model NAME are answered after its
    pictures."""
    head: Annotated[HeadName | None, tyro.conf.DisallowNone, WITHOUT_DEFAULT] = None
    """What names a picture when a client's first message asks just for its name: lm, the model itself, or
    another head of `linkcontext teach`. Default: the pack's head. The model answers all other requests."""
    trust_pack: TrustPack = False
    host: Annotated[str, tyro.conf.arg(metavar="ADDRESS")] = "127.0.0.1"
    """The address to listen on. Any but a loopback address can be reached by other machines and needs a key."""
    port: int = 8000
    """The port to listen on; 0 for any free port."""
    api_key: OptionalText = None
    """The key that clients must send (`Authorization: Bearer KEY`). Other users of this machine can see it in the list
    of processes: $LINKCONTEXT_API_KEY is safer."""
    no_auth: bool = False
    """Accept requests without a key, also from other machines."""
    allow_host: NameList = ()
    """Further host names under which clients address the server (the Host header)."""
    queue: int = 64
    """Maximum number of requests that wait or are being answered. Others get status 429."""
    body_mb: float = 32
    """Maximum size of one request with its pictures, in MB."""
    pictures: int = 256
    """Maximum number of pictures in one request."""
    megapixels: float = 100
    """Maximum number of pixels of all pictures in one request, in millions."""
    text_chars: int = 1_000_000
    """Maximum number of characters of all texts in one request. Texts longer than the model's context are refused in
    any case."""
    hold_gb: float = 1.0
    """Memory for the KV caches of conversations and for image features, in GB, so that a conversation that continues
    costs only its new tokens. 0 keeps nothing."""

    def run(self) -> None:
        """Serve until stopped."""
        self._check()
        from linkcontext.evaluation.open_model import load_local
        from linkcontext.serve.access import Hosts, check_exposure, checked_host_names, checked_key
        from linkcontext.serve.endpoint import Endpoint
        from linkcontext.serve.server import address, listen, serve

        packs = [(text.partition("=")[0], Path(text.partition("=")[2])) for text in self.pack]
        if wrong := [text for text, (_, path) in zip(self.pack, packs, strict=True) if not path.name]:
            raise InputError(f"--pack {wrong[0]}: also give the name under which the pack is served, as NAME=FILE.")
        key = checked_key(self.api_key, os.environ.get("LINKCONTEXT_API_KEY"), self.no_auth)
        with listen(self.host, self.port) as listening:
            check_exposure(listening, self.host, key, self.no_auth)
            hosts = Hosts.of(listening, (self.host, *checked_host_names(self.allow_host)))
            model = load_local(self.model)
            endpoint = Endpoint(Path(self.model.model).name, model, self._limits(), packs, self.trust_pack, self.head)
            console.print(f"{', '.join(endpoint.prompts)} at {address(listening)}", markup=False, soft_wrap=True)
            serve(endpoint, listening, hosts, key)

    def _check(self) -> None:
        """Raise `InputError` for values that no server can have, and if the packages are missing."""
        for flag, value in (
            ("queue", self.queue),
            ("body-mb", self.body_mb),
            ("pictures", self.pictures),
            ("megapixels", self.megapixels),
            ("text-chars", self.text_chars),
        ):
            if not 0 < value < math.inf:
                raise InputError(f"--{flag} {value}: must be above 0.")
        if not 0 <= self.hold_gb < math.inf:
            raise InputError(f"--hold-gb {self.hold_gb}: must be at least 0; 0 keeps nothing.")
        _check_port(self.port, 0)
        if importlib.util.find_spec("fastapi") is None or importlib.util.find_spec("uvicorn") is None:
            raise InputError("serve needs the fastapi and uvicorn packages: pip install 'linkcontext[serve]'.")

    def _limits(self) -> "Limits":
        from linkcontext.serve.openai_protocol import NEW_TOKENS, Limits

        return Limits(
            queue=self.queue,
            body=int(self.body_mb * 1e6),
            new_tokens=self.model.max_new_tokens or NEW_TOKENS,
            hold=int(self.hold_gb * 1e9),
            pictures=self.pictures,
            pixels=int(self.megapixels * 1e6),
            text=self.text_chars,
        )


def _has_display() -> bool:
    """Whether a browser can be opened in a window: elsewhere, one without windows would take over the terminal."""
    if sys.platform in ("darwin", "win32"):
        return not os.environ.get("SSH_CONNECTION")
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _check_port(port: int, least: int) -> None:
    if not least <= port < 65536:
        raise InputError(f"--port {port}: ports are numbers from {least} to 65535. Choose another.")

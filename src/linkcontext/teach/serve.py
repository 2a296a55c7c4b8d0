"""`linkcontext serve`: a model behind an endpoint that clients of OpenAI's talk to.

A request is read and refused here, before it takes anything of the model's time; `Desk` answers it. At most so many
requests are in the house at once, and none that is larger than allowed is read to its end.
"""

import asyncio
import json
import logging
import socket
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from linkcontext.episodes.marks import refuse_marks
from linkcontext.episodes.prompt import Message, conversation
from linkcontext.errors import InputError
from linkcontext.models.engine import Held
from linkcontext.models.load import Model
from linkcontext.models.score import Scorer, Sources
from linkcontext.models.vision import Eyes, Seen
from linkcontext.teach import wire
from linkcontext.teach.desk import Begun, Desk, Done, Failed, Job, Piece, Told
from linkcontext.teach.learner import Learner
from linkcontext.teach.pack import read_pack
from linkcontext.teach.shelf import Shelf

log = logging.getLogger("linkcontext")
SECONDS = 60  # in which a request's body must be there
AGAIN = "1"  # seconds after which a client that was sent away may ask again
NEW_TOKENS = 512  # of an answer, where --max-new-tokens says nothing
KINDS = {404: "not_found_error", 429: "rate_limit_exceeded", 500: "server_error", 503: "server_error"}


@dataclass(frozen=True, slots=True)
class Limits:
    """What the endpoint takes on."""

    queue: int = 64  # requests in the house
    body: int = 32_000_000  # bytes of one
    new_tokens: int = NEW_TOKENS  # of an answer
    hold: int = 1_000_000_000  # bytes of what is kept of conversations


@dataclass(frozen=True)
class Lesson:
    """What stands before every conversation with a pack."""

    messages: list[Message]
    sources: Sources
    seen: Mapping[str, Seen]
    held: Held | None

    @classmethod
    def of(cls, learner: Learner, where: Path) -> "Lesson":
        """What a learner was shown. Raises `InputError` where that depends on the question, or stands inside of it."""
        if not learner.scaffold.turns:
            raise InputError(f"{where}: its support is no turns of a conversation. Teach it with --scaffold turns.")
        if learner.select == "rices" and learner.shots_per_class is not None:
            raise InputError(f"{where}: its support is chosen for each picture. Teach it with --select medoid.")
        turns = conversation(learner.rounds, learner.scaffold)
        return cls(turns, learner.scorer.sources, learner.seen, learner.held)


class Refusal(Exception):
    """A request that is not taken: an HTTP status and a sentence."""

    def __init__(self, status: int, why: str, code: str | None = None) -> None:
        super().__init__(why)
        self.status, self.code = status, code


class Endpoint:
    """A model under its name, what waits for it, and the routes that lead there."""

    def __init__(self, name: str, model: Model, limits: Limits, packs: Sequence[tuple[str, Path]] = ()) -> None:
        self.limits, self.model = limits, model
        self.begun = int(time.time())
        self.inside = 0
        self.lessons = {name: Lesson([], {}, {}, None)}
        scorer = Scorer(model, Eyes(model), {})
        shelf = Shelf(scorer, limits.hold)
        for called, path in packs:
            if called in self.lessons:
                raise InputError(f"--pack {called}={path}: there is a model {called} already. Call it something else.")
            self.lessons[called] = Lesson.of(read_pack(path).learner(model), path)
            if (held := self.lessons[called].held) is not None:
                shelf.put(held)
        self.desk = Desk(scorer, shelf)

    def app(self) -> FastAPI:
        """The routes."""

        @asynccontextmanager
        async def life(_: FastAPI) -> AsyncIterator[None]:
            yield
            await asyncio.to_thread(self.desk.close)

        app = FastAPI(title="linkcontext", lifespan=life, openapi_url=None)
        app.add_api_route("/health", self.health, methods=["GET"])
        app.add_api_route("/v1/models", self.models, methods=["GET"])
        app.add_api_route("/v1/models/{name:path}", self.one_model, methods=["GET"])
        app.add_api_route("/v1/chat/completions", self.complete, methods=["POST"])
        app.add_exception_handler(Refusal, _refused)
        app.add_exception_handler(HTTPException, _no_route)
        return app

    async def health(self) -> Response:
        """That the server is up."""
        return Response()

    async def models(self) -> Response:
        """The names that can be asked."""
        return JSONResponse({"object": "list", "data": [self._card(name) for name in self.lessons]})

    async def one_model(self, name: str) -> Response:
        """One of them."""
        return JSONResponse(self._card(self._known(name)))

    def _card(self, name: str) -> dict[str, Any]:
        more = {"owned_by": "linkcontext", "max_model_len": self.model.context}
        return {"id": name, "object": "model", "created": self.begun, **more}

    def _known(self, name: str) -> str:
        if name not in self.lessons:
            raise Refusal(404, f"there is no model {name}. There are {', '.join(self.lessons)}.", "model_not_found")
        return name

    async def complete(self, request: Request) -> Response:
        """Answer a conversation."""
        if self.inside >= self.limits.queue:
            raise Refusal(429, f"{self.inside} requests are waiting already. Ask again in a moment.", "queue_full")
        self.inside += 1
        loop, heard = asyncio.get_running_loop(), asyncio.Queue[Told]()

        def tell(told: Told) -> None:
            heard.put_nowait(told)
            if isinstance(told, Done | Failed):
                self.inside -= 1

        try:
            body = await self._body(request)
            asked, job = await asyncio.to_thread(self._job, body)
        except BaseException:
            self.inside -= 1
            raise
        job.tell = lambda told: loop.call_soon_threadsafe(tell, told)
        self.desk.put(job)
        answer, watch = Answer(asked, job, heard), asyncio.create_task(_left(request, job))
        try:
            if not asked.stream:
                return JSONResponse(await answer.whole())
            begun = await answer.begun()
        except BaseException:
            job.gone = True
            raise
        finally:
            watch.cancel()
        return StreamingResponse(answer.stream(begun), media_type="text/event-stream")

    async def _body(self, request: Request) -> bytes:
        """The body of a request, in time and not too large."""
        most, body = self.limits.body, bytearray()
        try:
            async with asyncio.timeout(SECONDS):
                async for piece in request.stream():
                    body += piece
                    if len(body) > most:
                        raise Refusal(413, f"a request may have {most:,} bytes, and this one has more. Show less.")
        except TimeoutError as error:
            raise Refusal(408, f"the request's body did not come within {SECONDS} seconds.") from error
        return bytes(body)

    def _refuse_marks(self, messages: Sequence[Message]) -> None:
        """Refuse a conversation with a text that holds one of the model's own marks."""
        for number, message in enumerate(messages):
            for place, part in enumerate(message["content"]):
                try:
                    refuse_marks(part.get("text", ""), self.model.marks, f"messages.{number}.content.{place}")
                except InputError as error:
                    raise Refusal(400, str(error)) from error

    def _job(self, body: bytes) -> tuple[wire.ChatRequest, Job]:
        """What is asked."""
        try:
            asked = wire.read_request(body)
            messages, sources = wire.conversation_of(asked.messages)
        except InputError as error:
            raise Refusal(400, str(error)) from error
        self._refuse_marks(messages)
        own = self.model.template.variables
        if self.model.template.read_of(asked.chat_template_kwargs) not in ({}, own):
            started = f"the server was started with {json.dumps(own)}, for all requests"
            raise Refusal(400, f"chat_template_kwargs: {started}. Leave it out.")
        lesson = self.lessons[self._known(asked.model)]
        wanted = asked.max_completion_tokens or asked.max_tokens or self.limits.new_tokens
        begins = len(list(takewhile(lambda message: message["role"] == "system", messages)))  # templates want it first
        return asked, Job(
            [*messages[:begins], *lesson.messages, *messages[begins:]],
            lesson.sources | sources,
            lesson.seen,
            asked.ending,
            min(wanted, self.limits.new_tokens),
            asked.stops,
            asked.top_logprobs if asked.logprobs else None,
            asked.prompt_logprobs is not None,
        )


@dataclass(frozen=True)
class Answer:
    """What a job tells, as a client is told."""

    asked: wire.ChatRequest
    job: Job
    heard: asyncio.Queue[Told]

    async def begun(self) -> Begun:
        """Wait until the prompt is understood."""
        told = await self.heard.get()
        if isinstance(told, Failed):
            raise Refusal(told.status, told.why)
        if not isinstance(told, Begun):
            raise Refusal(499, "the client has left.")
        return told

    async def whole(self) -> dict[str, Any]:
        """The answer in one piece."""
        begun, text, logprobs = Begun(0, 0), "", []
        while not isinstance(told := await self.heard.get(), Done):
            if isinstance(told, Failed):
                raise Refusal(told.status, told.why)
            if isinstance(told, Begun):
                begun = told
            else:
                text += told.text
                logprobs += told.logprobs
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "logprobs": {"content": logprobs} if self.asked.logprobs else None,
            "finish_reason": told.reason,
        }
        found = self._head("chat.completion") | {
            "choices": [choice],
            "usage": wire.usage(begun.prompt_tokens, told.tokens, begun.cached_tokens),
        }
        return found | ({} if told.prompt_logprobs is None else {"prompt_logprobs": told.prompt_logprobs})

    async def stream(self, begun: Begun) -> AsyncIterator[str]:
        """The answer piece by piece. A client that leaves is not answered any further."""
        head = self._head("chat.completion.chunk")

        def chunk(delta: dict[str, str], reason: str | None = None, logprobs: Any = None) -> str:
            told = {"content": logprobs} if logprobs else None
            return wire.event(
                {**head, "choices": [{"index": 0, "delta": delta, "logprobs": told, "finish_reason": reason}]}
            )

        try:
            yield chunk({"role": "assistant", "content": ""})
            while not isinstance(told := await self.heard.get(), Done):
                if isinstance(told, Failed):
                    yield wire.event(wire.failure(told.why, KINDS.get(told.status, "invalid_request_error")))
                    return
                if isinstance(told, Piece):
                    yield chunk({"content": told.text}, None, told.logprobs)
            yield chunk({}, told.reason)
            if self.asked.stream_options.include_usage:
                took = wire.usage(begun.prompt_tokens, told.tokens, begun.cached_tokens)
                yield wire.event({**head, "choices": [], "usage": took})
            yield wire.event("[DONE]")
        finally:
            self.job.gone = True

    def _head(self, kind: str) -> dict[str, Any]:
        name = f"chatcmpl-{uuid.uuid4().hex}"
        return {"id": name, "object": kind, "created": int(time.time()), "model": self.asked.model}


async def _left(request: Request, job: Job) -> None:
    """Wait until the client leaves; then nothing more is computed for it."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    job.gone = True


async def _refused(_: Request, refusal: Refusal) -> Response:
    content = wire.failure(str(refusal), KINDS.get(refusal.status, "invalid_request_error"), refusal.code)
    headers = {"Retry-After": AGAIN} if refusal.status in (429, 503) else {}
    # What is left of a body that was not read to its end is not waited for.
    headers |= {"Connection": "close"} if refusal.status in (408, 413, 429) else {}
    return JSONResponse(content, refusal.status, headers)


async def _no_route(request: Request, error: HTTPException) -> Response:
    why = f"{request.method} {request.url.path}: {error.detail}. There are /v1/models and /v1/chat/completions."
    return JSONResponse(wire.failure(why, "not_found_error"), error.status_code)


def listening(host: str, port: int) -> socket.socket:
    """An address taken, before anything takes long; who asks already waits. `InputError` where it cannot be had."""
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what a server before this one left closes slowly
        found.bind((host, port))
        found.listen()
    except OSError as error:
        found.close()
        raise InputError(
            f"--host {host} --port {port}: cannot be served there ({error.strerror}). Choose another."
        ) from error
    return found


def address(heard: socket.socket) -> str:
    """What clients are told to ask."""
    host, port = heard.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"


def serve(endpoint: Endpoint, heard: socket.socket) -> None:
    """Answer until stopped by Ctrl-C, which is how it ends."""
    config = uvicorn.Config(endpoint.app(), log_level="warning", timeout_graceful_shutdown=5)
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run([heard])

"""`linkcontext serve`: a model behind an endpoint that clients of OpenAI's talk to.

A request is checked (`access`), received and preprocessed (`intake`) before it takes anything of the model's time;
`Desk` answers it. At most so many requests wait at once, and none that is larger than allowed is read to its end.
"""

import asyncio
import hashlib
import json
import logging
import socket
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from linkcontext.episodes.scaffold import Message, build_messages, image_ids
from linkcontext.episodes.special_tokens import refuse_marks
from linkcontext.errors import InputError
from linkcontext.inference.vision import ImageFeatures, VisionEncoder
from linkcontext.models.loading import Model
from linkcontext.scoring import identity
from linkcontext.scoring.local import LocalModel
from linkcontext.scoring.protocol import Sources
from linkcontext.serve import openai_protocol
from linkcontext.serve.access import Access, Hosts
from linkcontext.serve.connections import Connections, Patience
from linkcontext.serve.intake import SECONDS, SMALL_BODY, SMALL_PIXELS, Bodies, Lane, Refusal
from linkcontext.serve.openai_protocol import ChatRequest, Limits
from linkcontext.serve.prefix_cache import Shelf
from linkcontext.serve.worker import Begun, Desk, Done, Failed, Job, Piece, Told
from linkcontext.teach.learner import Learner
from linkcontext.teach.pack import read_pack
from linkcontext.teach.recogniser import Recogniser

log = logging.getLogger("linkcontext")
LOOPBACK = Hosts()
LARGE_SHARE = 4  # one of so many places may be a large request's
AGAIN = "1"  # seconds after which a client that was sent away may ask again
NOTHING_TAUGHT = Recogniser({}, "")
KINDS = {404: "not_found_error", 429: "rate_limit_exceeded", 500: "server_error", 503: "server_error"}


@dataclass(frozen=True)
class Lesson:
    """What stands before every conversation with a pack."""

    messages: list[Message]
    sources: Sources
    seen: Mapping[str, ImageFeatures]
    taught: Recogniser = NOTHING_TAUGHT
    pack: str | None = None  # a digest of its pictures, names and wording

    @classmethod
    def of(cls, learner: Learner, where: Path) -> "Lesson":
        """What a learner was shown. Raises `InputError` where that depends on the question, or stands inside of it."""
        if not learner.scaffold.turns:
            raise InputError(f"{where}: its support is no turns of a conversation. Teach it with --scaffold turns.")
        if learner.select == "rices" and learner.shots_per_class is not None:
            raise InputError(f"{where}: its support is chosen for each picture. Teach it with --select medoid.")
        turns = build_messages(learner.rounds, learner.scaffold)
        digest = hashlib.sha256(json.dumps([turns, learner.shown]).encode()).hexdigest()
        return cls(turns, learner.scorer.sources, learner.seen, Recogniser.of(learner), digest)


class Endpoint:
    """A model under its name, what waits for it, and the routes that lead there."""

    def __init__(
        self, name: str, model: Model, limits: Limits, packs: Sequence[tuple[str, Path]] = (), trust: bool = False
    ) -> None:
        # No text of more characters can fit the context, as no token has more than the longest.
        longest = max(map(len, model.tokenizer.get_vocab()))
        self.limits = replace(limits, text=min(limits.text, longest * model.context))
        self.model = model
        self.measured = identity.measured(model)
        self.begun = int(time.time())
        self.inside = 0  # requests that wait or are answered
        self.large = 0  # those of them that are large
        self.lessons = {name: Lesson([], {}, {})}
        features = limits.hold // 4
        scorer = LocalModel(model, VisionEncoder(model, memory=features, counting=False), {})
        shelf = Shelf(scorer, limits.hold - features)
        for called, path in packs:
            if called in self.lessons:
                raise InputError(f"--pack {called}={path}: there is a model {called} already. Call it something else.")
            learner = read_pack(path, trust).learner(model)
            self.lessons[called] = Lesson.of(learner, path)
            if learner.held is not None:
                shelf.put(learner.held)
        self.desk = Desk(scorer, shelf)
        self.bodies = Bodies(limits.body)
        whole = scorer.engine == "naive"
        self.lanes = Lane(model, "small", whole), Lane(model, "large", whole)

    def app(self, hosts: Hosts = LOOPBACK, key: str | None = None) -> FastAPI:
        """The routes, for clients that address one of `hosts` and, where there is a `key`, send it."""

        @asynccontextmanager
        async def life(_: FastAPI) -> AsyncIterator[None]:
            yield
            await asyncio.to_thread(self.close)

        app = FastAPI(title="linkcontext", lifespan=life, openapi_url=None)
        app.add_api_route("/health", self.health, methods=["GET"])
        app.add_api_route("/v1/models", self.models, methods=["GET"])
        app.add_api_route("/v1/models/{name:path}", self.one_model, methods=["GET"])
        app.add_api_route("/v1/chat/completions", self.complete, methods=["POST"])
        app.add_middleware(Access, hosts=hosts, key=key)
        app.add_exception_handler(Refusal, _refused)
        app.add_exception_handler(HTTPException, _no_route)
        app.add_exception_handler(Exception, _failed)
        return app

    def close(self) -> None:
        """Stop; what waits is not answered."""
        for lane in self.lanes:
            lane.close()
        self.desk.close()

    async def health(self) -> Response:
        """That the server is up."""
        return Response()

    async def models(self) -> Response:
        """The models that can be asked."""
        return JSONResponse({"object": "list", "data": [self._card(name) for name in self.lessons]})

    async def one_model(self, name: str) -> Response:
        """One of them."""
        return JSONResponse(self._card(self._known(name)))

    def _card(self, name: str) -> dict[str, Any]:
        more = {"owned_by": "linkcontext", "max_model_len": self.model.context}
        about = {**self.measured, "pack": self.lessons[name].pack}
        return {"id": name, "object": "model", "created": self.begun, **more, identity.REPORTED: about}

    def _known(self, name: str) -> str:
        if name not in self.lessons:
            raise Refusal(404, f"there is no model {name}. There are {', '.join(self.lessons)}.", "model_not_found")
        return name

    async def complete(self, request: Request) -> Response:
        """Answer a conversation."""
        self._check_place()  # before a body is received in vain
        body = await self.bodies.read(request)
        self._check_place()
        loop, heard = asyncio.get_running_loop(), asyncio.Queue[Told]()
        place, watch = ExitStack(), asyncio.create_task(_left(request))
        self._enter(place, "inside")

        def tell(told: Told) -> None:
            heard.put_nowait(told)
            if isinstance(told, Done | Failed):
                place.close()

        try:
            chat, job = await self._prepared(body, place, watch)
        except BaseException:
            place.close()
            watch.cancel()
            raise
        del body
        job.tell = lambda told: loop.call_soon_threadsafe(tell, told)
        watch.add_done_callback(job.leave)
        if job.name is None:
            self.desk.put(job)
        else:
            _tell_name(job, job.name)
        answer = Answer(chat, job, heard)
        try:
            if not chat.stream:
                return JSONResponse(await answer.whole())
            begun = await answer.begun()
        except BaseException:
            job.gone = True
            raise
        finally:
            watch.cancel()
        return StreamingResponse(answer.stream(begun), media_type="text/event-stream")

    def _check_place(self) -> None:
        if self.inside >= self.limits.queue:
            raise Refusal(429, f"{self.inside} requests are waiting already. Ask again in a moment.", "queue_full")

    def _enter(self, place: ExitStack, count: Literal["inside", "large"]) -> None:
        """Count a request until its place is closed."""
        setattr(self, count, getattr(self, count) + 1)
        place.callback(lambda: setattr(self, count, getattr(self, count) - 1))

    async def _prepared(self, body: bytes, place: ExitStack, watch: asyncio.Task[None]) -> tuple[ChatRequest, Job]:
        """The request in a body, its pictures preprocessed; their memory is released when the place is closed."""
        small, large = self.lanes
        lane = large if len(body) > SMALL_BODY else small
        try:
            if lane is large:
                self._enter_large(place)
            chat, job = await lane.run(self._job, body)
            if lane is small and job.pixels > SMALL_PIXELS:
                self._enter_large(place)
                lane = large

            def prepare() -> int:
                if watch.done():
                    raise Refusal(499, "the client has left.")
                job.name = _taught_name(chat, job, self.lessons[chat.model])
                encoder = self.desk.scorer.eyes
                return lane.prepare(
                    job.messages, job.ending, job.sources, lambda image, alone: encoder.key(image, alone) in encoder
                )

            place.callback(lane.free, await lane.run(prepare))
        except InputError as error:
            raise Refusal(400, str(error)) from error
        return chat, job

    def _enter_large(self, place: ExitStack) -> None:
        """Count a large request: large ones wait for each other, and may not take all places meanwhile."""
        if self.large >= max(1, self.limits.queue // LARGE_SHARE):
            raise Refusal(429, f"{self.large} large requests are waiting already. Ask again later.", "queue_full")
        self._enter(place, "large")

    def _refuse_marks(self, messages: Sequence[Message]) -> None:
        """Refuse a conversation with a text that holds one of the model's own marks."""
        for number, message in enumerate(messages):
            for place, part in enumerate(message["content"]):
                refuse_marks(part.get("text", ""), self.model.marks, f"messages.{number}.content.{place}")

    def _job(self, body: bytes) -> tuple[ChatRequest, Job]:
        """The request in a body, and its job. Raises `InputError` or `Refusal`."""
        chat = openai_protocol.read_request(body, self.limits)
        lesson = self.lessons[self._known(chat.model)]
        started = self.model.chat_template.variables
        if self.model.chat_template.read_of(chat.chat_template_kwargs) not in ({}, started):
            raise InputError(
                f"chat_template_kwargs: the server was started with {json.dumps(started)}, for all requests. "
                "Leave it out."
            )
        own = openai_protocol.conversation_of(chat.messages, self.limits)
        self._refuse_marks(own.messages)
        wanted = chat.max_completion_tokens or chat.max_tokens or self.limits.new_tokens
        # Templates want system messages first.
        begins = len(list(takewhile(lambda message: message["role"] == "system", own.messages)))
        return chat, Job(
            [*own.messages[:begins], *lesson.messages, *own.messages[begins:]],
            lesson.sources | own.sources,
            lesson.seen,
            chat.ending,
            min(wanted, self.limits.new_tokens),
            chat.stops,
            chat.top_logprobs if chat.logprobs else None,
            chat.prompt_logprobs is not None,
            own.pixels,
        )


def _taught_name(chat: ChatRequest, job: Job, lesson: Lesson) -> str | None:
    """The name of a taught picture, if its name is all that the request is about.

    None if the client showed the picture before: it may have corrected the name, which the model reads.
    """
    if chat.ending != "none" or chat.stops or chat.logprobs or chat.prompt_logprobs is not None:
        return None
    own = Counter(image_ids(job.messages)) - Counter(image_ids(lesson.messages))
    if max(own.values(), default=0) > 1:
        return None
    return lesson.taught.name(job.messages, job.sources)


def _tell_name(job: Job, name: str) -> None:
    """Answer with a name that is known without the model."""
    job.tell(Begun(0, 0))
    job.tell(Piece(name, []))
    job.end(Done("stop", 0, None))


@dataclass(frozen=True)
class Answer:
    """The events of a job in the shapes of OpenAI's protocol."""

    chat: ChatRequest
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
            "logprobs": {"content": logprobs} if self.chat.logprobs else None,
            "finish_reason": told.reason,
        }
        found = self._head("chat.completion") | {
            "choices": [choice],
            "usage": openai_protocol.usage(begun.prompt_tokens, told.tokens, begun.cached_tokens),
        }
        return found | ({} if told.prompt_logprobs is None else {"prompt_logprobs": told.prompt_logprobs})

    async def stream(self, begun: Begun) -> AsyncIterator[str]:
        """The answer piece by piece. A client that leaves is not answered any further."""
        head = self._head("chat.completion.chunk")

        def chunk(delta: dict[str, str], reason: str | None = None, logprobs: Any = None) -> str:
            told = {"content": logprobs} if logprobs else None
            return openai_protocol.event(
                {**head, "choices": [{"index": 0, "delta": delta, "logprobs": told, "finish_reason": reason}]}
            )

        try:
            yield chunk({"role": "assistant", "content": ""})
            while not isinstance(told := await self.heard.get(), Done):
                if isinstance(told, Failed):
                    yield openai_protocol.event(
                        openai_protocol.failure(told.why, KINDS.get(told.status, "invalid_request_error"))
                    )
                    return
                if isinstance(told, Piece):
                    yield chunk({"content": told.text}, None, told.logprobs)
            yield chunk({}, told.reason)
            if self.chat.stream_options.include_usage:
                took = openai_protocol.usage(begun.prompt_tokens, told.tokens, begun.cached_tokens)
                yield openai_protocol.event({**head, "choices": [], "usage": took})
            yield openai_protocol.event("[DONE]")
        finally:
            self.job.gone = True

    def _head(self, kind: str) -> dict[str, Any]:
        name = f"chatcmpl-{uuid.uuid4().hex}"
        head = {"id": name, "object": kind, "created": int(time.time()), "model": self.chat.model}
        head |= {"taught": True} if self.job.name is not None else {}
        return head | ({"ignored": self.chat.ignored} if self.chat.ignored else {})


async def _left(request: Request) -> None:
    """Wait until the client leaves."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _refused(_: Request, refusal: Refusal) -> Response:
    content = openai_protocol.failure(str(refusal), KINDS.get(refusal.status, "invalid_request_error"), refusal.code)
    headers = {"Retry-After": AGAIN} if refusal.status in (429, 503) else {}
    # What is left of a body that was not read to its end is not waited for.
    headers |= {"Connection": "close"} if refusal.status in (408, 413, 429) else {}
    return JSONResponse(content, refusal.status, headers)


async def _failed(_: Request, error: Exception) -> Response:
    return JSONResponse(openai_protocol.failure(f"the server failed ({type(error).__name__}).", KINDS[500]), 500)


async def _no_route(request: Request, error: HTTPException) -> Response:
    why = f"{request.method} {request.url.path}: {error.detail}. There are /v1/models and /v1/chat/completions."
    return JSONResponse(openai_protocol.failure(why, "not_found_error"), error.status_code)


def listening(host: str, port: int) -> socket.socket:
    """An address taken, before anything takes long; who asks already waits. `InputError` where it cannot be had."""
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what a server before this one left closes slowly
        found.bind((host, port))
        found.listen()
    except (OSError, UnicodeError) as error:  # UnicodeError: no name of a host
        found.close()
        why = error.strerror if isinstance(error, OSError) else "no such host"
        raise InputError(f"--host {host} --port {port}: cannot be served there ({why}). Choose another.") from error
    return found


def address(heard: socket.socket) -> str:
    """What clients are told to ask."""
    host, port = heard.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"


def serve(endpoint: Endpoint, heard: socket.socket, hosts: Hosts = LOOPBACK, key: str | None = None) -> None:
    """Answer until Ctrl-C or SIGTERM, which uvicorn raises again at its end."""
    config = uvicorn.Config(
        endpoint.app(hosts, key),
        http=Connections(Patience(body=SECONDS + 10)),  # the endpoint itself answers a body that does not come
        ws="none",
        log_level="warning",
        timeout_graceful_shutdown=5,
    )
    uvicorn.Server(config).run([heard])

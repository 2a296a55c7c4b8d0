"""The endpoint for OpenAI clients: its routes, and the way of a request to the thread that runs the model.

A request is checked (`access`), received and preprocessed (`intake`) before it takes any of the model's time;
`ModelWorker` answers it. The number of waiting requests is limited, and a request that is too large is not read to its
end.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from linkcontext.config import HeadName
from linkcontext.data.images import Upload, open_image
from linkcontext.episodes.scaffold import Message
from linkcontext.episodes.special_tokens import refuse_marks
from linkcontext.errors import InputError
from linkcontext.inference.vision import VisionEncoder
from linkcontext.models.model import Model
from linkcontext.scoring import identity
from linkcontext.scoring.local import LocalModel
from linkcontext.serve import openai_protocol
from linkcontext.serve.access import LOOPBACK, Access, Hosts
from linkcontext.serve.intake import SMALL_BODY, SMALL_PIXELS, BodyReader, PreprocessingThread, Refusal
from linkcontext.serve.openai_protocol import ChatRequest, Limits
from linkcontext.serve.prefix_cache import PrefixCacheLRU
from linkcontext.serve.responses import (
    ChatResponse,
    failure_response,
    refusal_response,
    route_response,
)
from linkcontext.serve.served_prompt import ServedPrompt
from linkcontext.serve.worker import Event, Failed, Finished, GenerationRequest, ModelWorker
from linkcontext.teach.answer import NONE_OF_THESE
from linkcontext.teach.asking import answers
from linkcontext.teach.learner import Learner
from linkcontext.teach.pack import read_pack

LARGE_SHARE = 4  # at most one in so many places is for a large request


@dataclass
class Places:
    """A count of the requests that wait or are answered."""

    taken: int = 0

    def enter(self, stack: ExitStack) -> None:
        """Take a place until the stack is closed."""
        self.taken += 1
        stack.callback(self._leave)

    def _leave(self) -> None:
        self.taken -= 1


class Endpoint:
    """A model and packs under the names by which clients ask for them, and the requests in progress."""

    def __init__(
        self,
        name: str,
        model: Model,
        limits: Limits,
        packs: Sequence[tuple[str, Path]] = (),
        trust: bool = False,
        head: HeadName | None = None,
    ) -> None:
        # A text with more characters cannot fit the context, since no token has more than the longest.
        longest = max(map(len, model.tokenizer.get_vocab()))
        self.limits = replace(limits, text=min(limits.text, longest * model.context))
        self.model = model
        self.identity = identity.measured(model)
        self.started = int(time.time())
        self.requests, self.large_requests = Places(), Places()
        self.prompts = {name: ServedPrompt()}
        feature_bytes = limits.hold // 4
        local_model = LocalModel(
            model, VisionEncoder(model, open_image, max_bytes=feature_bytes, count_images=False), {}
        )
        prefix_cache = PrefixCacheLRU(local_model, limits.hold - feature_bytes)
        for pack_name, path in packs:
            if pack_name in self.prompts:
                raise InputError(
                    f"--pack {pack_name}={path}: a model of that name is served already. Choose another name."
                )
            learner = read_pack(path, trust).learner(local_model)
            learner.head = head or learner.head
            learner.choose_head()  # before the first request, which would wait for it
            self.prompts[pack_name] = ServedPrompt.of(learner, path)
            prefix = learner.prefill_support()
            if prefix is not None:
                prefix_cache.add(prefix)
        self.worker = ModelWorker(local_model, prefix_cache)
        self.bodies = BodyReader(limits.body)
        whole = bool(local_model.lacks("shared prefixes"))
        self.preprocessing = PreprocessingThread(model, "small", whole), PreprocessingThread(model, "large", whole)

    def app(self, hosts: Hosts = LOOPBACK, key: str | None = None) -> FastAPI:
        """The ASGI app, for clients that address one of `hosts` and, if there is a `key`, send it."""

        @asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncIterator[None]:
            yield
            await asyncio.to_thread(self.close)

        app = FastAPI(title="linkcontext", lifespan=lifespan, openapi_url=None)
        app.add_api_route("/health", self.health, methods=["GET"])
        app.add_api_route("/v1/models", self.list_models, methods=["GET"])
        app.add_api_route("/v1/models/{name:path}", self.show_model, methods=["GET"])
        app.add_api_route("/v1/chat/completions", self.complete, methods=["POST"])
        app.add_middleware(Access, hosts=hosts, key=key)
        app.add_exception_handler(Refusal, refusal_response)
        app.add_exception_handler(HTTPException, route_response)
        app.add_exception_handler(Exception, failure_response)
        return app

    def close(self) -> None:
        """Stop all threads. Requests that wait are not answered."""
        for thread in self.preprocessing:
            thread.close()
        self.worker.close()

    async def health(self) -> Response:
        """An empty response: the server is up."""
        return Response()

    async def list_models(self) -> Response:
        """The served names."""
        return JSONResponse({"object": "list", "data": [self._model_card(name) for name in self.prompts]})

    async def show_model(self, name: str) -> Response:
        """One of the served names."""
        return JSONResponse(self._model_card(self._served_name(name)))

    def _model_card(self, name: str) -> dict[str, Any]:
        measured = {**self.identity, "pack": self.prompts[name].digest}
        return {
            "id": name,
            "object": "model",
            "created": self.started,
            "owned_by": "linkcontext",
            "max_model_len": self.model.context,
            identity.REPORTED: measured,
        }

    def _served_name(self, name: str) -> str:
        if name not in self.prompts:
            message = f"there is no model {name}. The models are {', '.join(self.prompts)}."
            raise Refusal(404, message, "model_not_found")
        return name

    async def complete(self, request: Request) -> Response:
        """Answer a conversation."""
        self._check_queue()  # before a body is received in vain
        body = await self.bodies.read(request)
        self._check_queue()
        loop, events = asyncio.get_running_loop(), asyncio.Queue[Event]()
        place, disconnect = ExitStack(), asyncio.create_task(_wait_for_disconnect(request))
        self.requests.enter(place)

        def receive(event: Event) -> None:
            events.put_nowait(event)
            if isinstance(event, Finished | Failed):
                place.close()

        try:
            chat, generation = await self._preprocess(body, place, disconnect)
        except BaseException:
            place.close()
            disconnect.cancel()
            raise
        del body
        generation.on_event = lambda event: loop.call_soon_threadsafe(receive, event)
        disconnect.add_done_callback(generation.cancel)
        if generation.taught_name is None:
            self.worker.submit(generation)
        else:
            generation.answer_with(generation.taught_name)
        response = ChatResponse(chat, generation, events)
        try:
            if not chat.stream:
                return JSONResponse(await response.complete())
            started = await response.started()
        except BaseException:
            generation.cancelled = True
            raise
        finally:
            disconnect.cancel()
        return StreamingResponse(response.stream(started), media_type="text/event-stream")

    def _check_queue(self) -> None:
        if self.requests.taken >= self.limits.queue:
            message = f"{self.requests.taken} requests are waiting already. Ask again in a moment."
            raise Refusal(429, message, "queue_full")

    def _enter_large(self, place: ExitStack) -> None:
        """Take a place for large requests, which wait for each other and must leave places for small ones."""
        if self.large_requests.taken >= max(1, self.limits.queue // LARGE_SHARE):
            message = f"{self.large_requests.taken} large requests are waiting already. Ask again later."
            raise Refusal(429, message, "queue_full")
        self.large_requests.enter(place)

    async def _preprocess(
        self, body: bytes, place: ExitStack, disconnect: asyncio.Task[None]
    ) -> tuple[ChatRequest, GenerationRequest]:
        """Parse a body and preprocess its pictures, whose memory is released when the place is closed."""
        small, large = self.preprocessing
        thread = large if len(body) > SMALL_BODY else small
        try:
            if thread is large:
                self._enter_large(place)
            chat, generation = await thread.run(self.parse, body)
            if thread is small and generation.pixels > SMALL_PIXELS:
                self._enter_large(place)
                thread = large

            def prepare() -> int:
                if disconnect.done():
                    raise Refusal(499, "the client has disconnected.")
                prompt, eyes = self.prompts[chat.model], self.worker.local_model.eyes
                generation.taught_name = prompt.taught_name(chat, generation.messages, generation.sources)
                picture = prompt.picture_to_name(chat, generation.messages, generation.sources)
                if prompt.learner is not None and picture is not None and generation.taught_name is None:
                    generation.named_by = prompt.learner.choose_head().head
                    generation.name = partial(_name, prompt.learner, picture)
                    return 0
                return thread.prepare(
                    generation.messages,
                    generation.ending,
                    generation.sources,
                    lambda picture, alone: eyes.key(picture, alone) in eyes,
                )

            place.callback(thread.free, await thread.run(prepare))
        except InputError as error:
            raise Refusal(400, str(error)) from error
        return chat, generation

    def parse(self, body: bytes) -> tuple[ChatRequest, GenerationRequest]:
        """The chat request in a body, and the request for the worker. Raises `InputError` or `Refusal`."""
        chat = openai_protocol.read_request(body, self.limits)
        prompt = self.prompts[self._served_name(chat.model)]
        variables = self.model.chat_template.variables
        if self.model.chat_template.read_of(chat.chat_template_kwargs) not in ({}, variables):
            raise InputError(
                f"chat_template_kwargs: the server was started with {json.dumps(variables)}, for all requests. "
                "Leave it out."
            )
        own = openai_protocol.parse_conversation(chat.messages, self.limits)
        self._refuse_special_tokens(own.messages)
        wanted = chat.max_completion_tokens or chat.max_tokens or self.limits.new_tokens
        return chat, GenerationRequest(
            messages=prompt.before(own.messages),
            sources=prompt.sources | own.sources,
            features=prompt.features,
            ending=chat.ending,
            new_tokens=min(wanted, self.limits.new_tokens),
            stops=chat.stops,
            top_logprobs=chat.top_logprobs if chat.logprobs else None,
            wants_prompt_logprobs=chat.prompt_logprobs is not None,
            pixels=own.pixels,
        )

    def _refuse_special_tokens(self, messages: Sequence[Message]) -> None:
        """Raise `InputError` for a text that holds one of the model's special tokens."""
        for number, message in enumerate(messages):
            for place, part in enumerate(message["content"]):
                refuse_marks(part.get("text", ""), self.model.marks, f"messages.{number}.content.{place}")


def _name(learner: Learner, picture: Upload) -> str:
    """The name of a picture by the learner's head, or "none of these"."""
    return answers(learner, [picture])[0].name or NONE_OF_THESE


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass

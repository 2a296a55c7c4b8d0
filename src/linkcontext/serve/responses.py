"""The responses of the endpoint, in the shapes of OpenAI's protocol: complete, streamed, and errors."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from linkcontext.serve import openai_protocol
from linkcontext.serve.intake import Refusal
from linkcontext.serve.openai_protocol import ChatRequest
from linkcontext.serve.worker import Delta, Event, Failed, Finished, GenerationRequest, Started

RETRY_AFTER = "1"  # seconds
ERROR_TYPES = {404: "not_found_error", 429: "rate_limit_exceeded", 500: "server_error", 503: "server_error"}


@dataclass(frozen=True)
class ChatResponse:
    """The events of a request as a response to its client."""

    chat: ChatRequest
    request: GenerationRequest
    events: asyncio.Queue[Event]

    async def started(self) -> Started:
        """Wait until the prompt was read. Raises `Refusal` if it cannot be."""
        event = await self.events.get()
        if isinstance(event, Failed):
            raise Refusal(event.status, event.message)
        if not isinstance(event, Started):
            raise Refusal(499, "the client has disconnected.")
        return event

    async def complete(self) -> dict[str, Any]:
        """The whole answer. Raises `Refusal` if there is none."""
        started, text, logprobs = Started(0, 0), "", []
        while not isinstance(event := await self.events.get(), Finished):
            if isinstance(event, Failed):
                raise Refusal(event.status, event.message)
            if isinstance(event, Started):
                started = event
            else:
                text += event.text
                logprobs += event.logprobs
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "logprobs": {"content": logprobs} if self.chat.logprobs else None,
            "finish_reason": event.reason,
        }
        body = self._head("chat.completion") | {
            "choices": [choice],
            "usage": openai_protocol.usage(started.prompt_tokens, event.tokens, started.cached_tokens),
        }
        return body | ({} if event.prompt_logprobs is None else {"prompt_logprobs": event.prompt_logprobs})

    async def stream(self, started: Started) -> AsyncIterator[str]:
        """The answer as server-sent events. If the client disconnects, generation stops."""
        head = self._head("chat.completion.chunk")

        def chunk(delta: dict[str, str], reason: str | None = None, logprobs: Any = None) -> str:
            content = {"content": logprobs} if logprobs else None
            choice = {"index": 0, "delta": delta, "logprobs": content, "finish_reason": reason}
            return openai_protocol.server_sent({**head, "choices": [choice]})

        try:
            yield chunk({"role": "assistant", "content": ""})
            while not isinstance(event := await self.events.get(), Finished):
                if isinstance(event, Failed):
                    yield openai_protocol.server_sent(error_body(event.message, event.status))
                    return
                if isinstance(event, Delta):
                    yield chunk({"content": event.text}, None, event.logprobs)
            yield chunk({}, event.reason)
            if self.chat.stream_options.include_usage:
                usage = openai_protocol.usage(started.prompt_tokens, event.tokens, started.cached_tokens)
                yield openai_protocol.server_sent({**head, "choices": [], "usage": usage})
            yield openai_protocol.server_sent("[DONE]")
        finally:
            self.request.cancelled = True

    def _head(self, kind: str) -> dict[str, Any]:
        name = f"chatcmpl-{uuid.uuid4().hex}"
        head = {"id": name, "object": kind, "created": int(time.time()), "model": self.chat.model}
        head |= {"taught": True} if self.request.taught_name is not None else {}
        head |= {"named_by": self.request.named_by} if self.request.named_by is not None else {}
        return head | ({"ignored": self.chat.ignored} if self.chat.ignored else {})


def error_body(message: str, status: int, code: str | None = None) -> dict[str, Any]:
    """The body of an error response of that status."""
    return openai_protocol.failure(message, ERROR_TYPES.get(status, "invalid_request_error"), code)


async def refusal_response(_: Request, refusal: Refusal) -> Response:
    """The response for a request that is refused."""
    headers = {"Retry-After": RETRY_AFTER} if refusal.status in (429, 503) else {}
    # The rest of a body that was not read to its end is not waited for.
    headers |= {"Connection": "close"} if refusal.status in (408, 413, 429) else {}
    return JSONResponse(error_body(str(refusal), refusal.status, refusal.code), refusal.status, headers)


async def failure_response(_: Request, error: Exception) -> Response:
    """The response for an error of the server itself."""
    return JSONResponse(error_body(f"the server failed ({type(error).__name__}).", 500), 500)


async def route_response(request: Request, error: HTTPException) -> Response:
    """The response for an unknown path or method."""
    message = f"{request.method} {request.url.path}: {error.detail}. The paths are /v1/models and /v1/chat/completions."
    return JSONResponse(openai_protocol.failure(message, "not_found_error"), error.status_code)

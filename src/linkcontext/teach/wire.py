"""OpenAI's chat protocol: what a client may ask, and the shapes of what it is told.

Beside OpenAI's fields there are three of vLLM's: `prompt_logprobs`, `add_generation_prompt` and
`continue_final_message`, with which an answer that is given can be scored. What would change an answer and is not known
here is refused, not passed over.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from linkcontext.data.images import Upload, suffix
from linkcontext.episodes.prompt import Message
from linkcontext.errors import InputError
from linkcontext.models.score import Ending, Sources

LOWEST = -9999.0  # JSON has no infinity


class _Told(BaseModel):
    """An object of a request. What is null or an empty list there is not there."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _there(cls, values: Any) -> Any:
        return {k: v for k, v in values.items() if v not in (None, [])} if isinstance(values, dict) else values


class _Text(_Told):
    type: Literal["text"]
    text: str


class _Address(_Told):
    url: str
    detail: str = "auto"


class _Picture(_Told):
    type: Literal["image_url"]
    image_url: _Address


class _Said(_Told):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Annotated[_Text | _Picture, Field(discriminator="type")]]


class _StreamOptions(_Told):
    include_usage: bool = False


class ChatRequest(_Told):
    """A request to /v1/chat/completions."""

    model: str
    messages: list[_Said]
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    stop: str | list[str] = []
    stream: bool = False
    stream_options: _StreamOptions = _StreamOptions()
    logprobs: bool = False
    top_logprobs: int = Field(0, ge=0, le=20)
    prompt_logprobs: Literal[0] | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template_kwargs: dict[str, Any] = {}
    # Answers are greedy: these may only say so, or make no difference then.
    temperature: float = Field(0, ge=0, le=0)
    n: int = Field(1, ge=1, le=1)
    presence_penalty: float = Field(0, ge=0, le=0)
    frequency_penalty: float = Field(0, ge=0, le=0)
    repetition_penalty: float = Field(1, ge=1, le=1)
    top_p: float = 1
    seed: int = 0
    user: str = ""

    @property
    def ending(self) -> Ending:
        """How the prompt ends."""
        return "none" if self.add_generation_prompt else "open" if self.continue_final_message else "closed"

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts that end an answer, and are left out of it."""
        found = [self.stop] if isinstance(self.stop, str) else self.stop
        return tuple(text for text in found if text)


def read_request(body: bytes) -> ChatRequest:
    """The request that a body holds. `InputError`: what is wrong in which field."""
    try:
        found = ChatRequest.model_validate_json(body)
    except ValidationError as error:
        raise InputError(_sentence(error)) from error
    if found.add_generation_prompt and found.continue_final_message:
        raise InputError("continue_final_message: an answer goes on or begins. Say add_generation_prompt: false, too.")
    if found.ending != "none" and found.messages[-1].role != "assistant":
        raise InputError("add_generation_prompt: false needs a message of the assistant at the end. Add it.")
    if found.stream and found.prompt_logprobs is not None:
        raise InputError("prompt_logprobs: not in a stream. Leave one of them out.")
    if found.top_logprobs and not found.logprobs:
        raise InputError("top_logprobs: belongs to logprobs: true. Say both, or neither.")
    return found


def _sentence(error: ValidationError) -> str:
    """What is wrong with a request, at first."""
    # What is wrong inside of one of several forms says more than that the others do not fit either.
    first = max(error.errors(include_url=False, include_context=False), key=lambda found: len(found["loc"]))
    where = ".".join(str(part) for part in first["loc"] if part != "str" and "[" not in str(part))
    if first["type"] == "extra_forbidden":
        return f"{where}: not known here. Leave it out."
    if first["type"] == "json_invalid":
        return f"the body is not JSON ({first['msg'].removeprefix('Invalid JSON: ')})."
    told = first["msg"][0].lower() + first["msg"][1:]
    return f"{where or 'the body'}: {told}." + (" Answers are greedy here." if where == "temperature" else "")


def conversation_of(said: Sequence[_Said]) -> tuple[list[Message], Sources]:
    """Messages as prompts have them, and their pictures by content.

    Only what stands in the request itself is a picture: no address is opened, and no path.
    """
    messages: list[Message] = []
    sources: Sources = {}
    for number, message in enumerate(said):
        role = "system" if message.role == "developer" else message.role
        parts = [_Text(type="text", text=message.content)] if isinstance(message.content, str) else message.content
        content: list[dict[str, str]] = []
        for place, part in enumerate(parts):
            if isinstance(part, _Text):
                content.append({"type": "text", "text": part.text})
                continue
            where = f"messages.{number}.content.{place}"
            if role != "user":
                raise InputError(f"{where}: a picture in a message of the {role}. Only the user shows pictures.")
            upload = _upload(where, part.image_url.url)
            item = hashlib.sha256(upload.content).hexdigest()
            sources[item] = item, upload
            content.append({"type": "image", "image": item})
        messages.append({"role": role, "content": content})
    return messages, sources


def _upload(where: str, uri: str) -> Upload:
    """The picture in a data URI."""
    head, _, data = uri.partition(",")
    if not head.startswith("data:") or not head.endswith(";base64"):
        raise InputError(
            f"{where}: the picture's URL is no data URI, and this server opens no others. Send the picture itself: "
            "data:image/png;base64,..."
        )
    try:
        content = base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise InputError(f"{where}: the picture is not base64 ({error}). Encode the file's bytes.") from error
    if suffix(content) is None:
        raise InputError(f"{where}: not a picture (PNG, JPEG, WebP, GIF, BMP and TIFF are read). Convert it.")
    return Upload(where, content)


def failure(message: str, kind: str, code: str | None = None) -> dict[str, Any]:
    """An error as clients of OpenAI's know it."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def event(content: dict[str, Any] | str) -> str:
    """One event of a stream."""
    return f"data: {content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)}\n\n"


def token_logprob(text: str, logprob: float) -> dict[str, Any]:
    """A token and how likely it was."""
    return {"token": text, "logprob": max(logprob, LOWEST), "bytes": list(text.encode())}


def prompt_logprobs(ids: Sequence[int], values: Sequence[float], words: Sequence[str]) -> list[dict[str, Any] | None]:
    """How likely each token of a prompt was, as vLLM has it: the first had nothing before it."""
    rows = [
        {str(token): {"logprob": max(value, LOWEST), "rank": None, "decoded_token": text}}
        for token, value, text in zip(ids, values, words, strict=True)
    ]
    return [None, *rows[1:]]


def usage(prompt: int, said: int, cached: int) -> dict[str, Any]:
    """What a request took, in tokens."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": said,
        "total_tokens": prompt + said,
        "prompt_tokens_details": {"cached_tokens": cached},
    }

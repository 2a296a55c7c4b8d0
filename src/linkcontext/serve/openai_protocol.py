"""OpenAI's chat protocol: the fields of a request, their limits, and the shapes of responses.

Three fields are vLLM's: `prompt_logprobs`, `add_generation_prompt` and `continue_final_message`, with which a given
answer can be scored. A field is accepted if it is supported or makes no difference to a greedy answer; any other is
refused by name.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from linkcontext.data import formats
from linkcontext.data.images import Upload, image_size, suffix
from linkcontext.episodes.scaffold import Message
from linkcontext.errors import InputError
from linkcontext.scoring.protocol import PromptEnd, Sources

LOWEST = -9999.0  # JSON has no infinity
NEW_TOKENS = 512  # maximum of an answer without --max-new-tokens
FIELDS = 64  # maximum of one object
PARTS = 4096  # maximum of texts and pictures of one request
STOPS, STOP_CHARS = 16, 256
NAME_CHARS = 256  # of a model's name
PUNCTUATION = 32  # maximum of quotes, commas and brackets for one part of a message
ECHO = 300  # characters of an error message, which may repeat a part of the request


@dataclass(frozen=True, slots=True)
class Limits:
    """What the endpoint accepts."""

    queue: int = 64  # requests that wait or are being answered
    body: int = 32_000_000  # bytes of one request
    new_tokens: int = NEW_TOKENS  # of one answer
    hold: int = 1_000_000_000  # bytes of KV caches and of image features
    pictures: int = 256  # of one request
    pixels: int = 100_000_000  # of all pictures of one request
    text: int = 1_000_000  # characters of all texts of one request


class _Object(BaseModel):
    """An object in a request. A field that is null, an empty list or an empty object counts as absent."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _present(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        if len(values) > FIELDS:
            raise ValueError(f"an object has {len(values):,} fields, and at most {FIELDS} are allowed")
        return {name: value for name, value in values.items() if value not in (None, [], {})}


class _Text(_Object):
    type: Literal["text"]
    text: str


class _Address(_Object):
    url: str
    detail: Literal["auto", "low", "high"] = "auto"  # the model's own processor decides


class _Picture(_Object):
    type: Literal["image_url"]
    image_url: _Address


_Part = Annotated[_Text | _Picture, Field(discriminator="type")]


class _Message(_Object):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[_Part], Field(max_length=PARTS, fail_fast=True)]


class _StreamOptions(_Object):
    include_usage: bool = False
    include_obfuscation: bool = False


class _ResponseFormat(_Object):
    type: Literal["text"]


_Stop = Annotated[str, StringConstraints(max_length=STOP_CHARS)]


def _as_list(stop: Any) -> Any:
    return [stop] if isinstance(stop, str) else stop


class _Ignored(_Object):
    """Fields that are accepted although they have no effect."""

    # Sampling: answers are greedy, and the response lists these fields as ignored.
    temperature: float = Field(0, ge=0, le=2)
    top_p: float = Field(1, ge=0, le=1)
    top_k: int = Field(-1, ge=-1)
    min_p: float = Field(0, ge=0, le=1)
    # A greedy answer does not depend on the seed, and nothing is stored about clients.
    seed: int = 0
    user: str = ""
    metadata: dict[str, Any] = {}
    store: bool = False
    service_tier: str = ""
    safety_identifier: str = ""
    prompt_cache_key: str = ""
    parallel_tool_calls: bool = True
    # Accepted only with the value that has no effect.
    n: Literal[1] = 1
    best_of: Literal[1] = 1
    presence_penalty: float = Field(0, ge=0, le=0)
    frequency_penalty: float = Field(0, ge=0, le=0)
    repetition_penalty: float = Field(1, ge=1, le=1)
    length_penalty: float = Field(1, ge=1, le=1)
    no_repeat_ngram_size: Literal[0] = 0
    min_tokens: Literal[0] = 0
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] = {}
    response_format: _ResponseFormat = _ResponseFormat(type="text")
    modalities: Annotated[list[Literal["text"]], Field(max_length=1, fail_fast=True)] = []
    tool_choice: Literal["none", "auto"] = "none"
    ignore_eos: Literal[False] = False
    skip_special_tokens: Literal[True] = True
    use_beam_search: Literal[False] = False


class ChatRequest(_Ignored):
    """A request to /v1/chat/completions."""

    model: Annotated[str, StringConstraints(max_length=NAME_CHARS)]
    messages: Annotated[list[_Message], Field(max_length=PARTS, fail_fast=True)]
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    stop: Annotated[list[_Stop], Field(max_length=STOPS, fail_fast=True), BeforeValidator(_as_list)] = []
    stream: bool = False
    stream_options: _StreamOptions = _StreamOptions()
    logprobs: bool = False
    top_logprobs: int = Field(0, ge=0, le=20)
    prompt_logprobs: Literal[0] | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template_kwargs: Annotated[dict[str, Any], Field(max_length=16)] = {}

    @property
    def ending(self) -> PromptEnd:
        """How the prompt ends."""
        return "none" if self.add_generation_prompt else "open" if self.continue_final_message else "closed"

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts that end an answer and are not part of it."""
        return tuple(text for text in self.stop if text)

    @property
    def ignored(self) -> list[str]:
        """The fields whose value would change a sampled answer, and has no effect on a greedy one."""
        changes = {
            "temperature": self.temperature != 0,
            "top_p": self.top_p != 1,
            "top_k": self.top_k not in (-1, 0),
            "min_p": self.min_p != 0,
        }
        return [name for name, changed in changes.items() if changed]


def read_request(body: bytes, limits: Limits) -> ChatRequest:
    """Parse and check the body of a request. Raises `InputError` with the field and what is wrong with it."""
    _check_size(body, limits)
    try:
        request = ChatRequest.model_validate_json(body)
    except ValidationError as error:
        raise InputError(_sentence(error)) from error
    parts = [1 if isinstance(message.content, str) else len(message.content) for message in request.messages]
    if sum(parts) > PARTS:
        raise InputError(
            f"messages: has {sum(parts):,} texts and pictures, and at most {PARTS:,} are allowed. Send fewer."
        )
    if request.add_generation_prompt and request.continue_final_message:
        raise InputError("continue_final_message: needs add_generation_prompt: false. Add it.")
    if request.ending != "none" and request.messages[-1].role != "assistant":
        raise InputError("add_generation_prompt: false needs a message of the assistant at the end. Add one.")
    if request.stream and request.prompt_logprobs is not None:
        raise InputError("prompt_logprobs: cannot be used with stream: true. Leave one of them out.")
    if request.top_logprobs and not request.logprobs:
        raise InputError("top_logprobs: needs logprobs: true. Give both, or neither.")
    return request


def _check_size(body: bytes, limits: Limits) -> None:
    """Raise `InputError` for a body with very many values before it is parsed: parsing would stall all threads."""
    quotes = body.count(b'"') - body.count(b'\\"')
    others = sum(body.count(mark) for mark in (b",", b"[", b"{"))
    if quotes > PUNCTUATION * PARTS or others > PUNCTUATION * PARTS + limits.text:
        raise InputError(
            "the body has more values than a request can need. Send fewer messages, or fewer stop strings."
        )


def _sentence(error: ValidationError) -> str:
    """The most specific of the errors about a request, as a sentence."""
    # If a value may have several forms, the deepest error is about the form that the client meant.
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    first = max(errors, key=lambda one: len(one["loc"]))
    where = ".".join(str(part) for part in first["loc"] if part != "str" and "[" not in str(part))[:ECHO]
    if first["type"] == "extra_forbidden":
        return f"{where}: not supported. Leave it out."
    if first["type"] == "json_invalid":
        return f"the body is not JSON ({first['msg'].removeprefix('Invalid JSON: ')})."
    message = first["msg"].removeprefix("Value error, ")[:ECHO]
    return f"{where or 'the body'}: {message[0].lower()}{message[1:]}."


@dataclass(frozen=True, slots=True)
class ChatConversation:
    """Messages in the form of prompts, their pictures by content, and the total number of pixels."""

    messages: list[Message]
    sources: Sources
    pixels: int


def parse_conversation(messages: Sequence[_Message], limits: Limits) -> ChatConversation:
    """The conversation of a request. Its pictures are not decoded yet, and its texts are not tokenised.

    Pictures must be in the request itself: no URL and no path is opened. Raises `InputError` if the texts are too long,
    or the pictures too many or too large.
    """
    read: list[Message] = []
    sources: Sources = {}
    pixels, count = 0, 0
    _check_texts(messages, limits)
    for number, message in enumerate(messages):
        role = "system" if message.role == "developer" else message.role
        parts = [_Text(type="text", text=message.content)] if isinstance(message.content, str) else message.content
        content: list[dict[str, str]] = []
        for place, part in enumerate(parts):
            if isinstance(part, _Text):
                content.append({"type": "text", "text": part.text})
                continue
            where = f"messages.{number}.content.{place}"
            if role != "user":
                raise InputError(f"{where}: a message of the {role} has a picture. Only the user's messages can.")
            count += 1
            if count > limits.pictures:
                raise InputError(f"{where}: a request may have {limits.pictures:,} pictures. Send fewer.")
            upload = _upload(where, part.image_url.url)
            item = hashlib.sha256(upload.content).hexdigest()
            if item not in sources:
                pixels += _pixels(upload, limits.pixels - pixels, limits.pixels)
                sources[item] = item, upload
            content.append({"type": "image", "image": item})
        read.append({"role": role, "content": content})
    return ChatConversation(read, sources, pixels)


def _check_texts(messages: Sequence[_Message], limits: Limits) -> None:
    length = 0
    for message in messages:
        texts = [message.content] if isinstance(message.content, str) else message.content
        length += sum(len(t) if isinstance(t, str) else len(t.text) for t in texts if not isinstance(t, _Picture))
    if length > limits.text:
        raise InputError(
            f"messages: their texts have {length:,} characters, and at most {limits.text:,} are allowed, by this "
            "server's limit or the model's context. Shorten them."
        )


def _pixels(upload: Upload, left: int, most: int) -> int:
    width, height = image_size(upload)
    if width * height > left:
        raise InputError(
            f"{upload}: has {width:,} x {height:,} pixels, and the pictures of a request may have {most:,} together. "
            "Scale them down, or send fewer."
        )
    return width * height


def _upload(where: str, uri: str) -> Upload:
    """The picture in a data URI."""
    head, _, data = uri.partition(",")
    if not head.startswith("data:") or not head.endswith(";base64"):
        raise InputError(
            f"{where}: the picture's URL is not a data URI, and this server opens no others. Send the picture itself: "
            "data:image/png;base64,..."
        )
    try:
        content = base64.b64decode(data, validate=True)
    except ValueError as error:  # binascii.Error, or characters that are not ASCII
        raise InputError(f"{where}: the picture is not base64 ({error}). Encode the file's bytes.") from error
    if suffix(content) is None:
        raise InputError(f"{where}: not a picture ({formats.KINDS} are read). Convert it.")
    return Upload(where, content)


def failure(message: str, kind: str, code: str | None = None) -> dict[str, Any]:
    """The body of an error response."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def server_sent(content: dict[str, Any] | str) -> str:
    """One server-sent event of a streamed response."""
    return f"data: {content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)}\n\n"


def token_logprob(text: str, logprob: float) -> dict[str, Any]:
    """A token and its log-probability."""
    return {"token": text, "logprob": max(logprob, LOWEST), "bytes": list(text.encode())}


def prompt_logprobs(ids: Sequence[int], values: Sequence[float], words: Sequence[str]) -> list[dict[str, Any] | None]:
    """The log-probability of each token of a prompt, in vLLM's shape. The first token has none."""
    rows = [
        {str(token): {"logprob": max(value, LOWEST), "rank": None, "decoded_token": text}}
        for token, value, text in zip(ids, values, words, strict=True)
    ]
    return [None, *rows[1:]]


def usage(prompt: int, completion: int, cached: int) -> dict[str, Any]:
    """The token counts of a request."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }

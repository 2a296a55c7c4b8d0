"""The intake of a request: its body is received, and its pictures are preprocessed, outside of the model's thread.

All bodies that are being received share a limit in bytes, so that slow clients hold little memory; they take no place
in the queue. Small and large requests have a thread each, so that a small one never waits while the pictures of a large
one are decoded.
"""

import asyncio
import copy
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from PIL import Image
from starlette.requests import ClientDisconnect, Request

from linkcontext.data.images import Upload, open_image
from linkcontext.episodes.render import tokenize
from linkcontext.episodes.scaffold import Message, image_ids
from linkcontext.errors import InputError
from linkcontext.inference.image_preprocessor import ImagePreprocessor, Preprocessed
from linkcontext.models.model import Model
from linkcontext.scoring.prompts import fits, rendered
from linkcontext.scoring.protocol import PromptEnd, Sources

BODY_SECONDS = 60  # in which a request's body must arrive
UNFINISHED = 4  # all bodies being received may take as many bytes as this number of the largest
SMALL_BODY, SMALL_PIXELS = 1_000_000, 4_000_000  # bytes and pixels of a small request
MAX_WAITING_BYTES = 256_000_000  # of preprocessed pictures that wait for the model, in each thread
Known = Callable[[str, bool], bool]  # whether the features of a picture, by content and alone or not, are cached
Result = TypeVar("Result")


class Refusal(Exception):
    """A request is refused, with an HTTP status and a message."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code = status, code


@dataclass(eq=False)
class _Body:
    data: bytearray = field(default_factory=bytearray)
    refused: bool = False


class BodyReader:
    """Receives bodies of at most `max_bytes` each, and of a few times as many bytes all together."""

    def __init__(self, max_bytes: int, seconds: float = BODY_SECONDS) -> None:
        self.max_bytes, self.seconds = max_bytes, seconds
        self.unfinished: list[_Body] = []

    async def read(self, request: Request) -> bytes:
        """The body of a request. Raises `Refusal` if it is too large, too slow, or one of too many large ones."""
        body = _Body()
        self.unfinished.append(body)
        try:
            async with asyncio.timeout(self.seconds):
                async for piece in request.stream():
                    body.data += piece
                    self._check(body)
        except TimeoutError as error:
            raise Refusal(408, f"the request's body did not arrive within {self.seconds:.4g} seconds.") from error
        except ClientDisconnect as error:
            raise Refusal(499, "the client has disconnected.") from error
        finally:
            self.unfinished.remove(body)
        return bytes(body.data)

    def _check(self, body: _Body) -> None:
        if len(body.data) > self.max_bytes:
            raise Refusal(413, f"a request may have {self.max_bytes:,} bytes, and this one has more. Send less.")
        if sum(len(other.data) for other in self.unfinished) > UNFINISHED * self.max_bytes:
            largest = max(self.unfinished, key=lambda other: len(other.data))
            largest.refused = True
            largest.data.clear()
        if body.refused:
            raise Refusal(429, "too many large requests are being sent at once. Ask again in a moment.", "queue_full")


class PreprocessingThread:
    """A thread that parses requests and preprocesses their pictures, with its own copy of the model's processor.

    Preprocessed pictures that the model has not used yet take at most `max_bytes`, and one request more. With `whole`
    the engine gives whole prompts to the model's processor, and pictures are only checked here.
    """

    def __init__(self, model: Model, name: str, whole: bool = False, max_bytes: int = MAX_WAITING_BYTES) -> None:
        self.model = replace(model, processor=copy.deepcopy(model.processor))  # tokenizers serve one thread at a time
        self.preprocessor = ImagePreprocessor(self.model)
        self.whole = whole
        self.max_bytes, self.waiting_bytes = max_bytes, 0
        self.changed = threading.Condition()
        self.closed = False
        self.pool = ThreadPoolExecutor(1, name)

    async def run(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call a function in this thread, after the calls that are waiting."""
        return await asyncio.get_running_loop().run_in_executor(self.pool, function, *arguments)

    def prepare(self, messages: list[Message], ending: PromptEnd, sources: Sources, known: Known) -> int:
        """Replace the uploads in `sources` by the processor's output, and return the output's size in bytes.

        Pictures that are `known` stay as they are. Raises `InputError`, and keeps nothing, if a picture is damaged or
        the conversation does not fit the context. The caller must call `free` with the size later.
        """
        items = image_ids(messages)
        text, _ = rendered(messages, ending, self.model.chat_template)
        short = tokenize(text, (), items, self.model.chat_template, "none")
        fits(len(short.ids), short, self.model.context)  # before pictures, which only add to it, are decoded
        with self.changed:
            self.changed.wait_for(lambda: self.waiting_bytes < self.max_bytes or self.closed)
        preprocessed: dict[str, Preprocessed] = {}
        for content, upload in sources.values():
            if isinstance(upload, Upload) and not known(content, len(items) == 1):
                image = open_image(upload)
                if not self.whole:
                    preprocessed[content] = self._preprocess(image, upload, len(items) == 1)
        longer = sum(len(preprocessed[item].ids) - 1 for item in items if item in preprocessed)
        fits(len(short.ids) + longer, short, self.model.context)
        sources |= {content: (content, picture) for content, picture in preprocessed.items()}
        size = sum(picture.nbytes for picture in preprocessed.values())
        with self.changed:
            self.waiting_bytes += size
        return size

    def _preprocess(self, image: Image.Image, upload: Upload, alone: bool) -> Preprocessed:
        try:
            return self.preprocessor.preprocess(image, alone)
        except ValueError as error:  # some processors refuse pictures of unusual shapes
            raise InputError(f"{upload}: the model's processor refuses the picture ({error}). Change it.") from error

    def free(self, size: int) -> None:
        """Release the bytes of preprocessed pictures that were used or are no longer needed."""
        with self.changed:
            self.waiting_bytes -= size
            self.changed.notify_all()

    def close(self) -> None:
        """Stop the thread. Calls that wait are cancelled."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()
        self.pool.shutdown(wait=True, cancel_futures=True)

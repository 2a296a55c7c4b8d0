"""From the bytes of a request to a job for the model: received, read and preprocessed beside the model's thread.

Bodies that are still on their way are bounded together, so that clients that send slowly hold little memory and none of
the places of those that wait. Small and large requests have a thread each, so that a small one never waits until a
large one's pictures are decoded.
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
from linkcontext.inference.vision import Preprocessed, VisionEncoder
from linkcontext.models.loading import Model
from linkcontext.scoring.prompts import fits, rendered
from linkcontext.scoring.protocol import PromptEnd, Sources

SECONDS = 60  # in which a request's body must be there
UNFINISHED = 4  # bodies on their way may take as many bytes as so many of the largest
SMALL_BODY, SMALL_PIXELS = 1_000_000, 4_000_000  # bytes and pixels of a small request
ROOM = 256_000_000  # bytes of preprocessed pictures that wait for the model, in each lane
Known = Callable[[str, bool], bool]  # whether features of a picture, by content and alone or not, are at hand
Result = TypeVar("Result")


class Refusal(Exception):
    """A request that is not taken: an HTTP status and a sentence."""

    def __init__(self, status: int, why: str, code: str | None = None) -> None:
        super().__init__(why)
        self.status, self.code = status, code


@dataclass(eq=False)
class _Body:
    data: bytearray = field(default_factory=bytearray)
    refused: bool = False


class Bodies:
    """The bodies that are on their way: each of at most `most` bytes, and all together of a few times as many."""

    def __init__(self, most: int, seconds: float = SECONDS) -> None:
        self.most, self.seconds = most, seconds
        self.coming: list[_Body] = []

    async def read(self, request: Request) -> bytes:
        """The body of a request. Raises `Refusal` if it is too large, too slow, or one of too many large ones."""
        body = _Body()
        self.coming.append(body)
        try:
            async with asyncio.timeout(self.seconds):
                async for piece in request.stream():
                    body.data += piece
                    self._check(body)
        except TimeoutError as error:
            raise Refusal(408, f"the request's body did not come within {self.seconds:.4g} seconds.") from error
        except ClientDisconnect as error:
            raise Refusal(499, "the client has left.") from error
        finally:
            self.coming.remove(body)
        return bytes(body.data)

    def _check(self, body: _Body) -> None:
        if len(body.data) > self.most:
            raise Refusal(413, f"a request may have {self.most:,} bytes, and this one has more. Show less.")
        if sum(len(other.data) for other in self.coming) > UNFINISHED * self.most:
            largest = max(self.coming, key=lambda other: len(other.data))
            largest.refused = True
            largest.data.clear()
        if body.refused:
            raise Refusal(429, "too many large requests are being sent at once. Ask again in a moment.", "queue_full")


class Lane:
    """A thread that reads requests and preprocesses their pictures, with a processor of its own.

    What it has preprocessed and the model has not used yet is at most `room` bytes and one request more.
    """

    def __init__(self, model: Model, name: str, whole: bool = False, room: int = ROOM) -> None:
        self.model = replace(model, processor=copy.deepcopy(model.processor))  # tokenizers serve one thread at a time
        self.eyes = VisionEncoder(self.model, counting=False)
        self.whole = whole  # the engine gives whole prompts to the model's processor: pictures are only checked here
        self.room, self.taken = room, 0
        self.changed = threading.Condition()
        self.closed = False
        self.pool = ThreadPoolExecutor(1, name)

    async def run(self, act: Callable[..., Result], *given: Any) -> Result:
        """Call a function in this thread, after the calls that are waiting."""
        return await asyncio.get_running_loop().run_in_executor(self.pool, act, *given)

    def prepare(self, messages: list[Message], ending: PromptEnd, sources: Sources, known: Known) -> int:
        """Replace the uploads in `sources` by the processor's output, and return its bytes.

        Pictures that are `known` are left as they are. Raises `InputError` if a picture is damaged or the conversation
        does not fit the context; nothing of it is kept then. The caller calls `free` with the bytes later.
        """
        items = image_ids(messages)
        text, _ = rendered(messages, ending, self.model.chat_template)
        short = tokenize(text, (), items, self.model.chat_template, "none")
        fits(len(short.ids), short, self.model.context)  # pictures only add to it
        with self.changed:
            self.changed.wait_for(lambda: self.taken < self.room or self.closed)
        made: dict[str, Preprocessed] = {}
        for content, upload in sources.values():
            if isinstance(upload, Upload) and not known(content, len(items) == 1):
                image = open_image(upload)
                if not self.whole:
                    made[content] = self._preprocess(image, upload, len(items) == 1)
        longer = sum(len(made[item].ids) - 1 for item in items if item in made)
        fits(len(short.ids) + longer, short, self.model.context)
        sources |= {content: (content, picture) for content, picture in made.items()}
        size = sum(picture.nbytes for picture in made.values())
        with self.changed:
            self.taken += size
        return size

    def _preprocess(self, image: Image.Image, upload: Upload, alone: bool) -> Preprocessed:
        try:
            return self.eyes.preprocess(image, alone)
        except ValueError as error:  # some processors refuse pictures of unusual shapes
            raise InputError(f"{upload}: the model's processor refuses the picture ({error}). Change it.") from error

    def free(self, size: int) -> None:
        """Release the room of preprocessed pictures that are used or no longer wanted."""
        with self.changed:
            self.taken -= size
            self.changed.notify_all()

    def close(self) -> None:
        """Stop the thread; calls that are waiting are cancelled."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()
        self.pool.shutdown(wait=True, cancel_futures=True)

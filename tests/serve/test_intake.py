"""Bodies on their way, and what is prepared for the model beside its thread."""

import asyncio
import io

import pytest
from PIL import Image
from starlette.requests import Request

from linkcontext.data.images import Upload
from linkcontext.errors import InputError
from linkcontext.inference.image_preprocessor import Preprocessed
from linkcontext.models.loading import load_model
from linkcontext.serve.intake import BodyReader, PreprocessingThread, Refusal


class Client:
    """A client that sends pieces of a body; None is the end, and leaving is an OSError's."""

    def __init__(self):
        self.pieces = asyncio.Queue()
        self.request = Request({"type": "http", "method": "POST", "headers": []}, self.receive)

    async def receive(self):
        piece = await self.pieces.get()
        if piece == "leave":
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

    def send(self, *pieces):
        for piece in pieces:
            self.pieces.put_nowait(piece)


def refusal(task):
    with pytest.raises(Refusal) as refused:
        task.result()
    return refused.value.status


def test_a_body_is_read_whole_and_in_time():
    async def run():
        bodies, clients = BodyReader(10, seconds=0.2), [Client() for _ in range(4)]
        tasks = [asyncio.create_task(bodies.read(client.request)) for client in clients]
        clients[0].send(b"ab", b"cd", None)
        clients[1].send(b"x" * 8, b"x" * 8)
        clients[2].send(b"x")
        clients[3].send(b"x", "leave")
        await asyncio.wait(tasks)
        assert tasks[0].result() == b"abcd"
        assert [refusal(task) for task in tasks[1:]] == [413, 408, 499]
        assert bodies.unfinished == []

    asyncio.run(run())


def test_of_too_many_large_bodies_the_largest_makes_room():
    async def run():
        bodies, clients = BodyReader(100), [Client() for _ in range(6)]
        tasks = [asyncio.create_task(bodies.read(client.request)) for client in clients]
        for size, client in zip((95, 90, 91, 92, 93), clients, strict=False):
            client.send(b"x" * size)
        await asyncio.sleep(0.05)
        clients[5].send(b"small", None)
        await asyncio.sleep(0.05)
        assert tasks[5].result() == b"small"
        assert sum(len(body.data) for body in bodies.unfinished) <= 400
        for client in clients[:5]:
            client.send(b"", None)
        await asyncio.wait(tasks)
        assert refusal(tasks[0]) == 429
        assert [len(task.result()) for task in tasks[1:5]] == [90, 91, 92, 93]

    asyncio.run(run())


@pytest.fixture(scope="module")
def model(nano):
    return load_model(str(nano), device="cpu")


@pytest.fixture
def thread(model):
    thread = PreprocessingThread(model, "test")
    yield thread
    thread.close()


def upload(edge=32, cut=None):
    file = io.BytesIO()
    Image.effect_noise((edge, edge), 50).convert("RGB").save(file, "PNG")
    return Upload("messages.0.content.0", file.getvalue()[:cut])


def user(text, *items):
    shown = [{"type": "image", "image": item} for item in items]
    return [{"role": "user", "content": [*shown, {"type": "text", "text": text}]}]


def nobody(content, alone):
    return False


def test_pictures_are_preprocessed_and_their_bytes_counted(thread):
    sources = {"a": ("a", upload()), "b": ("b", upload())}
    size = thread.prepare(user("?", "a", "b"), "none", sources, lambda content, alone: content == "b")
    assert isinstance(sources["a"][1], Preprocessed)
    assert isinstance(sources["b"][1], Upload)  # known
    assert thread.waiting_bytes == size == sources["a"][1].nbytes > 0
    thread.free(size)
    assert thread.waiting_bytes == 0


def test_nothing_is_kept_of_what_is_refused(thread, model):
    damaged, long = {"a": ("a", upload(cut=200))}, {"a": ("a", upload())}
    with pytest.raises(InputError, match=r"messages\.0\.content\.0: the picture is damaged"):
        thread.prepare(user("?", "a"), "none", damaged, nobody)
    with pytest.raises(InputError, match="the model's context is"):
        thread.prepare(user("word " * 6000, "a"), "none", long, nobody)
    with pytest.raises(InputError, match="pictures fit"):  # the text alone fits, and is refused before they are encoded
        many = {str(number): (str(number), upload()) for number in range(3)}
        thread.prepare(user("?", *[item for item in many for _ in range(400)]), "none", many, nobody)
    assert isinstance(long["a"][1], Upload)
    assert thread.waiting_bytes == 0


def test_a_thread_waits_until_what_it_made_is_used(thread):
    thread.max_bytes = 1
    first, second = {"a": ("a", upload())}, {"b": ("b", upload())}

    async def run():
        size = await thread.run(thread.prepare, user("?", "a"), "none", first, nobody)
        waiting = asyncio.create_task(thread.run(thread.prepare, user("?", "b"), "none", second, nobody))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        thread.free(size)
        thread.free(await waiting)

    asyncio.run(run())
    assert thread.waiting_bytes == 0


def test_where_whole_prompts_are_run_pictures_are_only_checked(model):
    thread = PreprocessingThread(model, "whole", whole=True)
    try:
        sources = {"a": ("a", upload())}
        assert thread.prepare(user("?", "a"), "none", sources, nobody) == 0
        assert isinstance(sources["a"][1], Upload)
    finally:
        thread.close()

"""The endpoint: what it says is what the model says offline, whoever else asks, and whatever is sent."""

import base64
import contextlib
import io
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest
from PIL import Image

from linkcontext.data.images import open_image, sha256
from linkcontext.episodes.scaffold import SCAFFOLDS, build_messages
from linkcontext.inference.vision import VisionEncoder
from linkcontext.models.loading import load_model
from linkcontext.records import Turn
from linkcontext.scoring.identity import measured
from linkcontext.scoring.local import LocalModel
from linkcontext.scoring.protocol import ScoringRequest
from linkcontext.serve.endpoint import Endpoint, Limits
from linkcontext.serve.worker import ModelWorker
from linkcontext.source import open_data
from linkcontext.teach.learner import Learner
from linkcontext.teach.pack import read_pack
from linkcontext.teach.pack_writing import write_pack

NAMES = ("cactihog", "plimbo")
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def model():
    return load_model("mini", device="cpu")


@pytest.fixture(scope="module")
def paths():
    dataset = open_data("world:3")
    return [[dataset.root / item.path for item in items] for items in dataset.by_class().values()]


@pytest.fixture(scope="module")
def limits():
    return Limits(queue=32, body=300_000, new_tokens=40)


@pytest.fixture(scope="module")
def pack(model, paths, tmp_path_factory):
    learner = Learner(LocalModel(model))
    learner.teach({"tavork": paths[2][:2], "gaspik": paths[9][:2]})
    path = tmp_path_factory.mktemp("packs") / "zoo.pack"
    write_pack(learner, path)
    return path


@pytest.fixture(scope="module")
def endpoint(model, limits, pack):
    return Endpoint("mini", model, limits, [("zoo", pack)], head="lm")


@pytest.fixture(scope="module")
def url(endpoint, serving):
    with serving(endpoint.app()) as url:
        yield url


@pytest.fixture(scope="module")
def client(url):
    with openai.OpenAI(base_url=url, api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def offline(model):
    return LocalModel(model, VisionEncoder(model, open_image), {})


def uri(path):
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def shown(path, text="What is this?"):
    parts = [{"type": "image_url", "image_url": {"url": uri(path)}}, {"type": "text", "text": text}]
    return {"role": "user", "content": parts}


def picture_part(address):
    return {"type": "image_url", "image_url": {"url": address}}


def said(text):
    return {"role": "assistant", "content": text}


def lesson(pictures, query, names=NAMES):
    """The same conversation for the endpoint, and as a prompt with its pictures."""
    turns, sent = [], []
    for path, name in zip(pictures, names, strict=True):
        turns.append(Turn(sha256(path), name, name))
        sent += [shown(path), said(name)]
    prompt = build_messages(turns, SCAFFOLDS["turns"], Turn(sha256(query), "", ""))
    return [*sent, shown(query)], prompt, {sha256(p): (sha256(p), p) for p in (*pictures, query)}


def ask(client, messages, **more):
    return client.chat.completions.create(model="mini", messages=messages, temperature=0, **more)


def refused(client, kind, messages, **more):
    with pytest.raises(kind) as caught:
        ask(client, messages, **more)
    assert set(caught.value.body) == {"message", "type", "param", "code"}
    return caught.value.body["message"]


def test_the_answer_is_the_model_s_own(client, offline, paths):
    sent, prompt, sources = lesson((paths[0][0], paths[7][0]), paths[7][3])
    offline.sources |= sources
    found = ask(client, sent)
    assert found.choices[0].message.content == offline.generate([prompt])[0] != ""
    assert found.choices[0].finish_reason == "stop"
    assert found.usage.prompt_tokens == len(offline.prompt(prompt).ids)
    assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens
    assert [m.id for m in client.models.list()] == ["mini", "zoo"]
    assert client.models.retrieve("mini").max_model_len == offline.loaded.context


def test_a_stream_says_the_same_token_by_token(client, paths):
    sent, _, _ = lesson((paths[0][0], paths[7][0]), paths[7][3])
    whole = ask(client, sent, logprobs=True, top_logprobs=3)
    pieces = list(ask(client, sent, stream=True, logprobs=True, top_logprobs=3, stream_options={"include_usage": True}))
    choices = [piece.choices[0] for piece in pieces if piece.choices]
    assert "".join(c.delta.content or "" for c in choices) == whole.choices[0].message.content
    assert choices[-1].finish_reason == whole.choices[0].finish_reason
    told = [entry for c in choices if c.logprobs for entry in c.logprobs.content]
    assert [entry.token for entry in told] == [entry.token for entry in whole.choices[0].logprobs.content]
    assert len(told) == whole.usage.completion_tokens == pieces[-1].usage.completion_tokens > 1
    for entry in told:  # greedily
        assert entry.logprob == entry.top_logprobs[0].logprob <= 0
        assert [top.logprob for top in entry.top_logprobs] == sorted(
            (t.logprob for t in entry.top_logprobs), reverse=True
        )


def test_an_answer_ends_where_it_is_told_to(client, paths):
    sent, _, _ = lesson((paths[0][0], paths[7][0]), paths[7][3])
    whole = ask(client, sent).choices[0].message.content
    cut = ask(client, sent, max_tokens=1)
    assert cut.choices[0].finish_reason == "length"
    assert cut.usage.completion_tokens == 1
    assert whole.startswith(cut.choices[0].message.content)
    stopped = ask(client, sent, stop=whole[2:4])
    assert stopped.choices[0].message.content == whole[:2]
    assert stopped.choices[0].finish_reason == "stop"
    pieces = ask(client, sent, stop=[whole[2:4], "never"], stream=True)
    assert "".join(p.choices[0].delta.content or "" for p in pieces) == whole[:2]


def test_no_part_of_a_stop_is_told(client, paths):
    """A stop that takes the whole answer, longer than what is said until its last token."""
    sent, _, _ = lesson((paths[0][0], paths[7][0]), paths[7][3])
    whole = ask(client, sent, logprobs=True)
    answer = whole.choices[0].message.content
    assert whole.usage.completion_tokens > 2
    for stop in (answer, [answer, "never" * 9]):
        pieces = list(ask(client, sent, stop=stop, stream=True))
        assert [p.choices[0].delta.content or "" for p in pieces] == [""] * len(pieces)
        assert ask(client, sent, stop=stop).choices[0].message.content == ""
    assert ask(client, sent, stop="never" * 9).choices[0].message.content == answer


def test_a_given_answer_is_scored_as_offline(client, offline, paths):
    sent, prompt, sources = lesson((paths[0][0], paths[7][0]), paths[7][3])
    offline.sources |= sources
    answers = tuple([*prompt, {"role": "assistant", "content": [{"type": "text", "text": name}]}] for name in NAMES)
    (scores,) = offline.score([ScoringRequest(prompt, answers)])
    ends = {"add_generation_prompt": False}
    begins = len(offline.prompt(prompt).ids)
    for name, (value, count) in zip(NAMES, scores, strict=True):
        read = {"prompt_logprobs": 0, **ends}
        closed = ask(client, [*sent, said(name)], max_tokens=1, extra_body=read).prompt_logprobs
        assert closed[0] is None
        goes_on = ask(client, [*sent, said(name)], max_tokens=1, extra_body={**read, "continue_final_message": True})
        assert [set(row) for row in goes_on.prompt_logprobs[1:]] == [set(row) for row in closed[1:-1]]
        own = [next(iter(row.values()))["logprob"] for row in closed[begins:]]
        assert len(own) == count
        assert sum(own) == pytest.approx(value, abs=1e-3)
    half = NAMES[0][:4]
    goes_on = ask(client, [*sent, said(half)], extra_body={**ends, "continue_final_message": True})
    begun = [*prompt, {"role": "assistant", "content": [{"type": "text", "text": half}]}]
    assert goes_on.choices[0].message.content == offline.generate([begun], end="open")[0]


def test_a_pack_is_a_model_by_name(client, model, pack, paths):
    learner = read_pack(pack).learner(LocalModel(model))
    for query in (paths[2][5], paths[9][5]):
        found = client.chat.completions.create(model="zoo", messages=[shown(query)], temperature=0)
        assert found.choices[0].message.content == learner.say(query)
        assert found.choices[0].message.content in learner.pictures.by_name
        assert (
            len(learner.prefill_support())
            <= found.usage.prompt_tokens_details.cached_tokens
            < found.usage.prompt_tokens
        )
    assert ask(client, [shown(query)]).usage.prompt_tokens < found.usage.prompt_tokens


def test_a_picture_that_was_taught_is_named_without_the_model(client, endpoint, paths, monkeypatch):
    monkeypatch.setattr(endpoint.worker, "submit", lambda _: pytest.fail("the model was asked"))
    for query, name in ((paths[2][0], "tavork"), (paths[9][1], "gaspik")):
        found = client.chat.completions.create(model="zoo", messages=[shown(query)])
        assert (found.choices[0].message.content, found.choices[0].finish_reason) == (name, "stop")
        assert found.model_extra == {"taught": True}
        pieces = client.chat.completions.create(model="zoo", messages=[shown(query)], stream=True)
        assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == name
    assert endpoint.requests.taken == 0


def test_a_correction_in_the_conversation_holds(client, paths):
    """The model is asked where the client has shown the picture before: it may have said what it really is."""
    query = shown(paths[2][0])
    for before in ([query, said("tavork"), {"role": "user", "content": "No, that is a gaspik."}, said("I see.")],):
        found = client.chat.completions.create(model="zoo", messages=[*before, query])
        assert found.model_extra == {}
    other = [shown(paths[0][0]), said("lum"), query]
    assert client.chat.completions.create(model="zoo", messages=other).model_extra == {"taught": True}


def test_the_list_of_models_says_what_is_served(client, model):
    plain, zoo = (card.model_extra["measured"] for card in client.models.list())
    assert {**plain, "pack": None} == {**measured(model), "pack": None}
    assert zoo.pop("pack") and plain.pop("pack") is None
    assert zoo == plain


def test_a_client_s_system_message_stands_before_a_pack(endpoint, client, model, pack, paths):
    learner = read_pack(pack).learner(LocalModel(model))
    said_first = [{"role": role, "content": f"Name {role}."} for role in ("system", "developer")]
    query = shown(paths[2][5])
    later = {"role": "system", "content": "Later."}
    _, request = endpoint.parse(json.dumps({"model": "zoo", "messages": [*said_first, query, later]}).encode())
    own = build_messages(learner.choose_support(), learner.scaffold)
    assert [message["role"] for message in request.messages[:2]] == ["system", "system"]
    assert [message["content"][0]["text"] for message in request.messages[:2]] == ["Name system.", "Name developer."]
    assert request.messages[2 : 2 + len(own)] == own
    assert [message["role"] for message in request.messages[2 + len(own) :]] == ["user", "system"]
    found = client.chat.completions.create(model="zoo", messages=[*said_first, query], temperature=0)
    assert found.choices[0].message.content
    assert found.usage.prompt_tokens_details.cached_tokens == 0


def test_a_conversation_that_goes_on_costs_its_new_tokens(client, endpoint, offline, paths):
    sent, prompt, sources = lesson((paths[1][0], paths[8][0]), paths[8][3], ("snobo", "davti"))
    offline.sources |= sources
    (reply,) = offline.generate([prompt])
    sent2, prompt2, sources2 = lesson((paths[1][0], paths[8][0]), paths[1][5], ("snobo", "davti"))
    text = [{"type": "text", "text": reply}]
    offline.sources |= sources2
    turns = {
        "first": (sent, prompt),
        "next": ([*sent, said(reply), sent2[-1]], [*prompt, {"role": "assistant", "content": text}, prompt2[-1]]),
        "other": (sent2, prompt2),
    }
    expected = {name: offline.generate([asked])[0] for name, (_, asked) in turns.items()}
    length = {name: len(offline.prompt(asked).ids) for name, (_, asked) in turns.items()}
    cached = []
    for name in ("first", "first", "next", "first", "other", "next", "first"):  # also shorter than what is kept
        found = ask(client, turns[name][0])
        assert found.choices[0].message.content == expected[name]
        assert found.usage.prompt_tokens == length[name]
        cached.append(found.usage.prompt_tokens_details.cached_tokens)
    whole = length["first"] - 1  # the last token says what comes next
    assert cached[0] < 16
    assert cached[1:4] == [whole, whole, whole]
    query = offline.loaded.network.config.image_seq_length + 10  # the picture and the words around it
    assert length["first"] - query < cached[4] < whole  # all but the query
    assert cached[5:] == [length["next"] - 1, whole]
    assert 0 < endpoint.worker.prefix_cache.nbytes <= endpoint.limits.hold


def test_many_clients_at_once_get_each_their_own_answer(client, offline, paths):
    """40 requests from 8 clients, whole and streamed, of different lessons: none lost, none mixed up."""
    syllables, asked = ("ca", "plim", "tor", "lum", "dav", "gi", "sno"), []
    for number in range(40):
        first, second = number % 5, 7 + number % 3
        last = syllables[(number + 1 + number % 5) % 7]  # another than the first: each syllable once in a name
        names = [syllables[number % 7] + end + last for end in ("bo", "ti")]
        query = paths[(first, second)[number % 2]][5 + number % 7]
        asked.append(lesson((paths[first][number % 4], paths[second][0]), query, names))
    offline.sources |= {k: v for _, _, sources in asked for k, v in sources.items()}
    expected = [offline.generate([prompt])[0] for _, prompt, _ in asked]
    assert len(set(expected)) > 20

    def one(number):
        if number % 2:
            return ask(client, asked[number][0]).choices[0].message.content
        return "".join(p.choices[0].delta.content or "" for p in ask(client, asked[number][0], stream=True))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(one, range(40))) == expected


def test_what_cannot_be_read_is_a_sentence(client, url, paths):
    good = shown(paths[0][0])
    told = refused(client, openai.BadRequestError, [{"role": "user"}])
    assert told.startswith("messages.0.content: field required")
    assert "messages" in refused(client, openai.BadRequestError, [])
    assert "messages.0.role" in refused(client, openai.BadRequestError, [{"role": "tool", "content": "x"}])
    assert "tools: not supported" in refused(client, openai.BadRequestError, [good], extra_body={"tools": [{}]})
    assert "temperature: " in refused(client, openai.BadRequestError, [good], extra_body={"temperature": -1})
    assert "n: " in refused(client, openai.BadRequestError, [good], n=2)
    assert "top_logprobs" in refused(client, openai.BadRequestError, [good], top_logprobs=2)
    assert "at the end" in refused(client, openai.BadRequestError, [good], extra_body={"add_generation_prompt": False})
    assert "messages.0.content.2: the text holds '<image>'" in refused(
        client, openai.BadRequestError, [{**good, "content": [*good["content"], {"type": "text", "text": "<image>"}]}]
    )
    assert "context" in refused(client, openai.BadRequestError, [{"role": "user", "content": "word " * 6000}])
    with pytest.raises(openai.NotFoundError, match=r"there is no model bar\. The models are mini, zoo"):
        client.chat.completions.create(model="bar", messages=[good])
    for data in ("\u00e9", "!", ""):
        part = picture_part(f"data:image/png;base64,{data}")
        told = refused(client, openai.BadRequestError, [{"role": "user", "content": [part]}])
        assert told.startswith("messages.0.content.0: ")
    route = f"{url}/chat/completions"
    for body in (b"", b"{", b"[]", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"model": "mini", "messages": 7}'):
        found = httpx.post(route, content=body, headers=JSON)
        assert found.status_code == 400
        assert found.json()["error"]["message"].endswith(".")
    assert httpx.get(f"{url}/completions").status_code == 404
    assert ask(client, [good]).choices[0].message.content


def test_an_answer_says_which_fields_were_ignored(client, paths):
    good = shown(paths[0][0])
    usual = ask(client, [good])
    assert "ignored" not in usual.model_extra
    sampled = client.chat.completions.create(
        model="mini", messages=[good], temperature=0.7, top_p=0.9, seed=5, user="a"
    )
    assert sampled.choices[0].message.content == usual.choices[0].message.content
    assert sampled.model_extra["ignored"] == ["temperature", "top_p"]
    pieces = list(client.chat.completions.create(model="mini", messages=[good], temperature=1, stream=True))
    assert all(piece.model_extra["ignored"] == ["temperature"] for piece in pieces)


def test_nothing_waits_and_nothing_is_held_after_good_and_bad_requests(client, endpoint, paths):
    address = "data:image/png;base64," + base64.b64encode(b"BM" + bytes(100)).decode()
    refused(client, openai.BadRequestError, [{"role": "user", "content": [picture_part(address)]}])
    refused(client, openai.BadRequestError, [{"role": "user", "content": "word " * 6000}])
    assert ask(client, [shown(paths[0][0])]).choices
    until(lambda: endpoint.requests.taken == endpoint.large_requests.taken == 0)
    assert [thread.waiting_bytes for thread in endpoint.preprocessing] == [0, 0]
    assert endpoint.bodies.unfinished == []
    until(lambda: endpoint.worker.local_model.sources == {})


def test_large_requests_take_a_part_of_the_places(client, endpoint, paths, slow, limits):
    gate, heard = slow
    file = io.BytesIO()
    Image.new("1", (2100, 2100)).save(file, "PNG")
    large = {
        "role": "user",
        "content": [picture_part("data:image/png;base64," + base64.b64encode(file.getvalue()).decode())],
    }
    with ThreadPoolExecutor(9) as pool:
        waiting = [pool.submit(ask, client, [large]) for _ in range(limits.queue // 4)]
        until(lambda: endpoint.large_requests.taken == limits.queue // 4 and heard)
        with pytest.raises(openai.RateLimitError, match="8 large requests are waiting already"):
            ask(client, [large])
        small = pool.submit(ask, client, [shown(paths[0][0])])
        gate.release(10_000)
        assert small.result().choices
        assert all(one.result().choices for one in waiting)


def test_a_body_on_its_way_takes_no_place(client, endpoint, url, paths):
    host, port = url.removeprefix("http://").removesuffix("/v1").split(":")
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    slow = [socket.create_connection((host, int(port))) for _ in range(40)]
    try:
        for sender in slow:
            sender.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        until(lambda: len(endpoint.bodies.unfinished) == 40)
        assert endpoint.requests.taken == 0
        assert ask(client, [shown(paths[0][0])]).choices
    finally:
        for sender in slow:
            sender.close()
    until(lambda: endpoint.bodies.unfinished == [])


def test_neutral_penalties_and_the_template_s_own_variables_are_taken(client, paths):
    given = {"repetition_penalty": 1.0, "chat_template_kwargs": {"enable_thinking": False}}  # mini's does not read it
    answer = ask(client, [shown(paths[0][0])], extra_body=given, presence_penalty=0, frequency_penalty=0)
    assert answer.choices[0].message.content == ask(client, [shown(paths[0][0])]).choices[0].message.content
    other = {"chat_template_kwargs": {"add_generation_prompt": False}}
    assert "was started with {}" in refused(client, openai.BadRequestError, [shown(paths[0][0])], extra_body=other)
    penalty = {"repetition_penalty": 1.1}
    assert "repetition_penalty" in refused(client, openai.BadRequestError, [shown(paths[0][0])], extra_body=penalty)


def test_a_mark_in_a_text_is_named_with_its_message(client, paths):
    for mark in ("<image>", "<|end|>"):
        why = refused(client, openai.BadRequestError, [said("a"), shown(paths[0][0], f"What is {mark}?")])
        assert "messages.1.content.1" in why
        assert mark in why


def test_only_pictures_in_the_request_are_opened(client, paths, tmp_path):
    def picture(address, role="user"):
        return [{"role": role, "content": [{"type": "image_url", "image_url": {"url": address}}]}]

    def sentence(*said):
        return refused(client, openai.BadRequestError, picture(*said))

    for told in (f"file://{paths[0][0]}", str(paths[0][0]), "http://127.0.0.1:9/x.png", "data:image/png,abc", ""):
        assert "this server opens no others" in sentence(told)
    assert "messages.0.content.0: the picture is not base64" in sentence("data:image/png;base64,@@@@")
    assert "not a picture" in sentence("data:image/png;base64," + base64.b64encode(b"<svg/>").decode())
    assert "not a picture" in sentence("data:image/png;base64,")
    cut = base64.b64encode(paths[0][0].read_bytes()[:200]).decode()
    assert "messages.0.content.0: the picture is damaged" in sentence(f"data:image/png;base64,{cut}")
    assert "Only the user's" in sentence(uri(paths[0][0]), "assistant")


def test_a_request_that_is_too_large_is_not_read(client, url, limits):
    with pytest.raises(openai.APIStatusError, match="may have 300,000 bytes") as caught:
        ask(client, [{"role": "user", "content": "x" * limits.body}])
    assert caught.value.status_code == 413

    def endless():
        while True:
            yield b"x" * 65536

    with contextlib.suppress(httpx.TransportError):  # the server hangs up in the middle of it
        assert httpx.post(f"{url}/chat/completions", content=endless(), headers=JSON).status_code == 413
    assert ask(client, [{"role": "user", "content": "x"}]).choices


@pytest.fixture
def slow(endpoint, monkeypatch):
    """Lets the model say a token only when it is told to."""
    gate, heard = threading.Semaphore(0), []
    usual = ModelWorker._on_token

    def waits(self, request, token, logits):
        heard.append(request)
        assert gate.acquire(timeout=20)
        return usual(self, request, token, logits)

    monkeypatch.setattr(ModelWorker, "_on_token", waits)
    yield gate, heard
    gate.release(10_000)
    until(lambda: endpoint.requests.taken == 0)


def until(true):
    for _ in range(2000):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come to that")


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_is_not_answered_any_further(client, url, paths, slow, stream):
    gate, heard = slow
    wants = {"model": "mini", "messages": [shown(paths[0][0], "?")], "stream": stream}
    body = json.dumps(wants).encode()
    with httpx.Client() as other:
        if stream:
            with other.stream("POST", f"{url}/chat/completions", content=body, headers=JSON) as response:
                next(response.iter_lines())
        else:
            with pytest.raises(httpx.ReadTimeout):
                other.post(f"{url}/chat/completions", content=body, headers=JSON, timeout=0.5)
    until(lambda: heard)
    request = heard[0]
    until(lambda: request.cancelled)
    gate.release()
    until(lambda: request.finished)
    assert request.token_ids == []
    gate.release(10_000)
    assert ask(client, [shown(paths[0][0])]).choices[0].message.content


def test_a_full_house_sends_clients_away(client, endpoint, url, paths, slow, limits):
    gate, heard = slow
    with ThreadPoolExecutor(limits.queue) as pool:
        inside = [pool.submit(ask, client, [shown(paths[0][0])]) for _ in range(limits.queue)]
        until(lambda: endpoint.requests.taken == limits.queue and heard)
        with pytest.raises(openai.RateLimitError, match="32 requests are waiting already") as caught:
            ask(client, [shown(paths[0][0])])
        assert caught.value.response.headers["retry-after"] == "1"
        gate.release(10_000)
        assert len({one.result().choices[0].message.content for one in inside}) == 1


def test_a_model_that_fails_leaves_the_server_up(client, paths, monkeypatch, caplog):
    usual = LocalModel.generate

    def fails(self, prompts, *more):
        if any(len(messages) > 1 for messages in prompts):
            raise RuntimeError("out of memory")
        return usual(self, prompts, *more)

    monkeypatch.setattr(LocalModel, "generate", fails)
    with pytest.raises(openai.InternalServerError, match="the model failed"):
        ask(client, [shown(paths[0][0]), said("a"), shown(paths[0][0])])
    assert ask(client, [shown(paths[0][0])]).choices[0].message.content

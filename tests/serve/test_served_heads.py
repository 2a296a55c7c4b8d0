"""A served pack whose head names pictures: a bare question gets its answer, everything else the model's."""

import base64
import io

import numpy as np
import openai
import pytest
from PIL import Image

from linkcontext.scoring.local import LocalModel
from linkcontext.serve.endpoint import Endpoint
from linkcontext.serve.openai_protocol import Limits
from linkcontext.source import open_data
from linkcontext.teach.learner import Learner
from linkcontext.teach.pack_writing import write_pack


@pytest.fixture(scope="module")
def paths():
    dataset = open_data("world:3")
    return [[dataset.path(item.id) for item in items] for items in dataset.by_class().values()]


@pytest.fixture(scope="module")
def learner(mini, paths):
    learner = Learner(LocalModel(mini), head="knn")
    learner.teach({"tavork": paths[2][:12], "gaspik": paths[9][:12]})
    return learner


@pytest.fixture(scope="module")
def endpoint(mini, learner, tmp_path_factory):
    path = tmp_path_factory.mktemp("packs") / "zoo.pack"
    write_pack(learner, path)
    return Endpoint("mini", mini, Limits(queue=32, body=300_000, new_tokens=40), [("zoo", path)])


@pytest.fixture(scope="module")
def client(endpoint, serving):
    with serving(endpoint.app()) as url, openai.OpenAI(base_url=url, api_key="any", max_retries=0) as client:
        yield client


def message(content, text="What is this?"):
    uri = "data:image/png;base64," + base64.b64encode(content).decode()
    return {
        "role": "user",
        "content": [{"type": "image_url", "image_url": {"url": uri}}, {"type": "text", "text": text}],
    }


def test_a_bare_question_gets_the_head_s_answer(client, learner, paths):
    for path in (paths[2][14], paths[9][14], paths[9][15]):
        found = client.chat.completions.create(model="zoo", messages=[message(path.read_bytes())])
        assert found.choices[0].message.content == (learner.ask(path).name or "none of these")
        assert found.model_extra == {"named_by": "knn"}
        pieces = client.chat.completions.create(model="zoo", messages=[message(path.read_bytes())], stream=True)
        assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == found.choices[0].message.content


def test_what_is_unlike_everything_taught_is_none_of_these(client):
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, "PNG")
    found = client.chat.completions.create(model="zoo", messages=[message(file.getvalue())])
    assert found.choices[0].message.content == "none of these"


def test_a_taught_picture_has_its_name_and_other_questions_are_the_model_s(client, paths):
    taught = client.chat.completions.create(model="zoo", messages=[message(paths[2][0].read_bytes())])
    assert (taught.choices[0].message.content, taught.model_extra) == ("tavork", {"taught": True})
    new = paths[2][14].read_bytes()
    asked = client.chat.completions.create(model="zoo", messages=[message(new, "What colour is it?")])
    system = {"role": "system", "content": "Be brief."}
    told = client.chat.completions.create(model="zoo", messages=[system, message(new)])
    scored = client.chat.completions.create(model="zoo", messages=[message(new)], logprobs=True)
    plain = client.chat.completions.create(model="mini", messages=[message(new)])
    assert [one.model_extra for one in (asked, told, scored, plain)] == [{}] * 4
    assert all(one.usage.prompt_tokens > 0 for one in (asked, told, scored, plain))


def test_a_damaged_picture_is_refused(client, endpoint):
    with pytest.raises(openai.BadRequestError, match="damaged or cut short"):
        client.chat.completions.create(model="zoo", messages=[message(b"\x89PNG\r\n\x1a\n broken")])
    assert endpoint.requests.taken == 0

"""The end of an answer is the model's end token, whatever the chat template writes behind it; and reasoning models."""

import json
import shutil

import pytest
import torch

from linkcontext import cli
from linkcontext.config import ModelConfig, eval_config
from linkcontext.data.class_folders import open_folder
from linkcontext.data.images import open_image
from linkcontext.episodes.render import IGNORE, encode
from linkcontext.episodes.scaffold import SCAFFOLDS, build_messages
from linkcontext.evaluation.runner import run_evaluation, validate
from linkcontext.inference.vision import VisionEncoder
from linkcontext.models import bundled
from linkcontext.models.loading import load_model
from linkcontext.models.prompting import Prompting, without_reasoning
from linkcontext.models.synthetic_images import BLANK
from linkcontext.records import Turn
from linkcontext.scoring.connection import connect
from linkcontext.scoring.local import LocalModel
from linkcontext.scoring.protocol import ScoringRequest
from linkcontext.scoring.remote import RemoteModel
from linkcontext.train.config import TrainConfig
from linkcontext.train.loop import train
from linkcontext.train.mixture import link
from linkcontext.train.model import Trainee, read, train_parts
from linkcontext.train.samplers import Lessons, Strategy
from linkcontext.worlds.folder import write_seed

# Of llava-hf/llava-1.5-7b-hf: a space behind every text, the pictures first.
LLAVA = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': ' }}{% endif %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' ' }}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
PARTS = "{% for part in message.content %}{{ '<image>' if part.type == 'image' else part.text }}{% endfor %}"
# Of GLM: nothing behind an answer but the mark of the next turn.
GLM = (
    "{% for message in messages %}{{ '<|user|>\n' if message.role == 'user' else '<|assistant|>\n' }}"
    + PARTS
    + "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
# Of Qwen3.5: an empty reasoning before an answer that is given, an open one where the model is to speak.
THINKING = (
    "{% for message in messages %}{{ '<|user|>' if message.role == 'user' else '<|assistant|>' }}"
    "{% if message.role == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    + PARTS
    + "{{ '<|end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|><think>\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '\n</think>\n\n' }}{% endif %}{% endif %}"
)
TEMPLATES = {"llava": LLAVA, "glm": GLM, "thinking": THINKING}
NO_THINKING = """{"enable_thinking": false}"""
TALK = build_messages(
    [Turn(BLANK, "a", "dax"), Turn(BLANK, "b", "lum")], SCAFFOLDS["turns"], Turn(BLANK, "a", ""), "dax"
)


def with_template(source, folder, name, **generation):
    """A model's folder with another chat template."""
    shutil.copytree(source, folder)
    (folder / "chat_template.jinja").write_text(TEMPLATES[name])
    path = folder / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **generation}))
    return folder


@pytest.fixture(scope="module")
def folders(nano, tmp_path_factory):
    root = tmp_path_factory.mktemp("templates")
    return {name: with_template(nano, root / name, name) for name in TEMPLATES}


def answers(*names):
    """The conversation with each name as its last answer."""
    return tuple([*TALK[:-1], build_messages([Turn("", "", name)], SCAFFOLDS["turns"])[-1]] for name in names)


def words_of(model, tokens):
    return [model.tokenizer.decode([label]) if label != IGNORE else "" for label in tokens.labels]


@pytest.mark.parametrize("name", ["llava", "glm"])
def test_the_end_token_is_scored_and_trained_where_the_template_writes_none(folders, name):
    model = load_model(str(folders[name]), device="cpu")
    tokens = encode(TALK, model.chat_template, "last")
    assert tokens.ids[-1] == tokens.labels[-1] == model.tokenizer.eos_token_id
    # With the space before it, which LLaVA's template writes behind where the model is to speak.
    assert "".join(words_of(model, tokens)) == (" dax<|end|>" if name == "llava" else "dax<|end|>")
    earlier = encode(TALK, model.chat_template, "every")
    assert "".join(words_of(model, earlier)).replace(" ", "") == "daxlumdax<|end|>"  # as the template renders them
    assert earlier.ids == tokens.ids
    assert tokens.ids.count(model.tokenizer.eos_token_id) == 1
    said = model.describe()["end_of_answer"]
    assert said.startswith("'<|end|>', added")
    assert ("writes ' '" if name == "llava" else "writes nothing") in said


def test_an_answer_ends_with_the_mark_of_the_next_question_where_that_is_an_end_token(nano, tmp_path):
    """Of GLM's end tokens the template writes <|user|>, behind answers that are followed by a question."""
    mark = load_model(str(nano), device="cpu").tokenizer.convert_tokens_to_ids("<|user|>")
    folder = with_template(nano, tmp_path / "glm", "glm", eos_token_id=[4, mark])
    model = load_model(str(folder), device="cpu")
    assert encode(TALK, model.chat_template, "last").labels[-1] == mark


def test_a_space_before_the_end_token_belongs_to_the_end(nano, tmp_path):
    folder = with_template(nano, tmp_path / "spaced", "llava")
    (folder / "chat_template.jinja").write_text(
        "{% for message in messages %}" + PARTS + "{{ ' <|end|>' if message.role == 'assistant' }}{% endfor %}"
    )
    model = load_model(str(folder), device="cpu")
    assert "".join(words_of(model, encode(TALK, model.chat_template, "last"))) == "dax <|end|>"
    assert "as the chat template writes it" in model.describe()["end_of_answer"]


@pytest.mark.parametrize("name", list(TEMPLATES))
def test_both_engines_score_the_same_end(folders, name):
    model = load_model(str(folders[name]), device="cpu")
    ask = ScoringRequest(TALK[:-1], answers("dax", "da"))
    fast, slow = (
        LocalModel(model, VisionEncoder(model, open_image), {}, requested=engine).score([ask])[0]
        for engine in ("prefix-cache", "reference")
    )
    assert [count for _, count in fast] == [count for _, count in slow]
    assert [value for value, _ in fast] == pytest.approx([value for value, _ in slow], abs=1e-4)
    read_back = LocalModel(model, VisionEncoder(model, open_image), {}).prompt_logprobs(list(ask.answers), "closed")
    for (ids, values), (value, count) in zip(read_back, fast, strict=True):
        end = max(i for i, token in enumerate(ids) if token == model.tokenizer.eos_token_id) + 1
        assert sum(values[end - count : end]) == pytest.approx(value, abs=1e-4)


@pytest.mark.parametrize("name", ["llava", "glm"])
def test_training_reads_the_same_ends_in_trees_and_one_by_one(folders, pictures, name):
    dataset = open_folder(pictures)
    make = link(Lessons.of(dataset, Strategy(support=4, queries=2)), dataset, SCAFFOLDS["turns"], every=True)
    costs = []
    for why in (None, "for the sake of the test"):
        model = load_model(str(folders[name]), device="cpu")
        train_parts(model.network, ("projector", "language"), 0, "", 0)
        trainee = Trainee(model, why)
        example = read(make(0), model.chat_template)
        assert all(tokens.labels[-1] == model.tokenizer.eos_token_id for tokens in example.tokens)
        trainee.check(example)
        assert trainee.refused == why
        with torch.no_grad():
            costs.append(float(trainee([example])[0]))
    assert costs[0] == pytest.approx(costs[1], rel=1e-5)


@pytest.mark.heavy
def test_replies_stop_after_the_name_when_tuned_through_llavas_template(tmp_path):
    source = with_template(bundled.folder("mini"), tmp_path / "m", "llava")
    write_seed(tmp_path / "w", 12, 12, 5)
    data, out = str(tmp_path / "w"), tmp_path / "t"
    shape = {"data": data, "support": 4, "batch": 8, "steps": 40, "lr": 1e-4}
    checkpoint = train(TrainConfig(ModelConfig(model=str(source)), out=str(out), **shape))
    assert json.loads((out / "config.json").read_text())["model"]["end_of_answer"].startswith("'<|end|>', added")
    asked = {"data": data, "shots": (1, 2), "episodes": 12, "scoring": "generate", "explain": 0}
    run_evaluation(eval_config(model=str(checkpoint), out=str(tmp_path / "r"), **asked))
    replies = [json.loads(line)["reply"] for line in (tmp_path / "r" / "predictions.jsonl").read_text().splitlines()]
    # Where the template's space was trained instead, replies ran on: 'zafokla zafokla zafokla zafokla zafokla zafokla'.
    assert [len(reply.split()) for reply in replies] == [1] * 48


@pytest.mark.parametrize("name", list(TEMPLATES))
def test_validate_says_how_answers_end_and_what_stands_before_them(folders, pictures, name):
    lines = validate(eval_config(model=str(folders[name]), data=str(pictures), shots=(0, 1), episodes=2))
    (end,) = [line for line in lines if line.startswith("every answer ends with '<|end|>'")]
    assert ("added" in end) == (name != "thinking")
    noted = [line for line in lines if "likelihoods follow the former" in line]
    assert len(noted) == (name == "thinking")
    if noted:
        assert "</think>" in noted[0].partition(" before a given answer")[0]


def test_a_run_says_how_its_prompts_were_made(folders, pictures, tmp_path):
    asked = {"data": str(pictures), "shots": (1,), "episodes": 1, "scoring": "both", "out": str(tmp_path / "run")}
    run_evaluation(
        eval_config(model=str(folders["thinking"]), chat_template_kwargs=NO_THINKING, max_new_tokens=3, **asked)
    )
    told = json.loads((tmp_path / "run" / "config.json").read_text())
    assert told["config"]["model"]["chat_template_kwargs"] == NO_THINKING
    assert told["config"]["model"]["max_new_tokens"] == 3
    assert told["config"]["model"]["generation_config"] == "clean"
    assert told["model"]["chat_template_kwargs"] == {"enable_thinking": False}
    assert told["model"]["end_of_answer"] == "'<|end|>', as the chat template writes it"


def test_reasoning_is_turned_off_and_replies_may_be_longer(folders, caplog):
    thinks = load_model(str(folders["thinking"]), device="cpu")
    quiet = load_model(str(folders["thinking"]), device="cpu", prompting=Prompting(chat_template_kwargs=NO_THINKING))
    prompt = TALK[:-1]
    for model, begins in ((thinks, "<think>\n"), (quiet, "</think>\n\n")):
        evaluator = LocalModel(model, VisionEncoder(model, open_image), {})
        assert model.tokenizer.decode(evaluator.prompt(prompt).ids).endswith(begins)
        (reply,) = evaluator.generate([prompt], 7)
        # The network knows nothing and never ends its reasoning: what it says in it is no answer.
        assert evaluator.counters().get("replies_cut_in_reasoning") == (1 if model is thinks else None)
        assert reply == "" or model is quiet
    assert "more --max-new-tokens" in caplog.text
    assert quiet.identity != thinks.identity  # what is kept of a prompt is of no use to the other


def test_a_reply_is_what_follows_the_reasoning():
    assert without_reasoning("a lum") == "a lum"
    assert without_reasoning("is it a dax? </think>\n\na lum", "<|assistant|><think>\n") == "a lum"
    assert without_reasoning("is it a dax or", "<|assistant|><think>\n") is None
    assert without_reasoning("<think>is it a dax or") is None
    assert without_reasoning("a lum", "<think>\n\n</think>\n\n") == "a lum"


def test_a_variable_that_the_template_does_not_read_is_said(nano, caplog):
    model = load_model(str(nano), device="cpu", prompting=Prompting(chat_template_kwargs='{"enable_thinkng": false}'))
    assert "does not use enable_thinkng" in caplog.text
    assert model.describe()["chat_template_kwargs"] == {}


@pytest.mark.parametrize("name", ["thinking", "llava"])
def test_a_server_gives_the_figures_of_the_scorer(folders, serving, name):
    """The answer begins where candidates differ from the template, not where a reply would begin."""
    from linkcontext.serve.endpoint import Endpoint, Limits  # noqa: PLC0415 - an extra

    model = load_model(str(folders[name]), device="cpu")
    asks = [
        ScoringRequest(TALK[:-1], answers("dax", "zafokla", "daxi", "a lum")),
        ScoringRequest(TALK[:-1], answers("dax")),
    ]
    here = LocalModel(model, VisionEncoder(model, open_image), {}).score(asks)
    with serving(Endpoint("m", model, Limits()).app()) as url:
        far = RemoteModel(connect(f"openai:{url}"), {})
        found = far.score(asks)
        far.generate([TALK[:-1]], 3)
        counters = far.counters()
    for a, b in zip(found, here, strict=True):
        assert [count for _, count in a] == [count for _, count in b]
        assert [value for value, _ in a] == pytest.approx([value for value, _ in b], abs=1e-3)
    assert counters["end_of_answer"] == "'<|end|>', as the server's chat template writes it"
    assert counters["penalties"] == "none"


def test_episodes_are_shown_as_a_reasoning_model_reads_them(folders, pictures, capsys):
    shape = ["--data", str(pictures), "--shots", "1", "--episodes", "1", "--model", str(folders["thinking"])]
    cli.main(["episodes", *shape, "--show", "1", "--chat-template-kwargs", NO_THINKING])
    out = capsys.readouterr().out
    assert "</think>" in out
    assert "[dim]" not in out


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (["--chat-template-kwargs", "{"], "not JSON"),
        (["--chat-template-kwargs", "[1]"], "not a JSON object"),
        (["--chat-template-kwargs", '{"messages": 1}'], "set by linkcontext itself"),
        (["--max-new-tokens", "0"], "at least 1 token"),
    ],
)
def test_bad_flags_are_a_sentence(flags, why, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["eval", *flags, "--out", str(tmp_path / "r")])
    assert stopped.value.code == 2
    assert why in capsys.readouterr().err

"""The reference engine: answers among a processor's tokens, and figures that nothing but the prompt changes."""

import inspect

import pytest
import torch
from families import FAMILIES

from linkcontext.episodes.render import IGNORE, Tokens
from linkcontext.episodes.scaffold import SCAFFOLDS, build_messages
from linkcontext.errors import InputError
from linkcontext.models.model import Model
from linkcontext.models.synthetic_images import BLANK, CHECKED
from linkcontext.records import Turn
from linkcontext.scoring import reference
from linkcontext.scoring.local import LocalModel
from linkcontext.scoring.reference import ReferenceEngine, answer_logits, answer_span

PICTURE = 9
SHORT = Tokens((5, PICTURE, 6, 7, 8), (IGNORE, IGNORE, IGNORE, 7, 8), ("a",))
TURNS = [Turn(CHECKED[0], "", "lum"), Turn(CHECKED[1], "", "dax"), Turn(BLANK, "", "lum")]


def conversations(*names):
    """Conversations of 0 to 3 turns of support, with each name as an answer or without one."""
    query = Turn(CHECKED[1], "", "")
    return [build_messages(TURNS[:k], SCAFFOLDS["turns"], query, name) for k in range(4) for name in names or (None,)]


def engine(model, batch=16):
    """The reference engine of a model."""
    parts = LocalModel(model)
    return ReferenceEngine(model, parts._encoder, parts.pictures, batch)


@pytest.mark.parametrize(
    ("ids", "span"),
    [
        ((5, 9, 6, 7, 8), (3, 5)),
        ((5, 9, 9, 9, 6, 7, 8), (5, 7)),  # a picture takes more room in front
        ((5, 9, 9, 6, 7, 8, 1, 2), (4, 6)),  # the processor appends something
        ((7, 8, 5, 9, 9, 6, 7, 8), (6, 8)),  # the same tokens stand in front too
        ((7, 8), (0, 2)),  # nothing is left in front
    ],
)
def test_an_answers_span_by_hand(ids, span):
    assert answer_span(ids, SHORT) == span


def test_what_the_template_writes_behind_an_answer_is_none_of_it():
    short = Tokens((5, PICTURE, 7, 8, 3), (IGNORE, IGNORE, 7, 8, IGNORE), ("a",))
    assert answer_span((5, 9, 9, 7, 8, 3), short) == (3, 5)
    again = Tokens((5, PICTURE, 7, 8, 7, 8), (IGNORE, IGNORE, 7, 8, IGNORE, IGNORE), ("a",))
    assert answer_span((5, 9, 9, 7, 8, 7, 8), again) == (3, 5)


@pytest.mark.parametrize("ids", [(5, 9, 6, 7, 4), (5, 9, 6, 8, 7), (8,), ()])
def test_a_processor_that_changes_an_answer_is_refused(ids):
    with pytest.raises(InputError, match="changes an answer's tokens"):
        answer_span(ids, SHORT)


@pytest.mark.parametrize("narrows", [True, False])
def test_answer_logits_are_those_of_whole_forwards(nano_model, monkeypatch, narrows):
    """Networks without `logits_to_keep` compute all of them; the rows are the same."""
    whole, network = engine(nano_model), nano_model.network
    encoded = [whole.encoder.encode(messages, "last") for messages in conversations("dax", "a lum")[:3:-1]]
    inputs = whole._processed(encoded, "right")
    lengths = inputs["attention_mask"].sum(1).tolist()
    assert len(set(lengths)) > 1  # some row is padded
    spans = [answer_span(inputs["input_ids"][i, :n].tolist(), encoded[i][1]) for i, n in enumerate(lengths)]
    widths, forward = [], network.forward

    def counted(input_ids, attention_mask, pixel_values, use_cache, **more):
        output = forward(
            input_ids=input_ids, attention_mask=attention_mask, pixel_values=pixel_values, use_cache=use_cache, **more
        )
        widths.append(output.logits.shape[1])
        return output

    parameters = list(inspect.signature(counted).parameters.values())
    keep = inspect.Parameter("logits_to_keep", inspect.Parameter.KEYWORD_ONLY, default=0)
    signature = inspect.Signature([*parameters[:-1], *([keep] if narrows else [])])
    monkeypatch.setattr(counted, "__signature__", signature, raising=False)
    monkeypatch.setattr(network, "forward", counted)
    with torch.inference_mode():
        rows = answer_logits(nano_model, inputs, spans)
        logits = forward(**inputs).logits
    first = min(start for start, _ in spans)
    assert widths == [max(lengths) + 1 - first if narrows else max(lengths)]
    for row, (number, (start, end)) in zip(rows, enumerate(spans), strict=True):
        torch.testing.assert_close(row, logits[number, start - 1 : end - 1], atol=1e-5, rtol=0)


def test_an_answer_is_read_from_left_to_right_where_a_prompt_is_read_in_both_directions():
    """PaliGemma takes token types: 0 attends in both directions, 1 from left to right."""
    network, processor = FAMILIES["paligemma"]()
    model = Model("paligemma", "paligemma", network, processor)
    whole = engine(model)
    short, longer = (build_messages(TURNS[:1], SCAFFOLDS["turns"], TURNS[1], name) for name in ("dax", "dax lum"))
    encoded = [whole.encoder.encode(messages, "last") for messages in (short, longer)]
    inputs = whole._processed(encoded, "right")
    lengths = inputs["attention_mask"].sum(1).tolist()
    spans = [answer_span(inputs["input_ids"][i, :n].tolist(), encoded[i][1]) for i, n in enumerate(lengths)]
    with torch.inference_mode():
        rows = answer_logits(model, inputs, spans)
    for kinds, (start, _) in zip(inputs["token_type_ids"].tolist(), spans, strict=True):
        assert set(kinds[start:]) == {1}
        assert kinds[start - 1] == 0
    # The longer answer begins as the shorter one does: no token of an answer depends on what follows it.
    torch.testing.assert_close(rows[0][:1], rows[1][:1], atol=1e-4, rtol=0)
    with pytest.raises(InputError, match="both directions"):
        whole.prompt_logprobs(short, "closed")


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_neither_batch_nor_order_change_a_score(nano_model, batch):
    answers = conversations("dax", "a lum of dax")
    expected = [engine(nano_model, 1).score([messages])[0] for messages in answers]
    scores = engine(nano_model, batch).score(answers[::-1])[::-1]
    assert [count for _, count in scores] == [count for _, count in expected]
    assert [value for value, _ in scores] == pytest.approx([value for value, _ in expected], abs=1e-4)
    assert len({round(value, 2) for value, _ in scores}) > 4


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_neither_batch_nor_order_change_a_reply(nano_model, batch):
    settings = {"no_repeat_ngram_size": 1}  # else the network says one token again and again
    prompts = conversations()
    alone = [engine(nano_model, 1).generate([messages], 5, settings=settings)[0] for messages in prompts]
    assert engine(nano_model, batch).generate(prompts[::-1], 5, settings=settings)[::-1] == alone
    plain = [engine(nano_model, 1).generate([messages], 5)[0] for messages in prompts]
    assert engine(nano_model, batch).generate(prompts[::-1], 5)[::-1] == plain != alone


def test_a_reply_ends_before_an_end_token(nano_model, monkeypatch):
    settings = {"no_repeat_ngram_size": 1}
    prompts = conversations()
    replies = engine(nano_model).generate(prompts, 6, settings=settings)
    assert all(len(reply) == len(set(reply)) == 6 for reply in replies)
    end = replies[0][3]
    monkeypatch.setattr(Model, "ends", [end])
    heard = []
    ended = engine(nano_model).generate(
        prompts, 6, settings=settings, on_token=lambda number, token, _: heard.append((number, token)) or True
    )
    assert ended[0] == replies[0][:3]
    assert ended == [reply[: reply.index(end)] if end in reply else reply for reply in replies]
    assert sorted(heard) == sorted((i, token) for i, reply in enumerate(ended) for token in reply)


def test_a_prompts_log_probabilities_sum_to_the_score_of_its_answer(nano_model, monkeypatch):
    whole = engine(nano_model)
    (answer,) = conversations("a lum of dax")[-1:]
    ((score, count),) = whole.score([answer])
    ids, values = whole.prompt_logprobs(answer, "closed")
    open_ids, open_values = whole.prompt_logprobs(answer, "open")
    prompt_ids, prompt_values = whole.prompt_logprobs(answer[:-1], "none")
    assert len(ids) == len(values) == len(prompt_ids) + count
    assert values[0] == 0.0
    assert sum(values[-count:]) == pytest.approx(score, abs=1e-4)
    assert (open_ids, prompt_ids) == (ids[:-1], ids[:-count])  # without the end token, and without the answer
    assert open_values == pytest.approx(values[:-1], abs=1e-4)
    assert prompt_values == pytest.approx(values[:-count], abs=1e-4)
    monkeypatch.setattr(reference, "ROWS", 3)
    assert whole.prompt_logprobs(answer, "closed") == (ids, pytest.approx(values, abs=1e-5))


def test_a_prompt_longer_than_the_context_is_refused_before_the_network_runs(nano_model, monkeypatch):
    (answer,) = conversations("dax")[-1:]
    whole = engine(nano_model)
    length = len(whole.token_ids(*whole.encoder.encode(answer, "last")))
    calls = []
    monkeypatch.setattr(nano_model.network, "forward", lambda **given: calls.append(given))
    monkeypatch.setattr(nano_model.network, "generate", lambda **given: calls.append(given))
    monkeypatch.setattr(Model, "context", length - 9)
    for run in (
        lambda: whole.score([answer]),
        lambda: whole.generate([answer[:-1]], 3),
        lambda: whole.prompt_logprobs(answer, "closed"),
    ):
        with pytest.raises(InputError, match=f"the model's context is {length - 9}"):
            run()
    assert calls == []

"""Scores and replies: by the oracle of one whole prompt at a time, and whatever the batch."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn.attention.flex_attention import create_mask

from linkcontext.config import eval_config
from linkcontext.data.class_folders import open_folder
from linkcontext.data.images import open_image
from linkcontext.episodes.link import sample_episodes
from linkcontext.episodes.plan import EpisodePlan
from linkcontext.episodes.render import encode
from linkcontext.episodes.scaffold import SCAFFOLDS, query_messages
from linkcontext.errors import InputError
from linkcontext.evaluation.runner import run_evaluation
from linkcontext.inference.engine import MIN_TOKENS
from linkcontext.inference.forward import TreeInputs
from linkcontext.inference.losses import tree_losses
from linkcontext.inference.masks import tree_mask
from linkcontext.inference.schedule import EMPTY, ForwardPass
from linkcontext.inference.vision import VisionEncoder
from linkcontext.models.calls import cache_argument
from linkcontext.models.loading import device_named, load_model
from linkcontext.scoring import engine_choice, selfcheck
from linkcontext.scoring.local import LocalModel
from linkcontext.scoring.protocol import ScoringRequest
from linkcontext.scoring.reference import ReferenceEngine, answer_span
from linkcontext.worlds.folder import write_seed


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures") / "w"
    write_seed(root, 4, 6, 5, 32)
    return open_folder(root)


@pytest.fixture(scope="module")
def model(nano):
    return load_model(str(nano), device="cpu")


def scorer(model, dataset, engine="auto", batch=16, memory_gb=None):
    sources = {item.id: (item.sha256, dataset.root / item.path) for item in dataset.items}
    return LocalModel(model, VisionEncoder(model, open_image), sources, batch, engine, memory_gb)


def asks(dataset, scaffold="turns"):
    plan = EpisodePlan(ways=2, shots_per_class=(0, 1, 2), episodes=2)
    found = []
    for episode in sample_episodes(dataset, plan).episodes:
        for k in episode.shots_per_class:
            for q in range(len(episode.queries)):
                answers = tuple(query_messages(episode, q, k, SCAFFOLDS[scaffold], c.name) for c in episode.candidates)
                found.append(ScoringRequest(query_messages(episode, q, k, SCAFFOLDS[scaffold]), answers))
    return found


def flat(scores):
    return torch.tensor([value for row in scores for value, _ in row])


@pytest.mark.parametrize("scaffold", list(SCAFFOLDS))
def test_trees_give_what_whole_prompts_give(model, dataset, scaffold):
    questions = asks(dataset, scaffold)
    oracle = scorer(model, dataset, "reference")
    expected, replies = flat(oracle.score(questions)), oracle.generate([ask.messages for ask in questions])
    for engine in ("prefix-cache", "tree"):
        evaluator = scorer(model, dataset, engine)
        assert evaluator.engine == engine
        torch.testing.assert_close(flat(evaluator.score(questions)), expected, atol=1e-4, rtol=0)
        assert evaluator.generate([ask.messages for ask in questions]) == replies


@pytest.mark.parametrize("room", [MIN_TOKENS, 40, 100])
def test_the_room_of_a_pass_changes_nothing(model, dataset, room, monkeypatch):
    questions = asks(dataset)
    expected = flat(scorer(model, dataset, "tree").score(questions))
    monkeypatch.setattr(engine_choice, "CPU_MAX_TOKENS", room)
    evaluator = scorer(model, dataset)
    torch.testing.assert_close(flat(evaluator.score(questions[::-1])[::-1]), expected, atol=1e-4, rtol=0)
    prompts = [ask.messages for ask in questions]
    assert evaluator.generate(prompts) == scorer(model, dataset, "tree").generate(prompts[::-1])[::-1]


def test_the_batch_changes_nothing(model, dataset):
    questions = asks(dataset)
    one, many = scorer(model, dataset, "reference", batch=1), scorer(model, dataset, "reference", batch=64)
    torch.testing.assert_close(flat(one.score(questions)), flat(many.score(questions[::-1])[::-1]), atol=1e-4, rtol=0)


def test_half_precision_decides_the_same_but_for_ties(nano, dataset):
    """bfloat16 has eight bits: sums of four tokens differ in the second decimal, whatever the order."""
    half = load_model(str(nano), dtype="bfloat16", device="cpu")
    questions = asks(dataset)
    fast, slow = (flat(scorer(half, dataset, engine).score(questions)) for engine in ("prefix-cache", "reference"))
    assert (fast - slow).abs().max() < 0.5
    a, b = fast.view(-1, 2), slow.view(-1, 2)
    clear = (b[:, 0] - b[:, 1]).abs() > 2 * (fast - slow).abs().max()
    assert clear.any()
    assert (a.argmax(1) == b.argmax(1))[clear].all()


def test_gradients_are_the_sum_of_those_of_whole_prompts(model, dataset):
    """Eight lines of one support, asked together or one by one."""
    evaluator = scorer(model, dataset)
    told = [messages for ask in asks(dataset)[-4:] for messages in ask.answers]
    assert evaluator.score([]) == evaluator.generate([]) == []
    evaluator.pictures.begin(told)
    grown = evaluator._trees.merge(told, "last")
    grown = TreeInputs(grown.tree, [dataclasses.replace(p, embeddings=p.embeddings.clone()) for p in grown.images])
    assert len(grown.tree) < sum(len(grown.tree.path(i)) for i in range(len(told))) / 2
    network, weight = model.network, model.network.model.language_model.layers[0].self_attn.k_proj.weight
    found = tree_losses(network, [grown])
    (together,) = torch.autograd.grad((found.nats * found.weight).sum(), [weight])
    apart = torch.zeros_like(weight)
    for messages in told:
        encoded = _, short = evaluator._encoder.encode(messages, "last")
        inputs = evaluator._reference._processed([encoded], "right")
        start, end = answer_span(inputs["input_ids"][0].tolist(), short)
        labels = torch.full_like(inputs["input_ids"], -100)
        labels[0, start:end] = inputs["input_ids"][0, start:end]
        loss = network(**inputs, labels=labels).loss * (end - start)
        apart += torch.autograd.grad(loss, [weight])[0]
    torch.testing.assert_close(together, apart, atol=1e-4, rtol=1e-3)


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore")  # compiling on a CPU has much to say
def test_attention_in_blocks_gives_what_dense_masks_give(nano, dataset):
    questions = asks(dataset)
    expected = flat(scorer(load_model(str(nano), device="cpu"), dataset).score(questions))
    blocks = load_model(str(nano), device="cpu")
    blocks.network.get_decoder().set_attn_implementation("flex_attention")
    for engine in ("tree", "prefix-cache"):
        evaluator = scorer(blocks, dataset, engine)
        assert evaluator.engine == engine
        torch.testing.assert_close(flat(evaluator.score(questions)), expected, atol=1e-4, rtol=0)
        oracle = scorer(load_model(str(nano), device="cpu"), dataset).generate([ask.messages for ask in questions])
        assert evaluator.generate([ask.messages for ask in questions]) == oracle


def test_blocks_hold_what_dense_masks_hold(nano, dataset):
    """Trees of two lengths in one pass, as in training: every pair of a token and one that it sees, and no other."""
    model = load_model(str(nano), device="cpu")
    evaluator, found = scorer(model, dataset, "tree"), asks(dataset)
    told = [[messages for ask in part for messages in ask.answers] for part in (found, found[:2])]
    evaluator.pictures.begin([messages for part in told for messages in part])
    grown = [evaluator._trees.merge(part, "last") for part in told]
    rows = [(g.tree, ForwardPass(EMPTY, np.arange(len(g.tree)))) for g in grown]
    length = max(len(g.tree) for g in grown)
    assert length > 2 * 128 > 2 * len(grown[1].tree)  # several blocks, and one that is padded
    dense = tree_mask(model.network, rows, length)
    model.network.get_decoder().set_attn_implementation("flex_attention")
    blocks = tree_mask(model.network, rows, length)
    assert torch.equal(create_mask(blocks.mask_mod, 2, None, length, length, device="cpu"), dense)
    count = -(-length // 128)
    wide = torch.zeros(2, count * 128, count * 128, dtype=torch.bool)
    wide[:, :length, :length] = dense[:, 0]
    listed = wide.view(2, count, 128, count, 128).any(4).any(2)
    assert torch.equal(blocks.to_dense()[:, 0].bool(), listed)
    assert not listed.all()


def test_a_way_back_is_tried_before_anything_is_trained(nano, dataset, monkeypatch):
    evaluator = scorer(load_model(str(nano), device="cpu"), dataset)
    assert evaluator.choice.selfcheck.failure(learns=True) is None
    assert not evaluator.choice.use_flex_attention(learns=True)  # there is no GPU

    def forgets(network, rows, cascade):
        with torch.no_grad():
            return tree_losses(network, rows, cascade)

    monkeypatch.setattr(selfcheck, "tree_losses", forgets)
    assert "does not require grad" in evaluator.choice.selfcheck.failure(learns=True)
    assert evaluator.choice.selfcheck.failure() is None


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore")  # compiling on a CPU has much to say
def test_on_a_cpu_attention_in_blocks_has_no_way_back(nano, dataset):
    blocks = load_model(str(nano), device="cpu")
    blocks.network.get_decoder().set_attn_implementation("flex_attention")
    evaluator = scorer(blocks, dataset)
    assert evaluator.choice.selfcheck.failure() is None
    assert "does not support backward on CPU" in evaluator.choice.selfcheck.failure(learns=True)


@pytest.mark.parametrize("caches", [True, False])
def test_a_network_that_ignores_masks_is_found_out(nano, dataset, monkeypatch, caplog, caches):
    deaf = load_model(str(nano), device="cpu")
    inner = deaf.network.get_decoder()
    forward, cache = inner.forward, cache_argument(type(inner))

    def ignoring(attention_mask=None, **given):
        """As a network whose forward takes a mask, and perhaps a cache, and makes nothing of it."""
        kept = {name: value for name, value in given.items() if caches or name != cache}
        return forward(attention_mask=None, is_causal=True, **kept)

    monkeypatch.setattr(inner, "forward", ignoring)
    evaluator = scorer(deaf, dataset)
    assert "does not follow masks" in evaluator.choice.name_and_reason[1]
    if caches:  # it can be continued from copies of its own cache
        assert evaluator.engine == "prefix-cache"
        slow = scorer(deaf, dataset, "reference").score(asks(dataset))
        assert flat(evaluator.score(asks(dataset))) == pytest.approx(flat(slow), rel=0, abs=1e-4)
    else:
        assert evaluator.engine == "reference"
        assert "one prompt at a time" in caplog.text
    with pytest.raises(InputError, match=r"--engine tree: .*Use --engine auto or reference"):
        scorer(deaf, dataset, "tree").score(asks(dataset))


def test_too_little_memory_is_refused_with_the_sum(model, dataset):
    with pytest.raises(InputError, match=r"GB are too little: a support of \d+ tokens keeps .*Raise --memory-gb"):
        scorer(model, dataset, memory_gb=1e-6).score(asks(dataset))


def test_a_score_is_the_log_probability_of_the_answer_and_its_end(model, dataset):
    ask = asks(dataset)[-1]
    found = scorer(model, dataset).score([ask])[0]
    for messages, (value, count) in zip(ask.answers, found, strict=True):
        asked, told = (
            model.processor.apply_chat_template(m, add_generation_prompt=g)
            for m, g in ((ask.messages, True), (messages, False))
        )
        images = [Image.open(dataset.path(p["image"])) for m in messages for p in m["content"] if p["type"] == "image"]
        inputs = model.processor(text=told, images=images, return_tensors="pt")
        start = model.processor(text=asked, images=images, return_tensors="pt")["input_ids"].shape[1]
        with torch.inference_mode():
            logits = model.network(**inputs).logits[0].log_softmax(-1)
        ids = inputs["input_ids"][0]
        by_hand = sum(float(logits[i - 1, ids[i]]) for i in range(start, len(ids)))
        assert count == len(ids) - start
        assert value == pytest.approx(by_hand, abs=1e-4)
        assert int(ids[-1]) == model.tokenizer.eos_token_id


@pytest.mark.parametrize("engine", ["reference", "prefix-cache"])
def test_what_is_said_is_heard_as_it_comes(model, dataset, engine):
    evaluator, heard = scorer(model, dataset, engine), {}
    prompts = [ask.messages for ask in asks(dataset)[-3:]]
    whole = evaluator.generate(prompts, 6)

    def listen(line, token, logits):
        assert token == int(logits.argmax())
        heard.setdefault(line, []).append(token)
        return line != 1 or len(heard[1]) < 2

    found = evaluator.generate(prompts, 6, on_token=listen)
    assert (found[0], found[2]) == (whole[0], whole[2])
    assert [model.tokenizer.decode(heard[n], skip_special_tokens=True).strip() for n in range(3)] == found
    assert len(heard[1]) == 2
    assert whole[1].startswith(found[1])


@pytest.mark.parametrize("engine", ["reference", "prefix-cache"])
def test_a_prompt_is_read_as_its_answer_is_scored(model, dataset, engine):
    evaluator = scorer(model, dataset, engine)
    ask = asks(dataset)[-1]
    (scores,) = evaluator.score([ask])
    begins = len(evaluator.prompt(ask.messages).ids)
    closed, goes_on = (evaluator.prompt_logprobs(ask.answers, ending) for ending in ("closed", "open"))
    for (ids, values), (fewer, _), (value, count) in zip(closed, goes_on, scores, strict=True):
        assert ids[:-1] == fewer  # but for the token that ends the answer
        assert len(ids) - begins == count
        assert sum(values[begins:]) == pytest.approx(value, abs=1e-4)


def test_each_picture_is_encoded_once(model, dataset):
    evaluator = scorer(model, dataset)
    questions = asks(dataset)
    shown = {p["image"] for ask in questions for m in ask.messages for p in m["content"] if p["type"] == "image"}
    evaluator.score(questions)
    evaluator.score(questions)
    assert evaluator.eyes.calls == len(shown)


def test_a_prompt_longer_than_the_context_is_refused_with_the_sum(model, dataset):
    small = scorer(model, dataset)
    before = model.network.config.text_config.max_position_embeddings
    model.network.config.text_config.max_position_embeddings = 30
    try:
        with pytest.raises(
            InputError,
            match=r"needs \d+ tokens \(5 a picture x 5 pictures \+ \d+ of text\).*context is 30: about 1 picture fit",
        ):
            small.score(asks(dataset)[-1:])
    finally:
        model.network.config.text_config.max_position_embeddings = before


def test_a_folder_that_is_cut_short_or_of_two_models_is_refused(nano, tmp_path):
    def damaged(name):
        shutil.copytree(nano, tmp_path / name)
        return tmp_path / name

    cut = damaged("cut") / "model.safetensors"
    cut.write_bytes(cut.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"^--model .*cut: could not be loaded .*Is the folder complete"):
        load_model(str(tmp_path / "cut"), device="cpu")
    few = damaged("few") / "model.safetensors"
    weights = load_file(few)
    gone = [name for name in weights if name.endswith("layers.0.mlp.up_proj.weight")]
    save_file({k: v for k, v in weights.items() if k not in gone}, few, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"missing or of another size: model\.language.*0\.mlp\.up_proj\.weight\. Are"):
        load_model(str(tmp_path / "few"), device="cpu")
    other = damaged("other") / "config.json"
    told = json.loads(other.read_text())
    told["text_config"]["intermediate_size"] += 64
    other.write_text(json.dumps(told))
    with pytest.raises(InputError, match=r"missing or of another size: .*mlp\.down_proj\.weight.* and \d+ more"):
        load_model(str(tmp_path / "other"), device="cpu")


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # read by peft
def test_an_adapter_that_is_damaged_is_refused(nano, tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"]}')
    for content in (b"", b"\0" * 20):
        (tmp_path / "adapter_model.safetensors").write_bytes(content)
        with pytest.raises(InputError, match=r"^--adapter .*: does not fit the model \("):
            load_model(str(nano), device="cpu", adapter=str(tmp_path))


def test_unknown_and_blind_models_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"neither a bundled model \(mini-base, mini\) nor a folder"):
        load_model("no/such-model-anywhere")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(InputError, match="reads no pictures"):
        load_model(str(tmp_path))
    for kind in ("phi4_multimodal", "qwen2_5_omni"):  # they do read pictures
        (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
        with pytest.raises(InputError, match=f"transformers has {kind} models, but not under AutoModelForImageText"):
            load_model(str(tmp_path))
    own = {"model_type": "internvl_chat", "auto_map": {"AutoConfig": "configuration_internvl_chat.InternVLChatConfig"}}
    (tmp_path / "config.json").write_text(json.dumps(own))
    with pytest.raises(InputError, match=r"brings code of its own.*-hf.*--trust-remote-code"):
        load_model(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "internvl_chat"}')  # its code was not fetched
    with pytest.raises(InputError, match=r"has no model of this type .*internvl_chat.*-hf.*--trust-remote-code"):
        load_model(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "florence2"}')
    with pytest.raises(InputError, match="a florence2 model has an encoder for prompts and a decoder for replies"):
        load_model(str(tmp_path))


def test_pixels_in_another_precision_are_given_in_the_networks_own(model, dataset, monkeypatch):
    """Llama 4's processor gives bfloat16."""
    ask = asks(dataset)[-1]
    whole = flat(scorer(model, dataset, "reference").score([ask]))
    processed = ReferenceEngine._processed

    def halved(self, *given):
        return {k: v.double() if v.is_floating_point() else v for k, v in processed(self, *given).items()}

    monkeypatch.setattr(ReferenceEngine, "_processed", halved)
    torch.testing.assert_close(flat(scorer(model, dataset, "reference").score([ask])), whole)


def test_a_model_without_a_chat_template_is_a_sentence(nano, tmp_path):
    shutil.copytree(nano, tmp_path / "m")
    (tmp_path / "m" / "chat_template.jinja").unlink()
    question = [{"role": "user", "content": [{"type": "text", "text": "?"}]}]
    with pytest.raises(InputError, match="has no chat template"):
        encode(question, load_model(str(tmp_path / "m"), device="cpu").chat_template, "none")


@pytest.mark.parametrize("template", ["{{ 1 + 'a' }}", "{{ messages[9].role }}", "{{ 1 // 0 }}"])
def test_a_chat_template_that_fails_is_a_sentence(nano, tmp_path, template):
    shutil.copytree(nano, tmp_path / "m")
    (tmp_path / "m" / "chat_template.jinja").write_text(template)
    question = [{"role": "user", "content": [{"type": "text", "text": "?"}]}]
    with pytest.raises(InputError, match="chat template refuses the conversation"):
        encode(question, load_model(str(tmp_path / "m"), device="cpu").chat_template, "none", reply=True)


@pytest.mark.parametrize("engine", ["auto", "reference"])
def test_a_chat_template_that_writes_no_picture_is_a_sentence(nano, tmp_path, pictures, engine):
    shutil.copytree(nano, tmp_path / "m")
    write = "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}<|end|>{% endfor %}"
    (tmp_path / "m" / "chat_template.jinja").write_text(write)
    out = tmp_path / "run"
    config = eval_config(
        model=str(tmp_path / "m"), data=str(pictures), episodes=2, shots=(1,), engine=engine, out=str(out)
    )
    with pytest.raises(InputError, match="its processor refuses a conversation that its chat template has written"):
        run_evaluation(config)
    assert not out.exists()


@pytest.mark.parametrize("device", ["cuda:99", "gpu"])
def test_a_device_that_is_not_there_is_a_sentence(device, nano):
    with pytest.raises(InputError, match=f"--device {device}: "):
        load_model(str(nano), device=device)


def test_a_process_without_a_gpu_of_its_own_is_a_sentence(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setenv("WORLD_SIZE", "99")
    monkeypatch.setenv("LOCAL_RANK", "98")
    with pytest.raises(InputError, match=r"--device cuda:98: .* Launch one process for each GPU"):
        device_named(None)


@pytest.mark.parametrize("text", ["[]", "null", "", "[" * 100_000, '{"a": ' + "9" * 5000 + "}"])
@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "processor_config.json", "tokenizer.json"])
def test_a_models_folder_with_a_damaged_file_names_it(nano, tmp_path, name, text):
    """Also where transformers would pass over it, and with it over the checkpoint's own penalties."""
    folder = tmp_path / "model"
    shutil.copytree(nano, folder)
    (folder / name).write_text(text)
    with pytest.raises(InputError, match=name):
        load_model(str(folder))

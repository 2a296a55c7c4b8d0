"""Prefix trees on copies of the model's own cache: exact, copied at forks alone, and never more copies than memory."""

import copy
import itertools

import numpy as np
import pytest
import torch
from transformers import Lfm2Config, Lfm2ForCausalLM

from linkcontext.inference import state_cache
from linkcontext.inference.decoding import decode_greedy
from linkcontext.inference.forward import TreeForward, TreeInputs
from linkcontext.inference.kv_cache import cache_bytes
from linkcontext.inference.prefix_tree import TokenSequence, merge
from linkcontext.inference.state_cache import StateEngine, caches_at_once

END = 63


@pytest.fixture(scope="module")
def network():
    """Two layers of convolution around one of attention, with random weights."""
    torch.manual_seed(0)
    config = Lfm2Config(
        vocab_size=64, hidden_size=32, intermediate_size=64, block_ff_dim=64, block_auto_adjust_ff_dim=False,
        num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=256,
        layer_types=["conv", "full_attention", "conv"],
    )  # fmt: skip
    made = Lfm2ForCausalLM(config).eval()
    with torch.no_grad():
        for weight in made.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 1.5 * weight[0].numel() ** -0.5)
    return made


def sequence(ids, answers=0):
    """A text whose last `answers` tokens are asked for."""
    n = len(ids)
    return TokenSequence(np.array(ids), np.full(n, -1), np.full(n, -1), np.arange(n)[None], np.arange(n) >= n - answers)


def sequences():
    """Three shot counts of a support, two queries, candidates of one to three tokens, one of which begins another."""
    support, queries = [1, 2, 3, 4, 5, 6, 7, 8], ([20, 21, 22], [20, 23, 24, 25])
    answers = ([40, END], [40, 41, 42, END], [43, END], [44])
    return [
        sequence([0, *support[:count], *query, *answer], len(answer))
        for count in (0, 3, 8)
        for query in queries
        for answer in answers
    ]


def whole(network, lines):
    """The score of every sequence by itself, without a cache."""
    scores = []
    for line in lines:
        ids = torch.from_numpy(line.ids)[None]
        with torch.inference_mode():
            logprobs = network(input_ids=ids, use_cache=False).logits.log_softmax(-1)[0, :-1]
        values = logprobs.gather(1, ids[0, 1:, None])[:, 0].numpy()
        scores.append(values[line.answer[1:]].sum())
    return scores


@pytest.mark.parametrize(("room", "memory"), [(1000, 1e9), (1000, 0), (16, 1e9), (5, 0), (1, 0)])
def test_scores_are_those_of_whole_sequences(network, room, memory):
    lines = sequences()
    engine = StateEngine(network, room, memory)
    assert engine.scores(TreeInputs(merge(lines), [])) == pytest.approx(whole(network, lines), abs=1e-5)


def test_roots_that_share_nothing(network):
    lines = [sequence([1, 2, 3], 1), sequence([4, 5, 6, 7], 2), sequence([4, 5, 8], 1)]
    assert StateEngine(network, 100).scores(TreeInputs(merge(lines), [])) == pytest.approx(
        whole(network, lines), abs=1e-5
    )


@pytest.mark.parametrize("memory", [0, 1e9])
def test_replies_are_those_of_generate(network, memory):
    prompts = [line[: len(line.ids) - 2] for line in sequences()[::4]] + [sequence([0, 1, 2])]  # one begins others
    replies = decode_greedy(StateEngine(network, 16, memory), TreeInputs(merge(prompts), []), 6, [END])
    for prompt, reply in zip(prompts, replies, strict=True):
        ids = torch.from_numpy(prompt.ids)[None]
        settings = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": END, "pad_token_id": 0}
        out = network.generate(ids, attention_mask=torch.ones_like(ids), **settings)
        expected = out[0, ids.shape[1] :].tolist()
        assert reply == list(itertools.takewhile(lambda token: token != END, expected))
    assert len({tuple(reply) for reply in replies}) > 3


def test_a_prefilled_prefix_is_continued_and_left_as_it_was(network):
    lines = sequences()[-8:]
    inputs, engine = TreeInputs(merge(lines), []), StateEngine(network, 5)
    length = inputs.tree.shared_length
    early = engine.prefill(inputs, 4)
    cache = engine.prefill(TreeInputs(inputs.tree, [], early, 4), length)
    before = copy.deepcopy(cache)
    held = TreeInputs(inputs.tree, [], cache, length)
    for _ in range(2):
        assert engine.scores(held) == pytest.approx(whole(network, lines), abs=1e-5)
        assert decode_greedy(engine, held, 3, [END]) == decode_greedy(engine, inputs, 3, [END])
    assert early.get_seq_length(1) == 4
    assert cache_bytes(cache) == cache_bytes(before)
    for layer, old in zip(cache.layers, before.layers, strict=True):
        for name, value in vars(layer).items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, vars(old)[name])
            if isinstance(value, dict):
                for key, part in value.items():
                    assert not isinstance(part, torch.Tensor) or torch.equal(part, vars(old)[name][key])


def test_every_token_is_computed_once_but_those_that_nothing_follows(network, monkeypatch):
    computed = []
    decode = TreeForward.decode
    monkeypatch.setattr(
        TreeForward, "decode", lambda self, x, *rest: computed.append(x.shape[:2]) or decode(self, x, *rest)
    )
    tree = merge(sequences())
    StateEngine(network, 1000, 0).scores(TreeInputs(tree, []))
    assert all(rows == 1 for rows, _ in computed)
    leaves = set(range(len(tree.segments))) - {segment.parent for segment in tree.segments}
    assert len(leaves) == len(tree.leaves) == 24
    assert sum(n for _, n in computed) == len(tree) - len(leaves)


def test_rows_are_as_many_as_memory_and_tokens_allow(network, monkeypatch):
    lines = [sequence([1, 2, 3, n, n + 1, n + 2], 2) for n in range(10, 20)]
    inputs, rows = TreeInputs(merge(lines), []), []
    decode = TreeForward.decode
    monkeypatch.setattr(TreeForward, "decode", lambda self, x, *rest: rows.append(len(x)) or decode(self, x, *rest))
    trunk = cache_bytes(StateEngine(network, 100).prefill(inputs, 3))
    for tokens, memory, expected in ((100, 1e9, [1, 10]), (100, 4 * trunk, [1, 4, 4, 2]), (6, 1e9, [1, 3, 3, 3, 1])):
        rows.clear()
        StateEngine(network, tokens, memory).scores(inputs)
        assert rows == expected


def test_a_cache_is_copied_only_where_branches_leave(network, monkeypatch):
    copies = []
    monkeypatch.setattr(state_cache, "deepcopy", lambda cache: copies.append(1) or copy.deepcopy(cache))
    StateEngine(network, 100).scores(TreeInputs(merge([sequence(range(1, 9), 3)]), []))
    assert copies == []
    lines = [sequence([1, 2, 3, 4], 1), sequence([1, 2, 5, 6, 7], 2), sequence([1, 2, 5, 6, 8], 2)]
    StateEngine(network, 100).scores(TreeInputs(merge(lines), []))
    assert len(copies) == 1  # for the 3 alone: of 4, 7 and 8 nothing follows, and 5 6 takes the cache itself


def test_how_many_caches_are_alive(network):
    assert caches_at_once(merge([sequence([1, 2, 3])])) == 2
    chain = [sequence([*range(1, n), 40 + n]) for n in range(2, 30)]  # a leaf at every token of a trunk
    assert caches_at_once(merge(chain)) == 2
    bushy = [sequence([a, 10 + b, 20 + c]) for a, b, c in itertools.product((1, 2), repeat=3)]
    assert caches_at_once(merge(bushy)) == 4

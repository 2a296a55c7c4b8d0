"""The benchmark for GPUs: its attention against plain softmax, its checks against wrong results, and its dry run."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from linkcontext.inference.prefix_tree import TokenSequence, merge

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def modules():
    """`tree_kernels` and `gpu_trees`, which import their neighbours by name."""
    before = set(sys.modules)
    sys.path.insert(0, str(BENCHMARKS))
    import gpu_trees  # noqa: PLC0415 - not on the path before
    import tree_kernels  # noqa: PLC0415

    yield tree_kernels, gpu_trees
    sys.path.remove(str(BENCHMARKS))
    for name in set(sys.modules) - before:
        if (BENCHMARKS / f"{name}.py").exists():
            del sys.modules[name]


def tree_of(seed, names=2):
    """Sequences of few different tokens, so that they share beginnings of all lengths, and one that ends inside."""
    stream = np.random.default_rng(seed)
    rows = [stream.integers(0, names, stream.integers(2, 14)) for _ in range(stream.integers(1, 12))]
    rows.append(rows[0][:2])
    none = [np.full(len(row), -1) for row in rows]
    return merge(
        TokenSequence(ids, empty, empty, np.arange(len(ids))[None], np.arange(len(ids)) > 0)
        for ids, empty in zip(rows, none, strict=True)
    )


@pytest.mark.parametrize("layout", ["joined", "gathered"])
@pytest.mark.parametrize("seed", range(20))
def test_the_calls_of_a_layout_are_the_pairs_that_attend(modules, layout, seed):
    """Each pair once: twice would count a key double."""
    kernels, _ = modules
    tree = tree_of(seed)
    made = getattr(kernels, layout)(tree, torch.device("cpu"))
    assert sorted(made.order) == list(range(len(tree)))
    pairs = np.zeros((len(tree), len(tree)), int)
    for call in made.calls:
        queries, keys = (
            made.order[rows if isinstance(rows, slice) else rows.numpy()] for rows in (call.queries, call.keys)
        )
        for mine, theirs in call.spans():
            q, k = queries[mine], keys[theirs]
            for back, token in enumerate(q[::-1]):
                np.add.at(pairs, (token, k[: len(k) - back] if call.causal else k), 1)
    assert np.array_equal(pairs, tree.can_attend(np.arange(len(tree)), np.arange(len(tree))).astype(int))


def test_paths_that_hang_from_each_other_are_few(modules):
    """However many shots there are: the trunk, the queries on it, and second answers on their queries."""
    kernels, gpu_trees = modules
    subject = gpu_trees.Subject(gpu_trees.TOY, "cpu", torch.float32)
    tree = merge(subject.prompts(training=False))
    assert len(kernels.joined(tree, torch.device("cpu")).calls) == 3


@pytest.mark.parametrize("layout", ["joined", "gathered"])
def test_states_and_gradients_are_those_of_plain_softmax(modules, layout):
    kernels, _ = modules
    tree = tree_of(3)
    made = getattr(kernels, layout)(tree, torch.device("cpu"))
    torch.manual_seed(0)
    inputs = [torch.randn(1, heads, len(tree), 8, requires_grad=True) for heads in (4, 2, 2)]
    upper = torch.randn(1, len(tree), 4, 8)
    query, key, value = inputs
    mask = torch.from_numpy(tree.can_attend(made.order, made.order))
    want = torch.nn.functional.scaled_dot_product_attention(query, key, value, mask, scale=0.7, enable_gqa=True)
    expected = want.transpose(1, 2), *torch.autograd.grad((want.transpose(1, 2) * upper).sum(), inputs)
    attend = kernels.attention(made, kernels.Exact())
    have, _ = attend(None, query, key, value, None, scaling=0.7, dropout=0.0)
    for one, other in zip((have, *torch.autograd.grad((have * upper).sum(), inputs)), expected, strict=True):
        torch.testing.assert_close(one, other)


def test_the_kernel_of_pytorch_takes_what_it_is_given(modules):
    """Without a GPU its shapes alone can be had."""
    kernels, _ = modules
    meta = torch.device("meta")
    q, k, v = (torch.empty(30, heads, 64, device=meta, dtype=torch.bfloat16) for heads in (4, 2, 2))
    call = kernels.Call.of([np.arange(10), np.arange(10, 30)], [np.arange(10), np.arange(10, 30)], True, meta)
    kernel = kernels.TorchFlash()
    states, sums = kernel.forward(q, k, v, call, 0.1)
    assert (states.shape, sums.shape, sums.dtype) == (q.shape, (4, 30), torch.float32)
    grads = kernel.backward(states, q, k, v, states, sums, call, 0.1)
    assert [grad.shape for grad in grads] == [q.shape, k.shape, v.shape]


def test_a_wrong_kernel_is_refused(modules):
    kernels, _ = modules

    class Unscaled(kernels.Exact):
        def backward(self, grad, q, k, v, states, sums, call, scale):
            dq, dk, dv = super().backward(grad, q, k, v, states, sums, call, scale)
            return dq, dk * 1.05, dv

    kernels.verify(kernels.Exact(), torch.device("cpu"), torch.bfloat16)
    with pytest.raises(kernels.LeftOut, match="dk"):
        kernels.verify(Unscaled(), torch.device("cpu"), torch.bfloat16)


@pytest.mark.parametrize("spoiled", [False, True])
def test_a_tree_with_a_wrong_mask_is_noticed_in_float32_and_in_bf16(modules, monkeypatch, tmp_path, spoiled):
    kernels, gpu_trees = modules
    if spoiled:  # the last call is left out: second answers do not see their query, or queries their support

        def spoil(tree, device):
            made = kernels.joined(tree, device)
            return kernels.Layout(made.order, made.calls[:-1])

        monkeypatch.setattr(gpu_trees, "joined", spoil)
    config = gpu_trees.Bench(ways=("joined",), rounds=0)
    log = gpu_trees.Log(tmp_path / "log.jsonl", time.monotonic() + 600)
    gpu_trees.exact(config, "cpu", log)
    subject = gpu_trees.Subject(gpu_trees.TOY, "cpu", torch.bfloat16)
    for training in (False, True):
        gpu_trees.measure(subject, "toy", kernels.Exact(), training, config, log)
    names = [line.split(":")[0] for line in log.bad]
    everything = ["float32, sweep", "float32, training", "toy, sweep", "toy, training"]
    assert names == ([f"{what}, joined" for what in everything] if spoiled else [])


@pytest.mark.heavy
def test_the_dry_run_measures_all_that_a_cpu_can(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "gpu_trees.py"), "--toy", "--rounds", "1", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    events = [json.loads(line) for line in (tmp_path / "gpu-trees-toy.jsonl").read_text().splitlines()]
    rows = {(event["what"], event["way"]) for event in events if event["event"] == "row"}
    trees = {"whole", "joined", "gathered", "sdpa"}
    both = trees | {"flex", "prefix-cache"}
    assert rows == {("toy, sweep", way) for way in both} | {("toy, training", way) for way in trees}
    reasons = {event["what"]: event["reason"] for event in events if event["event"] == "left out"}
    assert reasons["toy, training, flex"] == "FlexAttention has no gradients on a CPU"


@pytest.mark.heavy
def test_without_time_everything_is_left_out_by_name(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "gpu_trees.py"), "--toy", "--minutes", "0", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "left out: toy: no time" in done.stdout

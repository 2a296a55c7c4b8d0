"""Attention over prefix trees on kernels for sequences of different lengths, which `gpu_trees.py` measures.

FlashAttention takes many sequences in one call, told apart by where each begins, and no mask. A tree is run on it in
two ways, both exact:

    joined    Tokens are laid out in heavy paths: from each fork on to the child with most tokens below it. A token
              attends causally to its own path; then, for each path that it hangs from, to the tokens before the fork,
              without a mask. The parts are joined by their log-sum-exp. There are as many calls as paths that hang
              from each other, whatever the number of shots. The gradients of each part come from the states and the
              log-sum-exp of the whole, as in `linkcontext.inference.cascade_attention`.
    gathered  Keys and values of the path from the root are copied for each stretch of the tree, and one causal call
              attends to the copies. TRL 1.16 does this (`trl/experimental/async_grpo/packing.py`, for text).

`Exact` computes the same calls in plain float32. It serves CPUs, checks in float32, and the check of the others.
"""

import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import AttentionInterface

from linkcontext.inference.cascade_attention import attention_named
from linkcontext.inference.prefix_tree import Ints, PrefixTree

NAME = "benchmark_tree_kernel"  # under which transformers knows the attention of a pass
BLOCK = 128  # tokens to a multiple of which AReaL pads its trees
ROUNDING = 0.02  # what a kernel in bf16 may differ from float32, of the largest value
Span = tuple[int, int]  # rows from, to


class LeftOut(Exception):
    """Something that cannot run here, with the reason."""


@dataclass(frozen=True)
class Call:
    """One call of a kernel: sequences of query rows, and the key rows that each of them attends to.

    With `causal`, the last query of a sequence attends to all its keys, the one before it to all but the last, and so
    on. Rows are a slice where they follow one another.
    """

    queries: slice | Tensor
    keys: slice | Tensor
    starts: tuple[Tensor, Tensor]  # int32[sequences + 1]: where each sequence begins among the queries, the keys
    longest: Span
    causal: bool

    @classmethod
    def of(cls, queries: Sequence[Ints], keys: Sequence[Ints], causal: bool, device: torch.device) -> "Call":
        sides = []
        for rows in (queries, keys):
            lengths = [len(each) for each in rows]
            starts = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32, device=device)
            sides.append((_rows(np.concatenate(rows), device), starts, max(lengths)))
        (q, starts_q, most_q), (k, starts_k, most_k) = sides
        return cls(q, k, (starts_q, starts_k), (most_q, most_k), causal)

    def spans(self) -> Iterator[tuple[slice, slice]]:
        """The queries and the keys of each sequence, among those of the call."""
        q, k = (starts.tolist() for starts in self.starts)
        for i in range(len(q) - 1):
            yield slice(q[i], q[i + 1]), slice(k[i], k[i + 1])


def _rows(rows: Ints, device: torch.device) -> slice | Tensor:
    follow = len(rows) == rows[-1] - rows[0] + 1 and (np.diff(rows) == 1).all()
    return slice(int(rows[0]), int(rows[-1]) + 1) if follow else torch.from_numpy(rows).to(device)


@dataclass(frozen=True)
class Layout:
    """In what order a tree's tokens are computed, -1 is padding, and the calls that are joined."""

    order: Ints
    calls: tuple[Call, ...]


def joined(tree: PrefixTree, device: torch.device) -> Layout:
    """Heavy paths, each on those that it hangs from."""
    segments = tree.segments
    children: dict[int, list[int]] = {}
    for number, segment in enumerate(segments):
        children.setdefault(segment.parent, []).append(number)
    order: list[Ints] = []
    paths: list[Ints] = []
    levels: dict[int, list[tuple[Ints, Ints]]] = {}  # by how many paths are below: who attends to whom
    length = 0

    def visit(number: int, level: int) -> None:
        nonlocal length
        start, forks = length, []
        while True:
            segment = segments[number]
            order.append(np.arange(segment.start, segment.end))
            length += segment.end - segment.start
            below = children.get(number, [])
            if not below:
                break
            number = max(below, key=lambda child: segments[child].subtree_end - segments[child].start)
            forks.append((length, [child for child in below if child != number]))
        paths.append(np.arange(start, length))
        for fork, others in reversed(forks):
            first = length
            for child in others:
                visit(child, level + 1)
            if others:
                levels.setdefault(level, []).append((np.arange(first, length), np.arange(start, fork)))

    for root in children[-1]:
        visit(root, 0)
    calls = [Call.of(paths, paths, True, device)]
    for level in sorted(levels):
        queries, keys = zip(*sorted(levels[level], key=lambda each: each[0][0]), strict=True)
        calls.append(Call.of(queries, keys, False, device))
    return Layout(np.concatenate(order), tuple(calls))


def gathered(tree: PrefixTree, device: torch.device) -> Layout:
    """Each stretch on a copy of its path from the root."""
    own, paths = [], []
    for segment in tree.segments:
        own.append(np.arange(segment.start, segment.end))
        paths.append(own[-1] if segment.parent < 0 else np.concatenate([paths[segment.parent], own[-1]]))
    return Layout(np.arange(len(tree)), (Call.of(own, paths, True, device),))


class Kernel(Protocol):
    """Attention within the sequences of a call.

    `forward` gives the states [queries, heads, width] and their log-sum-exp float32[heads, queries] for queries
    [queries, heads, width] and keys and values [keys, key heads, width]. `backward` gives the gradients of these three
    from those of the states, where states and log-sum-exp may be those of a softmax over more keys.
    """

    name: str

    def forward(self, q: Tensor, k: Tensor, v: Tensor, call: Call, scale: float) -> tuple[Tensor, Tensor]: ...

    def backward(
        self, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, states: Tensor, sums: Tensor, call: Call, scale: float
    ) -> tuple[Tensor, Tensor, Tensor]: ...


class Exact:
    """Plain softmax in float32, a sequence at a time."""

    name = "plain float32"

    def forward(self, q: Tensor, k: Tensor, v: Tensor, call: Call, scale: float) -> tuple[Tensor, Tensor]:
        states, sums = torch.empty_like(q), q.new_empty(q.shape[1], len(q), dtype=torch.float32)
        for mine, theirs in call.spans():
            scores, (_, _, values) = self._scores(q[mine], k[theirs], v[theirs], call.causal, scale)
            sums[:, mine] = scores.logsumexp(-1)
            states[mine] = (scores.softmax(-1) @ values).transpose(0, 1).to(q.dtype)
        return states, sums

    def backward(
        self, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, states: Tensor, sums: Tensor, call: Call, scale: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        grads = [torch.zeros_like(each, dtype=torch.float32) for each in (q, k, v)]
        for mine, theirs in call.spans():
            scores, (queries, keys, values) = self._scores(q[mine], k[theirs], v[theirs], call.causal, scale)
            weights = (scores - sums[:, mine, None]).exp()
            upper = grad[mine].float().transpose(0, 1)
            common = (upper * states[mine].float().transpose(0, 1)).sum(-1, keepdim=True)
            inner = weights * (upper @ values.transpose(1, 2) - common) * scale
            parts = inner @ keys, inner.transpose(1, 2) @ queries, weights.transpose(1, 2) @ upper
            for total, part, rows in zip(grads, parts, (mine, theirs, theirs), strict=True):
                groups = part.unflatten(0, (total.shape[1], -1)).sum(1)  # heads that share a key head
                total[rows] = groups.transpose(0, 1)
        dq, dk, dv = (total.to(each.dtype) for total, each in zip(grads, (q, k, v), strict=True))
        return dq, dk, dv

    def _scores(
        self, q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float
    ) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        repeats = q.shape[1] // k.shape[1]
        queries = q.float().transpose(0, 1)
        keys, values = (each.float().transpose(0, 1).repeat_interleave(repeats, 0) for each in (k, v))
        scores = queries @ keys.transpose(1, 2) * scale
        if causal:
            visible = torch.ones(scores.shape[1:], dtype=torch.bool, device=q.device)
            scores = scores.masked_fill(~visible.tril(scores.shape[2] - scores.shape[1]), -torch.inf)
        return scores, (queries, keys, values)


class TorchFlash:
    """The FlashAttention that PyTorch has for CUDA."""

    name = f"torch.ops.aten._flash_attention_forward of torch {torch.__version__}"

    def forward(self, q: Tensor, k: Tensor, v: Tensor, call: Call, scale: float) -> tuple[Tensor, Tensor]:
        out = torch.ops.aten._flash_attention_forward(
            q, k, v, *call.starts, *call.longest, 0.0, call.causal, False, scale=scale
        )
        return out[0], out[1]

    def backward(
        self, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, states: Tensor, sums: Tensor, call: Call, scale: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        seed = torch.zeros(2, dtype=torch.uint64, device=q.device)  # of dropout, of which there is none
        dq, dk, dv = torch.ops.aten._flash_attention_backward(
            grad, q, k, v, states, sums, *call.starts, *call.longest, 0.0, call.causal, seed, seed[:0], scale=scale
        )
        return dq, dk, dv


class HubFlash(TorchFlash):
    """FlashAttention 3 of the Hub through the package `kernels`, forward; PyTorch's backward."""

    name = "kernels-community/flash-attn3 forward, torch's backward"

    def __init__(self) -> None:
        try:
            from kernels import get_kernel  # noqa: PLC0415 - few have it
        except ImportError:
            raise LeftOut("the package `kernels` is not installed") from None
        try:
            self.module = get_kernel("kernels-community/flash-attn3", version=1)
        except Exception as error:  # no network, no build for this torch: whatever the package raises
            raise LeftOut(f"`kernels` does not give kernels-community/flash-attn3: {one_line(error)}") from error

    def forward(self, q: Tensor, k: Tensor, v: Tensor, call: Call, scale: float) -> tuple[Tensor, Tensor]:
        states, sums, *_ = self.module.flash_attn_varlen_func(
            q, k, v, *call.starts, *call.longest, softmax_scale=scale, causal=call.causal, return_attn_probs=True
        )
        return states, sums


def one_line(error: BaseException) -> str:
    """An exception in one line of at most 200 characters."""
    words = str(error).split("\n")[0]
    return f"{type(error).__name__}: {words}"[:200]


def choose_kernel(device: torch.device, dtype: torch.dtype) -> tuple[Kernel, list[str]]:
    """The first kernel that runs here and is right, and why earlier ones are not taken."""
    if device.type != "cuda" or dtype == torch.float32:  # FlashAttention takes half precision alone
        return Exact(), []
    refused = []
    for make in (HubFlash, TorchFlash):
        try:
            kernel = make()
            verify(kernel, device, dtype)
        except LeftOut as reason:
            refused.append(f"{make.__name__}: {reason}")
        except Exception as error:  # noqa: BLE001 - one that fails must not end the others' measurement
            refused.append(f"{make.__name__}: {one_line(error)}")
        else:
            return kernel, refused
    raise LeftOut("; ".join(refused))


def verify(kernel: Kernel, device: torch.device, dtype: torch.dtype) -> None:
    """Compare a kernel with plain float32, with heads that share keys and sequences of several lengths."""
    generator = torch.Generator(device).manual_seed(0)
    q, k, v, grad = (
        torch.randn(rows, heads, 128, device=device, dtype=dtype, generator=generator)
        for rows, heads in ((300, 4), (700, 2), (700, 2), (300, 4))
    )
    ends = [np.arange(0, 90), np.arange(90, 300)], [np.arange(0, 400), np.arange(400, 700)]
    for causal in (False, True):
        call = Call.of(*ends, causal, device)
        states, sums = Exact().forward(q, k, v, call, 0.1)
        inputs = q, k, v, states, sums, call, 0.1
        want = states, sums, *Exact().backward(grad, *inputs)
        have = *kernel.forward(q, k, v, call, 0.1), *kernel.backward(grad, *inputs)
        for name, a, b in zip(("states", "log-sum-exp", "dq", "dk", "dv"), have, want, strict=True):
            if a.shape != b.shape:
                raise LeftOut(f"{name} has the shape {tuple(a.shape)}, not {tuple(b.shape)}")
            difference = float((a.float() - b.float()).abs().max() / b.float().abs().max())
            if not difference < ROUNDING:
                raise LeftOut(f"{name} differ from plain float32 by {difference:.1e} of the largest")


class _Joined(torch.autograd.Function):
    """The calls of a layout, joined by their log-sum-exp."""

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, calls: Sequence[Call], kernel: Kernel, scale: float) -> Tensor:
        first, *others = calls
        states, sums = kernel.forward(q[first.queries], k[first.keys], v[first.keys], first, scale)
        for call in others:
            more, more_sums = kernel.forward(q[call.queries], k[call.keys], v[call.keys], call, scale)
            mine, mine_sums = states[call.queries], sums[:, call.queries]
            share = torch.sigmoid(more_sums - mine_sums).T[..., None].to(states.dtype)
            states[call.queries] = torch.lerp(mine, more, share)
            sums[:, call.queries] = torch.logaddexp(mine_sums, more_sums)
        ctx.save_for_backward(q, k, v, states, sums)
        ctx.rest = calls, kernel, scale
        return states

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple:
        q, k, v, states, sums = ctx.saved_tensors
        calls, kernel, scale = ctx.rest
        grad = grad.contiguous()
        totals = [torch.zeros_like(each, dtype=torch.float32) for each in (q, k, v)]
        for call in calls:
            inputs = q[call.queries], k[call.keys], v[call.keys], states[call.queries]
            parts = kernel.backward(grad[call.queries], *inputs, sums[:, call.queries].contiguous(), call, scale)
            for total, part, rows in zip(totals, parts, (call.queries, call.keys, call.keys), strict=True):
                if isinstance(rows, slice):
                    total[rows] += part
                else:  # forks have keys in common
                    total.index_add_(0, rows, part.float())
        dq, dk, dv = (total.to(each.dtype) for total, each in zip(totals, (q, k, v), strict=True))
        return dq, dk, dv, None, None, None


Attention = Callable[..., tuple[Tensor, None]]


def attention(layout: Layout, kernel: Kernel) -> Attention:
    """Attention as transformers calls it, for passes with the layout's tokens."""

    def attend(module, query: Tensor, key: Tensor, value: Tensor, mask, *, scaling: float, **_) -> tuple[Tensor, None]:
        q, k, v = (each[0].transpose(0, 1) for each in (query, key, value))
        return _Joined.apply(q, k, v, layout.calls, kernel, scaling)[None], None

    return attend


@contextmanager
def attending(network, attend: Attention) -> Iterator[None]:
    """Inside the block the language model uses this attention."""
    AttentionInterface.register(NAME, attend)
    with attention_named(network, NAME):
        yield


def _file_of(package: str, inside: str) -> ModuleType:
    """A file of an installed package, loaded alone: the packages themselves import whole training systems."""
    spec = importlib.util.find_spec(package)
    path = Path(spec.origin).parent / inside if spec is not None and spec.origin else None
    if path is None or not path.exists():
        raise LeftOut(f"{package} is not installed" if path is None else f"this {package} has no {inside}")
    name = f"benchmark_peer_{package}"
    alone = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(alone)
    sys.modules[name] = module
    alone.loader.exec_module(module)
    return module


def trl_attention(tree: PrefixTree, device: torch.device) -> tuple[Layout, Attention]:
    """TRL's own function on copied paths; needs its package `kernels`."""
    module = _file_of("trl", "experimental/async_grpo/packing.py")
    if device.type != "cuda":
        raise LeftOut("TRL's tree attention runs on a GPU alone")
    HubFlash()  # says why where its kernel is missing
    layout = gathered(tree, device)
    (call,) = layout.calls
    rows = call.keys if isinstance(call.keys, Tensor) else torch.arange(call.keys.start, call.keys.stop, device=device)

    def attend(*args, **options) -> tuple[Tensor, None]:
        return module.tree_attention(
            *args,
            tree_kv_index=rows,
            tree_cu_seqlens_q=call.starts[0],
            tree_cu_seqlens_k=call.starts[1],
            tree_max_seqlen_q=call.longest[0],
            tree_max_seqlen_k=call.longest[1],
            **options,
        )

    return layout, attend


def areal_attention(tree: PrefixTree, device: torch.device) -> tuple[Layout, Attention]:
    """AReaL's Triton kernel on the bits of a tree's mask, which it makes in Python, a token at a time."""
    module = _file_of("areal", "models/tree_attn/triton_kernel.py")
    if device.type != "cuda":
        raise LeftOut("AReaL's tree attention runs on a GPU alone")
    if not module.TRITON_AVAILABLE:
        raise LeftOut("Triton is not installed")
    padding = -len(tree) % BLOCK
    parents = torch.from_numpy(np.append(tree.parent, np.full(padding, -1)))[None]
    data = module.precompute_tree_attention_data(parents)
    parts = [
        part.to(device) for part in (data.packed_mask, data.kv_indices, data.kv_offsets, data.q_indices, data.q_offsets)
    ]

    def attend(module_, query: Tensor, key: Tensor, value: Tensor, mask, *, scaling: float, **_):
        return module.tree_attention(query, key, value, *parts, scaling).transpose(1, 2), None

    return Layout(np.append(np.arange(len(tree)), np.full(padding, -1)), ()), attend

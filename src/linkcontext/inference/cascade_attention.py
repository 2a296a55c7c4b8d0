"""Cascade attention: the path that branches share without a mask, and each branch by itself.

Branches attend to what is before their fork and not to each other, so that under one dense mask most of what a long
pass computes is thrown away. Here a branch attends to the path before its fork without a mask, then to itself, and the
two softmaxes are combined by their log-sum-exp. The result is exact, and so are its gradients: the backward pass of
FlashAttention needs only the states and the log-sum-exp of the whole softmax, so that each part is gone through by
itself. The idea is known as shared-prefix attention from Hydragen (arXiv 2402.05099) and as cascade attention from
FlashInfer (arXiv 2501.01005); the combination is that of FlashAttention (arXiv 2205.14135).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel

NAME = "linkcontext_cascade"  # under which transformers knows the function


class BranchMask(Tensor):
    """An additive mask float[g, 1, l, l] within g branches, with the number of tokens before each of them."""

    forks: tuple[int, ...]

    @classmethod
    def of(cls, mask: Tensor, forks: tuple[int, ...]) -> "BranchMask":
        """A mask with these forks, equal ones side by side."""
        branches = mask.as_subclass(cls)
        branches.forks = forks
        return branches

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Keep the forks where the mask is moved or cast."""
        result = super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]
        if isinstance(result, BranchMask) and isinstance(args[0], BranchMask):
            result.forks = args[0].forks
        return result


@contextmanager
def cascade_attention(network: PreTrainedModel, enabled: bool) -> Iterator[None]:
    """Inside the block, if `enabled`, the language model takes the masks that `attend` takes.

    Raises `KeyError` if transformers does not offer its usual attention to other functions.
    """
    if enabled:
        AttentionInterface.register(NAME, attend)
    with attention_named(network, NAME if enabled else network.config.get_text_config()._attn_implementation):
        yield


@contextmanager
def attention_named(network: PreTrainedModel, name: str) -> Iterator[None]:
    """Inside the block the language model uses the attention that transformers knows under this name."""
    text = network.config.get_text_config()
    usual = text._attn_implementation
    text._attn_implementation = name
    try:
        yield
    finally:
        text._attn_implementation = usual


def attend(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Attention as transformers calls it: float[1, n, heads, width].

    Args:
        module: the attention layer.
        query: float[1, heads, n, width].
        key: float[1, key heads, p + n, width], of which the first p are cached.
        value: like `key`.
        attention_mask: a `BranchMask` [g, 1, l, l]: the last g x l tokens are g branches, in each of which tokens
            attend to each other as the mask says. The n - g x l tokens before them are a trunk, which is causal and
            attends to the p cached ones. Each branch attends to the first tokens of cached and trunk, as many as its
            fork says. Any other mask, or None, means what it means elsewhere.
        options: `scaling`, and others for the usual attention.
    """
    if not isinstance(attention_mask, BranchMask):
        usual = AttentionInterface()["sdpa"]
        output: tuple[Tensor, None] = usual(module, query, key, value, attention_mask, **options)
        return output
    if torch.is_autocast_enabled(query.device.type):  # as the usual attention does
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    parts = _parts(query, key, attention_mask, options.get("scaling"))
    if torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad):
        states: Tensor = _Cascade.apply(query, key, value, parts)  # type: ignore[no-untyped-call]
        return states, None
    return _forward(query, key, value, parts)[0], None


@dataclass(frozen=True, slots=True)
class _Parts:
    """How one attention is cut: `trunk` tokens on `cached` ones, then g branches of l tokens."""

    mask: Tensor  # float[g, 1, l, l]
    trunk: int
    cached: int
    ranges: list[tuple[int, int, int]]  # tokens from, to, and how many of the first keys they attend to
    scale: float | None


def _parts(query: Tensor, key: Tensor, branches: BranchMask, scale: float | None) -> _Parts:
    """The parts of a pass. Neighbours with the same keys before them are one range."""
    mask = branches.as_subclass(Tensor).to(query.dtype)
    rows, _, length, _ = mask.shape
    assert len(branches.forks) == rows, "each branch needs its fork"
    trunk, cached = query.shape[2] - rows * length, key.shape[2] - query.shape[2]
    ranges: list[tuple[int, int, int]] = []
    ends = [trunk + row * length for row in range(rows + 1)]
    for start, end, keys in zip([0, *ends[:-1]], ends, [cached, *branches.forks], strict=True):
        if ranges and ranges[-1][2] == keys:
            ranges[-1] = ranges[-1][0], end, keys
        else:
            ranges.append((start, end, keys))
    return _Parts(mask, trunk, cached, [each for each in ranges if each[0] < each[1] and each[2]], scale)


def _split(states: Tensor, parts: _Parts) -> tuple[Tensor, Tensor]:
    """Of [1, heads, tokens, width] the trunk [1, heads, t, width] and the branches [g, heads, l, width], as views."""
    rows, _, length, _ = parts.mask.shape
    _, heads, count, width = states.shape
    end = count - rows * length
    branches = states[0, :, end:].view(heads, rows, length, width).transpose(0, 1)
    return states[:, :, end - parts.trunk : end], branches


def _forward(query: Tensor, key: Tensor, value: Tensor, parts: _Parts) -> tuple[Tensor, Tensor]:
    """The states float[1, n, heads, width], and the log-sum-exp float32[1, n, heads] of each token's scores."""
    own = list(zip(*(_split(states, parts) for states in (query, key, value)), strict=True))
    pieces = []
    if parts.trunk:
        pieces.append(_part(own[0], parts.scale, is_causal=True))
    if len(parts.mask):
        states, sums = _part(own[1], parts.scale, attn_mask=parts.mask)
        pieces.append((states.flatten(0, 1)[None], sums.flatten(0, 1)[None]))
    states, sums = pieces[0] if len(pieces) == 1 else (torch.cat(both, 1) for both in zip(*pieces, strict=True))
    for start, end, keys in parts.ranges:
        prefix, more = _part((query[:, :, start:end], key[:, :, :keys], value[:, :, :keys]), parts.scale)
        here = sums[:, start:end]
        states[:, start:end].lerp_(prefix, torch.sigmoid(more - here)[..., None].to(states.dtype))
        torch.logaddexp(here, more, out=here)
    return states, sums


class _Cascade(torch.autograd.Function):
    """The same with gradients."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, parts: _Parts) -> Tensor:
        """The states float[1, n, heads, width]."""
        states, sums = _forward(query, key, value, parts)
        ctx.save_for_backward(query, key, value, states, sums)
        ctx.parts = parts
        return states

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Each part with the states and the log-sum-exp of the whole gives its share of the gradients."""
        query, key, value, states, sums = ctx.saved_tensors
        parts: _Parts = ctx.parts
        inputs = query, key, value
        outputs = grads[0].transpose(1, 2), states.transpose(1, 2), sums[..., None].transpose(1, 2)
        totals = [torch.zeros_like(each) for each in inputs]
        masks: list[dict[str, Any]] = [{"is_causal": True}, {"attn_mask": parts.mask}]
        for place, options in enumerate(masks):
            own = [_split(each, parts)[place] for each in (*outputs, *inputs)]
            if own[0].numel():
                for total, part in zip(totals, _part_backward(own, parts.scale, **options), strict=True):
                    _split(total, parts)[place].add_(part)
        for start, end, keys in parts.ranges:
            own = [each[:, :, start:end] for each in (*outputs, query)]
            before = [each[:, :, :keys] for each in (key, value)]
            first, *others = _part_backward([*own, *before], parts.scale)
            totals[0][:, :, start:end].add_(first)
            for total, part in zip(totals[1:], others, strict=True):
                total[:, :, :keys].add_(part)
        return (*totals, None)


def _part(tensors: Sequence[Tensor], scale: float | None, **mask: Any) -> tuple[Tensor, Tensor]:
    """States [rows, n, heads, width] of query, key and value, and their log-sum-exp float32[rows, n, heads]."""
    # The public function does not return the second.
    states, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*tensors, scale=scale, **mask)
    return states.transpose(1, 2), sums.transpose(1, 2)


def _part_backward(
    tensors: Sequence[Tensor], scale: float | None, is_causal: bool = False, attn_mask: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of one part's query, key and value.

    `tensors` [rows, heads, n, width] are the gradient of the states, the states, their log-sum-exp (of width 1), query,
    key and value.
    """
    grad, states, sums, query, key, value = tensors
    grads: tuple[Tensor, Tensor, Tensor] = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        grad, query, key, value, states, sums[..., 0], 0.0, is_causal, attn_mask=attn_mask, scale=scale
    )
    return grads

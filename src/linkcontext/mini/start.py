"""What the language model's attention begins as.

Looking things up in context needs two layers that fit each other, and training finds them late: with ordinary
random weights nothing had moved when these already looked things up (docs/log.md). So the first
layer begins with heads that look at fixed distances (one token back; the stretch where a turn's picture stands), and
the second with heads that compare what those put down: with the token before, which is copying from
context, and with the picture of the turn, which is linking. It is a start and nothing more: all weights are
trained, the other layers begin at random, and no name, picture or feature is in it.

After "mimetic initialisation" (Trockman and Kolter, 2023), which starts attention near identity.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import LlavaForConditionalGeneration

THETA = 1_000_000.0  # of the rotations: slow ones leave dimensions free to compare contents over any distance
SLOW = 7  # rotations from here on turn less than two radians over a thousand tokens
BACK = (70.0, 40.0, 20.0, 10.0)  # how sharply a head sees one distance, per rotation from the fastest
STRETCH = (0.0, 0.0, 20.0, 20.0)  # the same for a stretch of about a dozen tokens


@torch.no_grad()
def prepare(model: LlavaForConditionalGeneration, features: Tensor, assistant: int, tokens_per_image: int) -> None:
    """Set the weights a training begins with.

    `features` float[..., vision_width] are what the tower gives; the projector begins by standardising them.
    `assistant` is the token after which an answer begins, and a name stands about as far behind the middle of its
    picture as half of `tokens_per_image` and a short question take.
    """
    text = model.model.language_model
    width, layers = text.config.hidden_size, text.layers
    scale = width**-0.5  # of an embedding: logits of unit variance with tied weights
    text.embed_tokens.weight.normal_(std=scale)
    for layer in layers:
        attention, mlp = layer.self_attn, layer.mlp
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj):
            projection.weight.normal_(std=scale)
        attention.o_proj.weight.normal_(std=0.5 * scale * scale)
        mlp.down_proj.weight.normal_(std=0.5 * scale * mlp.down_proj.in_features**-0.5)
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj):
            projection.bias.zero_()
    _project(model, features, scale)
    first, second = layers[0].self_attn, layers[1].self_attn
    heads = text.config.num_attention_heads
    size = width // heads
    thirds = max(1, heads // 3)
    for head in range(2 * thirds):
        back = head < thirds
        _look(
            first, head, size, distance=1.0 if back else 4 + tokens_per_image / 2, sharpness=BACK if back else STRETCH
        )
        _put_down(first, head, size, strength=2.4 * scale)
    marked = _seen(first, 0, size) @ text.embed_tokens.weight[assistant] / scale
    for head in range(2 * thirds):
        _compare(first, second, head, size, with_self=head >= thirds, marked=marked)
        _copy(second, head, size, strength=scale)


def _project(model: LlavaForConditionalGeneration, features: Tensor, scale: float) -> None:
    sample = features.float().flatten(0, -2)
    mean, std = sample.mean(0), sample.std(0)
    first, second = model.model.multi_modal_projector.linear_1, model.model.multi_modal_projector.linear_2
    first.weight.normal_(std=first.in_features**-0.5).div_(std)
    first.bias.copy_(-first.weight @ mean)
    second.weight.normal_(std=2 * scale * second.in_features**-0.5)
    second.bias.zero_()


def _rows(head: int, size: int) -> slice:
    return slice(head * size, (head + 1) * size)


def _look(attention: Any, head: int, size: int, distance: float, sharpness: tuple[float, ...]) -> None:
    """Make a head look a fixed distance back, whatever stands there."""
    rows, half = _rows(head, size), size // 2
    attention.q_proj.weight[rows] *= 0.05
    attention.k_proj.weight[rows] *= 0.05
    turn = THETA ** (-torch.arange(half) / half) * distance
    strength = torch.zeros(half)
    strength[: len(sharpness)] = torch.tensor(sharpness).sqrt()
    attention.k_proj.bias[rows] = torch.cat([strength, torch.zeros(half)])
    attention.q_proj.bias[rows] = torch.cat([strength * turn.cos(), -strength * turn.sin()])


def _put_down(attention: Any, head: int, size: int, strength: float) -> None:
    """Make a head write what it sees where it can be read again: orthonormal in, orthonormal out."""
    rows, width = _rows(head, size), attention.o_proj.out_features
    attention.v_proj.weight[rows] = torch.linalg.qr(torch.randn(width, size))[0].T
    attention.o_proj.weight[:, rows] = strength * torch.linalg.qr(torch.randn(width, size))[0]


def _seen(attention: Any, head: int, size: int) -> Tensor:
    """What a head writes for what it reads, up to scale: float32[width, width]."""
    rows = _rows(head, size)
    out = attention.o_proj.weight[:, rows]
    seen: Tensor = (out / out.norm(dim=0)) @ attention.v_proj.weight[rows]
    return seen


def _compare(first: Any, second: Any, head: int, size: int, *, with_self: bool, marked: Tensor) -> None:
    """Make a head of the second layer compare what the same head of the first put down.

    With `with_self` what is put down here with what is put down there, best where the token before is the one
    whose trace is `marked`; without, the token that stands here with the one put down there.
    """
    rows, half = _rows(head, size), size // 2
    slow = torch.tensor([*range(SLOW, half), *range(half + SLOW, size)])
    out = first.o_proj.weight[:, rows]
    written = (out / out.norm(dim=0)).T  # [size, width]: reads what the head put down
    here = written if with_self else first.v_proj.weight[rows]
    for projection, content in ((second.q_proj, here), (second.k_proj, written)):
        projection.weight[rows] *= 0.05

        index = head * size + slow
        projection.weight[index] = 1.4 * content[slow]
    if with_self:
        constant = head * size + half - 1  # the slowest rotation of all
        second.q_proj.bias[constant] = 4.0
        second.k_proj.weight[constant] += marked / marked.norm() * 2


def _copy(attention: Any, head: int, size: int, strength: float) -> None:
    """Make a head pass on what it sees as it is."""
    rows = _rows(head, size)
    basis = torch.linalg.qr(torch.randn(attention.o_proj.out_features, size))[0]
    attention.v_proj.weight[rows] = basis.T
    attention.o_proj.weight[:, rows] = 4 * strength * basis

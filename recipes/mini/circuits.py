"""What the language model's attention begins as: a path from a shown picture to its name that works untrained.

The residual stream is divided into blocks, each with one meaning:

    constant      1    the same number everywhere; it stands in for the biases that attention does not have
    patch         1    set at every token of a picture
    after         1    set where the token before is a picture's
    turn          1    set at the token that opens a user's turn
    mark          1    set at the token behind which an answer begins
    identity     96    which token stands here; embeddings are written here, logits are read from here
    previous     40    which token stands one place before (a random projection of its identity)
    before       16    which token stands two places before
    seen         96    what a picture's token shows: whitened, and bound to its place by the projector
    content      96    what the picture of this turn shows
    free        ...    left to training

Layer 0.  Head 0 ("previous") and head 1 ("before") look one and two places back and write down whose identity they
          see, and head 0 whether it was a picture's. Head 2 ("sum") adds up what the tokens of a picture show; at the
          first token behind the picture the sum is complete.
Layer 1.  Head 0 ("gather") finds the last such token, however far back it stands, and copies the sum into content.
          An opened turn without a picture hides the pictures before it.
Layer 2.  Heads 0 and 1 ("compare") complete a conditional induction. A token attends to tokens whose turn shows a
          similar picture (a cosine, because queries and keys are normalised) and whose previous token is the one that
          stands here, and copies their identity. At the mark where an answer begins this finds the first tokens of
          names under similar pictures; inside of a name it finds how that name went on, so names of several tokens
          and names that begin alike are told apart by picture. Head 0 makes the directions of content a little more
          even than they are, head 1 much more. Without pictures both are ordinary induction heads.

All else begins small and random. No name and no picture is in any of this. Prior art: induction heads (Olsson et al.
2022), mimetic initialisation (Trockman and Kolter 2023).
"""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linprog
from torch import Generator, Tensor
from transformers import LlavaForConditionalGeneration

THETA = 1e14  # of the rotary embedding: nearly all pairs turn so slowly that they hold content over any distance
SLOW = 5e-4  # radians a token; pairs below turn less than a radian over two thousand tokens
IDENTITY, PREVIOUS, BEFORE, CONTENT = 96, 40, 16, 96
FIXED = {0: 3, 1: 1, 2: 2}  # layer: so many heads, the first ones, are circuits
COMPARING = 2  # the layer whose findings may become louder or softer
EVENNESS = (0.35, 0.6)  # of the two comparisons: 0 compares content as it is, 1 whitened
GATHERED = 1.4  # the length of content where it was gathered
CONSTANT_SIZE, PATCH_SIZE = 0.5, 2.0  # a large mark keeps the norm of picture tokens nearly the same


@dataclass(frozen=True, slots=True)
class Blocks:
    """Where the blocks of the residual stream lie."""

    identity: slice
    previous: slice
    before: slice
    seen: slice
    content: slice
    free: slice
    constant: int = 0
    patch: int = 1
    after: int = 2
    turn: int = 3
    mark: int = 4


def blocks(width: int) -> Blocks:
    """The layout for a residual stream of `width` numbers."""
    ends = [5]
    for size in (IDENTITY, PREVIOUS, BEFORE, CONTENT, CONTENT):
        ends.append(ends[-1] + size)
    assert ends[-1] <= width
    return Blocks(*(slice(a, b) for a, b in zip(ends, [*ends[1:], width], strict=True)))


@dataclass(frozen=True, slots=True)
class Strength:
    """How strongly each part of the start speaks. Scores are in nats, the shares are of a comparison's score."""

    scores: tuple[float, float, float] = (60.0, 70.0, 60.0)  # the largest score of layers 0, 1 and 2
    content: float = 0.28
    identity: float = 0.45
    before: float = 0.10
    text: float = 0.17  # for keys that can be part of an answer
    copy: float = 6.0  # how much of the found identity is written, where the token's own is 1
    logits: float = 1.5  # gain of the last norm


@dataclass(frozen=True, slots=True)
class Reading:
    """How the tower's tokens are read: float32 tensors, T tokens of D numbers."""

    mean: Tensor  # [T, D], of each place
    whitening: Tensor  # [D, D]
    place: Tensor  # [T, D]: row p is 1 at place p and 0 elsewhere
    place_bias: Tensor  # [T]
    directions: Tensor  # [units, D]: what is read of whitened tokens; orthonormal rows at each place
    places: Tensor  # int64[units]: at which place
    mixture: Tensor  # [CONTENT, units]: orthonormal rows, strongest first
    spread: Tensor  # [CONTENT]: standard deviations of what they give


def orthonormal(rows: int, columns: int, generator: Generator) -> Tensor:
    """float32[rows, columns] with orthonormal rows (or columns, where there are more rows)."""
    square = torch.linalg.qr(torch.randn(max(rows, columns), min(rows, columns), generator=generator))[0]
    return square.T if rows < columns else square


@dataclass(frozen=True, slots=True)
class Head:
    """One attention head's share of a layer's weights."""

    attention: Any
    number: int

    @property
    def size(self) -> int:
        """Dimensions of the head."""
        return int(self.attention.head_dim)

    @property
    def start(self) -> int:
        """Its first row in the projections."""
        return self.number * self.size

    def frequencies(self) -> Tensor:
        """Radians a token of each rotary pair, float32[size / 2], fastest first."""
        half = self.size // 2
        return THETA ** (-torch.arange(half) / half)

    def slow(self) -> Tensor:
        """Dimensions, both of each slow pair, that keep their meaning over any distance."""
        pairs = (self.frequencies() < SLOW).nonzero()[:, 0]
        return torch.cat([pairs, pairs + self.size // 2])

    def clear(self) -> None:
        """Make the head's four matrices zero."""
        rows = slice(self.start, self.start + self.size)
        for projection in (self.attention.q_proj, self.attention.k_proj, self.attention.v_proj):
            projection.weight[rows] = 0
        self.attention.o_proj.weight[:, rows] = 0

    def look(self, query: int, marks: dict[int, float], wave: Tensor) -> None:
        """Score keys by how far back they stand, where one of `marks` (residual dimension: gain) is set.

        A token looks so where its residual dimension `query` is set.

        `wave` complex64[size / 2] gives the score as the real part of sum wave[i] * exp(-1j * frequency[i] * back).
        """
        half, q, k = self.size // 2, self.attention.q_proj.weight, self.attention.k_proj.weight
        root = wave.abs().sqrt()
        q[self.start : self.start + half, query] += root * wave.angle().cos()
        q[self.start + half : self.start + self.size, query] -= root * wave.angle().sin()
        for dimension, gain in marks.items():
            k[self.start : self.start + half, dimension] += gain * root

    def ignore(self, mark: int, size: float) -> None:
        """Give keys a part that no query reads: they are normalised, and one without another part must be something."""
        free = self.start + self.size - 1  # of the slowest pair of all
        self.attention.k_proj.weight[free, mark] += size

    def carry(self, source: slice, target: slice, matrix: Tensor, offset: int = 0) -> None:
        """Write matrix @ residual[source] of what is attended to into `target` of the residual."""
        count = source.stop - source.start
        at = slice(self.start + offset, self.start + offset + count)
        self.attention.v_proj.weight[at, source] = torch.eye(count)
        self.attention.o_proj.weight[target, at] = matrix


def at_distance(head: Head, back: float) -> Tensor:
    """A wave that is largest `back` tokens away."""
    wave, frequencies = torch.zeros(head.size // 2, dtype=torch.complex64), head.frequencies()
    for frequency, weight in {1.0: 0.45, 0.5: 0.25, 0.25: 0.15, 0.1: 0.15}.items():
        i = int((frequencies.log() - torch.tensor(frequency).log()).abs().argmin())
        wave[i] += weight * torch.exp(1j * frequencies[i] * back)
    return wave


def recency(head: Head) -> Tensor:
    """A wave that falls with the logarithm of the distance."""
    frequencies = head.frequencies()
    weights = ((frequencies <= 0.3) & (frequencies >= SLOW)).float()
    return (weights / weights.sum()).to(torch.complex64)


def window(head: Head, tokens: int) -> tuple[Tensor, float]:
    """A wave that is nearly even over the last `tokens` places and low from four places further back; and its gap.

    Linear programming: the largest gap between the lowest score inside and the highest outside, with moduli that sum
    to one at most.
    """
    frequencies = head.frequencies().numpy().astype(np.float64)
    wave, gap = _window(tuple(frequencies.tolist()), tokens)
    return torch.tensor(wave, dtype=torch.complex64), gap


@functools.cache
def _window(frequencies: tuple[float, ...], tokens: int) -> tuple[list[complex], float]:
    used = [i for i, f in enumerate(frequencies) if 3e-4 < f < 0.9]
    f, n = np.array([frequencies[i] for i in used]), 2 * len(used)
    inside = np.arange(tokens)
    outside = np.concatenate([np.arange(tokens + 4, 400), np.arange(400, 4096, 7)])

    def waves(back: np.ndarray) -> np.ndarray:
        return np.concatenate([np.cos(np.outer(back, f)), np.sin(np.outer(back, f))], 1)

    near, far = waves(inside), waves(outside)
    one = np.ones
    rows = [
        np.c_[-near, near, one(len(near)), one(len(near))],
        np.c_[near, -near, -one(len(near)), -one(len(near))],
        np.c_[far, -far, -one(len(far)), one(len(far))],
        np.r_[one(2 * n), 0, 0][None],
    ]
    limits = np.r_[np.zeros(len(near)), np.full(len(near), 0.015), np.zeros(len(far)), 1]
    solved = linprog(
        np.r_[np.zeros(2 * n + 1), -1], np.vstack(rows), limits, bounds=[(0, None)] * (2 * n) + [(None, None)] * 2
    )
    assert solved.status == 0, solved.message
    parts = solved.x[:n] - solved.x[n : 2 * n]
    wave = [0j] * len(frequencies)
    for j, i in enumerate(used):
        wave[i] = complex(parts[j], parts[j + len(used)])
    return wave, float(2 * solved.x[-1])


def kept(b: Blocks, layer: int) -> Tensor:
    """Rows of the residual stream that only circuits write in a layer, int64[N].

    What stands at a token would else leak into what its picture shows, and names would be compared beside pictures:
    between two hands named by untrained weights, .83 were right with the leak and .95 without.
    """
    flags = torch.arange(b.identity.start)
    return torch.cat([flags, torch.arange(b.previous.start, b.content.stop)]) if layer < COMPARING else flags


@torch.no_grad()
def prepare(
    model: LlavaForConditionalGeneration,
    reading: Reading,
    turn: int,
    mark: int,
    strength: Strength,
    generator: Generator,
) -> None:
    """Set the weights that training begins with.

    `turn` is the token that opens a user's turn, `mark` the one behind which an answer begins.
    """
    text = model.model.language_model
    width = text.config.hidden_size
    b = blocks(width)
    begin_small(text, generator)
    for layer, score in zip(text.layers, (*strength.scores, *[12.0] * len(text.layers)), strict=False):
        gain = (score / layer.self_attn.head_dim**0.5) ** 0.5
        layer.self_attn.q_norm.weight.fill_(gain)
        layer.self_attn.k_norm.weight.fill_(gain)
    table = text.embed_tokens.weight
    table.zero_()
    table[:, b.identity] = F.normalize(torch.randn(len(table), IDENTITY, generator=generator), dim=1)
    table[:, b.constant] = CONSTANT_SIZE
    table[turn, b.turn] = 1.0
    table[mark, b.mark] = 1.0
    text.norm.weight.fill_(strength.logits)
    project(model, b, reading, generator)
    trace = orthonormal(PREVIOUS, IDENTITY, generator), orthonormal(BEFORE, IDENTITY, generator)
    look_back(text.layers[0].self_attn, b, trace, width)
    add_up(Head(text.layers[0].self_attn, 2), b, len(reading.mean), width)
    gather(Head(text.layers[1].self_attn, 0), b, width)
    room = min(CONTENT, len(Head(text.layers[2].self_attn, 0).slow()) - PREVIOUS - BEFORE - 1)
    spread = reading.spread[:room, None] / reading.spread[:room].mean()
    for number, evenness in enumerate(EVENNESS):
        compared = torch.eye(CONTENT)[:room] / spread**evenness
        compare(Head(text.layers[2].self_attn, number), b, trace, compared, strength, width)


def begin_small(text: Any, generator: Generator) -> None:
    """Random weights that say little, and before the comparison write nothing where circuits read."""
    width = text.config.hidden_size
    b = blocks(width)
    for number, layer in enumerate(text.layers):
        attention, mlp = layer.self_attn, layer.mlp
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj):
            projection.weight.normal_(std=width**-0.5, generator=generator)
        attention.o_proj.weight.normal_(std=0.01 * attention.o_proj.in_features**-0.5, generator=generator)
        mlp.down_proj.weight.normal_(std=0.05 * mlp.down_proj.in_features**-0.5, generator=generator)
        for projection in (attention.o_proj, mlp.down_proj):
            projection.weight[kept(b, number)] = 0


def project(model: LlavaForConditionalGeneration, b: Blocks, reading: Reading, generator: Generator) -> None:
    """A projector that whitens and binds to places.

    A unit of the hidden layer belongs to one place. At its place it works where GELU is the identity; elsewhere it is
    pushed so far down that GELU is zero. What all units of a place have in common is taken away behind it, since that
    is how well the place was read.
    """
    one, two = model.model.multi_modal_projector.linear_1, model.model.multi_modal_projector.linear_2
    gate, far, scale = 18.0, 3.5, 0.6
    assert len(reading.directions) <= one.out_features
    for layer in (one, two):
        layer.weight.normal_(std=0.01 * layer.in_features**-0.5, generator=generator)
        layer.bias.zero_()
    size = 1 / (scale * reading.spread.square().sum().sqrt())  # of content summed over a picture: length 1
    for place in range(len(reading.mean)):
        at = (reading.places == place).nonzero()[:, 0]
        directions = reading.directions[at] @ reading.whitening
        one.weight[at] = scale * directions + gate * reading.place[place]
        # Of pictures unlike those of its training the tower reads a place less surely: .5 there is enough.
        one.bias[at] = far - scale * directions @ reading.mean[place] + gate * (reading.place_bias[place] - 0.5)
        middle = torch.eye(len(at)) - 1 / len(at)
        two.weight[b.seen.start : b.seen.stop].index_copy_(1, at, 2 * size * reading.mixture[:, at] @ middle)
    for dimension in (b.constant, b.patch, b.after, b.turn, b.mark):
        two.weight[dimension] = 0
    two.bias[b.constant], two.bias[b.patch] = CONSTANT_SIZE, PATCH_SIZE


def look_back(attention: Any, b: Blocks, trace: tuple[Tensor, Tensor], width: int) -> None:
    """Layer 0: the identity of the two tokens before."""
    at_text = (width / (1 + CONSTANT_SIZE**2)) ** 0.5  # the length that the norm gives to an identity
    for number, (target, matrix) in enumerate(((b.previous, trace[0]), (b.before, trace[1]))):
        head = Head(attention, number)
        head.clear()
        head.look(b.constant, {b.constant: 1.0}, at_distance(head, number + 1.0))
        shrinks = (len(matrix) / IDENTITY) ** 0.5
        head.carry(b.identity, target, matrix / (at_text * shrinks))
        if number == 0:
            patch, after = slice(b.patch, b.patch + 1), slice(b.after, b.after + 1)
            head.carry(patch, after, torch.eye(1) / (PATCH_SIZE * at_picture(width)), IDENTITY)


def at_picture(width: int) -> float:
    """The factor by which the norm scales a picture's token."""
    return float((width / (PATCH_SIZE**2 + CONSTANT_SIZE**2 + 1)) ** 0.5)


def add_up(head: Head, b: Blocks, tokens: int, width: int) -> None:
    """Layer 0: the sum over a picture's tokens, complete at the token behind it."""
    head.clear()
    wave, _ = window(head, tokens + 1)
    head.look(b.constant, {b.patch: 1.0}, wave)
    head.ignore(b.patch, 1.5)  # softer: the window must be even inside, and its gap is large
    # Where no picture is near, a token looks at text, which shows nothing. The score lies within the window's gap.
    q, k, text = head.attention.q_proj.weight, head.attention.k_proj.weight, head.start + head.size - 2
    q[text, b.constant] = 0.3
    k[text, b.constant], k[text, b.patch] = 1.0, -CONSTANT_SIZE / PATCH_SIZE
    head.carry(b.seen, b.seen, torch.eye(CONTENT) * (tokens / at_picture(width)))


def gather(head: Head, b: Blocks, width: int) -> None:
    """Layer 1: the content of the picture of this turn."""
    head.clear()
    head.ignore(b.constant, 3.0)
    head.look(b.constant, {b.after: 6.0, b.patch: -4.0, b.turn: 3.8}, recency(head))
    # Behind a picture the sum has length 2, which is most of what the norm sees.
    head.carry(b.seen, b.content, torch.eye(CONTENT) * (1.4 * GATHERED * width**-0.5))


def compare(head: Head, b: Blocks, trace: tuple[Tensor, Tensor], compared: Tensor, s: Strength, width: int) -> None:
    """Layer 2: a similar picture, and what stands here stood before it; copy what stands there."""
    head.clear()
    at = head.start + head.slow()
    room = len(compared)
    there, place, text = at[:room], at[room : room + PREVIOUS], at[-1]
    before = at[room + PREVIOUS : room + PREVIOUS + BEFORE]
    q, k = head.attention.q_proj.weight, head.attention.k_proj.weight
    for weight in (q, k):
        weight[there, b.content] = compared * (s.content**0.5 / GATHERED)
    shrinks = (PREVIOUS / IDENTITY) ** 0.5
    q[place, b.identity] = trace[0] * (s.identity**0.5 / shrinks)
    k[place, b.previous] = torch.eye(PREVIOUS) * s.identity**0.5
    # What is known of the token before the query is its first trace; keys hold the second trace of it.
    q[before, b.previous] = trace[1] @ trace[0].T * (s.before**0.5 * (PREVIOUS / BEFORE) ** 0.5)
    k[before, b.before] = torch.eye(BEFORE) * s.before**0.5
    q[text, b.constant] = s.text**0.5 / CONSTANT_SIZE
    k[text, b.constant] = s.text**0.5 / CONSTANT_SIZE
    k[text, b.patch] = -2 * s.text**0.5 / PATCH_SIZE
    k[text, b.mark] = -4 * s.text**0.5  # else a query would find itself: no picture is more similar
    after = (width / (CONSTANT_SIZE**2 + 1 + 1 + 1 + GATHERED**2)) ** 0.5
    head.carry(b.identity, b.identity, torch.eye(IDENTITY) * (s.copy / 2 / after))

"""Render pictures: a concept and an instance, both vectors of numbers in [0, 1), make one picture.

`render` is a pure function of the two, vectorised over pictures, on CPU or GPU. An instance defines pose, scale,
position, jitter of parts, colour of the light, noise, background and distractors; nothing else is random.
"""

import functools

import numpy as np
import torch
from torch import Tensor

from linkcontext.seeds import Name, rng
from linkcontext.worlds.concepts import COLOURS, HARMONICS, PARTS, SHAPES, STROKES, TEXTURES, Concepts, decode

DISTRACTORS = 2
DOTS = 32  # discs along the curve of a stroke, whose union is drawn
NOISE_EDGE = 256


def _instance_slots() -> dict[str, slice]:
    sizes = {
        "angle": 1,
        "scale": 1,
        "shift": 2,
        "jitter": 4 * PARTS,
        "bend": STROKES * 6,
        "wobble": HARMONICS,
    }
    sizes |= {"gain": 3, "bright": 1, "contrast": 1, "light": 2, "noise": 3, "grey": 1, "tint": 3}
    sizes |= {"ground": 1, "ground_a": 3, "ground_b": 3, "ground_at": 2, "distractor": 6 * DISTRACTORS}
    slots, start = {}, 0
    for name, size in sizes.items():
        slots[name] = slice(start, start + size)
        start += size
    return slots


SLOTS = _instance_slots()
LENGTH = max(s.stop for s in SLOTS.values())  # numbers of an instance


def draw_instances(count: int, *names: Name) -> Tensor:
    """Draw instances float32[count, LENGTH]. Instance i is a function of the names and i."""
    rows = [rng(*names, "instance", i).random(LENGTH, dtype=np.float32) for i in range(count)]
    return torch.from_numpy(np.stack(rows))


def render(concepts: Tensor, instances: Tensor, size: int, chunk: int = 64) -> Tensor:
    """Render concepts float32[N, concepts.LENGTH] in instances float32[N, LENGTH]: pictures uint8[N, size, size, 3]."""
    # Pictures are rendered in chunks, so that intermediate results stay in the processor's cache.
    pieces = [_render(decode(c), i, size) for c, i in zip(concepts.split(chunk), instances.split(chunk), strict=True)]
    return torch.cat(pieces)


def _render(things: Concepts, instances: Tensor, size: int) -> Tensor:
    v = {name: instances[:, where] for name, where in SLOTS.items()}
    px, py = _pixels(size, instances.device)
    picture = _background(v, px, py)  # [N, 3, pixels]
    picture = _distractors(picture, v, px, py, size)
    picture = _thing(picture, things, v, *_pose(v, px, py), size)
    return _finished(_light(picture, v, px, py, size), size)


def compose(concepts: Tensor, places: Tensor, instances: Tensor, size: int) -> Tensor:
    """Render pictures uint8[N, size, size, 3] with several things each, painted in order on one background.

    `concepts` is float32[N, L, concepts.LENGTH]. `places` is float32[N, L, 4]: x and y from -1 to 1 (right and down),
    scale (0 for an absent thing) and opacity. `instances` float32[N, LENGTH] defines everything but position and scale.
    """
    v = {name: instances[:, where] for name, where in SLOTS.items()}
    px, py = _pixels(size, instances.device)
    picture = _background(v, px, py)
    for layer in range(concepts.shape[1]):
        rows = (places[:, layer, 2] > 0).nonzero()[:, 0]
        if len(rows):
            x, y, scale, cover = places[rows, layer, :, None].unbind(1)
            mine = {name: value[rows] for name, value in v.items()}
            frame = _turned((mine["angle"] - 0.5) * 0.9, px - x, py - y, scale)
            painted = _thing(picture[rows], decode(concepts[rows, layer]), mine, *frame, scale, size)
            picture[rows] = torch.lerp(picture[rows], painted, cover[:, None])
    return _finished(_light(picture, v, px, py, size), size)


def _pixels(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The centres of the pixels, x and y float32[1, pixels] from -1 to 1."""
    grid = (torch.arange(size, device=device, dtype=torch.float32) + 0.5) * (2 / size) - 1
    py, px = (g.reshape(1, -1) for g in torch.meshgrid(grid, grid, indexing="ij"))
    return px, py


def _thing(
    picture: Tensor, things: Concepts, v: dict[str, Tensor], x: Tensor, y: Tensor, scale: Tensor, size: int
) -> Tensor:
    """Paint one thing over each picture."""
    picture = picture.clone()
    for family, paint in enumerate((_creature, _glyph, _blob)):
        rows = (things.family == family).nonzero()[:, 0]
        if len(rows):
            mine = {name: value[rows] for name, value in v.items()}
            picture[rows] = paint(picture[rows], _take(things, rows), mine, x[rows], y[rows], size * scale[rows] / 2)
    return picture


def _finished(picture: Tensor, size: int) -> Tensor:
    return (picture.clamp_(0, 1) * 255).round_().to(torch.uint8).transpose(1, 2).reshape(-1, size, size, 3)


def _take(things: Concepts, rows: Tensor) -> Concepts:
    return Concepts(*(getattr(things, name)[rows] for name in Concepts.__slots__))


def _pose(v: dict[str, Tensor], px: Tensor, py: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The pixels in the thing's frame of reference, x and y float32[N, pixels], and its scale float32[N, 1]."""
    angle = (v["angle"] - 0.5) * 0.9
    scale = 0.62 + 0.38 * v["scale"]
    dx = px - (v["shift"][:, :1] - 0.5) * 0.5
    dy = py - (v["shift"][:, 1:] - 0.5) * 0.5
    return *_turned(angle, dx, dy, scale), scale


def _turned(angle: Tensor, dx: Tensor, dy: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    cos, sin = angle.cos() / scale, angle.sin() / scale
    return dx * cos + dy * sin, dy * cos - dx * sin


def _paint(picture: Tensor, colour: Tensor, alpha: Tensor) -> Tensor:
    """Blend colour [N, 3] or [N, 3, pixels] over the picture with opacity alpha float32[N, pixels]."""
    colour = colour if colour.ndim == 3 else colour[:, :, None]
    return torch.lerp(picture, colour.expand_as(picture), alpha[:, None])


@functools.cache
def _palette(device: torch.device) -> Tensor:
    return torch.tensor(list(COLOURS.values()), device=device)


def _tinted(index: Tensor, v: dict[str, Tensor]) -> Tensor:
    """The named colours [N, 3] with a small random shift, as in photographs."""
    return (_palette(index.device)[index] + (v["tint"] - 0.5) * 0.16).clamp(0, 1)


def _creature(picture: Tensor, things: Concepts, v: dict[str, Tensor], x: Tensor, y: Tensor, pixels: Tensor) -> Tensor:
    jitter = (v["jitter"].view(-1, PARTS, 4) - 0.5) * 2
    for part in range(PARTS):
        rows = (things.count > part).nonzero()[:, 0]
        if not len(rows):
            break
        j = jitter[rows, part]
        size = things.size[rows, part, None] * (1 + 0.12 * j[:, 2:3])
        angle = things.angle[rows, part, None] + 0.22 * j[:, 3:4]
        side = torch.where(things.mirrored[rows, part, None], x[rows].abs(), x[rows])
        at_x = torch.where(
            things.mirrored[rows, part], things.x[rows, part].abs().clamp(min=0.22), things.x[rows, part]
        )
        dx = side - at_x[:, None] - 0.05 * j[:, :1]
        dy = y[rows] - things.y[rows, part, None] - 0.05 * j[:, 1:2]
        cos, sin = angle.cos() / size, angle.sin() / size
        stretch = things.aspect[rows, part, None].sqrt()
        lx, ly = (dx * cos + dy * sin) * stretch, (dy * cos - dx * sin) / stretch
        alpha = (0.5 - _distance(things.shape[rows, part], lx, ly) * size * pixels[rows]).clamp_(0, 1)
        mine = {"tint": v["tint"][rows]}
        first, second = _tinted(things.colour[rows, part], mine), _tinted(things.accent[rows, part], mine)
        mix = _texture(things.texture[rows, part], lx, ly)
        colour = torch.lerp(first[:, :, None], second[:, :, None], mix[:, None])
        picture[rows] = _paint(picture[rows], colour, alpha)
    return picture


def _distance(shape: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The approximate signed distance to the outline of a shape of radius one, float32[N, pixels]."""
    out = torch.empty_like(x)
    for index, name in enumerate(SHAPES):
        rows = (shape == index).nonzero()[:, 0]
        if len(rows):
            out[rows] = _OUTLINES[name](x[rows], y[rows])
    return out


def _star(x: Tensor, y: Tensor) -> Tensor:
    return torch.hypot(x, y) * (1 + 0.32 * (5 * torch.atan2(y, x)).cos()) - 0.72


def _cross(x: Tensor, y: Tensor) -> Tensor:
    ax, ay = x.abs(), y.abs()
    return torch.minimum(torch.maximum(ax - 0.95, ay - 0.32), torch.maximum(ay - 0.95, ax - 0.32))


_OUTLINES = {
    "circle": lambda x, y: torch.hypot(x, y) - 0.9,
    "box": lambda x, y: torch.maximum(x.abs(), y.abs()) - 0.8,
    "triangle": lambda x, y: torch.maximum(x.abs() * 0.866 + y * 0.5, -y) - 0.5,
    "star": _star,
    "ring": lambda x, y: (torch.hypot(x, y) - 0.68).abs() - 0.26,
    "cross": _cross,
    "moon": lambda x, y: torch.maximum(torch.hypot(x, y) - 0.95, 0.78 - torch.hypot(x - 0.45, y)),
    "capsule": lambda x, y: torch.hypot((x.abs() - 0.6).clamp(min=0), y) - 0.42,
}


def _texture(texture: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The share of the second colour, float32[N, pixels] in 0..1."""
    out = torch.zeros_like(x)
    for index, name in enumerate(TEXTURES):
        rows = (texture == index).nonzero()[:, 0]
        if len(rows) and name != "plain":
            out[rows] = _PATTERNS[name](x[rows], y[rows])
    return out


_PATTERNS = {
    "striped": lambda x, y: (0.5 + 3 * (7 * x).sin()).clamp_(0, 1),
    "dotted": lambda x, y: (3 * ((6 * x).sin() * (6 * y).sin()) - 0.6).clamp_(0, 1),
    "checkered": lambda x, y: (0.5 + 5 * ((4 * x).sin() * (4 * y).sin())).clamp_(0, 1),
    "gradient": lambda x, y: (0.5 + 0.6 * y).clamp_(0, 1),
    "ringed": lambda x, y: (0.5 + 3 * (9 * torch.hypot(x, y)).sin()).clamp_(0, 1),
}


def _glyph(picture: Tensor, things: Concepts, v: dict[str, Tensor], x: Tensor, y: Tensor, pixels: Tensor) -> Tensor:
    points = things.stroke + (v["bend"].view(-1, STROKES, 3, 2) - 0.5) * 0.24
    t = torch.linspace(0, 1, DOTS, device=x.device)
    basis = torch.stack([(1 - t) ** 2, 2 * t * (1 - t), t**2])  # [3, DOTS]
    dots = torch.einsum("nskc,kd->nsdc", points, basis)
    absent = torch.arange(STROKES, device=x.device) >= things.count[:, None]
    dots = dots.masked_fill(absent[:, :, None, None], 9.0).flatten(1, 2)  # far outside the picture
    # |p - d|² as |p|² - 2 p·d + |d|²: one matrix product for all pixels and dots.
    cross = torch.baddbmm(dots.square().sum(2)[:, None], torch.stack([x, y], 2), dots.transpose(1, 2), alpha=-2)
    nearest = (cross.amin(2) + x.square() + y.square()).clamp_(min=0).sqrt()
    width = things.width[:, None] * (0.8 + 0.5 * v["jitter"][:, :1])
    alpha = (0.5 + (width - nearest) * pixels).clamp_(0, 1)
    return _paint(picture, _tinted(things.colour[:, 0], v), alpha)


def _blob(picture: Tensor, things: Concepts, v: dict[str, Tensor], x: Tensor, y: Tensor, pixels: Tensor) -> Tensor:
    theta, radius = torch.atan2(y, x), torch.hypot(x, y)
    outline = 0.58 + 0.15 * (things.count[:, None] * theta + things.phase[:, :1]).cos()  # the bumps that are counted
    for h in range(1, HARMONICS):
        sway = things.amplitude[:, h, None] + 0.05 * (v["wobble"][:, h, None] - 0.5)
        outline += 0.7 * sway * (h * theta + things.phase[:, h, None]).cos()
    alpha = (0.5 + (outline - radius) * pixels).clamp_(0, 1)
    first, second = _tinted(things.colour[:, 0], v), _tinted(things.accent[:, 0], v)
    mix = _texture(things.texture[:, 0], x * 1.8, y * 1.8)
    return _paint(picture, torch.lerp(first[:, :, None], second[:, :, None], mix[:, None]), alpha)


@functools.cache
def _clouds(device: torch.device) -> Tensor:
    """A tile float32[NOISE_EDGE, NOISE_EDGE] in 0..1 with the 1/f spectrum of photographs."""
    white = rng("world", "clouds").standard_normal((NOISE_EDGE, NOISE_EDGE))
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(NOISE_EDGE), np.fft.fftfreq(NOISE_EDGE)))
    frequency[0, 0] = np.inf
    tile = np.fft.ifft2(np.fft.fft2(white) / frequency).real
    tile = (tile - tile.mean()) / tile.std()
    return torch.from_numpy(1 / (1 + np.exp(-1.5 * tile))).float().to(device)


@functools.cache
def _grain(device: torch.device) -> Tensor:
    tile = rng("world", "grain").standard_normal((3, NOISE_EDGE, NOISE_EDGE))
    return torch.from_numpy(tile).float().to(device)


def _window(tile: Tensor, at: Tensor, size: int, step: int = 1) -> Tensor:
    """Windows float32[N, ..., size * size] of a tile that wraps around, from corners `at` float32[N, 2] in 0..1."""
    reach = torch.arange(size, device=at.device) * step
    rows, columns = ((at[:, i, None] * NOISE_EDGE).long() + reach for i in range(2))
    return tile[..., rows[:, :, None] % NOISE_EDGE, columns[:, None, :] % NOISE_EDGE].flatten(-2)


def _background(v: dict[str, Tensor], px: Tensor, py: Tensor) -> Tensor:
    """float32[N, 3, pixels]: white, black, plain, a gradient, clouds or stripes."""
    size = round(px.shape[1] ** 0.5)
    kind = v["ground"][:, 0]
    first, second = v["ground_a"], v["ground_b"]
    first = torch.where((kind < 0.12)[:, None], 1.0, torch.where((kind < 0.24)[:, None], 0.0, first))
    angle = v["ground_at"][:, :1] * 2 * torch.pi
    along = px * angle.cos() + py * angle.sin()
    mix = torch.zeros_like(along)
    for low, high, paint in (
        (0.40, 0.60, lambda r: (0.5 + 0.4 * along[r]).clamp(0, 1)),
        (0.60, 0.90, lambda r: _window(_clouds(px.device), v["ground_at"][r], size)),
        (0.90, 1.01, lambda r: (0.5 + 2 * ((4 + 8 * v["ground_at"][r, 1:]) * along[r]).sin()).clamp(0, 1)),
    ):
        rows = ((kind >= low) & (kind < high)).nonzero()[:, 0]
        if len(rows):
            mix[rows] = paint(rows)
    return torch.lerp(first[:, :, None], second[:, :, None], mix[:, None])


def _distractors(picture: Tensor, v: dict[str, Tensor], px: Tensor, py: Tensor, size: int) -> Tensor:
    """Small plain shapes near the edge, in half of the pictures."""
    for one in v["distractor"].view(-1, DISTRACTORS, 6).unbind(1):
        rows = (one[:, 0] < 0.35).nonzero()[:, 0]
        if not len(rows):
            continue
        d = one[rows]
        radius = 0.07 + 0.10 * d[:, 1:2]
        around = d[:, 2:3] * 2 * torch.pi
        x, y = (px - 0.85 * around.cos()) / radius, (py - 0.85 * around.sin()) / radius
        shape = (d[:, 3] * len(SHAPES)).long()
        alpha = (0.5 - _distance(shape, x, y) * radius * size / 2).clamp_(0, 1)
        colour = _palette(px.device)[(d[:, 4] * len(COLOURS)).long()]
        picture[rows] = _paint(picture[rows], colour, alpha)
    return picture


def _light(picture: Tensor, v: dict[str, Tensor], px: Tensor, py: Tensor, size: int) -> Tensor:
    """Lamp, exposure, colour cast, grain; one picture in ten is black and white."""
    direction = v["light"][:, :1] * 2 * torch.pi
    lamp = 1 + 0.35 * v["light"][:, 1:] * (px * direction.cos() + py * direction.sin())
    picture *= (lamp * (0.75 + 0.45 * v["bright"]))[:, None]
    picture *= (0.88 + 0.24 * v["gain"])[:, :, None]
    contrast = (0.7 + 0.5 * v["contrast"])[:, :, None]
    picture = (picture - 0.5) * contrast + 0.5
    grey = (v["grey"] < 0.1).nonzero()[:, 0]
    picture[grey] = picture[grey].mean(1, keepdim=True)
    strength = 0.08 * v["noise"][:, 2].square()
    return picture + _window(_grain(px.device), v["noise"][:, :2], size).movedim(0, 1) * strength[:, None, None]

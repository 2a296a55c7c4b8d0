"""Two different views of a picture, or of two pictures of one class: float tensors in and out, vectorised.

`identity` changes what a thing is (its colours, its handedness): the same for all views of a class, so that one class
becomes many. `views` changes how it is seen: pose, background, light, sharpness, grain.
"""

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


def _uniform(generator: Generator, count: int, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=generator)


def identity(pictures: Tensor, classes: Tensor, generator: Generator, turns: bool = True) -> Tensor:
    """Recolour, mirror and turn pictures float32[N, 4, H, W] (premultiplied RGBA), alike for equal `classes` int[N]."""
    count = int(classes.max()) + 1
    order = torch.stack([torch.randperm(3, generator=generator) for _ in range(count)])
    keep = torch.rand(count, generator=generator) < 0.5
    order[keep] = torch.arange(3)
    inverted = torch.rand(count, generator=generator) < 0.3
    mirrored = torch.rand(count, generator=generator) < 0.3
    quarter = torch.randint(4, (count,), generator=generator) * (torch.rand(count, generator=generator) < 0.3)
    colour, alpha = pictures[:, :3], pictures[:, 3:]
    colour = colour.gather(1, order[classes][:, :, None, None].expand_as(colour))
    colour = torch.where(inverted[classes][:, None, None, None], alpha - colour, colour)
    out = torch.cat([colour, alpha], 1)
    out = torch.where(mirrored[classes][:, None, None, None], out.flip(3), out)
    if turns:
        for k in (1, 2, 3):
            rows = (quarter[classes] == k).nonzero()[:, 0]
            out[rows] = out[rows].rot90(k, (2, 3))
    return out


def pose(pictures: Tensor, generator: Generator, strength: float = 1.0) -> Tensor:
    """Turn, scale, stretch and shift each picture; outside of it is transparent."""
    n = len(pictures)
    angle = _uniform(generator, n, -0.35, 0.35) * strength
    scale = (_uniform(generator, n, math.log(0.9), math.log(1.5)) * strength).exp()
    stretch = (_uniform(generator, n, -0.2, 0.2) * strength).exp()
    shear = _uniform(generator, n, -0.15, 0.15) * strength
    x, y = (_uniform(generator, n, -0.2, 0.2) * strength for _ in range(2))
    cos, sin = angle.cos() * scale, angle.sin() * scale
    matrix = torch.stack([torch.stack([cos * stretch, -sin + shear, x], 1), torch.stack([sin, cos / stretch, y], 1)], 1)
    return F.grid_sample(
        pictures, F.affine_grid(matrix, list(pictures.shape), align_corners=False), align_corners=False
    )


def grounds(count: int, edge: int, scenery: Tensor, generator: Generator) -> Tensor:
    """Backgrounds float32[N, 3, H, W]: white, black, plain, a gradient, or a blurred stretch of another picture."""
    kind = torch.rand(count, generator=generator)
    first, second = torch.rand(2, count, 3, generator=generator)
    first = torch.where((kind < 0.4)[:, None], 1.0, torch.where((kind < 0.6)[:, None], 0.0, first))
    second = torch.where((kind < 0.78)[:, None], first, second)
    angle = torch.rand(count, generator=generator) * 2 * math.pi
    grid = torch.linspace(-0.5, 0.5, edge)
    along = angle.cos()[:, None, None] * grid[None, None, :] + angle.sin()[:, None, None] * grid[None, :, None]
    out = torch.lerp(first[:, :, None, None], second[:, :, None, None], (along + 0.5).clamp(0, 1)[:, None])
    rows = (kind > 0.88).nonzero()[:, 0]
    if len(rows):
        behind = scenery[torch.randint(len(scenery), (len(rows),), generator=generator)]
        zoomed = F.interpolate(behind[:, :3, 16:48, 16:48], (edge, edge), mode="bilinear", align_corners=False)
        out[rows] = zoomed
    return out


def light(pictures: Tensor, generator: Generator) -> Tensor:
    """Brightness, contrast, a colour cast, a lamp from one side, and grain."""
    n, edge = len(pictures), pictures.shape[-1]
    shape = (n, 1, 1, 1)
    out = pictures * _uniform(generator, n, 0.75, 1.15).view(shape)
    out = (out - 0.5) * _uniform(generator, n, 0.75, 1.2).view(shape) + 0.5
    out = out * (1 + 0.2 * (torch.rand(n, 3, 1, 1, generator=generator) - 0.5))
    angle = torch.rand(n, generator=generator) * 2 * math.pi
    grid = torch.linspace(-1, 1, edge)
    along = angle.cos()[:, None, None] * grid[None, None, :] + angle.sin()[:, None, None] * grid[None, :, None]
    out = out * (1 + _uniform(generator, n, 0, 0.3)[:, None, None] * along)[:, None]
    strength = 0.05 * torch.rand(n, generator=generator).square()
    return out + torch.randn(out.shape, generator=generator) * strength.view(shape)


def soften(pictures: Tensor, classes: Tensor, generator: Generator, share: float = 0.25) -> Tensor:
    """Make some classes coarse, as small pictures that were enlarged, and some grey, in all of their pictures."""
    count = int(classes.max()) + 1
    edge = pictures.shape[-1]
    coarse = torch.where(
        torch.rand(count, generator=generator) < share, torch.randint(3, (count,), generator=generator), 3
    )[classes]
    out = pictures.clone()
    for which, small in enumerate((10, 20, 32)):
        rows = (coarse == which).nonzero()[:, 0]
        if len(rows):
            lower = F.interpolate(out[rows], (small, small), mode="area")
            out[rows] = F.interpolate(lower, (edge, edge), mode="bicubic", align_corners=False)
    grey = (torch.rand(count, generator=generator) < 0.3)[classes] | (
        torch.rand(len(pictures), generator=generator) < 0.06
    )
    return torch.where(grey[:, None, None, None], out.mean(1, keepdim=True), out)


def views(pictures: Tensor, classes: Tensor, scenery: Tensor, generator: Generator, *, strength: float) -> Tensor:
    """What a camera could have seen: float32[N, 3, H, W] in 0..1 of premultiplied RGBA float32[N, 4, H, W]."""
    posed = pose(pictures, generator, strength)
    alpha = posed[:, 3:]
    seen = posed[:, :3] + (1 - alpha) * grounds(len(posed), posed.shape[-1], scenery, generator)
    return light(soften(seen, classes, generator), generator).clamp_(0, 1)

"""How an icon is drawn: its view box fitted, in random colours, with a plate or an outline."""

import io
import re

import numpy as np
from PIL import Image, ImageFilter

from .store import MARGIN, SIZE, Pixels

Box = tuple[float, float, float, float]  # left, top, width, height of a view box


def svg(body: str, box: Box) -> str:
    """A whole document around an icon's body."""
    left, top, width, height = box
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left:g} {top:g} {width:g} {height:g}">{body}</svg>'
    )


def drawn(body: str, box: Box, side: int) -> Image.Image:
    """A square RGBA picture of the part of a drawing that is in the box. Raises `ValueError` if resvg refuses it."""
    import resvg_py  # noqa: PLC0415  of the recipes' packages, which tests do without

    document = svg(body, box)
    return Image.open(
        io.BytesIO(resvg_py.svg_to_bytes(svg_string=document, width=side, height=side, skip_system_fonts=True))
    )


def content_box(coverage: Pixels, box: Box) -> Box | None:
    """The square part of a view box that holds what is visible in uint8[H, H], drawn of a square view box.

    With the margin that `store` leaves around pictures. None if nothing is visible.
    """
    rows, columns = (np.flatnonzero((coverage > 16).any(axis)) for axis in (1, 0))
    if not len(rows):
        return None
    left, top, side, _ = box
    unit = side / len(coverage)
    height, width = (ends[-1] + 1 - ends[0] for ends in (rows, columns))
    wide = max(height, width) * SIZE / (SIZE - 2 * MARGIN)
    middle = (columns[0] + width / 2, rows[0] + height / 2)
    return left + (middle[0] - wide / 2) * unit, top + (middle[1] - wide / 2) * unit, wide * unit, wide * unit


def squared(box: Box) -> Box:
    """The smallest square around a box, with the same middle."""
    left, top, width, height = box
    side = max(width, height)
    return left - (side - width) / 2, top - (side - height) / 2, side, side


def painted(body: str, random: np.random.Generator) -> tuple[str, str]:
    """The body in random colours and stroke widths, and a colour unlike it for what is around it."""
    ink, second = colour(random), colour(random)
    around = _unlike(ink, random)
    factor = random.choice([1, 1, 0.7, 1.3, 1.6])
    body = re.sub(r'stroke-width="([\d.]+)"', lambda match: f'stroke-width="{float(match[1]) * factor:g}"', body)
    if random.random() < 0.2:  # a gradient over the whole picture, in any direction
        x, y = np.cos(angle := random.uniform(0, 2 * np.pi)) / 2, np.sin(angle) / 2
        stops = f'<stop stop-color="{ink}"/><stop offset="1" stop-color="{second}"/>'
        ends = f'x1="{0.5 - x:.2f}" y1="{0.5 - y:.2f}" x2="{0.5 + x:.2f}" y2="{0.5 + y:.2f}"'
        gradient = f'<defs><linearGradient id="ink" {ends}>{stops}</linearGradient></defs>'
        # A straight line has no box for a gradient; resvg then draws nothing, so its stroke stays plain.
        return gradient + re.sub(r'fill="currentColor"', 'fill="url(#ink)"', body).replace("currentColor", ink), around
    return body.replace("currentColor", ink), around


def colour(random: np.random.Generator) -> str:
    """Half of the colours are any, a third is dark, the rest is light."""
    kind = random.choice(3, p=[0.5, 0.33, 0.17])
    low, high = ((20, 235), (0, 70), (190, 255))[kind]
    return "#" + bytes(random.integers(low, high, 3, np.uint8)).hex()


def _unlike(ink: str, random: np.random.Generator) -> str:
    """The first of eight colours that is at least 80 of 255 a channel from `ink`, else the last."""
    for _ in range(8):
        other = colour(random)
        distance = np.subtract(*(np.array(list(bytes.fromhex(code[1:]))) for code in (ink, other)))
        if np.sqrt((distance**2).mean()) >= 80:
            break
    return other


def surrounded(image: Image.Image, around: str, random: np.random.Generator) -> Image.Image:
    """The picture as it is (three in four), with an outline, or smaller on a plate of another colour."""
    kind = random.choice(3, p=[0.74, 0.13, 0.13])
    if kind == 0:
        return image
    ground = Image.new("RGBA", image.size, around)
    if kind == 1:
        image = _shrunk(image, SIZE - 4)
        mask = image.getchannel("A").filter(ImageFilter.MaxFilter(5))
    else:
        image = _shrunk(image, int(random.integers(36, 49)))
        corner = int(random.choice([4, 12, 28]))
        plate = f'<rect x="2" y="2" width="60" height="60" rx="{corner}"/>'
        mask = drawn(plate, (0, 0, 64, 64), image.width).getchannel("A")
    ground.putalpha(mask)
    return Image.alpha_composite(ground, image)


def _shrunk(image: Image.Image, side: int) -> Image.Image:
    whole = Image.new("RGBA", image.size)
    at = (image.width - side) // 2
    whole.paste(image.resize((side, side), Image.Resampling.BOX), (at, at))
    return whole

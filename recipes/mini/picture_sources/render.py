"""A small software renderer: a mesh seen from somewhere, in some light, as a picture with transparency.

Triangles are grouped by the size of their box on the screen; a group is drawn at once, every pixel of every box, and a
depth buffer keeps the nearest. All of it is numpy, at twice the size, and averaged at the end.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .mesh import Floats, Ints, Mesh
from .store import Pixels

Visible = Callable[[Ints, Floats], NDArray[np.bool_]]  # triangles [n] and weights [n, 3] to bool[n]

AT_ONCE = 1 << 18  # pixels of boxes
EDGE = 1e-4  # a pixel's middle may be this far outside, of a side, so that no pixel is missed between two triangles
DISTANCE = 4.0  # of the camera, in radii of what it looks at
GLASS = 0.9  # materials of less opacity are drawn over the others
SEEN_THROUGH = 0.4  # the least opacity, so that glass is seen


class Light(NamedTuple):
    """One lamp far away, and light from everywhere."""

    direction: Floats  # [3], from the thing to the lamp, of length 1
    colour: Floats  # [3], 1 is white
    ambient: float


class Layer(NamedTuple):
    """What is nearest at each of size * size pixels."""

    depth: Floats  # [P], 1 / distance; 0 where nothing is
    triangle: Ints  # [P]
    weights: Floats  # [P, 3] of the triangle's corners


def camera(azimuth: float, elevation: float, roll: float) -> Floats:
    """Rotation from the world (y up) to the camera (x right, y up, z towards the viewer): float[3, 3]. Radians."""
    ca, sa, ce, se, cr, sr = (f(x) for x in (azimuth, elevation, roll) for f in (np.cos, np.sin))
    around = np.array([[ca, 0, -sa], [0, 1, 0], [sa, 0, ca]])
    above = np.array([[1, 0, 0], [0, ce, -se], [0, se, ce]])
    tilted = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return (tilted @ above @ around).astype(np.float32)


def project(corners: Floats, rotation: Floats, size: int, margin: float) -> tuple[Floats, Floats, Floats]:
    """Screen positions x, y in pixels, y down, and 1 / distance, [3, T] each, of a mesh within the unit sphere.

    The camera is `DISTANCE` from the middle; its image is then moved and scaled so that it fills the picture.
    """
    x, y, z = (rotation @ corners.reshape(3, -1)).reshape(3, 3, -1)
    nearness = 1 / (DISTANCE - z)
    x, y = x * nearness, -y * nearness
    scale = (size - 2 * margin) / max(x.max() - x.min(), y.max() - y.min())
    x, y = (scale * (axis - (axis.max() + axis.min()) / 2) + np.float32(size / 2) for axis in (x, y))
    return x, y, nearness


def rasterise(x: Floats, y: Floats, nearness: Floats, size: int, visible: Visible | None = None) -> Layer:
    """The nearest triangle at the middle of each pixel. `visible` tells holes in triangles from the rest of them."""
    layer = Layer(
        np.zeros(size * size, np.float32),
        np.full(size * size, -1, np.int32),
        np.zeros((size * size, 3), np.float32),
    )
    for triangle, pixel, weight in _fragments(x, y, size):
        assert weight.dtype == np.float32, "a depth of more digits than the buffer's is never equal to it"
        near = nearness[:, triangle].T
        depth = (weight * near).sum(-1)  # 1 / distance is linear on the screen
        corners = weight * near / depth[:, None]  # and so are the weights of the corners times it
        if visible is not None:
            depth = np.where(visible(triangle, corners), depth, 0)
        np.maximum.at(layer.depth, pixel, depth)
        nearest = np.flatnonzero((depth > 0) & (depth >= layer.depth[pixel]))
        layer.triangle[pixel[nearest]] = triangle[nearest]
        layer.weights[pixel[nearest]] = corners[nearest]
    return layer


def _fragments(x: Floats, y: Floats, size: int) -> Iterator[tuple[Ints, Ints, Floats]]:
    """Triangle [n], pixel [n] and weights of the corners on the screen [n, 3], for each triangle at each pixel in it.

    The weights are linear: a = a0 + ax * dx + ay * dy at the pixel dx, dy of a triangle's box, whose sides are padded
    to powers of two so that all boxes of one size are one array.
    """
    left, top = _first_pixel(x), _first_pixel(y)
    right, bottom = (size - 1 - _first_pixel(size - axis) for axis in (x, y))  # counted from the other edge
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        area = (x[1] - x[0]) * (y[2] - y[0]) - (y[1] - y[0]) * (x[2] - x[0])
        ax, ay = (y[1] - y[2]) / area, (x[2] - x[1]) / area
        bx, by = (y[2] - y[0]) / area, (x[0] - x[2]) / area
        dx, dy = left.astype(np.float32) + 0.5 - x[2], top.astype(np.float32) + 0.5 - y[2]
        a0, b0 = ax * dx + ay * dy, bx * dx + by * dy
    hit = np.flatnonzero((right >= left) & (bottom >= top) & np.isfinite(a0) & np.isfinite(b0))
    wide, high = (_power_of_two(high[hit] - low[hit] + 1) for low, high in ((left, right), (top, bottom)))
    shape = 32 * wide + high
    for code in np.unique(shape):
        same = hit[shape == code]
        dx, dy = (np.arange(1 << power, dtype=np.float32) for power in divmod(int(code), 32))
        step = max(1, AT_ONCE // (len(dx) * len(dy)))
        for some in (same[i : i + step, None, None] for i in range(0, len(same), step)):
            a = (a0[some] + ay[some] * dy[:, None]) + ax[some] * dx
            b = (b0[some] + by[some] * dy[:, None]) + bx[some] * dx
            inside = (a >= -EDGE) & (b >= -EDGE) & (a + b <= 1 + EDGE)
            inside &= (top[some] + dy[:, None] < size) & (left[some] + dx < size)
            at, row, column = np.nonzero(inside)
            which = some[at, 0, 0]
            first, second = a[inside], b[inside]
            weight = np.stack([first, second, 1 - first - second], -1)
            yield which, (top[which] + row) * size + left[which] + column, weight


def _first_pixel(corners: Floats) -> Ints:
    """The first pixel whose middle is not below the least of three coordinates, [3, T] to [T]."""
    least = np.minimum(np.minimum(corners[0], corners[1]), corners[2])
    return np.maximum(np.ceil(least - np.float32(0.5)), 0).astype(np.int32)


def _power_of_two(sizes: Ints) -> Ints:
    """The exponent of the least power of two that is not less."""
    return np.ceil(np.log2(sizes)).astype(np.int32)


def texel(mesh: Mesh, triangle: Ints, weights: Floats) -> Floats:
    """Colour and opacity, 0 to 1, of points on triangles: float[n, 4]."""
    value = np.ones((len(triangle), 4), np.float32)
    owner = mesh.material[triangle]
    uv = (mesh.uv[triangle] * weights[..., None]).sum(1) % 1
    for i in np.unique(owner):
        material, here = mesh.materials[i], owner == i
        if material.texture is None:
            value[here, :3] = material.colour
        else:
            height, width = material.texture.shape[:2]
            column = np.minimum((uv[here, 0] * width).astype(int), width - 1)
            row = np.minimum(((1 - uv[here, 1]) * height).astype(int), height - 1)
            value[here] = material.texture[row, column] / np.float32(255)
        value[here, 3] *= material.opacity
    return value


def _shade(mesh: Mesh, layer: Layer, rotation: Floats, lights: list[Light]) -> Floats:
    """Colour and opacity of what is nearest, 0 to 1: float[P, 4], 0 where nothing is."""
    picture = np.zeros((len(layer.depth), 4), np.float32)
    pixel = np.flatnonzero(layer.triangle >= 0)
    triangle, weights = layer.triangle[pixel], layer.weights[pixel]
    surface = texel(mesh, triangle, weights)
    normal = (mesh.normals[triangle] * weights[..., None]).sum(1) @ rotation.T
    normal *= np.where(normal[:, 2:] < 0, -1, 1)  # surfaces have two sides
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-6)
    shine = np.array([material.shine for material in mesh.materials], np.float32)[mesh.material[triangle], None]
    lit = np.zeros((len(pixel), 3), np.float32)
    for light in lights:
        diffuse = light.ambient + (1 - light.ambient) * np.maximum(normal @ light.direction, 0)[:, None]
        half = light.direction + np.float32([0, 0, 1])
        mirrored = np.maximum(normal @ (half / np.linalg.norm(half)), 0)[:, None] ** 24
        lit += light.colour * (surface[:, :3] * diffuse + 0.4 * shine * mirrored)
    picture[pixel, :3] = np.minimum(lit, 1)
    picture[pixel, 3] = surface[:, 3]
    return picture


def render(mesh: Mesh, rotation: Floats, lights: list[Light], size: int, margin: float) -> Pixels:
    """Premultiplied uint8[size, size, 4] of a whole mesh within the unit sphere."""
    big = 2 * size
    x, y, nearness = project(mesh.corners, rotation, big, 2 * margin)
    clear = np.array([material.opacity < GLASS for material in mesh.materials])[mesh.material]
    picture, depth = np.zeros((big * big, 4), np.float32), np.zeros(big * big, np.float32)
    for glass in (False, True):
        which = np.flatnonzero(clear == glass)
        if not len(which):
            continue
        part = Mesh(mesh.corners[..., which], mesh.uv[which], mesh.normals[which], mesh.material[which], mesh.materials)
        layer = rasterise(x[:, which], y[:, which], nearness[:, which], big, _solid_texels(part))
        shaded = _shade(part, layer, rotation, lights)
        opacity = np.maximum(shaded[:, 3], SEEN_THROUGH) if glass else np.ones_like(depth)
        opacity = (opacity * (layer.depth > depth))[:, None]
        picture = opacity * np.c_[shaded[:, :3], np.ones_like(depth)] + (1 - opacity) * picture
        depth = layer.depth
    averaged = picture.reshape(size, 2, size, 2, 4).mean((1, 3))
    return (255 * averaged + 0.5).astype(np.uint8)


def _solid_texels(mesh: Mesh) -> Visible | None:
    """Tells where a texture is not transparent, as between the leaves of a plant. None if none is transparent."""
    cut = np.array([m.texture is not None and bool((m.texture[..., 3] < 128).any()) for m in mesh.materials])
    if not cut[mesh.material].any():
        return None

    def visible(triangle: Ints, weights: Floats) -> NDArray[np.bool_]:
        seen = np.ones(len(triangle), bool)
        leaves = np.flatnonzero(cut[mesh.material[triangle]])
        seen[leaves] = texel(mesh, triangle[leaves], weights[leaves])[:, 3] > 0.4
        return seen

    return visible

"""Triangles with materials, read from Wavefront OBJ and MTL files."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
ReadFile = Callable[[str], bytes | None]  # a path beside the OBJ file to its content, None if it is not there

TEXTURE = 128  # pixels at most on a side: pictures are 64


@dataclass
class Material:
    """The part of an MTL material that is drawn."""

    colour: tuple[float, float, float] = (0.7, 0.7, 0.7)  # 0 to 1
    shine: float = 0.0  # how much light is mirrored, 0 to 1
    opacity: float = 1.0
    texture: NDArray[np.uint8] | None = None  # uint8[H, W, 4]


class Mesh(NamedTuple):
    """T triangles."""

    corners: Floats  # [3, 3, T]: axis (y is up), corner, triangle; so that each coordinate lies together
    uv: Floats  # [T, 3, 2], 0 where there is none
    normals: Floats  # [T, 3, 3], of length 1
    material: Ints  # [T]
    materials: list[Material]


def read_obj(content: bytes, read: ReadFile) -> Mesh:
    """The triangles of an OBJ file. Polygons are cut into fans; what has no known material is grey."""
    rows: dict[bytes, list[bytes]] = {b"v": [], b"vt": [], b"vn": []}
    polygons: list[list[bytes]] = []  # corners such as b"1/2/3"
    owner: list[int] = []  # the material of each polygon
    before: list[tuple[int, int, int]] = []  # so many v, vt, vn stand above each polygon
    materials: list[Material] = [Material()]
    named: dict[str, int] = {}
    current = 0
    for line in content.replace(b"\\\n", b" ").splitlines():
        word, _, rest = line.strip().partition(b" ")
        if word in rows:
            rows[word].append(rest)
        elif word == b"f":
            polygons.append(rest.split())
            owner.append(current)
            before.append((len(rows[b"v"]), len(rows[b"vt"]), len(rows[b"vn"])))
        elif word == b"usemtl":
            current = named.get(rest.strip().decode("latin-1"), 0)
        elif word == b"mtllib":
            for name, material in read_mtl(read(rest.strip().decode("latin-1")) or b"", read).items():
                named[name] = len(materials)
                materials.append(material)
    triangles, polygon = _fans(polygons, before)
    corners, uv, normals = (
        _indexed(_floats(rows[key], columns), triangles[..., place])
        for place, (key, columns) in enumerate(((b"v", 3), (b"vt", 2), (b"vn", 3)))
    )
    flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.where((normals**2).sum(-1, keepdims=True) > 0, normals, flat[:, None])
    normals = normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
    axes = np.ascontiguousarray(corners.T)
    return Mesh(axes, uv, normals.astype(np.float32), np.array(owner, np.int32)[polygon], materials)


def _fans(polygons: list[list[bytes]], before: list[tuple[int, int, int]]) -> tuple[Ints, Ints]:
    """Indices of v, vt and vn [T, 3, 3] of triangles, -1 for none, and the polygon [T] that each comes from.

    In the file 1 is the first vertex, -1 the latest, and `1//3` has no vt.
    """
    sizes = np.array([len(polygon) for polygon in polygons], np.int64)
    if not len(sizes):
        return np.zeros((0, 3, 3), np.int32), np.zeros(0, np.int32)
    fields = (corner.replace(b"//", b"/0/") for polygon in polygons for corner in polygon)
    full = b"/".join(corner + b"/0" * (2 - corner.count(b"/")) for corner in fields)
    index = np.array(full.split(b"/")).astype(np.int32).reshape(-1, 3)
    index = np.where(index > 0, index - 1, np.where(index < 0, index + np.repeat(before, sizes, 0), -1))
    first = np.repeat(np.cumsum(sizes) - sizes, np.maximum(sizes - 2, 0))  # the corner that all of a fan share
    polygon = np.repeat(np.arange(len(sizes)), np.maximum(sizes - 2, 0))
    step = np.arange(len(polygon)) - np.searchsorted(polygon, polygon) + 1
    return index[np.stack([first, first + step, first + step + 1], 1)].astype(np.int32), polygon.astype(np.int32)


def _floats(lines: list[bytes], columns: int) -> Floats:
    """The first numbers of each line, float[n, columns]."""
    if not lines:
        return np.zeros((0, columns), np.float32)
    values = np.array(b" ".join(lines).split()).astype(np.float32)
    if len(values) % len(lines):  # lines of different lengths
        values = np.array([line.split()[:columns] for line in lines]).astype(np.float32)
    return values.reshape(len(lines), -1)[:, :columns]


def _indexed(values: Floats, indices: Ints) -> Floats:
    """values[indices], zeros for the index -1."""
    return np.concatenate([values, np.zeros((1, values.shape[1]), np.float32)])[indices]


def thinned(mesh: Mesh, cells: int) -> Mesh:
    """A mesh within the unit sphere, its corners moved to a grid of so many cells a unit, without lines and points."""
    grid = np.round(mesh.corners * cells)
    first, second, third = (grid[:, i] for i in range(3))
    same = [(one == other).all(0) for one, other in ((first, second), (second, third), (third, first))]
    kept = ~(same[0] | same[1] | same[2])
    return Mesh((grid / cells)[..., kept], mesh.uv[kept], mesh.normals[kept], mesh.material[kept], mesh.materials)


def read_mtl(content: bytes, read: ReadFile) -> dict[str, Material]:
    """The materials of an MTL file by name."""
    materials: dict[str, Material] = {}
    now = Material()
    for line in content.decode("latin-1").splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "newmtl":
            now = materials[rest.strip()] = Material()
        elif word == "Kd":
            red, green, blue = (float(value) for value in rest.split()[:3])
            now.colour = (red, green, blue)
        elif word == "Ks":
            now.shine = min(1.0, sum(float(value) for value in rest.split()[:3]) / 3)
        elif word == "d":
            now.opacity = float(rest.split()[-1])
        elif word == "map_Kd":
            now.texture = _texture(read(rest.strip()) or read(rest.split()[-1]))
    return materials


def _texture(content: bytes | None) -> NDArray[np.uint8] | None:
    if content is None:
        return None
    try:
        image = Image.open(io.BytesIO(content)).convert("RGBA")
    except UnidentifiedImageError:
        return None
    image.thumbnail((TEXTURE, TEXTURE), Image.Resampling.BOX)
    return np.asarray(image)

"""Things in three dimensions: a class is one of the models of Debian's `sweethome3d-furniture`, from many sides.

Five libraries of furniture, kitchenware, toys, plants, people and tools under CC0 and CC-BY. Each model is rendered
from 24 sides, which are spread around it, in random light; sides from which a flat thing would be a line are left out.
"""

import re
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from linkcontext.seeds import rng

from .exclude import why_excluded
from .fetch import debian_package
from .mesh import Floats, Mesh, read_obj, thinned
from .render import Light, camera, render
from .store import MARGIN, SIZE, Writer

PACKAGE = "sweethome3d-furniture"
LICENCE_NOTE = "Models of Debian's sweethome3d-furniture; rendered at 64 pixels from many sides."
VIEWS = 24
CELLS = 96  # a radius has at most 64 pixels, at twice the size; two of five triangles are smaller than a cell
CARS = frozenset("sedan suv van focus beetle chevrolet leon peugeot renault smart".split())  # a class of CIFAR-10
# As /usr/share/doc/sweethome3d-furniture/copyright has it.
LIBRARIES = {
    "BlendSwap-CC-0": ("CC0-1.0", "authors at blendswap.com, named in the package"),
    "BlendSwap-CC-BY": ("CC-BY-3.0", "authors at blendswap.com, named in the package"),
    "KatorLegaz": ("CC-BY-3.0", "Andrew Kator and Jennifer Legaz"),
    "Reallusion": ("CC-BY-3.0", "Reallusion"),
    "Scopia": ("CC-BY-3.0", "Scopia Visual Interfaces Systems"),
}


class Model(NamedTuple):
    """One entry of a library's catalogue."""

    id: str
    name: str
    path: str
    creator: str
    size: tuple[float, float, float]  # width, height, depth
    rotation: Floats  # [3, 3]


def read_catalogue(content: str) -> list[Model]:
    """The models of a Java properties file with keys such as `name#12`."""
    entries: dict[int, dict[str, str]] = {}
    for line in content.splitlines():
        match = re.fullmatch(r"(\w+)#(\d+)=(.*)", line.strip())
        if match:
            value = re.sub(r"\\u([0-9a-fA-F]{4})", lambda code: chr(int(code[1], 16)), match[3])
            entries.setdefault(int(match[2]), {})[match[1]] = value
    return [_model(entry) for _, entry in sorted(entries.items()) if "model" in entry]


def _model(entry: dict[str, str]) -> Model:
    turned = entry.get("modelRotation", "1 0 0 0 1 0 0 0 1").split()
    width, height, depth = (float(entry[side]) for side in ("width", "height", "depth"))
    return Model(
        entry["id"],
        entry["name"],
        entry["model"].lstrip("/"),
        entry.get("creator", ""),
        (width, height, depth),
        np.array(turned, np.float32).reshape(3, 3),
    )


def shaped(mesh: Mesh, model: Model) -> Mesh:
    """The mesh turned and stretched as the catalogue says, as Sweet Home 3D does, then moved into the unit sphere."""
    corners = (model.rotation @ mesh.corners.reshape(3, -1)).reshape(mesh.corners.shape)
    low, high = corners.min((1, 2), keepdims=True), corners.max((1, 2), keepdims=True)
    scale = np.float32(model.size)[:, None, None] / np.where(high > low, high - low, 1)
    corners = (corners - (low + high) / 2) * scale
    normals = mesh.normals @ model.rotation.T / scale[:, 0, 0]
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
    return mesh._replace(corners=corners / np.sqrt((corners**2).sum(0).max()), normals=normals)


def views(size: tuple[float, float, float], count: int, random: np.random.Generator) -> list[Floats]:
    """Rotations from which a box of this size shows at least half of the area that it shows from its best side.

    The azimuths are spread evenly; where a thing is flat, such as a window from its edge, another one is drawn. What
    hangs on a wall or stands in one is seen from the front, because its back is blank: sockets are all one from there.
    """
    width, height, depth = size
    area = np.array([height * depth, width * height, width * depth])  # of its side, its front, its top
    turned = 1.0 if depth > 0.3 * min(width, height) else 0.5  # how much of the whole turn is used
    chosen = []
    for i in range(count):
        for attempt in range(64):
            turn = (i + random.uniform()) / count if attempt < 4 else random.uniform()
            azimuth = 2 * np.pi * turned * (turn - 0.5)
            elevation = np.radians(random.uniform(0, 40) if random.random() < 0.5 else random.uniform(20, 75))
            across = np.cos(elevation)
            facing = np.abs([np.sin(azimuth) * across, np.cos(azimuth) * across, np.sin(elevation)])
            if area @ facing >= 0.5 * area.max():
                break
        chosen.append(camera(azimuth, elevation, random.normal(0, 0.1)))
    return chosen


def lights(random: np.random.Generator) -> list[Light]:
    """One lamp from the side of the viewer, a weaker one in half of the cases; warm, cold, dim or bright."""
    lamps = []
    for strength in (random.uniform(0.75, 1.15), random.uniform(0.1, 0.4))[: 1 + random.integers(2)]:
        x, y, z = random.normal((0, 0.6, 1), 1)
        direction = np.array([x, y, abs(z)], np.float32)
        colour = strength * (1 + random.normal(0, 0.08, 3))
        lamps.append(Light(direction / np.linalg.norm(direction), colour.astype(np.float32), random.uniform(0.3, 0.65)))
    return lamps


def build(writer: Writer, downloads: Path, progress: Callable[[str], None]) -> None:
    """Fetch the package and render every model that is not excluded."""
    folder = debian_package(PACKAGE, downloads) / "usr/share/sweethome3d/furniture"
    for library, (licence, author) in LIBRARIES.items():
        with zipfile.ZipFile(folder / f"{library}.sh3f") as archive:
            models = read_catalogue(archive.read("PluginFurnitureCatalog.properties").decode("latin-1"))
            for done, model in enumerate(models):
                if done % 25 == 0:
                    progress(f"{library}, {done} of {len(models)} models, {len(writer.class_ids)} pictures")
                words = re.sub(r"[^a-z ]|\b\w\b", "", model.name.lower()).split()
                if words and not why_excluded(words) and not CARS & set(words):
                    _draw_class(writer, archive, model, {"name": library, "author": author, "licence": licence})


def _draw_class(writer: Writer, archive: zipfile.ZipFile, model: Model, origin: dict[str, Any]) -> None:
    folder = PurePosixPath(model.path).parent

    def read(name: str) -> bytes | None:
        try:
            return archive.read(str(folder / name.replace("\\", "/")))
        except KeyError:
            return None

    mesh = thinned(shaped(read_obj(archive.read(model.path), read), model), CELLS)
    random = rng("furniture", model.id)
    for rotation in views(model.size, VIEWS, random):
        writer.add(render(mesh, rotation, lights(random), SIZE, MARGIN), len(writer.classes), len(writer.origins))
    writer.classes.append({"name": re.sub(r"\s+\d+$", "", model.name), "id": model.id})
    url = f"Debian: {PACKAGE}, {model.path}"
    writer.origins.append(origin | {"name": model.name, "author": model.creator or origin["author"], "url": url})

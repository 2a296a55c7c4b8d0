"""How far a thing may change before its picture is "none of these", or gets another name.

Taught pictures are changed little by little, in ways in which photographs differ. Each is left out of what was taught
while it is asked about. A curve over severities, and not one figure, follows the Novel Visual References Dataset
(arXiv 2606.05409), where models keep a name for longer than people do.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from linkcontext.errors import InputError
from linkcontext.evaluation.picture_vectors import rows_of_kind
from linkcontext.progress import progress
from linkcontext.seeds import rng
from linkcontext.teach.learner import Learner
from linkcontext.teach.similarity import most_similar_rows
from linkcontext.teach.vectoriser import PictureVectoriser

SEVERITIES = (0, 1, 2, 3, 4, 5)  # 0: unchanged
PICTURES = 40  # at most, equally many of each name


def _blur(image: Image.Image, severity: int) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(0.015 * severity * min(image.size)))


def _noise(image: Image.Image, severity: int) -> Image.Image:
    pixels = np.asarray(image, np.float32)
    changed = pixels + rng("severity", severity).normal(0, 20 * severity, pixels.shape)
    return Image.fromarray(changed.clip(0, 255).astype(np.uint8))


def _dark(image: Image.Image, severity: int) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(1 - 0.17 * severity)


def _turn(image: Image.Image, severity: int) -> Image.Image:
    return image.rotate(12 * severity, Image.Resampling.BILINEAR, fillcolor=_border(image))


def _small(image: Image.Image, severity: int) -> Image.Image:
    """The picture in the middle of a canvas of its own size and border colour."""
    size = [max(1, round(edge * (1 - 0.14 * severity))) for edge in image.size]
    canvas = Image.new("RGB", image.size, _border(image))
    canvas.paste(image.resize(size), ((image.width - size[0]) // 2, (image.height - size[1]) // 2))
    return canvas


def _cover(image: Image.Image, severity: int) -> Image.Image:
    """The left part of the picture is grey."""
    changed = image.copy()
    changed.paste((128, 128, 128), (0, 0, round(image.width * 0.12 * severity), image.height))
    return changed


def _border(image: Image.Image) -> tuple[int, int, int]:
    """The median colour of the picture's edge."""
    pixels = np.asarray(image)
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    red, green, blue = np.median(edge, axis=0).astype(int).tolist()
    return red, green, blue


CHANGES: dict[str, Callable[[Image.Image, int], Image.Image]] = {
    "blurred": _blur,
    "noisy": _noise,
    "darker": _dark,
    "turned": _turn,
    "smaller": _small,
    "covered": _cover,
}


@dataclass(frozen=True, slots=True)
class SeverityRow:
    """What becomes of taught pictures that were changed in one way.

    `accepted` and `right` have a share for each severity: of pictures that are not "none of these", and of those whose
    most similar other picture has their name. `accepted` is empty if the learner rejects nothing.
    """

    change: str
    accepted: tuple[float, ...]
    right: tuple[float, ...]
    pictures: int


def severity_curve(learner: Learner) -> list[SeverityRow]:
    """A row for each change of the taught pictures, at most `PICTURES` of them.

    Raises `InputError` if the picture files are gone, and for a learner without image features or with names of a
    single picture only.
    """
    pictures, threshold = learner.pictures, learner.estimate_rejection_threshold()
    if not pictures.kinds:
        raise InputError("the severity curve needs image features, and this model's engine gives none.")
    names = [name for name, own in pictures.by_name.items() for _ in own]
    per_name = max(1, PICTURES // max(1, len(pictures.by_name)))
    chosen = [picture for own in pictures.by_name.values() if len(own) > 1 for picture in own[:per_name]]
    if not chosen:
        raise InputError("the severity curve leaves pictures out, and every name has a single picture. Teach more.")
    sources = [pictures.paths[one] for one in chosen]
    if gone := [source for source in sources if isinstance(source, Path) and not source.is_file()]:
        raise InputError(f"{gone[0]}: the severity curve needs the taught pictures, and this file no longer exists.")
    kind = pictures.similarity_kind
    taught, places = pictures.rows(kind), {picture: place for place, picture in enumerate(pictures.ids)}
    vectoriser, rows = PictureVectoriser(learner.model, learner.encoder), []
    pictures.register(learner.model)
    with progress("Changing pictures", len(CHANGES) * len(SEVERITIES) * len(chosen)) as advance:
        for change, apply in CHANGES.items():
            accepted, right = [], []
            for severity in SEVERITIES:
                nearest = []
                for picture in chosen:
                    vectors = vectoriser.of_image(apply(vectoriser.open(picture), severity))
                    similarities = most_similar_rows(taught, rows_of_kind(vectors, kind)[0])
                    similarities[places[picture]] = -1
                    best = int(similarities.argmax())
                    nearest.append((float(similarities[best]), names[best] == names[places[picture]]))
                    advance()
                right.append(float(np.mean([is_right for _, is_right in nearest])))
                if threshold is not None:
                    accepted.append(float(np.mean([threshold.accepts(similarity) for similarity, _ in nearest])))
            rows.append(SeverityRow(change, tuple(accepted), tuple(right), len(chosen)))
    return rows


def describe_severity(rows: list[SeverityRow]) -> list[str]:
    """Lines of a table for users."""
    head = f"{rows[0].pictures} taught pictures, changed more and more (severity 0: unchanged), each left out:"
    lines = [head, f"  {'':10}{'':10}" + "".join(f"{severity:>6}" for severity in SEVERITIES)]
    for row in rows:
        if row.accepted:
            lines.append(f"  {row.change:10}{'accepted':10}" + "".join(f"{share:>6.0%}" for share in row.accepted))
        lines.append(f"  {row.change:10}{'right':10}" + "".join(f"{share:>6.0%}" for share in row.right))
    return lines


def draw_severity(rows: list[SeverityRow], path: Path) -> None:
    """Draw the curves to a PNG or SVG file, one panel for each change."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - half a second to import

    figure = Figure(figsize=(9, 5), layout="constrained")
    panels = figure.subplots(2, 3, sharex=True, sharey=True).flat
    for panel, row in zip(panels, rows, strict=True):
        panel.plot(SEVERITIES, row.right, "o-", color="#0072b2", label="most similar picture has its name")
        if row.accepted:
            panel.plot(SEVERITIES, row.accepted, "s--", color="#d55e00", label='accepted (not "none of these")')
        panel.set(title=row.change, ylim=(-0.03, 1.03), xticks=SEVERITIES)
    figure.supxlabel("severity")
    figure.supylabel("share of pictures")
    figure.legend(*panel.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    figure.savefig(path)

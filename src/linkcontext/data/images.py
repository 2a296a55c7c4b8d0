"""Opens pictures: upright, RGB, 8 bits per channel, with transparency on white. No other module decodes one."""

import base64
import hashlib
import io
import stat
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
import PIL
from PIL import Image, ImageFile, JpegImagePlugin, PngImagePlugin, TiffImagePlugin

from linkcontext.data import formats, png_text
from linkcontext.data.formats import HEAD
from linkcontext.errors import InputError, excerpt

MAX_PIXELS = 50_000_000
RULES = 2  # raised when this module decodes differently; a cached verdict on a picture is valid for one READER
READER = f"pillow {PIL.__version__}, heic {formats.HAS_HEIC}, {MAX_PIXELS} pixels, rules {RULES}"

# Pillow allocates pixels in blocks. Blocks of its default size (16 MB) can come from the allocator's heap, which keeps
# the memory of a large picture; larger blocks are returned to the system at once.
Image.core.set_block_size(64 * 2**20)  # type: ignore[attr-defined] # documented, but not typed

# What Pillow's decoders raise for damaged files.
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, OverflowError, struct.error, RuntimeError)
# Words in their errors for an intact file of a variant that they do not support.
UNKNOWN_KIND = ("unknown pixel mode", "not supported", "unsupported", "not implemented", "unknown data organization")

ORIENTATION = 0x0112  # the EXIF tag
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True)
class Upload:
    """A picture in memory: its bytes, and its name for messages."""

    name: str
    content: bytes

    def __str__(self) -> str:
        return self.name


# Notes on pictures that can be used, and the sentence about each.
NOTES = {
    "frames": "pictures with several frames or pages, of which the first is used",
    "bits": "grey pictures of 16 bits that use fewer; their own white is shown as white",
    "dark": "pictures that are nearly black",
    "blank": "pictures of one colour, in which nothing can be seen",
}
RANGE = 2  # of 255; a picture whose channels span no more is of one colour, lossy compression included
DARK = 32  # of 255; a picture without a brighter value is nearly black
SKETCH = 8  # edge in pixels of the small picture that tells near-copies from pictures with similar outlines


@dataclass(frozen=True, slots=True)
class ImageSummary:
    """What a scan keeps of a picture.

    Attributes:
        pixels: A hash of the pixels (`hash_pixels`), the same for copies in other formats.
        sketch: A perceptual hash of 8 bytes, followed by 8 x 8 RGB pixels.
        notes: Keys of `NOTES`.
    """

    pixels: str
    sketch: bytes
    notes: tuple[str, ...]


def open_image(path: Path | Upload, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open a picture as mode RGB: EXIF orientation applied, transparency on white, first frame, no colour profile.

    Format and size are checked by the header, before anything is decoded. Raises `InputError` for a file that cannot be
    read, is empty, not a picture, damaged or incomplete, or has more than `max_pixels` pixels.
    """
    return _decoded(path, max_pixels)[0]


def summarize(path: Path | Upload) -> ImageSummary:
    """The summary of a picture. Raises as `open_image`."""
    image, notes = _decoded(path, MAX_PIXELS)
    spans = np.array(image.getextrema())  # [channel, darkest and brightest]
    if (spans[:, 1] - spans[:, 0]).max() <= RANGE:
        notes.append("blank")
    elif spans.max() < DARK:
        notes.append("dark")
    small = image.resize((64, 64), Image.Resampling.BILINEAR, reducing_gap=2.0)
    outline = np.packbits(imagehash.phash(small).hash.ravel()).tobytes()
    tiny = small.resize((SKETCH, SKETCH), Image.Resampling.BOX)
    return ImageSummary(hash_image_pixels(image), outline + tiny.tobytes(), tuple(notes))


def hash_pixels(path: Path | Upload) -> str:
    """A hash (32 hex digits) of a picture's pixels, which does not depend on the format. Raises as `open_image`."""
    return hash_image_pixels(open_image(path))


def hash_image_pixels(image: Image.Image) -> str:
    """The same hash for an opened RGB picture."""
    size = f"{image.width}x{image.height} ".encode()
    return hashlib.blake2b(size + image.tobytes(), digest_size=16).hexdigest()


def _decoded(path: Path | Upload, max_pixels: int) -> tuple[Image.Image, list[str]]:
    """The picture as `open_image` returns it, and notes about its file: keys of `NOTES`."""
    with _opened(path) as file, warnings.catch_warnings():
        # Pillow warns of odd metadata, and of sizes that are refused here. Its warnings do not name the file.
        warnings.filterwarnings("ignore", module=r"PIL\b")
        decoder = _decoder(path, file)
        try:
            image = _header(decoder, file)
        except Image.DecompressionBombError as error:
            raise _too_large(path, "its", max_pixels) from error
        except DAMAGE as error:
            raise _damaged(path, error) from error
        if image.width * image.height > max_pixels:
            raise _too_large(path, f"{image.width:,} x {image.height:,}", max_pixels)
        if _is_raw(image):
            raise _unread(path, "camera RAW")
        try:
            image = _loaded(image, file)
            notes: list[str] = []
            return upright_rgb(image, notes), notes + _frames(image)
        except Image.DecompressionBombError as error:
            raise _too_large(path, "its", max_pixels) from error
        except DAMAGE as error:
            raise _damaged(path, error) from error


def _header(decoder: formats.Decoder, file: io.BufferedReader | io.BytesIO) -> ImageFile.ImageFile:
    try:
        return decoder(file)
    except ValueError:
        if decoder is not PngImagePlugin.PngImageFile:
            raise
        return decoder(png_text.without_long_texts(file))


def _loaded(image: ImageFile.ImageFile, file: io.BufferedReader | io.BytesIO) -> ImageFile.ImageFile:
    """The decoded image. Texts of a PNG can also follow its pixels."""
    try:
        image.load()
    except ValueError:
        if not isinstance(image, PngImagePlugin.PngImageFile):
            raise
        image = PngImagePlugin.PngImageFile(png_text.without_long_texts(file))
        image.load()
    return image


def _is_raw(image: ImageFile.ImageFile) -> bool:
    """Whether a TIFF holds the raw data of a camera behind a small preview."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return False
    tags = image.tag_v2
    dng, sub_images, kind, colours = (tags.get(tag) for tag in (50706, 330, 254, 262))
    return dng is not None or colours in (32803, 34892) or (sub_images is not None and kind == 1)


def _frames(image: ImageFile.ImageFile) -> list[str]:
    try:
        several = bool(getattr(image, "is_animated", False))
    except DAMAGE:
        return ["frames"]  # the first frame can be used, and another one is damaged
    return ["frames"] if several else []


def portable(path: Path | Upload) -> tuple[str, bytes]:
    """MIME type and bytes of a picture for other programs: an upright RGB JPEG unchanged, any other format as PNG."""
    image = open_image(path)
    with _opened(path) as file:
        content = file.read()
        file.seek(0)
        decoder = _header(_decoder(path, file), file)
        plain = (
            isinstance(decoder, JpegImagePlugin.JpegImageFile) and decoder.mode == "RGB" and _orientation(decoder) == 1
        )
    return ("image/jpeg", content) if plain else ("image/png", png(image))


def png(image: Image.Image, **options: Any) -> bytes:
    """The bytes of a PNG file of the picture, with Pillow's options for it."""
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def data_uri(kind: str, content: bytes) -> str:
    """A file's bytes as a data URI of a MIME type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def sha256(path: Path | Upload) -> str:
    """SHA-256 (64 hex digits) of a file's bytes. Raises `InputError` if the file cannot be read."""
    with _opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def thumbnail_png(path: Path | Upload, edge: int) -> bytes:
    """The bytes of a PNG file without metadata, whose longer side has at most `edge` pixels."""
    image = open_image(path)
    image.thumbnail((edge, edge), Image.Resampling.LANCZOS)
    return png(image, optimize=True)


def image_size(path: Path | Upload) -> tuple[int, int]:
    """Width and height in pixels by the file's header; nothing is decoded. Raises as `open_image`."""
    with _opened(path) as file, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\b")
        decoder = _decoder(path, file)
        try:
            return _header(decoder, file).size
        except Image.DecompressionBombError as error:
            raise _too_large(path, "its", MAX_PIXELS) from error
        except DAMAGE as error:
            raise _damaged(path, error) from error


def suffix(content: bytes) -> str | None:
    """The suffix of the format with these first bytes, None if it is not read."""
    known = formats.readable(content)
    return known[0] if known else None


def refuse_other_kinds(path: Path | Upload) -> None:
    """Raise an `InputError` for a file whose first bytes are not those of a picture. Nothing is decoded."""
    with _opened(path) as file:
        _decoder(path, file)


def head(path: Path | Upload) -> bytes:
    """The first bytes of a file, which tell its format. Raises `InputError` if the file cannot be read."""
    with _opened(path) as file:
        return file.read(HEAD)


@contextmanager
def _opened(path: Path | Upload) -> Iterator[io.BufferedReader | io.BytesIO]:
    """A regular file, opened for reading. Opening a pipe would wait for a writer."""
    if isinstance(path, Upload):
        yield io.BytesIO(path.content)
        return
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{path}: not a file. Name a picture.")
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror or error}). Check the path and its permissions."
        ) from error


def _decoder(path: Path | Upload, file: io.BufferedReader | io.BytesIO) -> formats.Decoder:
    start = file.read(HEAD)
    file.seek(0)
    if not start:
        raise InputError(f"{path}: the file is empty (0 bytes). Copy it again or remove it.")
    known, name = formats.readable(start), path.name
    if known is not None and not (known[0] == ".tif" and formats.by_name(name)):  # most RAW files begin as TIFF does
        return known[1]
    if kind := formats.unread(start, name):
        raise _unread(path, kind)
    raise InputError(f"{path}: not a picture by its content ({formats.KINDS} are read). Replace or remove it.")


def _unread(path: Path | Upload, kind: str) -> InputError:
    return InputError(f"{path}: has the format {kind}, which is not supported. {formats.advice(kind)}")


def _too_large(path: Path | Upload, size: str, max_pixels: int) -> InputError:
    return InputError(f"{path}: {size} pixels are more than the limit of {max_pixels:,}. Scale it down or remove it.")


def _damaged(path: Path | Upload, error: Exception) -> InputError:
    why = excerpt(" ".join(str(error).split()) or type(error).__name__)
    if any(words in why.lower() for words in UNKNOWN_KIND):
        return InputError(f"{path}: this kind of picture cannot be read ({why}). Save it as an ordinary PNG.")
    return InputError(f"{path}: the picture is damaged or cut short ({why}). Copy it again or remove it.")


def _rgb(image: Image.Image, notes: list[str]) -> Image.Image:
    """A copy in mode RGB without metadata."""
    if image.mode == "F" or image.mode.startswith("I"):
        image = _eight_bits(image, notes)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    rgb = image.convert("RGB")
    rgb.info = {}  # otherwise a saved copy would have the colour profile and transparency of the original
    return rgb


def _eight_bits(image: Image.Image, notes: list[str]) -> Image.Image:
    """Convert grey values of 16 or 32 bits, integers or floats, to 8 bits.

    White is the smallest usual maximum that no pixel exceeds, because cameras and scanners write 10, 12 or 14 bits into
    16, and files of 32 bits do not state their maximum. Negative values are black.
    """
    pixels = np.asarray(image)
    if image.mode.startswith("I;16"):
        clear = image.info.get("transparency")
        brightest = int(pixels.max(where=pixels != (-1 if clear is None else clear), initial=0))
        white = next(w for w in (255, 1023, 4095, 16_383, 65_535) if brightest <= w)
        if white < 65_535 and brightest:
            notes.append("bits")
        grey = ((pixels.astype(np.uint32) * 255 + white // 2) // white).clip(0, 255).astype(np.uint8)
        if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(262) == 0:  # zero is white
            grey = 255 - grey
        return Image.fromarray(grey if clear is None else np.where(pixels == clear, np.uint8(255), grey))
    finite = np.nan_to_num(pixels, nan=0, posinf=0, neginf=0)
    whites = (1, 255, 65_535, 2**31 - 1) if image.mode == "F" else (255, 1023, 4095, 16_383, 65_535, 2**31 - 1)
    most = float(finite.max())
    top = next((w for w in whites if most <= w), most)
    shown = np.nan_to_num(pixels, nan=0, posinf=top, neginf=0).astype(np.float64)
    return Image.fromarray((shown * (255 / top)).clip(0, 255).round().astype(np.uint8))


def upright_rgb(image: Image.Image, notes: list[str]) -> Image.Image:
    """A copy in mode RGB without metadata, turned as its EXIF orientation says; keys of `NOTES` are added to `notes`.

    Raises one of `DAMAGE` for an image that was not loaded yet and cannot be.
    """
    rgb, turn = _rgb(image, notes), UPRIGHT.get(_orientation(image))
    return rgb if turn is None else rgb.transpose(turn)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except DAMAGE:
        return 1  # the EXIF block is damaged, the pixels are not

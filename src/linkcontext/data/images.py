"""Pictures: the one place that opens them. What comes out is upright, RGB, 8 bits, on white."""

import hashlib
import io
import stat
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from linkcontext.errors import InputError

MAX_PIXELS = 50_000_000
READER = f"pillow {PIL.__version__}, {MAX_PIXELS} pixels"  # what a verdict on a picture depends on

# Pillow allocates pixels in blocks. Those of its usual size (16 MB) can come from the allocator's heap, which keeps
# hundreds of megabytes of a large picture for ever; larger ones are given back to the system at once.
Image.core.set_block_size(64 * 2**20)  # type: ignore[attr-defined] # documented, but not typed

# A file is what its first bytes say, never what its name says. Pillow's own `open` is not used: it knows
# dozens of formats nobody wants from a stranger, and warns of large pictures before their size can be asked.
FORMATS: tuple[tuple[bytes, bytes, str, type[ImageFile.ImageFile]], ...] = (
    (b"\x89PNG\r\n\x1a\n", b"", ".png", PngImagePlugin.PngImageFile),
    (b"\xff\xd8\xff", b"", ".jpg", JpegImagePlugin.JpegImageFile),
    (b"RIFF", b"WEBP", ".webp", WebPImagePlugin.WebPImageFile),
    (b"GIF8", b"", ".gif", GifImagePlugin.GifImageFile),
    (b"BM", b"", ".bmp", BmpImagePlugin.BmpImageFile),
    (b"II*\x00", b"", ".tif", TiffImagePlugin.TiffImageFile),
    (b"MM\x00*", b"", ".tif", TiffImagePlugin.TiffImageFile),
)
HEAD = 12  # bytes that tell the format

# What Pillow's readers raise on damaged bytes; OSError is most of it.
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, OverflowError, struct.error)

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
    """A picture that is in no file: its bytes, and what it is called in a sentence about it."""

    name: str
    content: bytes

    def __str__(self) -> str:
        return self.name


def open_image(path: Path | Upload, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The picture in a file or an upload: mode RGB, EXIF orientation applied, transparency on white, first frame.

    Size and format are read from the header and refused before anything is decoded. Colour profiles are
    ignored. Raises `InputError` for a file that cannot be read, is empty, is no picture, has more than
    `max_pixels` pixels, or is damaged or cut short.
    """
    with _opened(path) as file, warnings.catch_warnings():
        # Pillow warns of odd metadata and of sizes refused here anyway; neither names the file.
        warnings.filterwarnings("ignore", module=r"PIL\b")
        reader = _reader(path, file)
        try:
            image = reader(file)
        except Image.DecompressionBombError as error:
            raise _too_large(path, "its", max_pixels) from error
        except DAMAGE as error:
            raise _damaged(path, error) from error
        if image.width * image.height > max_pixels:
            raise _too_large(path, f"{image.width:,} x {image.height:,}", max_pixels)
        try:
            image.load()
            return _upright(_rgb(image), _orientation(image))
        except Image.DecompressionBombError as error:
            raise _too_large(path, "its", max_pixels) from error
        except DAMAGE as error:
            raise _damaged(path, error) from error


def pixels(path: Path | Upload) -> str:
    """A hash of what is seen in a picture, whatever bytes hold it. Raises as `open_image`."""
    return _pixels(open_image(path))


def _pixels(image: Image.Image) -> str:
    size = f"{image.width}x{image.height} ".encode()
    return hashlib.blake2b(size + image.tobytes(), digest_size=16).hexdigest()


def portable(path: Path) -> tuple[str, bytes]:
    """The picture for other programs, as MIME type and bytes: an upright RGB JPEG as it is, all else as PNG."""
    image, content = open_image(path), path.read_bytes()
    with _opened(path) as file:
        reader = _reader(path, file)(file)
        plain = isinstance(reader, JpegImagePlugin.JpegImageFile) and reader.mode == "RGB" and _orientation(reader) == 1
    return ("image/jpeg", content) if plain else ("image/png", png(image))


def png(image: Image.Image) -> bytes:
    """A picture as a PNG file."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def sha256(path: Path | Upload) -> str:
    """The hash of a file's bytes, in hex. Raises `InputError` when the file cannot be read."""
    with _opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def thumbnail_png(path: Path, edge: int) -> bytes:
    """The picture as a PNG file whose longer side is at most `edge` pixels, without metadata."""
    image = open_image(path)
    image.thumbnail((edge, edge), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def image_size(path: Path | Upload) -> tuple[int, int]:
    """Width and height as the file's header gives them; nothing is decoded. Raises as `open_image`."""
    with _opened(path) as file, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\b")
        reader = _reader(path, file)
        try:
            return reader(file).size
        except Image.DecompressionBombError as error:
            raise _too_large(path, "its", MAX_PIXELS) from error
        except DAMAGE as error:
            raise _damaged(path, error) from error


def suffix(content: bytes) -> str | None:
    """The suffix of the format that a file's first bytes announce, `None` for no format read here."""
    found = _format(content)
    return found[0] if found else None


def _format(head: bytes) -> tuple[str, type[ImageFile.ImageFile]] | None:
    for start, at_8, name, reader in FORMATS:
        if head.startswith(start) and head.startswith(at_8, 8):
            return name, reader
    return None


@contextmanager
def _opened(path: Path | Upload) -> Iterator[io.BufferedReader | io.BytesIO]:
    """A regular file open for reading: a pipe called .png would wait for a writer for ever."""
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


def _reader(path: Path | Upload, file: io.BufferedReader | io.BytesIO) -> type[ImageFile.ImageFile]:
    head = file.read(HEAD)
    file.seek(0)
    if not head:
        raise InputError(f"{path}: the file is empty (0 bytes). Copy it again or remove it.")
    found = _format(head)
    if found is None:
        raise InputError(
            f"{path}: not a picture, whatever its name says (PNG, JPEG, WebP, GIF, BMP and TIFF are read). "
            "Replace or remove it."
        )
    return found[1]


def _too_large(path: Path | Upload, size: str, max_pixels: int) -> InputError:
    return InputError(f"{path}: {size} pixels are more than the limit of {max_pixels:,}. Scale it down or remove it.")


def _damaged(path: Path | Upload, error: Exception) -> InputError:
    return InputError(f"{path}: the picture is damaged or cut short ({error}). Copy it again or remove it.")


def _rgb(image: Image.Image) -> Image.Image:
    """A new RGB picture without metadata."""
    if image.mode == "F" or image.mode.startswith("I"):
        image = _eight_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    rgb = image.convert("RGB")
    rgb.info = {}  # else a saved copy would carry profile and transparency of a picture it no longer is
    return rgb


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey in 8 bits from 16 or 32, integers or floats.

    16 bits say themselves what white is. 32 bits do not: white is the smallest customary white (1 for
    floats, 255, 65,535, 2^31 - 1) that the brightest pixel does not exceed. Below zero is black.
    """
    pixels = np.asarray(image)
    if image.mode.startswith("I;16"):
        grey = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65,535 = 255 x 257
        clear = image.info.get("transparency")
        return Image.fromarray(grey if clear is None else np.where(pixels == clear, np.uint8(255), grey))
    finite = np.nan_to_num(pixels, nan=0, posinf=0, neginf=0)
    whites = (1, 255, 65_535, 2**31 - 1) if image.mode == "F" else (255, 65_535, 2**31 - 1)
    brightest = float(finite.max())
    white = next((w for w in whites if brightest <= w), brightest)
    shown = np.nan_to_num(pixels, nan=0, posinf=white, neginf=0).astype(np.float64)
    return Image.fromarray((shown * (255 / white)).clip(0, 255).round().astype(np.uint8))


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except DAMAGE:
        return 1  # the pixels are good; a damaged EXIF block says nothing about which side is up


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    turn = UPRIGHT.get(orientation)
    return image if turn is None else image.transpose(turn)

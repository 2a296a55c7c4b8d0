"""Formats of pictures, told by a file's first bytes: those that are read, and those that are only named in messages."""

import importlib.util
import re
from collections.abc import Callable

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    features,
)

Decoder = Callable[..., ImageFile.ImageFile]

HEAD = 32  # bytes at the beginning of a file that tell its format
# Usual suffixes of pictures. A picture with another suffix is read too.
SUFFIXES = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".avif"),
    *(".heic", ".heif", ".hif"),
)
KINDS = "PNG, JPEG, WebP, GIF, BMP, TIFF or AVIF"
HAS_AVIF = bool(features.check("avif"))
HAS_HEIC = importlib.util.find_spec("pillow_heif") is not None

# Image.open is not used, because it opens dozens of other formats, which untrusted files could exploit, and warns about
# large pictures before their size can be checked.
_READ: tuple[tuple[re.Pattern[bytes], str, Decoder], ...] = tuple(
    (re.compile(start, re.DOTALL), suffix, decoder)
    for start, suffix, decoder in (
        (rb"\x89PNG\r\n\x1a\n", ".png", PngImagePlugin.PngImageFile),
        (rb"\xff\xd8\xff", ".jpg", JpegImagePlugin.JpegImageFile),
        (rb"RIFF....WEBP", ".webp", WebPImagePlugin.WebPImageFile),
        (rb"GIF8[79]a", ".gif", GifImagePlugin.GifImageFile),
        # The size of the second header is checked too, because a text can begin with BM.
        (rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\x00\x00\x00", ".bmp", BmpImagePlugin.BmpImageFile),
        (rb"II[*+]\x00(?!....CR)|MM\x00[*+]", ".tif", TiffImagePlugin.TiffImageFile),
    )
)
_UNREAD = tuple(
    (re.compile(start, re.DOTALL), name)
    for start, name in (
        (rb"....ftypcrx|II\*\x00....CR|FUJIFILMCCD-RAW|IIR[OS]|MMOR|IIU\x00|FOVb|\x00MRM", "camera RAW"),
        (rb"\xff\x0a|\x00\x00\x00\x0cJXL ", "JPEG XL"),
        (rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51", "JPEG 2000"),
        (rb"8BP[SB]", "Photoshop"),
        (rb"gimp xcf", "GIMP"),
        (rb"\x76\x2f\x31\x01", "OpenEXR"),
        (rb"#\?RADIANCE|#\?RGBE", "Radiance HDR"),
        (rb"DDS ", "DDS"),
        (rb"qoif", "QOI"),
        (rb"%PDF-|%!PS", "PDF or PostScript"),
        (rb"\xef?\xbb?\xbf?\s*<svg", "SVG"),
        (rb"....ftyp|RIFF....AVI |\x1a\x45\xdf\xa3|\x00\x00\x01[\xb3\xba]|FLV\x01", "video"),
    )
)
_BY_NAME = {  # formats whose first bytes are ambiguous, or whose files are often of another format
    **dict.fromkeys(
        (
            *(".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".orf", ".rw2", ".raf", ".pef"),
            *(".srw", ".x3f", ".3fr", ".fff", ".iiq", ".erf", ".kdc", ".dcr", ".mrw", ".mef", ".mos", ".rwl", ".raw"),
        ),
        "camera RAW",
    ),
    **dict.fromkeys((".jp2", ".j2k", ".jpx", ".jpf"), "JPEG 2000"),
    **dict.fromkeys((".pbm", ".pgm", ".ppm", ".pnm", ".pam", ".pfm"), "Netpbm"),
    **dict.fromkeys((".ico", ".cur"), "icon"),
    **dict.fromkeys((".psd", ".psb"), "Photoshop"),
    **dict.fromkeys((".svg", ".svgz"), "SVG"),
    **dict.fromkeys((".dcm", ".dicom"), "DICOM"),
    **dict.fromkeys((".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".wmv", ".mpg", ".mpeg", ".flv"), "video"),
    **{".jxl": "JPEG XL", ".exr": "OpenEXR", ".hdr": "Radiance HDR", ".dds": "DDS", ".tga": "Targa", ".xcf": "GIMP"},
    **{".pcx": "PCX", ".eps": "PDF or PostScript", ".pdf": "PDF or PostScript", ".wmf": "WMF", ".emf": "WMF"},
    **{".fits": "FITS", ".qoi": "QOI"},
}
_HEIF = re.compile(rb"....ftyp(?:heic|heix|heim|heis|hevc|hevx|hevm|hevs|mif1|mif2|msf1)", re.DOTALL)
_AVIF = re.compile(rb"....ftyp(?:avif|avis|(?:mif1|mif2|msf1|miaf)....(?:....)*?avi[fs])", re.DOTALL)


def readable(head: bytes) -> tuple[str, Decoder] | None:
    """Suffix and decoder of the format with these first bytes; None if it is not read."""
    if _AVIF.match(head):
        return (".avif", AvifImagePlugin.AvifImageFile) if HAS_AVIF else None
    if _HEIF.match(head):
        return (".heic", _heif()) if HAS_HEIC else None
    return next(((suffix, decoder) for start, suffix, decoder in _READ if start.match(head)), None)


def unread(head: bytes, name: str) -> str:
    """The name of a format that is not read, by the first bytes, otherwise by the file's name; "" if it is unknown."""
    if _AVIF.match(head):
        return "AVIF"
    if _HEIF.match(head):
        return "HEIC"
    by_content = next((kind for start, kind in _UNREAD if start.match(head)), "")
    return by_content or by_name(name)


def by_name(name: str) -> str:
    """The name of a format that is not read, by the suffix of the file's name alone; "" if it is unknown."""
    return _BY_NAME.get("." + name.lower().rpartition(".")[2], "") if "." in name else ""


def advice(kind: str) -> str:
    """What a user can do with a file of a format that is not read."""
    if kind == "HEIC":
        return "Run: pip install 'linkcontext[heic]', or save it as JPEG."
    if kind == "AVIF":
        return "Install a Pillow that has AVIF (11.3 or newer), or save it as PNG."
    return "Save pictures of it as PNG." if kind == "video" else "Save it as PNG or JPEG."


def _heif() -> Decoder:
    from pillow_heif import HeifImageFile  # noqa: PLC0415 - an extra

    return HeifImageFile  # type: ignore[no-any-return]

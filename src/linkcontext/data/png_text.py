"""Removes long texts from PNG files, because Pillow refuses files with more than a megabyte of them.

Renderers write their scenes into a PNG, and editors their histories and profiles, which are not part of the picture.
"""

import io
import struct
import zlib
from typing import BinaryIO

from PIL.PngImagePlugin import MAX_TEXT_CHUNK

SIGNATURE = 8
TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
# Texts that may contain the EXIF orientation.
WITH_ORIENTATION = (b"Raw profile type exif\x00", b"Raw profile type APP1\x00", b"XML:com.adobe.xmp\x00")


def without_long_texts(file: BinaryIO) -> io.BytesIO:
    """The bytes of a PNG without texts and colour profile. Short texts that may contain the orientation are kept.

    Bytes that are no chunk are kept, so that Pillow reports what is wrong with them.
    """
    file.seek(0)
    content = file.read()
    kept = [content[:SIGNATURE]]
    at = SIGNATURE
    while at + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        end = at + 12 + length
        kind, body = content[at + 4 : at + 8], content[at + 8 : end - 4]
        if kind not in TEXTS or (body.startswith(WITH_ORIENTATION) and _is_short(kind, body)):
            kept.append(content[at:end])
        at = end
    kept.append(content[at:])
    return io.BytesIO(b"".join(kept))


def _is_short(kind: bytes, body: bytes) -> bool:
    if kind == b"zTXt":  # keyword, zero, method, compressed text
        try:
            body = zlib.decompressobj().decompress(body[body.index(b"\x00") + 2 :], MAX_TEXT_CHUNK + 1)
        except zlib.error:
            return False
    return len(body) <= MAX_TEXT_CHUNK and not (kind == b"iTXt" and body.partition(b"\x00")[2][:1] == b"\x01")

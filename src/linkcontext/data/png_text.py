"""PNG files with long texts beside the picture, which Pillow refuses: the same file without those texts.

Renderers write their scenes into a PNG, and editors whole histories and colour profiles: megabytes that are no part
of what is seen.
"""

import io
import struct
import zlib
from typing import BinaryIO

from PIL.PngImagePlugin import MAX_TEXT_CHUNK

SIGNATURE = 8
TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
# Texts that can tell which side of the picture is up.
ORIENTED = (b"Raw profile type exif\x00", b"Raw profile type APP1\x00", b"XML:com.adobe.xmp\x00")


def without_long_texts(file: BinaryIO) -> io.BytesIO:
    """The bytes of a PNG without its texts and profile, but for short ones that may tell the orientation.

    What is no chunk any more is kept as it is: Pillow says what is wrong with it.
    """
    file.seek(0)
    content = file.read()
    kept = [content[:SIGNATURE]]
    at = SIGNATURE
    while at + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        end = at + 12 + length
        kind, body = content[at + 4 : at + 8], content[at + 8 : end - 4]
        if kind not in TEXTS or (body.startswith(ORIENTED) and _is_short(kind, body)):
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

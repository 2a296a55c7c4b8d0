import pytest

from linkcontext.data.formats import HAS_AVIF, HAS_HEIC, advice, by_name, readable, unread


@pytest.mark.parametrize(
    ("head", "suffix"),
    [
        (b"\x89PNG\r\n\x1a\n", ".png"),
        (b"\xff\xd8\xff\xe0", ".jpg"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", ".webp"),
        (b"GIF89a", ".gif"),
        (b"BM" + b"\0" * 12 + b"\x28\0\0\0", ".bmp"),
        (b"II*\0\x08\0\0\0", ".tif"),
        (b"MM\0*\0\0\0\x08", ".tif"),
    ],
)
def test_formats_that_are_read(head, suffix):
    known = readable(head)
    assert known is not None
    assert known[0] == suffix


@pytest.mark.parametrize(
    ("head", "name", "kind"),
    [
        (b"\0\0\0\x18ftypmp42", "a.png", "video"),
        (b"RIFF\0\0\0\0AVI ", "a", "video"),
        (b"8BPS", "a", "Photoshop"),
        (b"%PDF-1.7", "a", "PDF or PostScript"),
        (b"\xef\xbb\xbf<svg", "a", "SVG"),
        (b"II*\0\0\0\0\0CR", "a", "camera RAW"),
        (b"BM is a bookmark", "a", ""),
        (b"text", "notes.txt", ""),
        (b"", "a.dcm", "DICOM"),
    ],
)
def test_formats_that_are_only_named(head, name, kind):
    assert readable(head) is None
    assert unread(head, name) == kind


def test_extras_are_read_where_they_are_installed():
    for head, suffix, kind, has in (
        (b"\0\0\0\x18ftypheic", ".heic", "HEIC", HAS_HEIC),
        (b"\0\0\0\x18ftypavif", ".avif", "AVIF", HAS_AVIF),
    ):
        assert unread(head, "a") == kind
        assert (readable(head) or ("",))[0] == (suffix if has else "")
    assert "pip install 'linkcontext[heic]'" in advice("HEIC")


def test_names_are_looked_at_without_case():
    assert by_name("DSC_1.NEF") == "camera RAW"
    assert by_name("nef") == by_name("a.png") == ""

"""Changed copies of a picture, by hand on four pixels' worth of colours."""

from PIL import Image

from linkcontext.teach.augmentation import augmented


def test_copies_are_the_mirror_image_and_five_parts():
    image = Image.new("RGB", (10, 5))
    image.putdata([(x, y, 0) for y in range(5) for x in range(10)])
    (mirror,) = augmented(image, ["flip"])
    assert [mirror.getpixel((x, 0))[0] for x in range(10)] == list(range(9, -1, -1))
    parts = augmented(image, ["crop"])
    assert [part.size for part in parts] == [(8, 4)] * 5
    assert [part.getpixel((0, 0)) for part in parts] == [(1, 0, 0), (0, 0, 0), (2, 0, 0), (0, 1, 0), (2, 1, 0)]
    assert len(augmented(image, ["crop", "flip"])) == 6
    assert augmented(image, []) == []
    assert [part.size for part in augmented(Image.new("RGB", (1, 1)), ["crop"])] == [(1, 1)] * 5

"""Changed copies of a taught picture, which heads on image features are fitted to beside the picture itself."""

from collections.abc import Sequence

from PIL import Image, ImageOps

from linkcontext.config import Augmentation

CROPPED = 0.8  # of the width and the height


def augmented(image: Image.Image, kinds: Sequence[Augmentation]) -> list[Image.Image]:
    """The changed copies of an image, equally many for every image.

    "flip" is its mirror image. "crop" are five parts of four fifths of its width and height: the middle and the four
    corners.
    """
    copies = [ImageOps.mirror(image)] if "flip" in kinds else []
    if "crop" in kinds:
        width, height = (max(1, round(CROPPED * edge)) for edge in image.size)
        right, lower = image.width - width, image.height - height
        corners = [(right // 2, lower // 2), (0, 0), (right, 0), (0, lower), (right, lower)]
        copies += [image.crop((left, top, left + width, top + height)) for left, top in corners]
    return copies

"""The image processor of a model with the options for its pictures."""

import json
import warnings
from typing import Any

from linkcontext.errors import InputError, excerpt
from linkcontext.models.families import setting
from linkcontext.models.picture_options import RESERVED, PictureOptions
from linkcontext.models.synthetic_images import blank_image

OWN_LIMIT = "max_pixels"  # the setting of image processors that bound the pixels of a picture themselves
REFUSALS = (ValueError, TypeError, RuntimeError, ArithmeticError, LookupError)  # what processors raise on a shape


def most_pixels_before(image_processor: Any, options: PictureOptions) -> int | None:
    """The most pixels of a picture before the image processor gets it; None if it is not reduced before."""
    return None if has_own_limit(image_processor) else options.max_pixels


def picture_treatment(image_processor: Any, options: PictureOptions) -> str:
    """What is done to pictures, in words; "" for nothing."""
    name = type(image_processor).__name__
    parts = []
    if options.max_pixels is not None:
        how = f"by {name}" if has_own_limit(image_processor) else f"before {name} gets them"
        parts.append(f"reduced to at most {options.max_pixels:,} pixels {how}")
    if options.processor_kwargs:
        parts.append(f"{name} with {options.processor_kwargs}")
    return "; ".join(parts)


def has_own_limit(image_processor: Any) -> bool:
    """Whether an image processor has a setting for the most pixels of a picture."""
    return OWN_LIMIT in _kinds(image_processor) and "longest_edge" in (setting(image_processor, "size") or {})


def _kinds(image_processor: Any) -> dict[str, Any]:
    """The settings of a class of image processors, with their types."""
    kinds: dict[str, Any] = setting(setting(type(image_processor), "valid_kwargs"), "__annotations__", {})
    return kinds


def with_options(image_processor: Any, options: PictureOptions) -> Any:
    """The image processor with some options; the same object if they change nothing in it.

    Raises `InputError` for a setting that it does not have, and for values with which it refuses a picture.
    """
    changes = options.settings
    names = {**image_processor.to_dict(), **_kinds(image_processor)}
    known = {name for name in names if not name.startswith("_") and name not in RESERVED}
    if unknown := sorted(changes.keys() - known):
        name = type(image_processor).__name__
        raise InputError(f"--processor-kwargs: {name} has no setting {unknown[0]}. It has {', '.join(sorted(known))}.")
    if changes:
        image_processor = _changed(image_processor, changes)
    if options.max_pixels is None or not has_own_limit(image_processor):
        return image_processor
    least = image_processor.size["shortest_edge"]
    if options.max_pixels < least:
        raise InputError(
            f"--max-pixels {options.max_pixels}: {type(image_processor).__name__} enlarges every picture to at least "
            f"{least} pixels. Give {least} or more, or also --processor-kwargs '{{\"min_pixels\": ...}}'."
        )
    return type(image_processor).from_dict({**image_processor.to_dict(), OWN_LIMIT: options.max_pixels})


def _changed(image_processor: Any, changes: dict[str, Any]) -> Any:
    """The image processor with other settings. Raises `InputError` if it refuses a grey picture with them."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of settings that have a newer name
            changed = type(image_processor).from_dict({**image_processor.to_dict(), **changes})
            # The types of values are checked in a call only.
            for processor, arguments in ((changed, {}), (image_processor, changes)):
                processor([blank_image(448)], return_tensors="pt", **arguments)
    except (*REFUSALS, AttributeError) as error:  # the latter for a value of another type
        why = excerpt(" ".join(str(error).split()) or type(error).__name__)
        raise InputError(
            f"--processor-kwargs {json.dumps(changes)}: {type(image_processor).__name__} refuses a picture with these "
            f"values ({why}). Correct them."
        ) from error
    return changed

"""What can be read: the table of data sets and file formats, and the functions that open what a user names.

To add one, write a module with a `Reader` and add a line to a table here, or declare an entry point
`linkcontext.readers` in another package (docs/adding.md).
"""

import os
from pathlib import Path

from linkcontext.data.class_folders import open_folder
from linkcontext.data.importing import ImportReport, import_with
from linkcontext.data.manifest import Dataset
from linkcontext.data.reader import Reader
from linkcontext.errors import InputError
from linkcontext.plugins import Listed, find_part, part_names

GROUP = "linkcontext.readers"  # of entry points

# Data sets, under --data NAME:ARGUMENT. Help and messages begin with the usage.
DATA_SETS = {
    "folder": Listed("linkcontext.data.class_folders:FOLDER", "folder:DIR, or DIR alone: a folder of class folders"),
    "digits": Listed("linkcontext.data.digits:DIGITS", "digits: scikit-learn's 1,797 handwritten digits"),
    "world": Listed(
        "linkcontext.worlds.readers:WORLD",
        "world:SEED: a world of invented things that no model was trained on; world:taught: what the bundled models "
        "know by name; world:replay: other pictures of the same, to train on",
    ),
    "scenes": Listed("linkcontext.worlds.readers:SCENES", "scenes:SEED: drawn pictures with questions of every task"),
    "hf": Listed(
        "linkcontext.data.hub:HUGGING_FACE",
        "hf:NAME: a data set of the Hugging Face Hub, or NAME:CONFIG, a parquet file or an image folder",
    ),
    "imagenet-900": Listed(
        "linkcontext.data.imagenet:IMAGENET_900", "imagenet-900:DIR: the training classes of Link-Context Learning"
    ),
    "imagenet-100": Listed(
        "linkcontext.data.imagenet:IMAGENET_100", "imagenet-100:DIR: its test classes, in pairs of neighbours"
    ),
    "nvrd": Listed(
        "linkcontext.data.readers.nvrd:NVRD",
        "nvrd:DIR: the objects of NVRD with their nonce words, unchanged and changed by degrees",
    ),
}
# File formats, under `linkcontext data FILE --layout NAME`.
FILE_FORMATS = {
    "conversations": Listed(
        "linkcontext.data.readers.conversations:CONVERSATIONS",
        "conversations of LLaVA, messages + images (LLaMA-Factory, ms-swift), or TRL's columns",
    ),
    "seed": Listed("linkcontext.data.readers.seed_bench:SEED_BENCH", "SEED-Bench and SEED-Bench-2"),
    "vl-checklist": Listed("linkcontext.data.readers.vl_checklist:VL_CHECKLIST", "VL-Checklist"),
    "visual-genome": Listed(
        "linkcontext.data.readers.visual_genome:VISUAL_GENOME", "attributes and relations of Visual Genome"
    ),
    "vl-icl": Listed("linkcontext.data.readers.vl_icl:VL_ICL", "the image-to-text tasks of VL-ICL"),
    "truemicl": Listed("linkcontext.data.readers.true_micl:TRUE_MICL", "TrueMICL, or one of its tasks"),
}
READERS = DATA_SETS | FILE_FORMATS


def open_data(spec: str | Path, strict: bool = False, fewest: int = 2) -> Dataset:
    """Open a folder of class folders, or another data set as `NAME:ARGUMENT` (see `DATA_SETS`).

    >>> len(open_data("digits").items)
    1797

    Args:
        spec: What a user writes after --data. Other packages can add names.
        strict: Raise for the first picture that cannot be used, instead of leaving it out.
        fewest: Raise for a folder with fewer classes.

    Raises:
        InputError: there is no such folder or data set, or it cannot be used; the message says why.
    """
    spec = str(spec)
    name, colon, argument = spec.partition(":")
    reader = find_part(READERS, GROUP, name, Reader) if colon or spec == "digits" else None
    if reader is None:
        if colon and not os.path.exists(spec):  # noqa: PTH110 - False for a text that cannot be a path; a Path raises
            usages = ", ".join(listed.help.partition(": ")[0] for listed in DATA_SETS.values())
            others = [known for known in part_names(READERS, GROUP) if known not in READERS]
            raise InputError(
                f"--data {spec}: no such folder, and {name} is not a data set. Give {', '.join([usages, *others])}, "
                f"or install the package that adds {name}."
            )
        return open_folder(Path(spec), strict, fewest)
    if reader.open is None:
        raise InputError(f"--data {spec}: {name} is a file format. First run {_import_command(name)}.")
    return reader.open(argument, strict, fewest)


def import_files(layout: str, source: str, images: str | None, out: str | None, strict: bool = False) -> ImportReport:
    """Read a file of another tool in the format `layout`, and write the folder `out`; see `importing.import_with`.

    Raises `InputError` for an unknown format, too.
    """
    reader = find_part(READERS, GROUP, layout, Reader)
    if reader is None:
        names = [name for name in part_names(READERS, GROUP) if name not in DATA_SETS]
        raise InputError(f"--layout {layout}: not one of {', '.join(names)}. Name one, or install its package.")
    if reader.questions is None and reader.conversations is None:
        raise InputError(f"--layout {layout}: is a data set, not a file format. Give --data {layout}:...")
    return import_with(reader, layout, source, images, out, strict)


def data_help(prefix: str = "") -> str:
    """The data sets of the table for `--help`, one a line."""
    return "\n".join([*([prefix] if prefix else []), *(f"{listed.help}." for listed in DATA_SETS.values())])


def layout_help() -> str:
    """The file formats of the table for `--help`, one a line."""
    return "\n".join(f"{name}: {listed.help}." for name, listed in FILE_FORMATS.items())


def _import_command(layout: str) -> str:
    return f"`linkcontext data FILE --layout {layout} --out DIR`, and give --data DIR"

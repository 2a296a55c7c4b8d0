"""Types of flags that carry the word by which `--help` and messages name a value: FILE, FOLDER, MODEL, N.

The help text of an optional flag says what happens without it, so `--help` adds no "(default: None)".
"""

from typing import Annotated

import tyro

WITHOUT_DEFAULT = tyro.conf.arg(help_behavior_hint="")

File = Annotated[str, tyro.conf.arg(metavar="FILE")]
Folder = Annotated[str, tyro.conf.arg(metavar="FOLDER")]
PackPath = Annotated[str, tyro.conf.arg(metavar="PACK")]
ModelName = Annotated[str, tyro.conf.arg(metavar="MODEL")]
ScaffoldName = Annotated[str, tyro.conf.arg(metavar="SCAFFOLD")]
NameList = Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...", help_behavior_hint="")]

OptionalFile = Annotated[str | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")]
OptionalFolder = Annotated[str | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")]
OptionalPack = Annotated[str | None, tyro.conf.arg(metavar="PACK", help_behavior_hint="")]
OptionalModel = Annotated[str | None, tyro.conf.arg(metavar="MODEL", help_behavior_hint="")]
OptionalData = Annotated[str | None, tyro.conf.arg(metavar="DATA", help_behavior_hint="")]
OptionalName = Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")]
OptionalText = Annotated[str | None, tyro.conf.arg(metavar="TEXT", help_behavior_hint="")]
OptionalJson = Annotated[str | None, tyro.conf.arg(metavar="JSON", help_behavior_hint="")]
OptionalCount = Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")]
# Pictures shown per class: the same flag in every command, with a short form.
ShotsPerClass = Annotated[tuple[int, ...], tyro.conf.arg(name="shots-per-class", aliases=("--shots",), metavar="K ...")]
OptionalShots = Annotated[
    int | None, tyro.conf.arg(name="shots-per-class", aliases=("--shots",), metavar="K", help_behavior_hint="")
]
OptionalNumber = Annotated[float | None, tyro.conf.arg(metavar="NUMBER", help_behavior_hint="")]

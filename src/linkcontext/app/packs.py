"""Packs of the web page: what a visitor has taught is saved, and opened again."""

import dataclasses
from pathlib import Path

from linkcontext.app.session import Session
from linkcontext.errors import InputError
from linkcontext.scoring.protocol import require
from linkcontext.teach.dialogue import Dialogue
from linkcontext.teach.lesson_notes import count_pictures
from linkcontext.teach.pack import read_pack
from linkcontext.teach.pack_writing import write_pack


def save_pack(session: Session) -> Path:
    """Write a pack of everything taught; returns its path."""
    if len(session.dialogue.learner.pictures.names) < 2:
        raise InputError("teach at least two names before you make a pack: with one there is nothing to choose.")
    path = session.folder / "taught.pack"
    with session.stored.errors_as_sent():
        write_pack(session.dialogue.learner, path)
    return path


def open_pack(session: Session, file: Path) -> list[str]:
    """Start over with a pack that was written here for this model. The files of its pictures are not opened."""
    with session.stored.errors_as_sent(file):
        pack = read_pack(file)
        if not pack.sealed:
            raise InputError(
                f"{file}: was not written by this page's user on this machine. Teach its pictures here instead."
            )
        require(session.model, "token ids", "opening a pack")
        if pack.header.model.identity != session.model.loaded.identity:
            raise InputError(
                f"{file}: was made for the model {pack.model}, but this page uses {session.model.card.name}. Teach the "
                "pictures here, or start the page with --model."
            )
        paths = {item: str(session.folder / item) for item in pack.header.paths}  # there are no such files
        header = dataclasses.replace(pack.header, paths=paths)
        dialogue = Dialogue(dataclasses.replace(pack, header=header).learner(session.model))
        dialogue.tokens()  # raises an error now if the pack does not fit the context
    session.restart()
    session.dialogue = dialogue
    session.head = dialogue.learner.head
    return [f"{name}: {count_pictures(dialogue.learner, name)}." for name in dialogue.learner.pictures.names]

"""Open the model of a configuration: load it on this machine, or connect to its server."""

import dataclasses

from linkcontext.config import ModelConfig, flags
from linkcontext.errors import InputError
from linkcontext.models.loading import load_model
from linkcontext.models.model import Model
from linkcontext.models.prompting import USUAL_PROMPTING
from linkcontext.scoring.connection import PREFIX, connect
from linkcontext.scoring.local import LocalModel
from linkcontext.scoring.protocol import ScoringModel
from linkcontext.scoring.remote import RemoteModel


def load_local(c: ModelConfig, download: bool = True) -> Model:
    """Load the model of a configuration on this machine; without `download`, only from local files."""
    return load_model(
        c.model,
        c.dtype,
        c.device,
        c.adapter,
        c.trust_remote_code,
        c.load_in_4bit,
        download,
        c.prompting,
        c.pictures,
    )


def open_model(c: ModelConfig) -> ScoringModel:
    """The model of a configuration, local or behind a server, without pictures.

    Raises `InputError` for loading options of a model behind a server.
    """
    if not c.model.startswith(PREFIX):
        return LocalModel(load_local(c))
    taken = {**dataclasses.asdict(c.prompting), **dataclasses.asdict(c.pictures)}
    if idle := flags(c, ModelConfig(c.model, **taken)):
        raise InputError(f"{', '.join(idle)}: the server of {c.model} has loaded its model already. Leave it out.")
    return RemoteModel(connect(c.model, c.prompting, c.pictures))


def with_prompting(model: ScoringModel, c: ModelConfig) -> ScoringModel:
    """The model with the prompting options of a configuration; if they are the defaults it keeps its own."""
    return model if c.prompting == USUAL_PROMPTING else model.clone(c.prompting)

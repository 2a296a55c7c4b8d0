"""The model that a configuration names: loaded on this machine, or behind a server."""

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
    """The model of a configuration, loaded here; without `download` from this machine alone."""
    return load_model(c.model, c.dtype, c.device, c.adapter, c.trust_remote_code, c.load_in_4bit, download, c.prompting)


def open_model(c: ModelConfig) -> ScoringModel:
    """The model of a configuration, loaded here or behind a server, without pictures yet."""
    if not c.model.startswith(PREFIX):
        return LocalModel(load_local(c))
    if idle := flags(c, ModelConfig(c.model, **dataclasses.asdict(c.prompting))):
        raise InputError(f"{', '.join(idle)}: the server of {c.model} has loaded its model already. Leave it out.")
    return RemoteModel(connect(c.model, c.prompting))


def with_prompting(model: ScoringModel, c: ModelConfig) -> ScoringModel:
    """A loaded model, prompted as the configuration says; with the default options it keeps its own."""
    return model if c.prompting == USUAL_PROMPTING else model.clone(c.prompting)

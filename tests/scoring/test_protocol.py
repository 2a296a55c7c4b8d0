"""What commands ask of a model, both kinds of model have, with the same parameters."""

import inspect
from types import SimpleNamespace

import pytest

from linkcontext.episodes.render import Tokens
from linkcontext.errors import InputError
from linkcontext.scoring.connection import ServerConnection
from linkcontext.scoring.local import LocalModel
from linkcontext.scoring.pictures import PromptPictures
from linkcontext.scoring.protocol import PictureAccess, Prompt, ScoringModel, require
from linkcontext.scoring.remote import PromptRecord, RemoteModel, RemotePictures
from linkcontext.scoring.replicas import Replicas

PAIRS = [
    (ScoringModel, LocalModel),
    (ScoringModel, RemoteModel),
    (PictureAccess, PromptPictures),
    (PictureAccess, RemotePictures),
    (Prompt, Tokens),
    (Prompt, PromptRecord),
]


def members(protocol):
    """The public members of a protocol by name: a function, or None for an attribute."""
    methods = {name: value if inspect.isfunction(value) else None for name, value in vars(protocol).items()}
    return {name: methods.get(name) for name in {*methods, *protocol.__annotations__} if not name.startswith("_")}


@pytest.mark.parametrize(("protocol", "implementation"), PAIRS)
def test_an_implementation_has_every_method_with_the_same_parameters(protocol, implementation):
    methods = {name: method for name, method in members(protocol).items() if method is not None}
    assert methods
    for name, method in methods.items():
        wanted = list(inspect.signature(method).parameters.values())
        given = list(inspect.signature(inspect.getattr_static(implementation, name)).parameters.values())
        described = [(p.name, p.kind, p.default) for p in wanted]
        assert [(p.name, p.kind, p.default) for p in given[: len(wanted)]] == described, name
        assert all(p.default is not p.empty for p in given[len(wanted) :]), name  # what is its own may be left out


@pytest.fixture
def both(nano_model):
    """A model of each kind. No server is asked before a prompt is sent."""
    return LocalModel(nano_model), RemoteModel(ServerConnection("openai:http://h/v1#one", "one", Replicas([])))


def test_both_kinds_of_model_have_every_attribute(both):
    attributes = {name for name, method in members(ScoringModel).items() if method is None}
    assert {"sources", "card", "pictures", "engine", "loaded"} == attributes
    for model in both:
        own = {*dir(type(model)), *vars(model)}
        assert attributes <= own
        assert set(members(PictureAccess)) <= set(dir(model.pictures))


def test_what_a_model_lacks_is_a_sentence_that_names_who_needs_it(both):
    here, far = both
    require(here, "token ids", "--explain")
    for capability in ("image features", "token ids", "shared prefixes"):
        assert here.lacks(capability) == ""
        reason = far.lacks(capability)
        with pytest.raises(InputError) as error:
            require(far, capability, "--explain")
        for part in ("--explain", capability, "openai:http://h/v1#one", reason):
            assert part in str(error.value)
    with pytest.raises(InputError, match="tokenizer and weights are with the server"):
        _ = far.loaded
    with pytest.raises(InputError, match="every prompt is sent whole"):
        far.prefix_tree([])
    for use in (lambda: far.pictures.features(["a"]), lambda: far.pictures.pin("a", SimpleNamespace())):
        with pytest.raises(InputError, match="features of pictures"):
            use()


def test_the_reference_engine_lacks_what_only_trees_have(nano_model):
    whole = LocalModel(nano_model, requested="reference")
    for capability in ("image features", "shared prefixes"):
        with pytest.raises(InputError, match=rf"--select needs {capability}, .*runs whole prompts \(asked for\)"):
            require(whole, capability, "--select")
    for capability in ("token ids", "log-probabilities"):
        require(whole, capability, "--select")
    assert whole.prefill([]) is None
    with pytest.raises(InputError, match="there is no prefix tree"):
        whole.prefix_tree([])

"""Make learners of packs: restore what a pack computed, or teach a model again from the pack's pictures."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from PIL import Image
from torch import Tensor

from linkcontext.config import Loading
from linkcontext.data.images import Upload
from linkcontext.episodes.special_tokens import refuse_marks
from linkcontext.errors import InputError
from linkcontext.evaluation.open_model import load_local, open_model
from linkcontext.evaluation.picture_vectors import own_vectors
from linkcontext.inference.image_features import ImageFeatures
from linkcontext.models.synthetic_images import CHECKED
from linkcontext.records import Turn
from linkcontext.scoring.local import LocalModel, scoring_model
from linkcontext.scoring.protocol import ScoringModel
from linkcontext.teach.augmentation import augmented
from linkcontext.teach.encoder import PictureEncoder
from linkcontext.teach.learner import Learner
from linkcontext.teach.pack import Pack, damaged_pack, read_pack
from linkcontext.teach.pack_header import Header
from linkcontext.teach.pack_tensors import check_features, check_vectors, features_of, prefix_of
from linkcontext.teach.support import Shown, interleave
from linkcontext.teach.taught_pictures import TaughtPictures


def learner_of_pack(pack: Pack, model: ScoringModel, encoder: PictureEncoder | None = None) -> Learner:
    """A learner of `model` with everything a pack taught; see `Pack.learner`."""
    model = scoring_model(model)
    for name in pack.concepts:
        refuse_marks(name, model.card.special_tokens, f"{pack.path}: the name {name!r}")
    header = pack.header
    learner = _empty_learner(pack, model, encoder)
    features = features_of(pack.tensors, header.items)
    vectors = features_of(pack.tensors, header.items, "vector")
    is_here = not model.lacks("token ids")
    same = is_here and pack.trusted and header.model.identity == model.loaded.identity and all(features.values())
    same = same and (learner.encoder and learner.encoder.identity) == (header.encoder and header.encoder.identity)
    if not same or learner.model.lacks("image features"):
        shown = None if is_here else _shown(pack)
        paths = pack.existing_pictures(model.card.name)
        learner.teach({name: [paths[item] for item in items] for name, items in pack.concepts.items()})
        if shown is not None and learner.select != "rices":
            learner.computed.restore(learner.pictures.key, support=shown, shown=_shown_to_server(pack, shown, learner))
        return learner
    if not pack.sealed:
        _check_features(pack, features, vectors, learner)
    learner.pictures = TaughtPictures(
        pack.concepts,
        {item: pack.paths.get(item) or Upload(f"picture {item[:12]}, taught without a file", b"") for item in features},
        dict(header.pixels),
        pack.thumbnails,
        {item: ImageFeatures.from_tensors(rows, model.loaded.device) for item, rows in features.items()},
        dict(vectors),
    )
    if pack.sealed:
        learner.computed.restore(
            learner.pictures.key,
            support=[Turn(item, name, name) for item, name in header.rounds],
            shown=_shown_to_all(header) if learner.select != "rices" else None,
            prefix=prefix_of(pack.tensors, header.held, model.loaded),
            name_bias=[*header.leaning] or None,
            **{f"head {learner.head}": header.head.choice()},
        )
    return learner


def _empty_learner(pack: Pack, model: ScoringModel, encoder: PictureEncoder | None) -> Learner:
    """A learner with the settings of the pack, without its pictures."""
    header = pack.header
    return Learner(
        model,
        pack.scaffold,
        shots_per_class=header.shots_per_class,
        select=header.select,
        head=pack.head,
        encoder=pack.encoder(encoder),
        augment=header.augment,
        point=header.goal,
    )


def _shown(pack: Pack) -> list[Turn]:
    """The pictures that the pack shows. Raises `InputError` if an untrusted pack chose some of them."""
    turns = [Turn(item, name, name) for item, name in pack.header.rounds]
    every = interleave(pack.header.concepts)
    if pack.trusted or turns in (every, [*dict.fromkeys(every)]):  # earlier packs show no picture twice
        return turns
    raise InputError(
        f"{pack.path}: shows only some of its pictures, chosen by another user or on another machine. Use "
        "--trust-pack (in Python, trust=True) if you trust its author, or teach its pictures again."
    )


def _shown_to_server(pack: Pack, support: list[Turn], learner: Learner) -> Shown:
    """What a model behind a server is shown of a pack.

    Raises `InputError` where not one picture of each name fits, and there are no vectors by which to compare pictures.
    """
    counts = Counter(turn.answer for turn in support)
    if len(counts) == len(pack.concepts):
        return Shown(max(counts.values()))
    if learner.pictures.kinds:
        return Shown(0, len(support), among_shown=True)
    raise InputError(
        f"{pack.path}: its {len(pack.concepts):,} names do not fit one prompt, and a model behind a server cannot find "
        "the pictures most similar to a query. Use a model on this machine, or teach fewer names."
    )


def _shown_to_all(header: Header) -> Shown | None:
    """How much a pack shows where all queries have the same support; None where that is not known.

    Only then has it a prefix or biases of names, which go with this support and no other.
    """
    if header.held or any(header.leaning):
        return Shown(max(Counter(name for _, name in header.rounds).values()))
    return None


def _check_features(
    pack: Pack,
    features: Mapping[str, Mapping[str, Tensor]],
    vectors: Mapping[str, Mapping[str, Tensor]],
    learner: Learner,
) -> None:
    """Raise `InputError` if the features or vectors of a trusted pack cannot be the model's."""
    (other,), model = learner.model.pictures.features([CHECKED[0]]), learner.model.loaded
    vocabulary = model.network.get_input_embeddings().weight.shape[0]
    for item, rows in features.items():
        if wrong := check_features(rows, other, vocabulary, model.context):
            raise damaged_pack(pack.path, f"the features of {item[:12]}: {wrong}")
    grey = Image.new("RGB", (64, 64), "grey")
    query = own_vectors([other]) | ({"encoder": learner.encoder.encode([grey])} if learner.encoder else {})
    if wrong := check_vectors(vectors, query, len(augmented(grey, learner.augment))):
        raise damaged_pack(pack.path, wrong)


def model_of(pack: Pack, named: str | None, loading: Loading) -> ScoringModel:
    """The model that a user names, else the pack's own, which is neither behind a server nor downloaded."""
    if named is not None:
        return open_model(loading.of(named))
    if loading.trust_remote_code:
        raise InputError("--trust-remote-code: a pack never decides whose code is run. Name the model with --model.")
    return LocalModel(load_local(loading.of(pack.local_model()), download=False))


def load_learner(
    path: str | Path | Pack, model: str | Path | ScoringModel | None, loading: Loading, trust_pack: bool
) -> Learner:
    """The learner of a pack; see `Learner.load`."""
    pack = path if isinstance(path, Pack) else read_pack(Path(path), trust_pack)
    if model is None or isinstance(model, str | Path):
        return pack.learner(model_of(pack, None if model is None else str(model), loading))
    if loading != Loading():
        raise InputError(f"dtype, device: the model {model.card.name} is loaded already. Leave them out.")
    return pack.learner(model)

"""Teach a model names by showing pictures of them, then ask it about other pictures. The weights do not change."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, overload

import torch

from linkcontext.config import Augmentation, Dtype, HeadName, Loading, Select
from linkcontext.data.manifest import Dataset
from linkcontext.episodes.scaffold import SCAFFOLDS, Scaffold, build_messages, refuse_scaffold
from linkcontext.errors import InputError
from linkcontext.evaluation.head_choice import HeadChoice
from linkcontext.evaluation.picture_vectors import PictureVectors
from linkcontext.inference.image_features import ImageFeatures
from linkcontext.inference.kv_cache import PrefixCache
from linkcontext.inference.vision import BATCH, chunks
from linkcontext.models.loading import device_named
from linkcontext.models.synthetic_images import CHECKED
from linkcontext.progress import progress
from linkcontext.python_words import check_option, in_python_words
from linkcontext.records import Turn
from linkcontext.scoring.local import scoring_model
from linkcontext.scoring.protocol import ScoringModel
from linkcontext.teach.answer import Answer
from linkcontext.teach.asking import answers, replies
from linkcontext.teach.class_pictures import lesson
from linkcontext.teach.computed import Computed
from linkcontext.teach.encoder import PictureEncoder
from linkcontext.teach.given_pictures import Picture, Source, is_single, picture_source, picture_sources, small_picture
from linkcontext.teach.names import checked_name, checked_names
from linkcontext.teach.naming import chosen_head, mean_log_probabilities
from linkcontext.teach.notebook import taught_html
from linkcontext.teach.rejection import OperatingPoint, RejectionThreshold, rejection_curve
from linkcontext.teach.support import Support, most_similar, retrieves, shown_pictures, shown_support
from linkcontext.teach.taught_pictures import TaughtPictures
from linkcontext.teach.vectoriser import PictureVectoriser, query_vectors

if TYPE_CHECKING:
    from linkcontext.teach.pack import Pack


@dataclass
class Learner:
    """A model and the pictures it was taught. Its weights do not change: the pictures are shown in its prompts, or a
    classifier on its image features is fitted to them.

    `model` is a `LocalModel` or a `RemoteModel`; the learner binds it to its pictures.

    All pictures are shown, or as many of each name as fit the context. `shots_per_class` shows fewer, which `select`
    chooses: "medoid" the most representative ones, "random" a random sample, "rices" those most similar to the query.

    `head` is what names a picture: "lm", the language model; "centroid", "knn", "linear" or "tabicl", a classifier on
    image features; "mix", the language model and three of these together; "auto", the best of them on
    taught pictures that are left out in turn. It concerns names alone: replies are always the language model's.

    `encoder` is another vision encoder, whose vectors heads and similarities may use; `augment` adds changed copies of
    each taught picture for the classifiers; `point` says what "none of these" is to accept or to reject.

    >>> learner = linkcontext.load("mini")  # doctest: +SKIP
    >>> learner.teach({"cactihog": ["a.png", "b.png"], "plimbo": ["c.png", "d.png"]})  # doctest: +SKIP
    >>> learner.ask("e.png").name  # doctest: +SKIP
    'cactihog'
    """

    model: ScoringModel
    scaffold: Scaffold = field(default_factory=lambda: SCAFFOLDS["turns"], repr=False)
    pictures: TaughtPictures = field(default_factory=TaughtPictures)
    shots_per_class: int | None = None
    select: Select = "medoid"
    head: HeadName = "auto"
    encoder: PictureEncoder | None = None
    augment: tuple[Augmentation, ...] = ()
    point: OperatingPoint = field(default_factory=OperatingPoint)
    computed: Computed = field(default_factory=Computed, init=False, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.model, str | Path):
            raise InputError(f"a learner needs a loaded model, as linkcontext.load({str(self.model)!r}) returns it.")
        check_option("select", self.select, Select)
        check_option("head", self.head, HeadName)
        if self.shots_per_class is not None and self.shots_per_class < 1:
            raise InputError(f"shots_per_class {self.shots_per_class} (--shots-per-class): must be at least 1.")
        if self.select == "rices" and self.shots_per_class is None:
            raise InputError(
                "select rices (--select) needs shots_per_class (--shots-per-class), the number of pictures per name."
            )
        self.model = scoring_model(self.model).with_pictures({}, keep_features=False)
        refuse_scaffold(self.scaffold, self.model.card.special_tokens)

    def teach(
        self,
        named: Mapping[str, Picture | Iterable[Picture]] | str | Path | Dataset,
        pictures: Picture | Iterable[Picture] | None = None,
    ) -> None:
        """Show pictures under their names: {"cactihog": ["a.png", "b.png"]}, or "cactihog" and ["a.png", "b.png"].

        Names taught before get more pictures.

        A picture is a path, a PIL image, a NumPy array, a torch tensor, or the bytes of a file; a name has one, a list
        of them, or a folder of pictures. Instead of names with pictures, `named` can be a folder with one folder of
        pictures for each name, or another data set that `open_data` takes or returns.

        A picture that was taught under another name moves to the new one, and a name that has none left is forgotten.
        Raises `InputError`, and teaches nothing,
        for a name without pictures or of more than 100 letters, two names that differ only in case, a picture under
        two names, and a picture that cannot be read.
        """
        named = lesson(named, pictures, self.model)
        files = self.pictures.identify(checked_names(named, self.pictures.names, self.model.card.special_tokens))
        self.pictures.register(self.model)
        # Files may have moved since they were taught: read them where they are now.
        self.model.sources |= {picture: (picture, file.path) for picture, file in files.items()}
        new = [picture for picture in files if picture not in self.pictures.thumbnails]
        thumbnails: dict[str, bytes] = {}
        features: dict[str, ImageFeatures] = {}
        vectors: dict[str, PictureVectors] = {}
        vectoriser = PictureVectoriser(self.model, self.encoder, self.augment)
        with progress("Reading pictures", len(new)) as advance:
            for chunk in chunks(new, BATCH):
                thumbnails |= {picture: small_picture(files[picture].path) for picture in chunk}
                if not self.model.lacks("image features"):
                    features |= zip(chunk, self.model.pictures.features(chunk), strict=True)
                vectors |= zip(chunk, vectoriser.of_taught(chunk), strict=True)
                for _ in chunk:
                    advance()
        self.pictures.thumbnails |= thumbnails
        self.pictures.features |= features
        self.pictures.vectors |= {picture: own for picture, own in vectors.items() if own}
        self.pictures.add(files)

    def save(self, path: str | Path) -> None:
        """Write what was taught to a pack, which `load` and `Pack.open` read; a file that exists is replaced.

        Raises `InputError` for fewer than two names, and for a model behind a server.
        """
        from linkcontext.teach.pack_writing import write_pack  # noqa: PLC0415 - packs make learners

        write_pack(self, Path(path))

    @classmethod
    @in_python_words
    def load(
        cls,
        path: "str | Path | Pack",
        *,
        model: "str | Path | Learner | ScoringModel | None" = None,
        dtype: Dtype = "auto",
        device: str | None = None,
        trust_pack: bool = False,
    ) -> "Learner":
        """Load what `save` wrote, with its model: the learner answers as the one that was saved.

        Args:
            path: The pack: its file, or a pack that is open.
            model: A model's name, a loaded model, or a learner whose model is used. Default: the model that was
                taught, if it is on this machine; none is downloaded.
            dtype: The weights' type, as in `linkcontext.load`. Another one than before makes it another model.
            device: cpu, cuda, cuda:1, ...; by default the GPU where there is one.
            trust_pack: Use the features in a pack that another user or machine wrote.

        Raises:
            InputError: There is no such pack or model, or another model has to be taught again and the pack's pictures
                are gone.
        """
        from linkcontext.teach.pack_learner import load_learner  # noqa: PLC0415 - packs make learners

        given = model.model if isinstance(model, Learner) else model
        return load_learner(path, given, Loading(dtype=dtype, device=device), trust_pack)

    @in_python_words
    def to(self, device: str | torch.device) -> "Learner":
        """Move the model, and the features of what was taught, to a device, and return the learner.

        Other learners of the same model share its weights, and have to be moved too. Raises `InputError` if there is no
        such device, and for a model behind a server.
        """
        place = device_named(str(device))
        self.model.loaded.network.to(place)
        if self.encoder is not None:
            self.encoder.network.to(place)
        self.model = self.model.with_pictures({}, keep_features=False)
        features = self.pictures.features.items()
        self.pictures.features = {item: ImageFeatures.from_tensors(own.to_tensors(), place) for item, own in features}
        self.computed = Computed()
        return self

    def _repr_html_(self) -> str:
        """The taught pictures, for a notebook."""
        small = self.pictures.thumbnails
        by_name = {name: [small[item] for item in own] for name, own in self.pictures.by_name.items()}
        return taught_html(f"Learner of {self.model.card.name}", by_name, [] if by_name else ["Nothing is taught yet."])

    def forget(self, name: str) -> None:
        """Remove a name and its pictures. Raises `InputError` if the name was not taught."""
        self.pictures.forget(name)

    def rename(self, old: str, new: str) -> None:
        """Give a taught name another name; one that is taught, too, then has the pictures of both.

        Raises `InputError` as `teach` and `forget` do.
        """
        pictures, old = self.pictures, self.pictures.taught_name(old)
        others = [name for name in pictures.names if name != old]
        pictures.rename(old, pictures.known_name(new) or checked_name(new, others, self.model.card.special_tokens))

    @overload  # a str is also an Iterable[str]; the first signature that fits is used
    def ask(self, picture: Picture) -> Answer: ...  # type: ignore[overload-overlap]
    @overload
    def ask(self, picture: Iterable[Picture]) -> list[Answer]: ...

    def ask(self, picture: Picture | Iterable[Picture]) -> Answer | list[Answer]:
        """Name a picture, or each picture of a list. Pictures are given as in `teach`; a list may name folders.

        A picture that was taught, in this or another file, gets the name it was taught under. For any other the head
        (`choose_head`) gives every taught name a probability. Where it is the language model, scores are corrected by
        `estimate_name_bias`; the support is run once and its KV cache kept, so each further question costs only its
        own tokens. Where a server gives no log-probabilities, its reply is matched with the names, and the matched
        name has probability 1.

        Raises `InputError` for a picture that cannot be read, if fewer than two names were taught, and for a reply
        with none of the names or several.
        """
        if is_single(picture):
            return answers(self, [picture_source(picture)])[0]
        return answers(self, picture_sources(picture))

    def choose_head(self) -> HeadChoice:
        """What names pictures, with how often it is right on taught pictures that were left out.

        Raises `InputError` for a head that the model cannot have.
        """
        return self.computed.once(self.pictures.key, f"head {self.head}", lambda: chosen_head(self))

    @overload
    def say(  # type: ignore[overload-overlap] # as in `ask`
        self,
        picture: Picture,
        question: str = "",
        new_tokens: int | None = None,
        history: Sequence[Turn] = (),
        with_support: bool = True,
    ) -> str: ...
    @overload
    def say(
        self,
        picture: Iterable[Picture],
        question: str = "",
        new_tokens: int | None = None,
        history: Sequence[Turn] = (),
        with_support: bool = True,
    ) -> list[str]: ...

    def say(
        self,
        picture: Picture | Iterable[Picture],
        question: str = "",
        new_tokens: int | None = None,
        history: Sequence[Turn] = (),
        with_support: bool = True,
    ) -> str | list[str]:
        """Generate a reply about a picture, or about each picture of a list.

        It follows the support (if `with_support`) and the turns of `history`, and has at most `new_tokens` tokens.
        """
        if is_single(picture):
            return replies(self, [picture_source(picture)], question, new_tokens, history, with_support)[0]
        return replies(self, picture_sources(picture), question, new_tokens, history, with_support)

    def prompt_length(
        self, query: Turn | None = None, history: Sequence[Turn] = (), with_support: bool = True
    ) -> int | None:
        """The number of tokens of support, history and query together, whether or not they fit the context.

        None for a model behind a server.
        """
        self.pictures.register(self.model)
        own = with_support and query is not None and query.item and retrieves(self)
        support = self.similar_support(query.item) if own and query else self.choose_support() if with_support else []
        turns = [*support, *history]
        return self.model.length(build_messages(turns, self.scaffold, query)) if turns or query else 0

    def query(self, picture: Picture | Source, question: str = "") -> Turn:
        """A query turn about a picture, which the model can read from now on."""
        source = picture_source(picture)
        item = self.pictures.id_of(source)
        self.model.sources[item] = item, source
        return Turn(item, "", "", question)

    def support_for(self, query: Turn) -> Support:
        """The support that precedes a query: with `select="rices"`, and where the context has no room for one picture
        of every name, one of its own; otherwise the same for all."""
        if retrieves(self):
            return Support(self.similar_support(query.item))
        return Support(self.choose_support(), self.prefill_support())

    def choose_support(self) -> list[Turn]:
        """Choose the pictures to show, one of each name at a time: `shots_per_class` of each, or as many as fit."""
        self.pictures.register(self.model)
        return self.computed.once(self.pictures.key, "support", lambda: shown_support(self))

    def prefill_support(self) -> PrefixCache | None:
        """Run the support and return its KV cache; None where no prefix is shared, where each query has a
        support of its own, and if nothing was taught."""

        def prefill() -> PrefixCache | None:
            turns = [] if retrieves(self) else self.choose_support()
            # The common prefix of two prompts with different query pictures is the support.
            prompts = [build_messages(turns, self.scaffold, Turn(item, "", "")) for item in CHECKED]
            return self.model.prefill(prompts) if turns else None

        return self.computed.once(self.pictures.key, "prefix", prefill)

    def estimate_name_bias(self) -> list[float]:
        """Estimate how much the model prefers each name whatever the picture shows, in nats. Long names have low ones.

        The bias of a name is its mean log-probability over the pictures of a support that shows each name equally
        often (batch calibration, arXiv 2309.17249). With `select="rices"` each of them gets a support of its own,
        without itself. The bias is 0 for unbalanced supports, and on the reference engine, where it would cost as many
        whole prompts as there are pictures.
        """
        return self.computed.once(self.pictures.key, "name_bias", lambda: mean_log_probabilities(self))

    def estimate_rejection_threshold(self) -> RejectionThreshold | None:
        """Estimate the similarity below which a picture is "none of these", from the taught pictures alone."""
        curve = self.rejection_curve()
        return self.point.choose(curve) if curve else None

    def rejection_curve(self) -> list[RejectionThreshold]:
        """Every threshold of "none of these" with what it accepts and rejects; empty for too few pictures."""
        return self.computed.once(self.pictures.key, "rejection_curve", lambda: rejection_curve(self.pictures))

    def similar_support(self, picture: str, without_itself: bool = False) -> list[Turn]:
        """As many pictures as a support has otherwise, the most similar to a picture, whatever their names."""
        if not self.pictures.kinds:
            raise InputError("select rices: this model's engine computes no image features. Select random instead.")
        self.pictures.register(self.model)
        (query,) = query_vectors(self, [picture])
        return most_similar(self.pictures, query, shown_pictures(self).retrieved, picture if without_itself else None)

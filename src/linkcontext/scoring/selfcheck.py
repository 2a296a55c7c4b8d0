"""Before a model's first tree a small one is compared with the reference engine. A model that fails gets that engine.

A forward pass can take a mask, positions or a cache and ignore them without an error, so this is tried and not assumed.
Compared are scores, with whole trees and in several passes; then greedy replies; then scores on a prefilled prefix. A
sliding window longer than the small prompts is narrowed for the comparison, so that something lies outside of it.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel

from linkcontext.episodes.scaffold import SCAFFOLDS, Message, build_messages
from linkcontext.errors import InputError
from linkcontext.inference.decoding import TreeEngine, adjusted, decode_greedy, dense_attention, logits_processors
from linkcontext.inference.engine import MIN_TOKENS, Engine
from linkcontext.inference.forward import TreeInputs
from linkcontext.inference.kv_cache import PrefixCache, prefix_key
from linkcontext.inference.losses import tree_losses
from linkcontext.inference.state_cache import StateEngine
from linkcontext.models.families import attention_kinds, decoder_of, setting
from linkcontext.models.synthetic_images import CHECKED, synthetic_image
from linkcontext.records import Turn
from linkcontext.scoring.reference import ReferenceEngine
from linkcontext.scoring.trees import TreeBuilder

# Rounding: what a sum of log-probabilities may differ by between two orders of the same operations.
TOLERANCE, HALF_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}, 0.3
Shapes = Sequence[tuple[int | None, int | None]]
SHAPES: Shapes = (
    (None, None),
    (2 * MIN_TOKENS, None),
)  # room and width of a pass: the whole tree in one, and in several
COPIES = 1e9  # bytes of caches side by side, where the whole tree is run in one pass
NEW_TOKENS = 3  # of the replies that are compared
WINDOW = 12  # tokens: the first picture of the small prompts is outside of it


@dataclass
class SelfCheck:
    """Compares trees with the reference engine on small prompts with two drawn pictures."""

    trees: TreeBuilder
    reference: ReferenceEngine

    @property
    def network(self) -> PreTrainedModel:
        """The network that is checked."""
        return self.reference.loaded.network

    def failure(self, shapes: Shapes = SHAPES, learns: bool = False, own_cache: bool = False) -> str | None:
        """Why trees do not give what the reference engine gives, or None.

        `shapes` are the rooms and widths to try; with `learns` a backward pass is tried too, and its gradients are
        compared if branches have a width. With `own_cache` the engine is the one that copies the model's own cache, in
        which rooms alone matter.
        """
        try:
            with narrow_window(self.network):
                return self._failure(shapes, learns, own_cache)
        except (InputError, RuntimeError, TypeError, ValueError, AttributeError, LookupError, ImportError) as error:
            # Whatever a foreign network or a changed library raises, the reference engine can still serve the model.
            message = str(error).strip() or type(error).__name__
            return f"a small tree could not be run ({message.splitlines()[0]})"

    def _failure(self, shapes: Shapes, learns: bool, own_cache: bool) -> str | None:
        if not (worst := self._together()) <= self._tolerance:
            return f"its vision tower mixes images that are encoded together (features are off by {worst:.2g})"
        whole = self.trees.merge(self._answers, "last")
        engines: list[TreeEngine] = [
            StateEngine(self.network, room or len(whole.tree), 0 if room else COPIES)
            if own_cache
            else Engine(self.network, room or len(whole.tree), width)
            for room, width in shapes
        ]
        worst = self._difference(engines, whole, self._scores)
        if not worst <= self._tolerance:
            return f"its forward does not follow masks or positions (a small tree is off by {worst:.2g})"
        if not (worst := self._generation(engines[-1])) <= self._tolerance:
            return f"replies come out differently on a tree (logits are off by {worst:.2g})"
        if not (worst := self._prefilled(engines[-1])) <= self._tolerance:
            return f"a prefilled prefix changes scores (a small tree is off by {worst:.2g})"
        if learns:
            plain = self._gradient(whole, cascade=False)
            if any(width for _, width in shapes):
                worst = float((self._gradient(whole, cascade=True) - plain).abs().max() / plain.abs().max())
                if not worst <= self._tolerance:
                    return f"gradients come out differently (a small tree's are off by {worst:.2g} of the largest)"
        return None

    @property
    def _tolerance(self) -> float:
        return TOLERANCE.get(self.network.dtype, HALF_TOLERANCE)

    @cached_property
    def _answers(self) -> list[list[Message]]:
        """Conversations with no and with two turns of support, for two queries and two answers each."""
        turns = [Turn(CHECKED[0], "", "lum"), Turn(CHECKED[1], "", "dax")]
        return [
            build_messages(turns[:k], SCAFFOLDS["turns"], Turn(item, "", ""), name)
            for k in (0, 2)
            for item in CHECKED
            for name in ("dax", "lum a")
        ]

    @cached_property
    def _scores(self) -> list[float]:
        """The reference engine's scores. Raises `InputError` if the processor spells several pictures differently."""
        text, short = self.reference.encoder.encode(self._answers[-1], "last")
        if self.trees.expand(short).ids.tolist() != self.reference.token_ids(text, short):
            raise InputError("its processor writes a picture in other tokens when there are several")
        return [value for value, _ in self.reference.score(self._answers)]

    @torch.inference_mode()
    def _together(self) -> float:
        """The largest difference of a feature of an image that is encoded beside another one of its shape."""
        image = synthetic_image(CHECKED[0])
        other = image.transpose(Image.Transpose.ROTATE_180)
        beside, alone = (self.trees.pictures.eyes.encode_images(images)[0] for images in ([image, other], [image]))
        return float((beside.embeddings - alone.embeddings).abs().max())

    def _difference(self, engines: Sequence[TreeEngine], inputs: TreeInputs, scores: Sequence[float]) -> float:
        """The largest difference of a score. NaN if any is NaN, which Python's `max` would overlook."""
        return float(np.max([np.abs(np.subtract(engine.scores(inputs), scores)) for engine in engines]))

    def _generation(self, engine: TreeEngine) -> float:
        """The largest difference of a reply token's log-probability, up to where two replies part by a near tie."""
        model = self.reference.loaded
        prompts = [messages[:-1] for messages in self._answers[len(self._answers) // 2 :: 2]]
        settings = {"suppress_tokens": model.ends}  # so that there are tokens to compare
        on_tree, whole = _Replies(), _Replies()

        def shape(line: int, ids: list[int], logits: Tensor) -> Tensor:
            processors = logits_processors(settings, model.ends, len(ids), model.device)
            return adjusted(processors, torch.tensor(ids, device=model.device), logits)

        with dense_attention(self.network):  # as every reply on a tree; FlexAttention would compile for each new length
            decode_greedy(engine, self.trees.merge(prompts, "none"), NEW_TOKENS, model.ends, on_tree.add, shape)
            self.reference.generate(prompts, NEW_TOKENS, on_token=whole.add, settings=settings)
        differences = [torch.zeros(())]
        for line in on_tree.logprobs:
            for (token, a), (other, b) in zip(on_tree.logprobs[line], whole.logprobs[line], strict=True):
                differences += [(a[token] - b[token]).abs().cpu(), (a[other] - b[other]).abs().cpu()]
                if token != other:
                    break
        return float(torch.stack(differences).max())

    def _prefilled(self, engine: TreeEngine) -> float:
        """The largest difference of a score where the support is computed first."""
        answers = self._answers[len(self._answers) // 2 :]
        inputs = self.trees.merge(answers, "last")
        length = inputs.tree.shared_length
        cache = engine.prefill(inputs, length)
        held = PrefixCache(*prefix_key(inputs.tree, length, self.trees.pictures.contents), cache)
        scores = self._scores[len(self._scores) // 2 :]
        return self._difference([engine], self.trees.merge(answers, "last", held), scores)

    def _gradient(self, inputs: TreeInputs, cascade: bool) -> Tensor:
        """float[n]: the gradient of a norm of the first layer. Some kernels have no backward pass, and raise."""
        # A norm of the first layer is small, and the gradient passes all layers on its way there.
        first = next(p for p in decoder_of(self.network).layers[0].parameters() if p.ndim == 1)
        images = [replace(image, embeddings=image.embeddings.clone()) for image in inputs.images]
        losses = tree_losses(self.network, [TreeInputs(inputs.tree, images)], cascade)
        gradient: Tensor = torch.autograd.grad(losses.nats.sum(), [first])[0]
        return gradient


class _Replies:
    """The tokens of replies by prompt, each with the log-probabilities it was chosen by."""

    def __init__(self) -> None:
        self.logprobs: defaultdict[int, list[tuple[int, Tensor]]] = defaultdict(list)

    def add(self, line: int, token: int, logits: Tensor) -> bool:
        """Note a token; True, so that the reply goes on."""
        self.logprobs[line].append((token, logits.float().log_softmax(-1)))
        return True


@contextmanager
def narrow_window(network: PreTrainedModel) -> Iterator[None]:
    """Inside the block, layers with a sliding window or chunks see `WINDOW` tokens at most."""
    text, kinds = network.config.get_text_config(), attention_kinds(network)
    names = {"sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size"}
    usual = {name: setting(text, name) for kind, name in names.items() if kind in kinds}
    for name, value in usual.items():
        setattr(text, name, min(value, WINDOW))
    try:
        yield
    finally:
        for name, value in usual.items():
            setattr(text, name, value)

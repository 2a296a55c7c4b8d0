"""Forward passes of a network over prefix trees: embeddings, image features, masks, final states, logits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from linkcontext.inference.cascade_attention import cascade_attention
from linkcontext.inference.image_features import ImageFeatures
from linkcontext.inference.last_layer import last_states_of
from linkcontext.inference.masks import branch_mask, tree_mask
from linkcontext.inference.prefix_tree import Ints, PrefixTree, gather
from linkcontext.inference.schedule import ForwardPass
from linkcontext.models.calls import cache_argument
from linkcontext.models.families import Family, decoder_of, family_of, setting

if TYPE_CHECKING:
    from transformers import Cache


@dataclass(frozen=True, slots=True, eq=False)
class TreeInputs:
    """A prefix tree with the features of its images, by number.

    The keys and values of its first `cached` tokens are in `cache`, which holds nothing else before and after a run.
    """

    tree: PrefixTree
    images: Sequence[ImageFeatures]
    cache: "Cache | None" = None
    cached: int = 0


@dataclass(frozen=True)
class TreeForward:
    """Runs a network's language model on the tokens of forward passes.

    With `cascade`, passes of one row use cascade attention. With `continues`, each row is the continuation of what is
    in the cache, and the network makes the masks itself.
    """

    network: PreTrainedModel
    cascade: bool = False
    continues: bool = False

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return torch.device(self.network.device)

    @cached_property
    def family(self) -> Family:
        """What is known of the network's family."""
        return family_of(self.network.config)

    def hidden(
        self,
        rows: Sequence[tuple[TreeInputs, ForwardPass]],
        cache: "Cache | None",
        read: Sequence[NDArray[np.bool_]] | None = None,
    ) -> Tensor:
        """float[rows, longest pass, width]: the last layer's states of one pass of each row, padded on the right.

        A cache serves one row, or with `continues` as many as it has. What the pass computes is appended to it. `read`
        are for each row the tokens bool[T] whose states are read: those of others may be wrong.
        """
        length = max(len(run.tokens) for _, run in rows)
        padded = [np.append(run.tokens, np.full(length - len(run.tokens), -1)) for _, run in rows]
        trees = [inputs.tree for inputs, _ in rows]
        of_rows = list(zip(trees, padded, strict=True))
        ids = torch.from_numpy(np.stack([gather(tree.ids, tokens) for tree, tokens in of_rows]))
        positions = torch.from_numpy(np.stack([gather(tree.position, tokens) for tree, tokens in of_rows], 1))
        images = torch.from_numpy(np.stack([gather(tree.image, tokens, -1) for tree, tokens in of_rows]))
        embeds, more = self.embed(ids.to(self.device), (images >= 0).to(self.device))
        if self.family.cross_attention is not None:
            last = torch.from_numpy(np.stack([self.last_image(tree, tokens) for tree, tokens in of_rows]))
            more |= self.cross_attention([inputs for inputs, _ in rows], last.to(self.device))
        else:
            embeds, deepstack = self._insert_images(embeds, rows)
            more |= deepstack
        in_parts = self.cascade and len(rows) == 1
        if self.continues:
            masks: Any = None
        elif in_parts:
            masks = branch_mask(self.network, trees[0], rows[0][1])
        else:
            masks = tree_mask(self.network, [(tree, run) for tree, (_, run) in zip(trees, rows, strict=True)], length)
        needed = None
        if read is not None:
            places = np.stack([np.append(mine, False)[tokens] for mine, tokens in zip(read, padded, strict=True)])
            needed = torch.from_numpy(places).to(self.device)
        with cascade_attention(self.network, in_parts), last_states_of(self.network, needed):
            return self.decode(embeds, masks, positions.to(self.device), cache, more)

    def embed(self, ids: Tensor, in_image: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """The embeddings float[rows, n, width] of tokens int64[rows, n], and what else the decoder takes for them.

        `in_image` bool[rows, n] are the tokens that spell an image.
        """
        return self.family.embed_tokens(self.network, ids, in_image)

    def decode(
        self, embeds: Tensor, masks: Any, positions: Tensor, cache: "Cache | None", more: Mapping[str, Any]
    ) -> Tensor:
        """float[rows, n, width]: the last layer's states for embeddings float[rows, n, width] at positions
        int64[axes, rows, n]."""
        crosses = self.family.cross_attention is not None
        decoder = self.network.model if crosses else decoder_of(self.network)
        decoder_class: Any = type(decoder)
        out = decoder(
            inputs_embeds=embeds,
            attention_mask=masks,
            position_ids=positions if len(positions) > 1 else positions[0],
            use_cache=cache is not None,
            **{cache_argument(decoder_class): cache},
            **more,
        )
        states: Tensor = out.last_hidden_state
        return states

    def logits(self, hidden: Tensor) -> Tensor:
        """float[n, vocabulary] of states float[n, width], with the final soft-cap of networks that have one."""
        logits: Tensor = self.network.get_output_embeddings()(hidden)
        if cap := setting(self.network.config.get_text_config(), "final_logit_softcapping"):
            logits = torch.tanh(logits / cap) * cap
        return logits

    def last_image(self, tree: PrefixTree, tokens: Ints) -> Ints:
        """int64[n]: the number of the image that tokens read by cross-attention: the last one before or at the token,
        -1 if there is none since an end token."""
        end = int(self.network.config.get_text_config().eos_token_id)
        numbers = np.full(len(tree) + 1, -1)  # the last entry serves first tokens, whose parent is -1
        for i, (image, slot, parent) in enumerate(zip(tree.image, tree.slot, tree.parent, strict=True)):
            ended = parent >= 0 and tree.ids[parent] == end
            numbers[i] = image if slot >= 0 else -1 if ended else numbers[parent]
        return numbers[tokens]

    def cross_attention(self, rows: Sequence[TreeInputs], last: Tensor) -> dict[str, Tensor]:
        """The decoder's arguments for images read by cross-attention. `last` int64[rows, n] is from `last_image`."""
        assert self.family.cross_attention is not None
        used = [[n for n in row.unique(sorted=True).tolist() if n >= 0] for row in last]
        most = max(1, *(len(numbers) for numbers in used))
        shape = rows[0].images[0].embeddings.shape
        images = torch.zeros(len(rows), most, *shape, dtype=self.network.dtype, device=self.device)
        mask = torch.zeros(*last.shape, most, dtype=torch.long, device=self.device)
        for i, numbers in enumerate(used):
            for j, number in enumerate(numbers):
                images[i, j] = rows[i].images[number].embeddings
                mask[i, :, j] = last[i] == number
        return self.family.cross_attention(self.network.model, images, mask)

    def _insert_images(
        self, embeds: Tensor, rows: Sequence[tuple[TreeInputs, ForwardPass]]
    ) -> tuple[Tensor, dict[str, Any]]:
        """The embeddings with image features in their places, and the features that deeper layers add, if any."""
        replaced = torch.zeros(embeds.shape[:2], dtype=torch.bool, device=self.device)
        embeddings: list[Tensor] = []
        deepstack: list[Tensor] = []
        for i, (inputs, run) in enumerate(rows):
            slots = gather(inputs.tree.slot, run.tokens, -1)
            here = np.flatnonzero(slots >= 0)
            if not len(here):
                continue
            replaced[i, torch.from_numpy(here).to(self.device)] = True
            numbers, which = np.unique(inputs.tree.image[run.tokens[here]], return_inverse=True)
            images = [inputs.images[number] for number in numbers]
            starts = np.cumsum([0, *(len(image.embeddings) for image in images)])
            features = torch.from_numpy(starts[which] + slots[here]).to(self.device)
            embeddings.append(torch.cat([image.embeddings for image in images])[features])
            layers = [image.deepstack for image in images if image.deepstack is not None]
            deepstack += [torch.cat(layers, 1)[:, features]] if layers else []
        if embeddings:
            embeds = embeds.masked_scatter(replaced[:, :, None], torch.cat(embeddings).to(embeds.dtype))
        if deepstack:
            added = list(torch.cat(deepstack, 1))
            return embeds, {"visual_pos_masks": replaced, "deepstack_visual_embeds": added}
        return embeds, {}

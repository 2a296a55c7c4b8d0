"""Runs trees on a network: what every asked token's log-probability is, and what comes next.

A tree can be run in one pass (`packed`) or with its trunk in a cache and its branches side by side on it (`cached`);
the only difference is how much room a pass has. `refusal` says which networks can't be run so; for those, and as the
oracle, there are whole prompts one by one (`naive`, in `linkcontext.scoring.local`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from linkcontext.inference.cascade_attention import apart
from linkcontext.inference.kv_cache import new_cache, truncate
from linkcontext.inference.prefix_tree import Ints, PrefixTree
from linkcontext.inference.schedule import ForwardPass, piece_end, schedule
from linkcontext.inference.vision import ImageFeatures
from linkcontext.models.families import (
    attention_kinds,
    bidirectional_images,
    cache_argument,
    is_causal,
    resampled_in_a_row,
    uses_cross_attention,
)

LOGITS = 2**24  # so many logits are made at once
# Tokens in a pass. Under one mask a CPU is no faster with longer ones, which take more memory: what branches do not
# see of each other is computed in vain. Branches that are attended to apart gain from longer passes.
CPU_MAX_TOKENS, CASCADE_MAX_TOKENS = 384, 768
GPU_MAX_TOKENS = 16384
WIDTH = 256  # tokens in a branch that is attended to apart; longer ones have a trunk of their own
MIN_TOKENS = 16  # tokens in a pass
# Told of every new token: the line's number, the token, and the logits float[vocabulary] it was the largest of. The
# line ends where it says False.
OnToken = Callable[[int, int, Tensor], bool]
# Takes a line's number, its tokens and reply so far, and logits float[vocabulary]; returns the logits to use.
AdjustLogits = Callable[[int, list[int], Tensor], Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class TreeInputs:
    """A tree with what is seen in its pictures, by number.

    The keys and values of its first `held` tokens are in `cache`, which has nothing else before and after a run.
    """

    tree: PrefixTree
    pictures: Sequence[ImageFeatures]
    cache: Cache | None = None
    held: int = 0


@dataclass
class Engine:
    """A network and the room a pass over it has, in tokens.

    With `width`, branches of at most so many tokens are attended to apart (`linkcontext.inference.cascade_attention`):
    for networks whose every layer sees all that came before, on a CPU.
    """

    network: PreTrainedModel
    room: int
    width: int | None = None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return torch.device(self.network.device)

    def logprobs(self, grown: TreeInputs) -> Tensor:
        """float64[T]: the log-probability (nats) of every token that is asked for, 0 elsewhere."""
        tree, network = grown.tree, self.network
        found = torch.zeros(len(tree), dtype=torch.float64)
        asked = np.flatnonzero(tree.weight)
        place = np.full(len(tree) + 1, -1)  # where a token stands in its pass; the last entry serves first tokens
        followed = np.zeros(len(tree), np.bool_)
        followed[tree.parent[tree.parent >= 0]] = True  # what nothing follows is asked for, and need not be read
        todo = self._passes(grown, followed)
        with torch.inference_mode(), apart(network, self.width is not None):
            cache = self._cache(grown, todo) if len(todo) > 1 or grown.held else None
            for run in todo:
                if cache is not None:
                    truncate(cache, len(run.before))
                hidden = self.hidden([(grown, run)], cache)[0]
                place[:] = -1
                place[run.tokens] = np.arange(len(run.tokens))
                place[-1] = -1
                mine = asked[place[tree.parent[asked]] >= 0]
                if len(mine):
                    at = torch.from_numpy(place[tree.parent[mine]]).to(self.device)
                    values = self._targets(hidden[at], torch.from_numpy(tree.ids[mine]).to(self.device))
                    found[torch.from_numpy(mine)] = values.double().cpu()
            if cache is not None:
                truncate(cache, grown.held)
        return found

    def prefill(self, grown: TreeInputs, length: int) -> Cache:
        """The keys and values of a tree's first `length` tokens, among which there is no fork.

        Those that the tree holds already are copied.
        """
        tree, network = grown.tree, self.network
        cache = new_cache(network, length)
        start = grown.held
        with torch.inference_mode(), apart(network, self.width is not None):
            if grown.cache is not None:
                for layer, old in zip(cache.layers, grown.cache.layers, strict=True):
                    layer.update(old.keys[:, :, :start], old.values[:, :, :start])
            while start < length:
                end = piece_end(tree, start, length, self.room, bidirectional_images(network))
                self.hidden([(grown, ForwardPass(np.arange(start), np.arange(start, end)))], cache)
                start = end
        return cache

    def scores(self, grown: TreeInputs) -> list[float]:
        """For each line the log-probability of what it asks for."""
        values = self.logprobs(grown)
        return [float(values[torch.from_numpy(asked)].sum()) for asked in grown.tree.answers]

    def replies(
        self,
        grown: TreeInputs,
        new_tokens: int,
        ends: Sequence[int],
        on_token: OnToken | None = None,
        shape: AdjustLogits | None = None,
    ) -> list[list[int]]:
        """For each line the tokens that follow it greedily, up to one of `ends` (left out) or to what `on_token` says.

        `shape` changes the logits before the largest is taken.
        """
        tree, network = grown.tree, self.network
        said: list[list[int]] = [[] for _ in tree.leaves]
        with torch.inference_mode(), apart(network, self.width is not None):
            todo = self._passes(grown)
            cache = self._cache(grown, todo)
            for run in todo:
                truncate(cache, len(run.before))
                hidden = self.hidden([(grown, run)], cache)[0]
                here = set(run.tokens.tolist())
                tips = {n: tree.segments[leaf].end - 1 for n, leaf in enumerate(tree.leaves)}
                if mine := {n: tip for n, tip in tips.items() if tip in here}:
                    self._go_on(grown, run, hidden, mine, cache, said, new_tokens, set(ends), on_token, shape)
            truncate(cache, grown.held)
        return said

    def _go_on(
        self,
        grown: TreeInputs,
        run: ForwardPass,
        hidden: Tensor,
        tips: dict[int, int],
        cache: Cache,
        said: list[list[int]],
        new_tokens: int,
        ends: set[int],
        on_token: OnToken | None,
        shape: AdjustLogits | None,
    ) -> None:
        """Say one token after the other for the lines that end in a pass, all lines at once."""
        tree = grown.tree
        before = np.concatenate([run.before, run.tokens])
        open_lines = list(tips)
        tip = np.array([tips[n] for n in open_lines])
        place = {int(token): i for i, token in enumerate(run.tokens)}
        sees = torch.from_numpy(tree.can_attend(tip, before)).to(self.device)
        depth = torch.from_numpy(tree.at("depth", before)).to(self.device)[None].expand(len(tip), -1)
        at = torch.from_numpy(tree.position[:, tip].max(0)).to(self.device)
        deep = torch.from_numpy(tree.depth[tip]).to(self.device)
        latest = torch.from_numpy(_latest(tree, tip, self._end)).to(self.device)
        state = hidden[torch.tensor([place[int(t)] for t in tip], device=self.device)]
        for _ in range(new_tokens):
            logits = self.logits(state)
            if shape is not None:
                lines = [(n, [*tree.ids[tree.path(n)].tolist(), *said[n]]) for n in open_lines]
                logits = torch.stack([shape(n, ids, row) for (n, ids), row in zip(lines, logits, strict=True)])
            words = logits.argmax(-1)
            going = [i for i, word in enumerate(words.tolist()) if word not in ends]
            for i in going:
                said[open_lines[i]].append(int(words[i]))
            if on_token is not None:
                going = [i for i in going if on_token(open_lines[i], int(words[i]), logits[i])]
            if not going or len(said[open_lines[going[0]]]) == new_tokens:
                return
            rows = torch.tensor(going, device=self.device)
            open_lines = [open_lines[i] for i in going]
            words, at, deep, latest = words[rows], at[rows] + 1, deep[rows] + 1, latest[rows]
            own = torch.eye(len(going), dtype=torch.bool, device=self.device)
            sees = torch.cat([sees[rows], own], 1)
            depth = torch.cat([depth[rows], deep[None].expand(len(going), -1)], 1)
            masks = self._masks(sees[None], (deep[:, None] - depth)[None])
            axes = tree.position.shape[0]
            embeds = self.network.get_input_embeddings()(words[None])
            more = self._crossing([grown], latest[None]) if uses_cross_attention(self.network) else {}
            state = self._decode(embeds, masks, at[None, None].expand(axes, 1, -1), cache, more)[0]

    def hidden(self, rows: Sequence[tuple[TreeInputs, ForwardPass]], cache: Cache | None) -> Tensor:
        """float[rows, longest pass, width]: the last layer's states of one pass of each row, padded on the right.

        A cache serves one row; it gets the pass's keys and values in any case.
        """
        device, network = self.device, self.network
        length = max(len(run.tokens) for _, run in rows)
        told = [(grown.tree, np.append(run.tokens, np.full(length - len(run.tokens), -1))) for grown, run in rows]
        ids = torch.from_numpy(np.stack([tree.at("ids", tokens) for tree, tokens in told]))
        positions = torch.from_numpy(np.stack([tree.at("position", tokens) for tree, tokens in told], 1))
        embeds = network.get_input_embeddings()(ids.to(device))
        more: dict[str, Any] = {}
        if uses_cross_attention(network):
            latest = torch.from_numpy(np.stack([_latest(*row, self._end) for row in told]))
            more = self._crossing([grown for grown, _ in rows], latest.to(device))
        else:
            embeds, more = self._with_pictures(embeds, rows)
        if cache is not None and self.width is not None:
            masks: Any = self._within(rows[0][0].tree, rows[0][1].branches)
        else:
            masks = self._who_sees(rows, length)
        return self._decode(embeds, masks, positions.to(device), cache, more)

    def _within(self, tree: PrefixTree, branches: Ints) -> Tensor:
        """The mask [g, 1, l, l] of branches int64[g, l], to be added."""
        keys, queries = branches[:, None], branches[:, :, None]
        sees = torch.from_numpy((keys <= queries) & (queries < tree.at("subtree_end", keys)))
        mask = torch.full(sees.shape, -torch.inf, dtype=self.network.dtype, device=self.device)
        return mask.masked_fill(sees.to(self.device), 0)[:, None]

    def _who_sees(self, rows: Sequence[tuple[TreeInputs, ForwardPass]], length: int) -> Any:
        """The mask of one pass of each row: dense, or in blocks for attention that skips what nobody sees."""
        usual = self.network.config.get_text_config()._attn_implementation
        straight = all(len(grown.tree.segments) == 1 and not len(run.before) for grown, run in rows)
        if straight and usual == "sdpa" and is_causal(self.network):  # what fills a row up stands where nobody sees it
            return torch.ones(len(rows), length, dtype=torch.bool, device=self.device)
        table = np.stack([_arranged(grown.tree, run, length) for grown, run in rows], 1)
        number, until, depth, begins = torch.from_numpy(table).to(self.device)
        asking = slice(number.shape[1] - length, None)
        if usual == "flex_attention":
            queries = number[:, asking].contiguous()

            def sees_(row: Tensor, _head: Tensor, q: Tensor, k: Tensor) -> Tensor:
                found: Tensor = (number[row, k] <= queries[row, q]) & (queries[row, q] < until[row, k])
                return found

            return create_block_mask(sees_, len(rows), None, length, number.shape[1], device=str(self.device))
        q = number[:, asking, None]
        sees = (number[:, None] <= q) & (q < until[:, None])
        if bidirectional_images(self.network):
            sees |= (begins[:, asking, None] == begins[:, None]) & (begins[:, asking, None] >= 0)
        return self._masks(sees, depth[:, asking, None] - depth[:, None])

    def logits(self, hidden: Tensor) -> Tensor:
        """float[n, vocabulary] of states float[n, width]."""
        found: Tensor = self.network.get_output_embeddings()(hidden)
        if cap := getattr(self.network.config.get_text_config(), "final_logit_softcapping", None):
            found = torch.tanh(found / cap) * cap
        return found

    @property
    def _end(self) -> int:
        """The token after which the open Flamingo looks at no picture until the next."""
        return int(self.network.config.get_text_config().eos_token_id)

    def _passes(self, grown: TreeInputs, read: NDArray[np.bool_] | None = None) -> list[ForwardPass]:
        return schedule(grown.tree, self.room, self.width, bidirectional_images(self.network), read, grown.held)

    def _cache(self, grown: TreeInputs, todo: Sequence[ForwardPass]) -> Cache:
        """What is held already, or an empty cache."""
        if grown.cache is not None:
            return grown.cache
        return new_cache(self.network, max(len(run.before) + len(run.tokens) for run in todo))

    def _targets(self, hidden: Tensor, ids: Tensor) -> Tensor:
        """Log-probabilities float32[n] of tokens after states float[n, width]."""
        rows = max(1, LOGITS // self.network.config.get_text_config().vocab_size)
        pieces = [
            F.log_softmax(self.logits(hidden[i : i + rows]).float(), -1).gather(1, ids[i : i + rows, None])[:, 0]
            for i in range(0, len(ids), rows)
        ]
        return torch.cat(pieces)

    def _masks(self, sees: Tensor, apart: Tensor) -> Tensor | dict[str, Tensor]:
        """The 4-D mask [rows, 1, queries, keys] that the network's layers want, by kind where there are two.

        `sees` bool[rows, queries, keys]; `apart` int[rows, queries, keys]: how far back a key lies.
        """
        text = self.network.config.get_text_config()
        found = {}
        for kind in attention_kinds(self.network):
            mask = sees if kind == "full_attention" else sees & (apart < text.sliding_window)
            if text._attn_implementation == "eager":  # which adds what it is given to its scores
                lowest = torch.finfo(self.network.dtype).min
                mask = torch.where(mask, 0.0, lowest).to(self.network.dtype)
            found[kind] = mask[:, None]
        return next(iter(found.values())) if len(found) == 1 else found

    def _with_pictures(
        self, embeds: Tensor, rows: Sequence[tuple[TreeInputs, ForwardPass]]
    ) -> tuple[Tensor, dict[str, Any]]:
        """Features in their places; and, for models that add more of them in deeper layers, those."""
        filled = torch.zeros(embeds.shape[:2], dtype=torch.bool, device=self.device)
        tokens: list[Tensor] = []
        deep: list[Tensor] = []
        for i, (grown, run) in enumerate(rows):
            slots = grown.tree.at("slot", run.tokens, -1)
            here = np.flatnonzero(slots >= 0)
            if not len(here):
                continue
            filled[i, torch.from_numpy(here).to(self.device)] = True
            numbers, which = np.unique(grown.tree.picture[run.tokens[here]], return_inverse=True)
            seen = [grown.pictures[number] for number in numbers]
            starts = np.cumsum([0, *(len(s.tokens) for s in seen)])
            at = torch.from_numpy(starts[which] + slots[here]).to(self.device)
            tokens.append(torch.cat([s.tokens for s in seen])[at])
            layers = [s.deep for s in seen if s.deep is not None]
            deep += [torch.cat(layers, 1)[:, at]] if layers else []
        if tokens:
            embeds = embeds.masked_scatter(filled[:, :, None], torch.cat(tokens).to(embeds.dtype))
        if deep:
            return embeds, {"visual_pos_masks": filled, "deepstack_visual_embeds": list(torch.cat(deep, 1))}
        return embeds, {}

    def _crossing(self, rows: Sequence[TreeInputs], latest: Tensor) -> dict[str, Tensor]:
        """The pictures of all rows for cross-attention; a token reads the picture numbered `latest` int64[rows, n]."""
        used = [[n for n in row.unique(sorted=True).tolist() if n >= 0] for row in latest]
        most = max(1, *(len(numbers) for numbers in used))
        shape = rows[0].pictures[0].tokens.shape
        seen = torch.zeros(len(rows), most, *shape, dtype=self.network.dtype, device=self.device)
        reads = torch.zeros(*latest.shape, most, dtype=torch.long, device=self.device)
        for i, numbers in enumerate(used):
            for j, number in enumerate(numbers):
                seen[i, j] = rows[i].pictures[number].tokens
                reads[i, :, j] = latest[i] == number
        if not self.network.config.use_resampler:
            return {"image_encoder_embeddings": seen, "image_attention_mask": reads}
        resampled = seen.flatten(0, 1) if resampled_in_a_row(self.network.model.__class__) else seen
        return {"perceiver_embeddings": resampled, "image_attention_mask": reads}

    def _decode(
        self, embeds: Tensor, masks: Any, positions: Tensor, cache: Cache | None, more: dict[str, Any]
    ) -> Tensor:
        """The language model itself: the last layer's states."""
        core = self.network.model if uses_cross_attention(self.network) else self.network.get_decoder()
        out = core(
            inputs_embeds=embeds,
            attention_mask=masks,
            position_ids=positions if len(positions) > 1 else positions[0],
            use_cache=cache is not None,
            **{cache_argument(core.__class__): cache},
            **more,
        )
        found: Tensor = out.last_hidden_state
        return found


def _arranged(tree: PrefixTree, run: ForwardPass, length: int) -> NDArray[np.int64]:
    """int64[4, keys] of a pass filled up to `length` tokens: number, until, depth, and where its picture begins or -1.

    What fills it up is -1 and sees itself, for the sake of the softmax.
    """
    there = np.concatenate([run.before, run.tokens, np.full(length - len(run.tokens), -1)])
    slot = tree.at("slot", there, -1)
    begins = np.where(slot >= 0, there - slot, -1)
    return np.stack([there, tree.at("subtree_end", there), tree.at("depth", there), begins])


def _latest(tree: PrefixTree, tokens: Ints, end: int) -> Ints:
    """int64[n]: the number of the last picture that was shown when a token came, -1 where none was since an `end`."""
    found = np.full(len(tree) + 1, -1)  # the last entry serves first tokens, whose parent is -1
    for i, (picture, slot, parent) in enumerate(zip(tree.picture, tree.slot, tree.parent, strict=True)):
        ended = parent >= 0 and tree.ids[parent] == end
        found[i] = picture if slot >= 0 else -1 if ended else found[parent]
    return found[tokens]

"""Which engine runs a model's prompts, why, and how many tokens its passes may have."""

import logging
from dataclasses import dataclass
from functools import cached_property

from linkcontext.errors import InputError
from linkcontext.inference.decoding import TreeEngine
from linkcontext.inference.engine import (
    CASCADE_MAX_TOKENS,
    CPU_MAX_TOKENS,
    GPU_MAX_TOKENS,
    MAX_BRANCH,
    MIN_TOKENS,
    Engine,
)
from linkcontext.inference.forward import TreeInputs
from linkcontext.inference.memory import free_memory, max_tokens_per_pass, pass_bytes
from linkcontext.inference.state_cache import StateEngine, caches_at_once
from linkcontext.models.families import decoder_of, is_causal, maskless_kinds, unsupported_reason
from linkcontext.models.model import Model
from linkcontext.scoring.engine_names import EngineName
from linkcontext.scoring.selfcheck import SelfCheck

log = logging.getLogger("linkcontext")
PASSED = "a small tree gave what whole prompts give"
CASCADE_SHAPES = ((2 * MIN_TOKENS, MIN_TOKENS),)  # of the passes in which cascade attention is tried
OWN_CACHE = "on copies of the model's own cache"  # and why


@dataclass
class EngineChoice:
    """The engine for a model: the one requested, or the fastest that passes the self-check."""

    loaded: Model
    selfcheck: SelfCheck
    requested: EngineName = "auto"
    memory_gb: float | None = None  # for a pass; default: what is free

    @cached_property
    def name_and_reason(self) -> tuple[str, str]:
        """The engine, and why it is this one."""
        if self.requested == "reference":
            return "reference", "asked for"
        if why := unsupported_reason(self.loaded.network):
            return self._fall_back(why)
        name = self.requested if self.requested != "auto" else "prefix-cache"
        if name == "tree" and self.use_flex_attention():
            return name, f"{PASSED}, with FlexAttention"
        if self.against_masks is None:
            return name, PASSED
        why = "a tree needs masks" if name == "tree" else self.selfcheck.failure(own_cache=True)
        if why is None:
            return name, f"{PASSED}, {OWN_CACHE}: {self.against_masks}"
        return self._fall_back(f"{self.against_masks}; {OWN_CACHE}: {why}")

    @cached_property
    def against_masks(self) -> str | None:
        """Why a tree cannot be run under a mask, or None. Training and `tree` need that."""
        return maskless_kinds(self.loaded.network) or self.selfcheck.failure()

    @property
    def own_cache(self) -> bool:
        """True if trees are run on copies of the model's own cache."""
        return self.name_and_reason[0] == "prefix-cache" and self.against_masks is not None

    @property
    def whole_prompts(self) -> bool:
        """True if the reference engine runs, which computes every prompt whole and has no image features."""
        return self.name_and_reason[0] == "reference"

    @property
    def against_trees(self) -> str | None:
        """Why training cannot run trees, or None."""
        return self.name_and_reason[1] if self.whole_prompts else self.against_masks

    def fall_back(self, why: str) -> None:
        """Use the reference engine from now on. Raises `InputError` if another one was requested."""
        self.name_and_reason = self._fall_back(why)

    def _fall_back(self, why: str) -> tuple[str, str]:
        if self.requested != "auto":
            raise InputError(f"--engine {self.requested}: {why}. Use --engine auto or reference.")
        log.warning("using the reference engine, one prompt at a time: %s", why)
        return "reference", why

    def use_flex_attention(self, learns: bool = False) -> bool:
        """Let attention skip blocks that are masked (FlexAttention), for passes over whole trees; whether it does.

        Only on a GPU, with plain causal layers, and if the self-check passes; with `learns` also a backward pass.
        """
        network, text = self.loaded.network, decoder_of(self.loaded.network)
        usual = text.config._attn_implementation
        if (
            self.loaded.device.type != "cuda"
            or usual != "sdpa"
            or not is_causal(network)
            or not text._supports_flex_attn
        ):
            return False
        text.set_attn_implementation("flex_attention")
        why = self.selfcheck.failure(learns=learns)
        if why is not None:
            text.set_attn_implementation(usual)
            log.warning("FlexAttention is not used: %s", why)
        return why is None

    def engine(self, inputs: TreeInputs, name: str) -> TreeEngine:
        """The engine for a tree, with as much room for a pass as there is memory."""
        tree = inputs.tree
        if self.own_cache:
            return self._state_engine(inputs)
        width = self.max_branch if name == "prefix-cache" else None
        usual = GPU_MAX_TOKENS if self.loaded.device.type == "cuda" else CASCADE_MAX_TOKENS if width else CPU_MAX_TOKENS
        tokens = self.room(int(tree.depth.max()) + 1, len(tree) if name == "tree" else min(usual, len(tree)))
        if name == "tree" and tokens < len(tree):
            log.warning("%d tokens do not fit into one forward pass, so the shared prefix is cached", len(tree))
        return Engine(self.loaded.network, tokens, width)

    @cached_property
    def max_branch(self) -> int | None:
        """The longest branch, in tokens, for cascade attention; None where it cannot be used."""
        network = self.loaded.network
        usual = network.config.get_text_config()._attn_implementation
        if self.loaded.device.type != "cpu" or usual != "sdpa" or not is_causal(network):
            return None
        why = self.selfcheck.failure(CASCADE_SHAPES)
        if why is not None:
            log.warning("cascade attention is not used: %s", why)
        return MAX_BRANCH if why is None else None

    @cached_property
    def learns_in_parts(self) -> bool:
        """Whether training can use cascade attention: on a CPU, where its gradients are those under a mask."""
        if self.max_branch is None:
            return False
        why = self.selfcheck.failure(CASCADE_SHAPES, learns=True)
        if why is not None:
            log.warning("training uses one dense mask, without cascade attention: %s", why)
        return why is None

    def _state_engine(self, inputs: TreeInputs) -> StateEngine:
        """The same for trees on the model's own cache. What a pass leaves is for the rows of a batch."""
        tree, network = inputs.tree, self.loaded.network
        longest = (int(tree.depth.max()) + 1) * (caches_at_once(tree) + (inputs.cache is not None))
        usual = GPU_MAX_TOKENS if self.loaded.device.type == "cuda" else CPU_MAX_TOKENS
        tokens = self.room(longest, min(usual, len(tree)))
        return StateEngine(network, tokens, self._memory - pass_bytes(network, longest, tokens))

    def room(self, longest: int, most: int) -> int:
        """Tokens of a pass, at most `most`, on top of `longest` cached tokens. Raises `InputError` if none fit."""
        return max_tokens_per_pass(self.loaded.network, longest, self._memory, most)

    @property
    def _memory(self) -> float:
        """The bytes that a run may take beside the weights."""
        return free_memory(self.loaded.device) if self.memory_gb is None else self.memory_gb * 1e9

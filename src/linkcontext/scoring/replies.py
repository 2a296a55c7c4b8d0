"""Replies without their reasoning."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from linkcontext.models.prompting import without_reasoning

log = logging.getLogger("linkcontext")
UNFINISHED_THOUGHT = (
    "a reply ended inside of its reasoning and holds no answer: give more --max-new-tokens, or turn the reasoning off "
    """with --chat-template-kwargs '{"enable_thinking": false}'."""
)


@dataclass
class ReplyCleaner:
    """Removes reasoning from replies. One that ends inside of its reasoning becomes empty and is counted."""

    cut_short: int = 0

    def clean(self, replies: Sequence[str], prompts: Sequence[str] | None = None) -> list[str]:
        """The answers of replies. `prompts` are the texts before them, where reasoning may begin already."""
        begun = [""] * len(replies) if prompts is None else prompts
        answers = [without_reasoning(reply.strip(), prompt) for reply, prompt in zip(replies, begun, strict=True)]
        if cut := sum(answer is None for answer in answers):
            if not self.cut_short:
                log.warning(UNFINISHED_THOUGHT)
            self.cut_short += cut
        return [answer or "" for answer in answers]

    def counters(self) -> dict[str, Any]:
        """The number of replies that were cut short, for metrics.json; empty if there are none."""
        return {"replies_cut_in_reasoning": self.cut_short} if self.cut_short else {}

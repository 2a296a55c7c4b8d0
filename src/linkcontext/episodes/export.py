"""Episodes as conversations, which `data.writers` writes for other tools. The scaffold words them."""

from collections.abc import Iterable, Iterator
from typing import Literal

from linkcontext.data.conversation import Conversation, make_conversation
from linkcontext.data.manifest import Dataset
from linkcontext.episodes.scaffold import Scaffold, query_messages
from linkcontext.records import Episode

Supervise = Literal["every", "query"]


def export_conversations(
    episodes: Iterable[Episode], dataset: Dataset, scaffold: Scaffold, supervise: Supervise
) -> Iterator[Conversation]:
    """A conversation for each query after each of its episode's shot counts: the support, the query, its answer.

    Pictures are named by absolute paths. `query`: in messages that are read by ms-swift, and in TRL, the query's answer
    alone is learnt.
    """
    for episode in episodes:
        for shots in episode.shots_per_class:
            for number, query in enumerate(episode.queries):
                messages = query_messages(episode, number, shots, scaffold, query.answer)
                last = len(messages) - 1
                told = []
                for place, message in enumerate(messages):
                    parts = [
                        {**part, "image": str(dataset.path(part["image"]).resolve())}
                        if part["type"] == "image"
                        else part
                        for part in message["content"]
                    ]
                    learnt = message["role"] == "assistant" and supervise == "query"
                    told.append({**message, "content": parts} | ({"loss": place == last} if learnt else {}))
                name = f"{episode.query_id(number)}/k{shots}"
                yield make_conversation(name, told, name)

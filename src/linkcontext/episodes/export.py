"""Convert episodes to conversations, worded by a scaffold, which `data.writers` writes for other tools."""

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
    """A conversation for each query at each number of shots: the support, the query and its answer.

    Pictures are absolute paths. With `supervise="query"`, only the answer to the query carries loss, in ms-swift and in
    TRL.
    """
    for episode in episodes:
        for shots in episode.shots_per_class:
            for number, query in enumerate(episode.queries):
                messages = query_messages(episode, number, shots, scaffold, query.answer)
                last = len(messages) - 1
                exported = []
                for place, message in enumerate(messages):
                    parts = [
                        {**part, "image": str(dataset.path(part["image"]).resolve())}
                        if part["type"] == "image"
                        else part
                        for part in message["content"]
                    ]
                    learnt = message["role"] == "assistant" and supervise == "query"
                    exported.append({**message, "content": parts} | ({"loss": place == last} if learnt else {}))
                name = f"{episode.query_id(number)}/k{shots}"
                yield make_conversation(name, exported, name)

"""Ids and tasks of episodes with a selected support, and of the drawn episodes that they come from.

If a support is selected for each query (`linkcontext.evaluation.support_selection`), every query becomes an episode.
"""

import re

# Suffixes of the task of an episode whose support was selected: for each class, or for its query.
MEDOID, RICES = "-medoid", "-rices"


def for_query(episode_id: str, query: int, shots_per_class: int) -> str:
    """The id of an episode with one query of a drawn episode and its own support."""
    return f"{episode_id}-q{query}-k{shots_per_class:02d}"


def drawn_as(episode_id: str) -> str:
    """The id of the drawn episode, whose queries are one cluster whatever supports were selected for them."""
    return re.sub(r"-q\d+-k\d+$", "", episode_id)


def drawn_query(query_id: str) -> str:
    """The id of a query in the drawn episode."""
    return re.sub(r"-q(\d+)-k\d+/q0$", r"/q\1", query_id)


def drawn_task(task: str) -> str:
    """The task without the suffix for selected supports."""
    return task.removesuffix(MEDOID).removesuffix(RICES)

"""Ids and tasks of episodes whose support was chosen, and of the drawn episodes that they come from.

A support that is chosen for each query (`linkcontext.evaluation.support_selection`) makes an episode of every query.
"""

import re

# What the task of an episode ends in whose support was chosen: of each class, or for its query.
MEDOID, RICES = "-medoid", "-rices"


def for_query(episode_id: str, query: int, shots_per_class: int) -> str:
    """The id of an episode that has one query of a drawn one, with a support of its own."""
    return f"{episode_id}-q{query}-k{shots_per_class:02d}"


def drawn_as(episode_id: str) -> str:
    """The id of the drawn episode, whose queries stand and fall together, whatever supports were chosen for them."""
    return re.sub(r"-q\d+-k\d+$", "", episode_id)


def drawn_query(query_id: str) -> str:
    """The id of a query in the drawn episode."""
    return re.sub(r"-q(\d+)-k\d+/q0$", r"/q\1", query_id)


def drawn_task(task: str) -> str:
    """The task without what is said of how supports were chosen."""
    return task.removesuffix(MEDOID).removesuffix(RICES)

"""`linkcontext validate`: what would spoil a run, found before anything runs for long.

The episodes, the scoring and the prompts are checked; of the model only its tokenizer, its context and its eyes.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from linkcontext.config import EpisodeConfig
from linkcontext.data.copies import near_copies, repeated
from linkcontext.data.images import open_image
from linkcontext.data.manifest import Dataset
from linkcontext.episodes.link import copy_first, copy_last
from linkcontext.episodes.render import IGNORE, encode, render_text
from linkcontext.episodes.scaffold import (
    Message,
    Scaffold,
    build_messages,
    image_ids,
    query_messages,
    refuse_scaffold,
)
from linkcontext.episodes.special_tokens import refuse_marked_episodes
from linkcontext.errors import InputError
from linkcontext.evaluation.evaluator import Evaluator, check_fits
from linkcontext.evaluation.metrics import SCORINGS, credit, metric_rows
from linkcontext.evaluation.task import EpisodeSet
from linkcontext.models.families import family_of
from linkcontext.records import Candidate, Episode, Prediction, Score, Turn
from linkcontext.scoring.protocol import ScoringModel

SHOWN = 12  # characters of a template's text before what differs
SAMPLE = 64  # episodes whose conversations are compared token by token


def check_episodes(data: EpisodeSet, options: EpisodeConfig, scaffold: Scaffold) -> list[str]:
    """Check the episodes and the scoring, without a model. Raises `InputError` for the first thing that is wrong."""
    episodes, dataset = data.episodes, data.dataset
    used = {candidate.class_id for episode in episodes for candidate in episode.candidates}
    lines = [f"{len(episodes):,} episodes of {len(used)} of {len(dataset.by_class())} classes were drawn"]
    return [
        *lines,
        *data.left_out,
        *dataset.problems,
        *repeated(dataset),
        planted(episodes, scaffold, right=True),
        planted(episodes, scaffold, right=False),
        leaks(episodes, dataset, options),
        *near_leaks(episodes, dataset),
        *([] if options.tasks or options.false_labels else [balance(episodes, options)]),
        blind_policies(episodes),
    ]


def check_prompts(episodes: Sequence[Episode], evaluator: Evaluator) -> list[str]:
    """Check the prompts as the model reads them. Raises `InputError` for the first thing that is wrong."""
    scorer, scaffold = evaluator.scorer, evaluator.scaffold
    refuse_scaffold(scaffold, scorer.card.special_tokens)
    refuse_marked_episodes(episodes, scorer.card.special_tokens)
    if why := scorer.lacks("token ids"):
        check_fits(evaluator, episodes)
        return [f"the server takes the longest prompt; its tokens were not compared, because {why}"]
    return [room(episodes, scorer, scaffold), *beginnings(episodes, scorer, scaffold)]


def planted(episodes: Sequence[Episode], wording: Scaffold, *, right: bool) -> str:
    """Predictions made from the right answer must be worth 1 by every scoring, from a wrong one 0."""
    worth, kind = (1.0, "right") if right else (0.0, "wrong")
    made = []
    for episode, query, shots_per_class in _cases(episodes):
        names = [candidate.class_id for candidate in episode.candidates]
        at = names.index(episode.queries[query].class_id)
        said = episode.candidates[at if right else (at + 1) % len(names)]
        prediction = _prediction(episode, query, shots_per_class, said, wording)
        for scoring in SCORINGS:
            if credit(prediction, scoring, episode.candidates) != worth:
                raise InputError(
                    f"{prediction.query_id}: the {kind} answer {said.name!r} is not worth {worth:g} by {scoring}, "
                    f"written as {prediction.reply!r}. Use another --scaffold or --names: a name stands in other words."
                )
        made.append(prediction)
    found = metric_rows({episode.id: episode for episode in episodes}, made)
    assert all(row["accuracy"] == worth for row in found), "a row is not the mean of its predictions"
    return f"planted {kind} answers score {worth:g} by {', '.join(SCORINGS)}: all {len(made):,}"


def _cases(episodes: Sequence[Episode]) -> Iterator[tuple[Episode, int, int]]:
    """Every query at every shots per class."""
    return ((e, q, k) for e in episodes for k in e.shots_per_class for q in range(len(e.queries)))


def _prediction(episode: Episode, query: int, shots_per_class: int, said: Candidate, wording: Scaffold) -> Prediction:
    scores = tuple(Score(c.class_id, c.name, -1.0 if c == said else -2.0, -3.0, 1, -3.0) for c in episode.candidates)
    shown = episode.shown(shots_per_class)
    return Prediction(
        episode_id=episode.id,
        query_id=episode.query_id(query),
        shots_per_class=shots_per_class,
        candidates=scores,
        gold=episode.queries[query].class_id,
        reply=wording.query_answer.replace("{answer}", said.name),
        correct={},
        prompt_sha256="",
        support_ids=tuple(turn.item for turn in shown),
        baselines={"copy_first": copy_first(shown), "copy_last": copy_last(shown)},
    )


def leaks(episodes: Sequence[Episode], dataset: Dataset, asked: EpisodeConfig) -> str:
    """No support may hold its query's picture or a copy (of several, all in one turn, in any order); splits and groups
    must be kept apart as asked."""
    pairs = 0
    for episode in episodes:
        for query in episode.queries:
            picture, contents = dataset.item(query.item), sorted(dataset.contents(query.pictures))
            for turn in episode.support:
                shown = dataset.item(turn.item)
                if sorted(dataset.contents(turn.pictures)) == contents:
                    raise InputError(f"{episode.id}: the query's picture {query.item} is in its support ({turn.item}).")
                if asked.groups_apart and (shown.class_id, shown.group) == (picture.class_id, picture.group):
                    raise InputError(f"{episode.id}: {turn.item} and the query {query.item} are of one group.")
                pairs += 1
        _splits(episode, dataset, asked)
    return f"no support holds its query's picture or a copy of it: {pairs:,} pairs"


def near_leaks(episodes: Sequence[Episode], dataset: Dataset) -> list[str]:
    """A line if supports hold a near-copy of their query's picture: resized, or compressed again."""
    near = {frozenset((one.content, other.content)) for one, other in near_copies(dataset)}
    leaking = [
        any(
            frozenset((content, other)) in near
            for turn in episode.support
            for other in dataset.contents(turn.pictures)
            for content in dataset.contents(query.pictures)
        )
        for episode in (episodes if near else ())
        for query in episode.queries
    ]
    line = f"near-copies of the query's picture in its support: in {sum(leaking):,} of {len(leaking):,} supports"
    return [line] if any(leaking) else []


def _splits(episode: Episode, dataset: Dataset, asked: EpisodeConfig) -> None:
    for turns, split in ((episode.support, asked.support_split), (episode.queries, asked.query_split)):
        strays = [turn.item for turn in turns if split not in (None, *dataset.item(turn.item).splits(turn))]
        if strays:
            raise InputError(f"{episode.id}: {strays[0]} is not of the split {split}.")


def balance(episodes: Sequence[Episode], asked: EpisodeConfig) -> str:
    """Every beginning of a support must show each class equally often (a shuffled support as a whole)."""
    beginnings = 0
    for episode in episodes:
        most = max(episode.shots_per_class)
        for shots_per_class in range(1, most + 1) if asked.order == "rounds" else [most]:
            counts = Counter(turn.class_id for turn in episode.shown(shots_per_class))
            wanted = {candidate.class_id: shots_per_class for candidate in episode.candidates}
            if shots_per_class and dict(counts) != wanted:
                raise InputError(f"{episode.id}: its first {shots_per_class} shots per class are {dict(counts)}.")
            beginnings += 1
    return f"every beginning of a support is balanced: {beginnings:,} supports"


def blind_policies(episodes: Sequence[Episode]) -> str:
    """Copying the first or last answer, or always giving one name, must be right in exactly one of as many
    queries as an episode has candidates. Episodes of fewer queries, mostly one that brings its own candidates, are
    passed over."""
    tried = passed = 0
    for episode in episodes:
        if len(episode.queries) % len(episode.candidates):
            passed += 1
            continue
        policies: dict[str, str | None] = {f"always {c.name}": c.class_id for c in episode.candidates}
        for shots_per_class in episode.shots_per_class:
            shown = episode.shown(shots_per_class)
            policies[f"copy first of {len(shown)}"] = copy_first(shown)
            policies[f"copy last of {len(shown)}"] = copy_last(shown)
        for policy, answer in policies.items():
            hits = sum(query.class_id == answer for query in episode.queries)
            if answer is not None and hits * len(episode.candidates) != len(episode.queries):
                raise InputError(f"{episode.id}: {policy!r} is right {hits} of {len(episode.queries)} times.")
            tried += answer is not None
    over = f"; episodes passed over, which have fewer queries than candidates: {passed:,}" if passed else ""
    return f"policies blind to the query are right in exactly 1/candidates of each episode: {tried:,} tried{over}"


def room(episodes: Sequence[Episode], scorer: ScoringModel, wording: Scaffold) -> str:
    """The longest prompt, with its longest answer, must fit the model's context."""
    size = _sizes(episodes, scorer, wording)
    longest: dict[int, tuple[int, Episode, int]] = {}
    for episode, query, shots_per_class in _cases(episodes):
        tokens = encode(
            query_messages(episode, query, shots_per_class, wording), scorer.loaded.chat_template, "none", reply=True
        )
        needed = len(tokens.ids) + sum(size(item) - 1 for item in tokens.pictures)
        if needed > longest.get(shots_per_class, (0,))[0]:
            longest[shots_per_class] = (needed, episode, query)
    checked = [_exactly(e, q, k, scorer, wording) for k, (_, e, q) in sorted(longest.items())]
    return f"every prompt fits: {len(list(_cases(episodes))):,} prompts, the longest {max(checked)[1]}"


def _sizes(episodes: Sequence[Episode], scorer: ScoringModel, wording: Scaffold) -> Callable[[str], int]:
    """Tokens that a picture takes. They hang on its size alone, and with a tower of CLIP's not even on that."""
    known: dict[tuple[int, int], int] = {}
    squares = family_of(scorer.loaded.network.config).fixed_resolution

    def size(item: str) -> int:
        edges = (0, 0) if squares else open_image(scorer.sources[item][1]).size
        if edges not in known:
            messages = build_messages((), wording, Turn(item, "", ""))
            short = encode(messages, scorer.loaded.chat_template, "none", reply=True)
            known[edges] = len(scorer.prompt(messages).ids) - len(short.ids) + 1
        return known[edges]

    return size


def _exactly(
    episode: Episode, query: int, shots_per_class: int, scorer: ScoringModel, wording: Scaffold
) -> tuple[int, str]:
    """The prompt's length and how it comes about, from the very tokens the model would read."""
    messages = query_messages(episode, query, shots_per_class, wording)
    where = f"{episode.query_id(query)} at {shots_per_class} shots per class"
    try:
        needed = len(scorer.prompt(messages).ids)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    template, context = scorer.loaded.chat_template, scorer.loaded.context
    asked = len(encode(messages, template, "none", reply=True).ids)
    told = [query_messages(episode, query, shots_per_class, wording, c.name) for c in episode.candidates]
    answer = max(len(encode(each, template, "last").ids) for each in told) - asked
    if needed + answer > context:
        raise InputError(
            f"{where}: the prompt takes {needed} tokens and its longest answer {answer}, and the model's context is "
            f"{context}. Use fewer shots per class, fewer ways, or a model with a longer context."
        )
    shown = len(image_ids(messages))
    text = asked - shown
    parts = f"{shown} pictures {needed - text} + text {text} + answer {answer}"
    return needed + answer, f"{where}: {parts} = {needed + answer} of {context} tokens"


def beginnings(episodes: Sequence[Episode], scorer: ScoringModel, wording: Scaffold) -> list[str]:
    """The prompt's tokens must be the first of the whole conversation's, and the answer's the next, for each name; and
    each answer must end with an end token of the model.

    Some chat templates write other text before a given answer than where the model is to speak. This is reported,
    because no scaffold can change it.
    """
    template, compared = scorer.loaded.chat_template, 0
    notes: dict[str, None] = {}
    for index, episode in enumerate(episodes[:SAMPLE]):
        query = index % len(episode.queries)
        shots_per_class = episode.shots_per_class[index % len(episode.shots_per_class)]
        where = f"{episode.query_id(query)} at {shots_per_class} shots per class"
        question = query_messages(episode, query, shots_per_class, wording)
        before = encode(question, template, "none", reply=True).ids
        for candidate in episode.candidates:
            conversation = query_messages(episode, query, shots_per_class, wording, candidate.name)
            tokens = encode(conversation, template, "last")
            answer = [i for i, label in enumerate(tokens.labels) if label != IGNORE]
            if template.ends and tokens.ids[answer[-1]] not in template.ends:
                raise InputError(f"{where}: the answer {candidate.name!r} does not end with an end token of the model.")
            compared += 1
            if tokens.ids[: len(before)] == before and answer[0] == len(before):
                continue
            note = _other_beginning(question, conversation, scorer)
            if note is None:
                raise InputError(
                    f"{where}: with the answer {candidate.name!r} the tokens before it are others than in the prompt. "
                    "Change --scaffold."
                )
            notes |= {note: None}
    whole = f"the prompt's tokens come first in the conversation with each answer: {compared:,} compared"
    return [*(notes or [whole]), f"every answer ends with {template.end_of_answer}: {compared:,} answers"]


def _other_beginning(question: list[Message], conversation: list[Message], scorer: ScoringModel) -> str | None:
    """A sentence about what the chat template writes before a given answer, if a prompt does not end with it."""
    template = scorer.loaded.chat_template
    open_text, _ = render_text(question, template, reply=True)
    text, spans = render_text(conversation, template)
    given = text[: spans[-1][0]]
    before, _ = render_text(question, template)
    if given == open_text or not given.startswith(before):  # what was said before is written in another way
        return None
    differ = (i for i, (one, other) in enumerate(zip(given, open_text, strict=False)) if one != other)
    start = max(0, next(differ, min(len(given), len(open_text))) - SHOWN)
    return (
        f"the chat template writes {given[start:]!r} before an answer that is given, and {open_text[start:]!r} where "
        "the model is to speak: likelihoods follow the former, replies the latter"
    )

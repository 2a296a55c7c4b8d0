"""`linkcontext validate`: find errors that would spoil a run, before it starts.

The episodes, the scoring and the prompts are checked. Of the model, only the tokenizer, the context length and the
image processor are used.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from statistics import median

from linkcontext.config import EpisodeConfig
from linkcontext.data.copies import copy_sentences, near_copies
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

SHOWN = 12  # characters of a chat template's text that are quoted before a difference
SHARE = 4  # of a context: a picture that takes a larger part leaves little for a support
SAMPLE = 64  # episodes whose conversations are compared token by token


def check_episodes(data: EpisodeSet, options: EpisodeConfig, scaffold: Scaffold) -> list[str]:
    """Check the episodes and the scoring without a model; a line per check. Raises `InputError` for the first error."""
    episodes, dataset = data.episodes, data.dataset
    used = {candidate.class_id for episode in episodes for candidate in episode.candidates}
    lines = [f"{len(episodes):,} episodes of {len(used)} of {len(dataset.by_class())} classes were drawn"]
    return [
        *lines,
        *data.left_out,
        *dataset.problems,
        *copy_sentences(dataset),
        check_planted_answers(episodes, scaffold, right=True),
        check_planted_answers(episodes, scaffold, right=False),
        check_leaks(episodes, dataset, options),
        *near_copies_in_supports(episodes, dataset),
        *([] if options.tasks or options.false_labels else [check_balance(episodes, options)]),
        check_blind_policies(episodes),
    ]


def check_prompts(episodes: Sequence[Episode], evaluator: Evaluator) -> list[str]:
    """Check the prompts as the model reads them; a line per check. Raises `InputError` for the first error."""
    scorer, scaffold = evaluator.scorer, evaluator.scaffold
    refuse_scaffold(scaffold, scorer.card.special_tokens)
    refuse_marked_episodes(episodes, scorer.card.special_tokens)
    if why := scorer.lacks("token ids"):
        check_fits(evaluator, episodes)
        return [f"the server accepts the longest prompt; tokens were not compared, because {why}"]
    size = picture_tokens(scorer, scaffold)
    return [
        check_context_length(episodes, scorer, scaffold, size),
        *check_answer_prefixes(episodes, scorer, scaffold),
        *token_lines(episodes, scorer, size),
    ]


def check_planted_answers(episodes: Sequence[Episode], scaffold: Scaffold, *, right: bool) -> str:
    """Check that predictions of the right answer score 1 by every scoring, and those of a wrong one 0."""
    worth, kind = (1.0, "right") if right else (0.0, "wrong")
    predictions = []
    for episode, query, shots_per_class in _cases(episodes):
        classes = [candidate.class_id for candidate in episode.candidates]
        at = classes.index(episode.queries[query].class_id)
        answer = episode.candidates[at if right else (at + 1) % len(classes)]
        prediction = _prediction(episode, query, shots_per_class, answer, scaffold)
        for scoring in SCORINGS:
            if credit(prediction, scoring, episode.candidates) != worth:
                raise InputError(
                    f"{prediction.query_id}: the {kind} answer {answer.name!r} does not score {worth:g} by {scoring}, "
                    f"because the reply is {prediction.reply!r} and a name is part of other words. Use another "
                    "--scaffold or --names."
                )
        predictions.append(prediction)
    rows = metric_rows({episode.id: episode for episode in episodes}, predictions)
    assert all(row["accuracy"] == worth for row in rows), "a row is not the mean of its predictions"
    return f"planted {kind} answers score {worth:g} by {', '.join(SCORINGS)}: all {len(predictions):,}"


def _cases(episodes: Sequence[Episode]) -> Iterator[tuple[Episode, int, int]]:
    """Every query (its episode and its index) at every number of shots per class."""
    return ((e, q, k) for e in episodes for k in e.shots_per_class for q in range(len(e.queries)))


def _prediction(
    episode: Episode, query: int, shots_per_class: int, answer: Candidate, scaffold: Scaffold
) -> Prediction:
    scores = tuple(
        Score(c.class_id, c.name, -1.0 if c == answer else -2.0, -3.0, 1, -3.0, -1.0 if c == answer else -2.0)
        for c in episode.candidates
    )
    shown = episode.shown(shots_per_class)
    return Prediction(
        episode_id=episode.id,
        query_id=episode.query_id(query),
        shots_per_class=shots_per_class,
        candidates=scores,
        gold=episode.queries[query].class_id,
        reply=scaffold.query_answer.replace("{answer}", answer.name),
        correct={},
        prompt_sha256="",
        support_ids=tuple(turn.item for turn in shown),
        baselines={"copy_first": copy_first(shown), "copy_last": copy_last(shown)},
    )


def check_leaks(episodes: Sequence[Episode], dataset: Dataset, options: EpisodeConfig) -> str:
    """Check that no support contains its query's picture or a copy of it, and that splits and groups are kept apart.

    A query with several pictures must not find all of them in one support turn, in any order.
    """
    pairs = 0
    for episode in episodes:
        for query in episode.queries:
            picture, contents = dataset.item(query.item), sorted(dataset.contents(query.pictures))
            for turn in episode.support:
                shown = dataset.item(turn.item)
                if sorted(dataset.contents(turn.pictures)) == contents:
                    raise InputError(f"{episode.id}: the query's picture {query.item} is in its support ({turn.item}).")
                if options.groups_apart and (shown.class_id, shown.group) == (picture.class_id, picture.group):
                    raise InputError(f"{episode.id}: {turn.item} and the query {query.item} are from the same group.")
                pairs += 1
        _splits(episode, dataset, options)
    return f"no support contains its query's picture or a copy of it: {pairs:,} pairs"


def near_copies_in_supports(episodes: Sequence[Episode], dataset: Dataset) -> list[str]:
    """A line if supports contain near-copies (resized, or compressed again) of their query's picture, else none."""
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


def _splits(episode: Episode, dataset: Dataset, options: EpisodeConfig) -> None:
    for turns, split in ((episode.support, options.support_split), (episode.queries, options.query_split)):
        strays = [turn.item for turn in turns if split not in (None, *dataset.item(turn.item).splits(turn))]
        if strays:
            raise InputError(f"{episode.id}: {strays[0]} is not in the split {split}.")


def check_balance(episodes: Sequence[Episode], options: EpisodeConfig) -> str:
    """Check that every prefix of whole rounds shows each class equally often; of a shuffled support, the whole."""
    beginnings = 0
    for episode in episodes:
        most = max(episode.shots_per_class)
        for shots_per_class in range(1, most + 1) if options.order == "rounds" else [most]:
            counts = Counter(turn.class_id for turn in episode.shown(shots_per_class))
            wanted = {candidate.class_id: shots_per_class for candidate in episode.candidates}
            if shots_per_class and dict(counts) != wanted:
                raise InputError(
                    f"{episode.id}: its first {shots_per_class} shots per class are not balanced: {dict(counts)}."
                )
            beginnings += 1
    return f"every prefix of a support is balanced: {beginnings:,} supports"


def check_blind_policies(episodes: Sequence[Episode]) -> str:
    """Check that policies blind to the query are exactly at chance: copying the first or the last answer, one name.

    Episodes whose number of queries is no multiple of the number of candidates are skipped. Most of these have one
    query with its own candidates.
    """
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
    over = f"; skipped {passed:,} episodes with fewer queries than candidates" if passed else ""
    return f"policies blind to the query are right in exactly 1/candidates of each episode: {tried:,} tried{over}"


def token_lines(episodes: Sequence[Episode], scorer: ScoringModel, size: Callable[[str], int]) -> list[str]:
    """The tokens of the pictures that the episodes show, and advice if one takes much of the model's context."""
    turns = (turn for episode in episodes for turn in (*episode.support, *episode.queries))
    tokens = {item: size(item) for item in dict.fromkeys(item for turn in turns for item in turn.pictures)}
    if not tokens:
        return []
    largest = max(tokens, key=lambda item: tokens[item])
    (width, height), context = open_image(scorer.sources[largest][1]).size, scorer.loaded.context
    counts = f"{min(tokens.values()):,} to {tokens[largest]:,}, median {median(tokens.values()):,.0f}"
    lines = [f"tokens of a picture: {counts}; the largest is {largest} with {width} x {height} pixels"]
    if SHARE * tokens[largest] > context:
        lines.append(
            f"a picture of {tokens[largest]:,} tokens takes more than a quarter of the model's context of {context:,}: "
            f"reduce large pictures, for example with --max-pixels {width * height * context // (16 * tokens[largest])}"
        )
    return lines


def check_context_length(
    episodes: Sequence[Episode], scorer: ScoringModel, scaffold: Scaffold, size: Callable[[str], int] | None = None
) -> str:
    """Check that the longest prompt with its longest answer fits into the model's context.

    `size` is what `picture_tokens` gives.
    """
    size = picture_tokens(scorer, scaffold) if size is None else size
    longest: dict[int, tuple[int, Episode, int]] = {}
    for episode, query, shots_per_class in _cases(episodes):
        tokens = encode(
            query_messages(episode, query, shots_per_class, scaffold), scorer.loaded.chat_template, "none", reply=True
        )
        needed = len(tokens.ids) + sum(size(item) - 1 for item in tokens.pictures)
        if needed > longest.get(shots_per_class, (0,))[0]:
            longest[shots_per_class] = (needed, episode, query)
    checked = [_exact_length(e, q, k, scorer, scaffold) for k, (_, e, q) in sorted(longest.items())]
    return f"every prompt fits: {len(list(_cases(episodes))):,} prompts, the longest {max(checked)[1]}"


def picture_tokens(scorer: ScoringModel, scaffold: Scaffold) -> Callable[[str], int]:
    """A function from an item id to the picture's number of tokens, which depends at most on the picture's size."""
    known: dict[tuple[int, int], int] = {}
    squares = family_of(scorer.loaded.network.config).fixed_resolution

    def size(item: str) -> int:
        edges = (0, 0) if squares else open_image(scorer.sources[item][1]).size
        if edges not in known:
            messages = build_messages((), scaffold, Turn(item, "", ""))
            short = encode(messages, scorer.loaded.chat_template, "none", reply=True)
            known[edges] = len(scorer.prompt(messages).ids) - len(short.ids) + 1
        return known[edges]

    return size


def _exact_length(
    episode: Episode, query: int, shots_per_class: int, scorer: ScoringModel, scaffold: Scaffold
) -> tuple[int, str]:
    """The exact length of a prompt with its longest answer, from the tokens that the model reads, and its parts."""
    messages = query_messages(episode, query, shots_per_class, scaffold)
    where = f"{episode.query_id(query)} at {shots_per_class} shots per class"
    try:
        needed = len(scorer.prompt(messages).ids)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    template, context = scorer.loaded.chat_template, scorer.loaded.context
    unexpanded = len(encode(messages, template, "none", reply=True).ids)
    answered = [query_messages(episode, query, shots_per_class, scaffold, c.name) for c in episode.candidates]
    answer = max(len(encode(each, template, "last").ids) for each in answered) - unexpanded
    if needed + answer > context:
        raise InputError(
            f"{where}: the prompt has {needed} tokens and its longest answer {answer}, and the model's context is "
            f"{context}. Use fewer shots per class, fewer ways, smaller pictures (--max-pixels), or a model with a "
            "longer context."
        )
    shown = len(image_ids(messages))
    text = unexpanded - shown
    parts = f"{shown} pictures {needed - text} + text {text} + answer {answer}"
    return needed + answer, f"{where}: {parts} = {needed + answer} of {context} tokens"


def check_answer_prefixes(episodes: Sequence[Episode], scorer: ScoringModel, scaffold: Scaffold) -> list[str]:
    """Check that a prompt's tokens are a prefix of the conversation with each answer, which ends with an end token.

    Some chat templates write other text before a given answer than at the end of a prompt. This is reported and not
    refused, because no scaffold can change it.
    """
    template, compared = scorer.loaded.chat_template, 0
    notes: dict[str, None] = {}
    for index, episode in enumerate(episodes[:SAMPLE]):
        query = index % len(episode.queries)
        shots_per_class = episode.shots_per_class[index % len(episode.shots_per_class)]
        where = f"{episode.query_id(query)} at {shots_per_class} shots per class"
        question = query_messages(episode, query, shots_per_class, scaffold)
        before = encode(question, template, "none", reply=True).ids
        for candidate in episode.candidates:
            conversation = query_messages(episode, query, shots_per_class, scaffold, candidate.name)
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
                    f"{where}: the tokens before the answer {candidate.name!r} differ from those of the prompt. Use "
                    "another --scaffold."
                )
            notes |= {note: None}
    whole = f"the prompt's tokens are a prefix of the conversation with each answer: {compared:,} compared"
    return [*(notes or [whole]), f"every answer ends with {template.end_of_answer}: {compared:,} answers"]


def _other_beginning(question: list[Message], conversation: list[Message], scorer: ScoringModel) -> str | None:
    """A sentence about the chat template's text before a given answer, if a prompt does not end with it."""
    template = scorer.loaded.chat_template
    open_text, _ = render_text(question, template, reply=True)
    text, spans = render_text(conversation, template)
    given = text[: spans[-1][0]]
    before, _ = render_text(question, template)
    if given == open_text or not given.startswith(before):  # the messages before the answer are rendered differently
        return None
    differ = (i for i, (one, other) in enumerate(zip(given, open_text, strict=False)) if one != other)
    start = max(0, next(differ, min(len(given), len(open_text))) - SHOWN)
    return (
        f"the chat template writes {given[start:]!r} before a given answer and {open_text[start:]!r} at the end of a "
        "prompt: likelihoods follow the former, replies the latter"
    )

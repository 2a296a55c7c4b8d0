"""Compare two runs on the same queries: the paired difference, its interval and its p-value."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from linkcontext.episodes.ids import drawn_as, drawn_query, drawn_task
from linkcontext.errors import InputError
from linkcontext.evaluation.intervals import Z95, Floats, Interval, episode_sums, smallest_n, t95, variance_of_mean
from linkcontext.evaluation.metrics import Key, Pair, Row, chance, credit, grouped, query_picture
from linkcontext.evaluation.power import detectable, holm
from linkcontext.evaluation.run_dir import (
    UNKNOWN_WEIGHTS,
    WORDS,
    RunFolder,
    measurement_differences,
    option_differences,
    read_run,
)
from linkcontext.records import Episode, Prediction
from linkcontext.seeds import rng

DRAWS = 10_000
EXACT_EPISODES = 13  # 2^13 sign patterns are fewer than the draws
CHUNK = 500  # patterns in memory: 500 x 1,000 episodes take 4 MB


def compare(run_a: str | Path, run_b: str | Path) -> list[Row]:
    """One row per (task, names, ways, shots per class, scoring) that both runs have.

    Queries are paired by (query_id, shots_per_class), by the ids with which they were drawn: runs that differ in
    --select ask the same queries after other supports. The task of such a row is that of the drawn episodes.

    A row has its key; `n_queries`, `n_episodes` and `n_pictures` of the pairs; `unpaired_a` and `unpaired_b`, the
    numbers of queries that only one run has; `accuracy_a`, `accuracy_b` and `difference` (b - a); `ci95` (see
    `paired_interval`), `p` (see `sign_flip_p`), `p_holm` (adjusted for all rows), `detectable` (the smallest detectable
    difference) and `chance`.

    Raises:
        InputError: A file is missing or damaged, the runs have different pictures or episodes, or nothing in common.

    Examples:
        >>> import linkcontext
        >>> options = {"data": "digits", "shots": (1,), "episodes": 4}
        >>> a = linkcontext.evaluate("mini-base", out=tmp / "a", **options)
        >>> b = linkcontext.evaluate("mini", out=tmp / "b", **options)
        >>> [row["n_queries"] for row in linkcontext.compare(a.folder, b.folder)]
        [8, 8, 8]
    """
    return compare_runs(read_run(Path(run_a)), read_run(Path(run_b)))


def compare_runs(a: RunFolder, b: RunFolder) -> list[Row]:
    """`compare` for runs that have been read."""
    run_a, run_b = a.path, b.path
    if a.config["data"]["digest"] != b.config["data"]["digest"]:
        raise InputError(
            f"{run_a} and {run_b} were made from different pictures ({a.config['data']['spec']} and "
            f"{b.config['data']['spec']}, by their digests). Evaluate both on the same data."
        )
    groups_a, groups_b = (grouped(run.episodes, run.predictions) for run in (a, b))
    if not groups_a.keys() & groups_b.keys():
        groups_a, groups_b = _as_drawn(groups_a), _as_drawn(groups_b)
    shared = [key for key in groups_a if key in groups_b]
    rows = [row for key in shared for row in _rows(key, a, b, groups_a[key], groups_b[key])]
    if not rows:
        raise InputError(
            f"{run_a} and {run_b} have no query, shots per class and scoring in common. "
            "Evaluate both with the same --seed, --ways, --names, --shots-per-class, --choose-from and --scoring."
        )
    adjusted = holm([row["p"] for row in rows])
    return [row | {"p_holm": p} for row, p in zip(rows, adjusted, strict=True)]


def comparison_notes(a: RunFolder, b: RunFolder, names: str = "A and B") -> list[str]:
    """Sentences about unfinished runs, about the differences between the two, and about unknown weights."""
    unfinished = [f"{run.path}: {run.unfinished}" for run in (a, b) if run.unfinished]
    recorded = [{*run.config.get("measured", {})} - ({"weights"} if run.weights_unknown else set()) for run in (a, b)]
    alone = recorded[0] ^ recorded[1]  # a part that only one run records is not known to differ
    differ = measurement_differences(a.config, b.config, alone | ({"weights"} - recorded[0]))
    differ += option_differences(a.config["config"], b.config["config"])
    sentence = f"{names} differ in {', '.join(differ) or 'nothing that was recorded'}."
    if alone:
        sentence += f" Only one of them records {', '.join(WORDS.get(name, name) for name in sorted(alone))}."
    return [*unfinished, sentence, *(f"{run.path}: {UNKNOWN_WEIGHTS}" for run in (a, b) if run.weights_unknown)]


def within(row: Row, margin: float) -> bool:
    """Whether B is "within `margin`" of A: the interval excludes that B is worse by more than the margin."""
    return bool(row["ci95"][0] >= -margin)


def paired_interval(differences: Floats, *clusterings: Sequence[str]) -> Interval:
    """95 % interval of the mean of paired `differences`, float[n] in [-1, 1].

    Each of `clusterings` names the cluster of every difference, such as its episode or its query picture; the widest
    interval is returned. It is a t-interval with the variance between the G clusters, and extends at least
    z^2 / (G + z^2) from the mean: a difference of that size can be missed by all of G clusters (Wilson's bound).
    Without this minimum, two runs that agree on five queries would have an interval of width 0. With a single cluster
    the interval is [-1, 1].
    """
    mean, half = float(differences.mean()), 0.0
    for clusters in clusterings:
        sums, sizes = episode_sums(differences, clusters)
        if len(sums) == 1:
            return -1.0, 1.0
        floor = Z95**2 / (smallest_n(sizes) + Z95**2)
        half = max(half, t95(len(sums) - 1) * variance_of_mean(sums, sizes) ** 0.5, floor)
    return max(-1.0, mean - half), min(1.0, mean + half)


def clustered_p(differences: Floats, clusterings: Sequence[Sequence[str]], *stream: str | int) -> float:
    """The largest `sign_flip_p` over several clusterings, such as by episode and by query picture."""
    return max(sign_flip_p(episode_sums(differences, clusters)[0], *stream) for clusters in clusterings)


def sign_flip_p(sums: Floats, *stream: str | int) -> float:
    """Two-sided p-value of the sign-flip test for summed differences per episode, float[G].

    It is exact, over all sign patterns, for up to 13 episodes with a difference. Otherwise 10,000 patterns are drawn,
    and the observed one is counted too, so p is never 0. `stream` names the random stream.
    """
    changed = sums[np.abs(sums) > 1e-9]
    if len(changed) == 0:
        return 1.0
    observed = abs(float(changed.sum())) - 1e-9  # credits for ties are fractions like 1/3, whose sums are rounded
    exact = len(changed) <= EXACT_EPISODES
    extreme = total = 0
    for signs in _all_signs(len(changed)) if exact else _drawn_signs(len(changed), *stream):
        extreme += int((np.abs(signs @ changed) >= observed).sum())
        total += len(signs)
    return extreme / total if exact else (extreme + 1) / (total + 1)


def _all_signs(count: int) -> Iterator[Floats]:
    patterns = np.arange(2**count)[:, None] >> np.arange(count) & 1
    yield patterns.astype(np.float64) * 2 - 1


def _drawn_signs(count: int, *stream: str | int) -> Iterator[Floats]:
    draws = rng("compare", "sign flips", *stream)
    for _ in range(DRAWS // CHUNK):
        yield draws.integers(0, 2, (CHUNK, count)).astype(np.float64) * 2 - 1


def _as_drawn(groups: dict[Key, list[Pair]]) -> dict[Key, list[Pair]]:
    return {key._replace(task=drawn_task(key.task)): pairs for key, pairs in groups.items()}


def _rows(key: Key, a: RunFolder, b: RunFolder, pairs_a: list[Pair], pairs_b: list[Pair]) -> Iterator[Row]:
    """The row of one key; none if the runs share no query of that key."""
    by_query = {drawn_query(prediction.query_id): (episode, prediction) for episode, prediction in pairs_b}
    episodes, pictures, credits_a, credits_b = [], [], [], []
    for episode, prediction in pairs_a:
        if (query := drawn_query(prediction.query_id)) not in by_query:
            continue
        other_episode, other = by_query[query]
        if _query_content(episode, prediction) != _query_content(other_episode, other) or (
            episode.task == other_episode.task
            and episode.shown(key.shots_per_class) != other_episode.shown(key.shots_per_class)
        ):
            raise InputError(
                f"Episode {episode.id} is not the same in {a.path} and {b.path}, so they cannot be paired: "
                "the seeds or the data differ. Evaluate both with the same --data and --seed."
            )
        episodes.append(drawn_as(episode.id))
        pictures.append(query_picture(episode, prediction))
        credits_a.append(credit(prediction, key.scoring, episode.candidates))
        credits_b.append(credit(other, key.scoring, other_episode.candidates))
    if not episodes:
        return
    differences = np.array(credits_b) - np.array(credits_a)
    ci95 = paired_interval(differences, episodes, pictures)
    yield {
        **key._asdict(),
        "n_queries": len(episodes),
        "n_episodes": len(set(episodes)),
        "n_pictures": len(set(pictures)),
        "unpaired_a": len(pairs_a) - len(episodes),
        "unpaired_b": len(pairs_b) - len(episodes),
        "accuracy_a": float(np.mean(credits_a)),
        "accuracy_b": float(np.mean(credits_b)),
        "difference": float(differences.mean()),
        "ci95": list(ci95),
        "detectable": detectable(ci95, min(len(set(episodes)), len(set(pictures)))),
        "p": clustered_p(differences, (episodes, pictures), *key),
        "chance": chance(pairs_a),
    }


def _query_content(episode: Episode, prediction: Prediction) -> tuple[object, ...]:
    """Everything that defines a query except its support, because two runs may use different numbers of shots."""
    return episode.candidates, episode.queries[int(prediction.query_id.rpartition("/q")[2])]

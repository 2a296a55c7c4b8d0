"""Episodes in both forms, as open questions and as choices among letters, after arXiv 2403.12736.

Supports and queries are counterbalanced as in all episodes (`episodes.link`, `episodes.questions`), so policies that
copy the first or the last answer, or always give one letter, are at chance.
"""

import dataclasses

from linkcontext.config import EpisodeConfig
from linkcontext.data.manifest import Dataset
from linkcontext.episodes.link import SampledEpisodes
from linkcontext.episodes.plan import LETTERS
from linkcontext.episodes.questions import with_letters
from linkcontext.episodes.scaffold import Scaffold
from linkcontext.errors import InputError
from linkcontext.evaluation.draw import draw_configured, left_out_sentences, with_fitting_shots
from linkcontext.evaluation.task import EpisodeSet, TaskOptions, episode_run_name
from linkcontext.records import Episode
from linkcontext.source import open_data


def refuse_format(options: TaskOptions, benchmark: str) -> None:
    """Raise `InputError` if --format is given, which would select one form."""
    if options.episodes.format != EpisodeConfig().format:
        raise InputError(f"--format: --benchmark {benchmark} uses open questions and choices. Leave --format out.")


def both_forms_run_name(benchmark: str, model: str, options: TaskOptions) -> str:
    """The default name of the folder of a run."""
    return f"{episode_run_name(model, options)}-{benchmark}"


def open_both_forms(options: EpisodeConfig, _: Scaffold) -> EpisodeSet:
    """Draw the episodes in both forms. Raises `InputError` like `open_data` and `draw_episodes`."""
    dataset = open_data(options.data, options.strict)
    options, sentences = with_fitting_shots(options, dataset)
    sampled = draw_configured(options, dataset)
    choice, left_out = _choice(options, dataset, sampled)
    forms = {"open": sampled.episodes, "choice": choice}
    episodes = [dataclasses.replace(ep, id=f"{form}-{ep.id}") for form, drawn in forms.items() for ep in drawn]
    return EpisodeSet(dataset, tuple(episodes), [*sentences, *left_out_sentences(sampled), *left_out])


def _choice(
    options: EpisodeConfig, dataset: Dataset, sampled: SampledEpisodes
) -> tuple[tuple[Episode, ...], list[str]]:
    """The episodes as choices among letters, and sentences about what is left out besides what `sampled` leaves out."""
    if options.tasks:
        try:
            lettered = draw_configured(dataclasses.replace(options, format="choice"), dataset)
        except InputError as error:  # open questions could be drawn, but no choices
            return (), [f"choice: left out, {error}"]
        known = {left.class_id for left in sampled.left_out}
        more = [left for left in lettered.left_out if left.class_id not in known]
        return lettered.episodes, [f"{left.class_id}: left out as a choice, {left.shortfall}" for left in more]
    if options.ways > len(LETTERS):
        return (), [f"choice: left out, {options.ways} ways, but there are only {len(LETTERS)} letters"]
    return tuple(with_letters(episode, "fewshot", options.seed) for episode in sampled.episodes), []

"""covip: CoViP's diagnostic tasks, in which earlier dialogues about a thing are recalled when it is seen again.

last seen          where the user last saw it (lsd): F1 of words, as in the benchmark
triggered recall   a dialogue asks for the word SKS when the thing comes back (itr): whether the reply has it
last action        what the user was doing then (lar): F1 of words; the benchmark asks a judge, which is not asked here
"""

from functools import partial

from linkcontext.config import EpisodeConfig
from linkcontext.data.problems import Problems
from linkcontext.data.readers.covip import HUB, TASKS, CovipQuery, read_covip
from linkcontext.episodes.scaffold import Message, Scaffold
from linkcontext.evaluation.task import Task
from linkcontext.evaluation.tasks.own_context import configure_own_context, own_context_run_name, with_pictures
from linkcontext.evaluation.tasks.recall_questions import RecallQuestion, RecallTest, random_subset

WHERE = "Where did I last see what is in the new picture? Answer with the place alone."
QUESTIONS = {
    "lsd": WHERE,
    "itr": "Where did I last see what is in the new picture?",
    "lar": "What was I doing when I last told you about what is in the new picture? Answer in a few words.",
}
METRICS = {"lsd": "token f1", "itr": "contains", "lar": "token f1"}


def _open(options: EpisodeConfig, _: Scaffold) -> RecallTest:
    """Up to --episodes queries. The wording is the task's own. Raises `InputError` like `read_covip`."""
    problems = Problems(options.strict)
    folder, task, read = read_covip(options.data, problems)
    name = f"covip {TASKS[task]}"
    drawn = random_subset([*enumerate(read)], options.episodes, "covip", options.seed)
    drawn_questions = [
        RecallQuestion(f"row {number}", name, query.query, (_message(query, QUESTIONS[task]),), (query.answer,))
        for number, query in drawn
    ]
    dataset, questions = with_pictures(drawn_questions, folder, problems)
    return RecallTest(dataset, questions, (), len(read), {name: METRICS[task]})


def _message(query: CovipQuery, question: str) -> Message:
    """The dialogues in order, each after its picture, then the new picture and the question."""
    content: list[dict[str, str]] = []
    for number, (picture, dialogue) in enumerate(zip(query.pictures, query.dialogues, strict=True), 1):
        content += [
            {"type": "text", "text": f"Dialogue {number}:\n"},
            {"type": "image", "image": picture},
            {"type": "text", "text": f"\n{dialogue.strip()}\n\n"},
        ]
    content += [{"type": "text", "text": "New picture:\n"}, {"type": "image", "image": query.query}]
    return {"role": "user", "content": [*content, {"type": "text", "text": f"\n{question}"}]}


COVIP = Task(_open, partial(configure_own_context, "covip", HUB), partial(own_context_run_name, "covip"))

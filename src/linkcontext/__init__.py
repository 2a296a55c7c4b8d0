"""Vision-language models that learn from what is in front of them.

>>> import linkcontext
>>> model = linkcontext.load("mini")
>>> model.teach({"cactihog": ["a.png", "b.png"], "plimbo": ["c.png", "d.png"]})
>>> model.ask("e.png").name
'cactihog'
"""

from typing import TYPE_CHECKING, Any

from linkcontext import _old_modules

if TYPE_CHECKING:
    from linkcontext.teach.learner import Learner

__all__ = ["load", "measure"]

_old_modules.install()


def load(name: str = "mini", **options: Any) -> "Learner":
    """Load a model that can be taught and asked: `mini`, `mini-base`, a folder or a Hugging Face id.

    Options are those of `linkcontext.models.loading.load`: dtype, device, adapter, trust_remote_code; and those of
    `linkcontext.models.prompting.Prompting`: chat_template_kwargs (a dict), max_new_tokens, generation_config.
    """
    import dataclasses  # noqa: PLC0415
    import json  # noqa: PLC0415

    from linkcontext.models.loading import load as load_model  # noqa: PLC0415 - torch takes seconds to import
    from linkcontext.models.prompting import Prompting  # noqa: PLC0415
    from linkcontext.teach.learner import Learner  # noqa: PLC0415

    names = {field.name for field in dataclasses.fields(Prompting)}
    chosen = {option: options.pop(option) for option in names & options.keys()}
    if isinstance(chosen.get("chat_template_kwargs"), dict):
        chosen["chat_template_kwargs"] = json.dumps(chosen["chat_template_kwargs"])
    return Learner(load_model(name, prompting=Prompting(**chosen), **options))


def measure(**options: Any) -> list[dict[str, Any]]:
    """Measure a model; the rows of metrics.json. Options are the flags of `linkcontext eval`, for example
    `measure(model="mini", data="digits", ways=2, shots=(1, 4), episodes=100, out="runs/digits")`.
    """
    from linkcontext.config import eval_config  # noqa: PLC0415
    from linkcontext.evaluation.runner import evaluate  # noqa: PLC0415

    rows: list[dict[str, Any]] = evaluate(eval_config(**options))["rows"]
    return rows

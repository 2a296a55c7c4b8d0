"""lmms-eval's model `linkcontext`: any model of linkcontext, local or behind a server, with shared prefixes and
likelihoods.

    lmms-eval --model linkcontext --model_args pretrained=mini --tasks TASK
    lmms-eval --model linkcontext --model_args pretrained=mini --force_simple --tasks MULTIPLE_CHOICE_TASK

lmms-eval runs tasks of the type `multiple_choice` with simple models only. Its accuracy takes the *smallest* value that
a model returns for a candidate, since its own models return losses, so these tasks get the negative log-probability.
Tasks of the type `loglikelihood` get the log-probability itself, from which lmms-eval computes a perplexity.
"""

from collections.abc import Callable, Sequence
from itertools import groupby
from types import MethodType
from typing import Any

import torch
from accelerate import Accelerator
from lmms_eval.api.instance import GenerationResult, unwrap_generation_output
from lmms_eval.api.model import lmms
from PIL import Image

from linkcontext.config import eval_config
from linkcontext.data.images import Upload, hash_image_pixels, png
from linkcontext.episodes.scaffold import Message
from linkcontext.episodes.special_tokens import refuse_marks
from linkcontext.errors import InputError
from linkcontext.evaluation.open_model import open_model
from linkcontext.inference.vision import chunks
from linkcontext.scoring.protocol import ScoringRequest, require

AT_ONCE = 32  # queries whose prompts are merged; results do not depend on it
MARK = "<image>"


class _LmmsModel(lmms):  # type: ignore[misc] # lmms-eval has no types
    """A model of linkcontext. `options` are flags of `linkcontext eval`: dtype, adapter, engine, memory_gb, ...

    Raises `InputError` for unknown options, and for requests that it cannot serve: sampling, videos and sounds.
    """

    def __init__(
        self,
        pretrained: str = "mini",
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        device: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if not str(batch_size).isdecimal():
            raise InputError(f"--batch_size {batch_size}: a whole number is expected. Results do not depend on it.")
        self.accelerator = Accelerator(cpu=not torch.cuda.is_available())
        self.device = self.accelerator.device
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        if self._world_size > 1 and self.device.type == "cuda":
            device = str(self.device)
        config = eval_config(model=str(pretrained), device=device, batch=max(1, int(batch_size)), **options)
        model = open_model(config.model)
        self.model = model.with_pictures({}, config.batch, config.engine, config.memory_gb)

    def loglikelihood(self, requests: Sequence[Any]) -> list[Any]:
        """For each request its value (see the top of this file), and whether the greedy reply is the continuation."""
        require(self.model, "log-probabilities", "a task of lmms-eval that scores likelihoods")
        results: list[Any] = []
        queries = [list(same) for _, same in groupby(requests, key=lambda request: request.args[-3:])]
        for group in chunks(queries, AT_ONCE):
            prompts = self._bind([self._messages(same[0].args) for same in group])
            answers = [[self._continuation(request.args) for request in same] for same in group]
            asked_for = [
                ScoringRequest(prompt, tuple([*prompt, _message("assistant", text)] for text in texts))
                for prompt, texts in zip(prompts, answers, strict=True)
            ]
            rows = self.model.score(asked_for)
            longest = max(tokens for row in rows for _, tokens in row)
            replies = self.model.generate(prompts, longest)
            for same, texts, row, reply in zip(group, answers, rows, replies, strict=True):
                for request, text, (logprob, _) in zip(same, texts, row, strict=True):
                    value = -logprob if isinstance(request.args[1], str) else logprob
                    results.append(_pair(value, reply == text))
        return results

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Greedy replies, cut at the first stop string of their request, without reasoning."""
        settings = [_generation(request.args) for request in requests]
        replies: list[str] = []
        for group in chunks(list(zip(requests, settings, strict=True)), AT_ONCE):
            for tokens, some in groupby(group, key=lambda pair: pair[1][0]):
                same = list(some)
                prompts = self._bind([self._messages(request.args) for request, _ in same])
                texts = self.model.generate(prompts, tokens)
                replies += [_cut(text, stops) for text, (_, (_, stops)) in zip(texts, same, strict=True)]
        return replies

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Not supported."""
        raise InputError("lmms-eval's tasks of several rounds are not supported by the model linkcontext.")

    def _messages(self, args: tuple[Any, ...]) -> list[dict[str, Any]]:
        """The prompt of a request as lmms-eval's chat messages."""
        raise NotImplementedError

    def _doc(self, args: tuple[Any, ...]) -> dict[str, Any]:
        doc_id, task, split = args[-3:]
        doc: dict[str, Any] = self.task_dict[task][split][doc_id]
        return doc

    def _continuation(self, args: tuple[Any, ...]) -> str:
        """What is scored. White space around it is left out: an answer begins behind the chat template's own."""
        target = args[1]
        text = target if isinstance(target, str) else str(target(self._doc(args)))
        refuse_marks(text, self.model.card.special_tokens, f"task {args[-2]}, document {args[-3]}: a choice")
        return text.strip()

    def _bind(self, conversations: list[list[dict[str, Any]]]) -> list[list[Message]]:
        """Conversations of lmms-eval as messages of linkcontext; the model gets their pictures."""
        sources: dict[str, tuple[str, Any]] = {}
        bound = [
            [_message(m["role"], *(self._part(part, sources) for part in m["content"])) for m in messages]
            for messages in conversations
        ]
        self.model.sources = sources
        return bound

    def _part(self, part: dict[str, Any], sources: dict[str, tuple[str, Any]]) -> dict[str, str] | str:
        """A part of a message; a picture is added to `sources`."""
        if part["type"] == "text":
            refuse_marks(part["text"], self.model.card.special_tokens, "a text of the task")
            text: str = part["text"]
            return text
        if part["type"] != "image":
            raise InputError(f"a task shows a {part['type']}, and the model linkcontext reads texts and pictures only.")
        picture = part["url"]
        if isinstance(picture, str):
            with Image.open(picture) as file:
                picture = file.convert("RGB")
        image = picture.convert("RGB")
        content = hash_image_pixels(image)
        sources[content] = (content, Upload(f"picture {content}", png(image)))
        return {"type": "image", "image": content}


class LmmsChatModel(_LmmsModel):
    """The model for tasks with messages: replies only."""

    is_simple = False

    def _messages(self, args: tuple[Any, ...]) -> list[dict[str, Any]]:
        _, doc_to_messages, _, _, _, _ = args
        messages: list[dict[str, Any]] = doc_to_messages(self._doc(args))
        return messages


class LmmsSimpleModel(_LmmsModel):
    """The model for tasks with a text and pictures: replies, and likelihoods.

    If the task also has messages, and no few-shot examples of its own, these are used: they say where pictures stand
    and who speaks. Else pictures stand at `<image>` where the text has as many of these marks, or before the text.
    """

    is_simple = True

    def _messages(self, args: tuple[Any, ...]) -> list[dict[str, Any]]:
        if len(args) != 6:
            raise InputError("acc_mutual_info scores choices without their question, which linkcontext does not do.")
        text, _, doc_to_visual = args[:3]
        doc = self._doc(args)
        to_messages = _messages_of_task(doc_to_visual)
        if to_messages is not None:
            messages: list[dict[str, Any]] = to_messages(doc)
            return messages
        pictures = [{"type": "image", "url": picture} for picture in (doc_to_visual(doc) or [])]
        pieces = text.split(MARK)
        if len(pieces) - 1 != len(pictures):
            return [{"role": "user", "content": [*pictures, {"type": "text", "text": text}]}]
        content = [{"type": "text", "text": pieces[0]}]
        for picture, piece in zip(pictures, pieces[1:], strict=True):
            content += [picture, {"type": "text", "text": piece}]
        return [{"role": "user", "content": [part for part in content if part.get("text") != ""]}]


def _messages_of_task(doc_to_visual: Any) -> Callable[[dict[str, Any]], list[dict[str, Any]]] | None:
    """`doc_to_messages` of the task that a bound method belongs to; None without one or with few-shot examples."""
    if not isinstance(doc_to_visual, MethodType):
        return None
    task: Any = doc_to_visual.__self__
    config = task.config
    return config.doc_to_messages if callable(config.doc_to_messages) and not config.num_fewshot else None


def _message(role: str, *parts: dict[str, str] | str) -> Message:
    return {"role": role, "content": [{"type": "text", "text": p} if isinstance(p, str) else p for p in parts]}


def _generation(args: tuple[Any, ...]) -> tuple[int, tuple[str, ...]]:
    """The maximum number of new tokens and the stop strings of a request.

    Raises `InputError` where it asks for anything but greedy replies.
    """
    settings = next(argument for argument in args[1:3] if isinstance(argument, dict))
    sampled = settings.get("do_sample") is not False and float(settings.get("temperature") or 0) > 0
    if sampled or int(settings.get("num_beams") or 1) > 1:
        raise InputError(
            f"task {args[-2]}: it samples or searches with beams, and linkcontext replies greedily. Give lmms-eval "
            "--gen_kwargs temperature=0,do_sample=False,num_beams=1"
        )
    until = settings.get("until") or ()
    return int(settings.get("max_new_tokens", 1024)), (until,) if isinstance(until, str) else tuple(until)


def _cut(text: str, stops: Sequence[str]) -> str:
    """The text before the first stop string."""
    return text[: min((text.find(stop) for stop in stops if stop and stop in text), default=len(text))]


def _pair(value: float, greedy: bool) -> Any:
    """A value and whether it is the greedy reply, in a form that lmms-eval keeps: 0.7.3 makes a plain pair a text."""
    pair = (value, greedy)
    return pair if unwrap_generation_output(pair)[0] == pair else GenerationResult(text=pair)

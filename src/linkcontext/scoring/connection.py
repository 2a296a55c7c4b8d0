"""The connection to a model behind endpoints that speak OpenAI's protocol: vLLM, SGLang, `linkcontext serve`."""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from linkcontext.errors import InputError
from linkcontext.models.picture_options import AS_LOADED, PictureOptions
from linkcontext.models.prompting import USUAL_PROMPTING, Prompting
from linkcontext.scoring.replicas import Replica, Replicas

PREFIX = "openai:"
SECONDS = 600.0  # to wait for an answer
CHANGING = ("created", "permission")  # fields of a model in a server's list that change with each request
TOLD_APART = ("measured", "max_model_len")  # fields by which two servers' models differ; paths may be others
HEADER = re.compile(r"[\x20-\x7e]+")  # characters that an HTTP header can hold


@dataclass(frozen=True)
class ServerConnection:
    """A model of a server, or of several that share the requests.

    `name` is what the user wrote, `model` what the servers call it.
    """

    name: str
    model: str
    replicas: Replicas
    prompting: Prompting = USUAL_PROMPTING
    pictures: PictureOptions = AS_LOADED

    @property
    def url(self) -> str:
        """The addresses, separated by commas."""
        return ",".join(replica.url for replica in self.replicas.all)

    def describe(self) -> dict[str, Any]:
        """What config.json records about the model."""
        return {
            "name": self.name,
            "source": self.url,
            "class": "served",
            "served_name": self.model,
            "chat_template_kwargs": self.prompting.template_kwargs,
            "generation_config": self.prompting.generation_config,
            **({"pictures": pictures} if (pictures := self.picture_options) else {}),
        }

    @property
    def picture_options(self) -> str:
        """What is done to pictures, in words; "" for nothing."""
        most, values = self.pictures.max_pixels, self.pictures.processor_kwargs
        parts = [f"reduced to at most {most:,} pixels before they are sent"] if most is not None else []
        return "; ".join([*parts, *([f"the server's image processor with {values}"] if values else [])])

    def complete(
        self, messages: list[dict[str, Any]], new_tokens: int, only: Replica | None = None, **more: Any
    ) -> Any:
        """The greedy completion of a conversation, by the server `only` if it is given.

        `more` are fields of a request beyond these. Raises `Refused` where the server refuses the request, and
        `InputError` where no server answers.
        """
        if kwargs := self.prompting.template_kwargs:
            more |= {"chat_template_kwargs": kwargs}
        if settings := self.pictures.settings:
            more |= {"mm_processor_kwargs": settings}  # a field of vLLM
        options: dict[str, Any] = {"max_tokens": new_tokens, "temperature": 0, "extra_body": more}
        if self.prompting.generation_config == "clean":
            options |= {"presence_penalty": 0, "frequency_penalty": 0}

        def ask(replica: Replica) -> Any:
            completion = replica.client.chat.completions.create(model=self.model, messages=messages, **options)
            return _whole(completion)

        servers = self.replicas if only is None else Replicas([only])
        return servers.call(ask, _beginning(messages))

    def reported(self) -> dict[str, Any]:
        """What the first server reports about the model: its entry in the list of models, and a reply's fingerprint."""
        first = self.replicas.all[0]
        answer = self.complete([{"role": "user", "content": "Hello"}], 1, only=first)
        return {**_listed(first)[self.model], "system_fingerprint": answer.system_fingerprint}


def connect(
    name: str, prompting: Prompting = USUAL_PROMPTING, pictures: PictureOptions = AS_LOADED
) -> ServerConnection:
    """The model `openai:URL#NAME`, or of several servers `openai:URL,URL#NAME`. Without a name: $OPENAI_MODEL, or the
    servers' only model.

    The key is $OPENAI_API_KEY. Raises `InputError` if a server does not answer, has no such model, or serves another
    than the first server does.
    """
    try:
        import openai  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise InputError("--model openai:URL needs the openai package: pip install 'linkcontext[openai]'.") from error
    addresses, _, wanted = name.removeprefix(PREFIX).partition("#")
    urls = [url.strip().rstrip("/") for url in addresses.split(",")]
    for url in urls:
        _check_address(url, name)
    if len({*urls}) < len(urls):
        raise InputError(f"--model {name}: an address is given twice. Give each server once.")
    key = os.environ.get("OPENAI_API_KEY", "").strip() or "none"  # most servers of one's own want none
    if not HEADER.fullmatch(key):  # an error of the client's would repeat the key
        raise InputError(
            "OPENAI_API_KEY: the key has a character that cannot be sent. Does the variable hold the key alone?"
        )
    replicas = [Replica(url, openai.OpenAI(base_url=url, api_key=key, max_retries=0, timeout=SECONDS)) for url in urls]
    wanted = wanted or os.environ.get("OPENAI_MODEL", "")
    entries = [Replicas([replica]).call(_listed, patience=0) for replica in replicas]
    models = [_chosen(name, wanted, [*listed]) for listed in entries]
    if len({*models}) > 1:
        raise InputError(f"--model {name}: the servers have {', '.join(models)}. Name one that all of them have.")
    model, before = models[0], dict(zip(urls, entries, strict=True))
    for replica in replicas[1:]:
        _check_entry(replica, before[urls[0]][model], before[replica.url][model], TOLD_APART)

    owners = {replica.url: before[replica.url][model].get("owned_by") for replica in replicas}
    if pictures.settings and (others := [url for url, owner in owners.items() if owner != "vllm"]):
        raise InputError(
            f"--processor-kwargs: {others[0]} is not a vLLM server, and only vLLM takes settings of the "
            "image processor. "
            "Give them to the server when it is started, or use --max-pixels."
        )

    def recheck(replica: Replica) -> None:
        """Raise `InputError` if a server that was away has come back with another model."""
        now = _listed(replica)
        if model not in now:
            raise InputError(f"{replica.url}: the server could not be reached, and came back without {model}.")
        _check_entry(replica, before[replica.url][model], now[model], ())

    return ServerConnection(name, model, Replicas(replicas, [recheck]), prompting, pictures)


def _check_entry(replica: Replica, before: dict[str, Any], now: dict[str, Any], fields: Sequence[str]) -> None:
    """Raise `InputError` if a server reports something else about a model than was reported before.

    `fields` are those that are compared; without any, all are.
    """
    names = fields or sorted({*before, *now})
    if differ := [name for name in names if before.get(name) != now.get(name)]:
        raise InputError(
            f"{replica.url}: serves another model than when the run began or than the first server does: "
            f"{', '.join(differ)} differs. Figures of two models must not be mixed."
        )


def _check_address(url: str, name: str) -> None:
    """Raise an `InputError` for an invalid address, or one with a password, which a run would write down."""
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and bool((parts.hostname or "").encode("idna")) and parts.port != 0
    except ValueError:
        whole = False
    else:
        if parts.username is not None or parts.password is not None or parts.query:
            raise InputError(
                f"--model {PREFIX}{parts.scheme}://...: an address with a user, a password or a query would be written "
                "into the files of a run. Give the key in OPENAI_API_KEY, and the address without it."
            )
    if not whole:
        raise InputError(f"--model {name}: has no address. Write openai:http://localhost:8000/v1#NAME.")


def _chosen(name: str, wanted: str, served: Sequence[str]) -> str:
    """The model to use of those that a server has."""
    if not served:
        raise InputError(f"--model {name}: the server has no model.")
    if not wanted and len(served) != 1:
        raise InputError(f"--model {name}: the server has {', '.join(served)}. Choose one: {name.rstrip('#')}#NAME.")
    if wanted and wanted not in served:
        raise InputError(f"--model {name}: the server has no {wanted}. There are {', '.join(served)}.")
    return wanted or served[0]


def _listed(replica: Replica) -> dict[str, dict[str, Any]]:
    """By model name, what a server reports in its list of models and what does not change by itself.

    vLLM gives the time of the request and a new permission with each list. Fields that the server did not send are the
    client's own, and another version of it has others.
    """
    try:
        models = list(replica.client.models.list().data)
        sent = {model.id: model.model_dump(exclude_unset=True) for model in models}
    except (AttributeError, TypeError):  # the client parses any page and any JSON
        sent = {None: {}}
    if not all(isinstance(name, str) for name in sent):
        raise InputError(
            f"{replica.url}: not an endpoint that is compatible with OpenAI's. Does the address end in /v1?"
        )
    return {name: {k: v for k, v in entry.items() if k not in CHANGING} for name, entry in sent.items()}


def _whole(completion: Any) -> Any:
    """A completion that has a message. Raises `ValueError` for anything else that a server sends with status 200."""
    try:
        content = completion.choices[0].message.content
    except (AttributeError, TypeError, LookupError) as error:
        raise ValueError("it holds no message") from error
    if not isinstance(content, str | None):
        raise ValueError("its message is not a text")
    return completion


def _beginning(messages: Sequence[dict[str, Any]]) -> str:
    """What conversations with the same support have in common: their messages up to the first of the user."""
    users = (place for place, message in enumerate(messages) if message["role"] == "user")
    return json.dumps(messages[: next(users, 0) + 1])

"""The connection to a model behind an endpoint that speaks OpenAI's protocol: vLLM, SGLang, `linkcontext serve`."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from linkcontext.errors import InputError
from linkcontext.models.picture_options import AS_LOADED, PictureOptions
from linkcontext.models.prompting import USUAL_PROMPTING, Prompting

PREFIX = "openai:"
RETRIES = 8  # of a request that the server refuses because it is busy
SECONDS = 600.0  # to wait for an answer
HEADER = re.compile(r"[\x20-\x7e]+")  # characters that an HTTP header can hold


class Refused(InputError):
    """A server refused a request."""


@dataclass(frozen=True)
class ServerConnection:
    """A model of a server. `name` is what the user wrote, `model` what the server calls it."""

    name: str
    url: str
    model: str
    client: Any
    prompting: Prompting = USUAL_PROMPTING
    pictures: PictureOptions = AS_LOADED

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

    def complete(self, messages: list[dict[str, Any]], new_tokens: int, **more: Any) -> Any:
        """The server's greedy completion of a conversation. `more` are fields beyond OpenAI's protocol."""
        create = self.client.chat.completions.create
        if kwargs := self.prompting.template_kwargs:
            more |= {"chat_template_kwargs": kwargs}
        if settings := self.pictures.settings:
            more |= {"mm_processor_kwargs": settings}  # a field of vLLM
        options: dict[str, Any] = {"max_tokens": new_tokens, "temperature": 0, "extra_body": more}
        if self.prompting.generation_config == "clean":
            options |= {"presence_penalty": 0, "frequency_penalty": 0}
        return _answer_of(self.url, lambda: create(model=self.model, messages=messages, **options))

    def reported(self) -> dict[str, Any]:
        """What the server reports about the model: its entry in the list of models, and the fingerprint of a reply."""
        (entry,) = (model for model in self.client.models.list().data if model.id == self.model)
        answer = self.complete([{"role": "user", "content": "Hello"}], 1)
        # vLLM gives the time of the request and a new permission with each list. Fields that the server did not send
        # are the client's own, and another version of it has others.
        sent = entry.model_dump(exclude_unset=True)
        listed = {key: value for key, value in sent.items() if key not in ("created", "permission")}
        return {**listed, "system_fingerprint": answer.system_fingerprint}


def connect(
    name: str, prompting: Prompting = USUAL_PROMPTING, pictures: PictureOptions = AS_LOADED
) -> ServerConnection:
    """The model `openai:URL#NAME`. Without a name: $OPENAI_MODEL, or the server's only model.

    The key is $OPENAI_API_KEY. Raises `InputError` if no server answers, or it has no such model.
    """
    try:
        import openai  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise InputError("--model openai:URL needs the openai package: pip install 'linkcontext[openai]'.") from error
    url, _, wanted = name.removeprefix(PREFIX).partition("#")
    _check_address(url, name)
    key = os.environ.get("OPENAI_API_KEY", "").strip() or "none"  # most servers of one's own want none
    if not HEADER.fullmatch(key):  # an error of the client's would repeat the key
        raise InputError("OPENAI_API_KEY: the key holds a letter that cannot be sent. Is it the key alone?")
    client = openai.OpenAI(base_url=url, api_key=key, max_retries=RETRIES, timeout=SECONDS)
    served = _model_names(url, client)
    if not served:
        raise InputError(f"--model {name}: the server has no model.")
    wanted = wanted or os.environ.get("OPENAI_MODEL", "")
    if not wanted and len(served) != 1:
        raise InputError(f"--model {name}: the server has {', '.join(served)}. Choose one: openai:{url}#NAME.")
    if wanted and wanted not in served:
        raise InputError(f"--model {name}: the server has no {wanted}. There are {', '.join(served)}.")
    if pictures.settings and not _is_vllm(client, wanted or served[0]):
        raise InputError(
            f"--processor-kwargs: {url} is no vLLM server, and only vLLM takes settings of the image processor. Give "
            "them to the server when it is started, or use --max-pixels."
        )
    return ServerConnection(name, url, wanted or served[0], client, prompting, pictures)


def _is_vllm(client: Any, model: str) -> bool:
    """Whether the server's list of models says that vLLM serves this one. Other servers ignore fields of vLLM."""
    return any(entry.id == model and entry.owned_by == "vllm" for entry in client.models.list().data)


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
        raise InputError(f"--model {name}: no address. Write openai:http://localhost:8000/v1#NAME.")


def _model_names(url: str, client: Any) -> list[str]:
    """The names of a server's models."""
    try:
        names = [model.id for model in _answer_of(url, client.models.list).data]
    except (AttributeError, TypeError):  # the client parses any page and any JSON
        names = [None]
    if not all(isinstance(name, str) for name in names):
        raise InputError(f"{url}: not an endpoint of OpenAI's kind. Does the address end in /v1?")
    return names


def _answer_of(url: str, call: Callable[[], Any]) -> Any:
    """What a server answers to a call of the client. Raises `InputError` with the server's message if it refuses."""
    import openai  # noqa: PLC0415 - an extra

    try:
        return call()
    except openai.APIStatusError as error:
        why = error.body.get("message") if isinstance(error.body, dict) else error.message
        raise Refused(f"{url}: the server refuses ({error.status_code}): {why}") from error
    except openai.APIConnectionError as error:
        why = str(error.__cause__ or error)
        raise InputError(f"{url}: no answer ({why}). Is a server running there?") from error

"""Whether the Hugging Face hub can be reached, asked once, so that its clients do not repeat their requests in vain."""

import ssl
from functools import cache
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from huggingface_hub import constants

TIMEOUT_S = 5.0


def is_local_only(name: str, download: bool = True) -> bool:
    """Whether the files of a model are looked for on this machine only.

    They are if nothing may be downloaded, if the name is that of a folder, and if no hub answers: a copy from an
    earlier download may be here.
    """
    return not download or Path(name).is_dir() or hub_failure() is not None


@cache
def hub_failure() -> str | None:
    """Why the hub cannot be reached; None if it answers.

    Proxies count as they do for the hub's own client. A hub that answers with an error, or whose certificate is not
    trusted here, is left to that client.
    """
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        with urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=TIMEOUT_S):
            return None
    except HTTPError:
        return None
    except (URLError, TimeoutError, ConnectionError) as error:
        cause = error.reason if isinstance(error, URLError) else error
        if isinstance(cause, ssl.SSLError):
            return None
        return "no answer in time" if isinstance(cause, TimeoutError) else str(cause)

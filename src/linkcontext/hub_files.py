"""Folders to and from the Hugging Face Hub, or the server of its API that `HF_ENDPOINT` names. Errors are sentences."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from linkcontext.errors import InputError, excerpt


def upload_folder(folder: Path, repo_id: str, private: bool | None, token: str | None, message: str) -> str:
    """Write a folder's files into a model repository, which is made if there is none; return the address of the commit.

    Args:
        folder: Its files are added to those of the repository; files of the same name are replaced.
        repo_id: OWNER/NAME.
        private: Whether a new repository is private. Default: as the owner's settings say.
        token: Default: the one of `hf auth login`.
        message: Of the commit.

    Raises:
        InputError: The server cannot be reached, or refuses the upload.
    """
    with _hub_errors(repo_id):
        api = HfApi(endpoint=_endpoint(), token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=message).commit_url)


def download_files(repo_id: str, patterns: Sequence[str], revision: str | None, token: str | None) -> Path:
    """The folder of the local cache with a repository's files that match `patterns`; named by the commit.

    Raises `InputError` if there is no such repository or revision, and if the server cannot be reached.
    """
    with _hub_errors(repo_id):
        folder = snapshot_download(
            repo_id, revision=revision, token=token, allow_patterns=list(patterns), endpoint=_endpoint()
        )
    return Path(folder)


def _endpoint() -> str:
    return str(os.environ.get("HF_ENDPOINT", constants.ENDPOINT)).rstrip("/")


@contextmanager
def _hub_errors(repo_id: str) -> Iterator[None]:
    """Turn the errors of the hub into sentences."""
    where = f"{excerpt(repo_id)} on {_endpoint()}"
    try:
        yield
    except HFValidationError as error:
        raise InputError(f"{excerpt(repo_id)}: not the name of a repository. Write OWNER/NAME.") from error
    except OfflineModeIsEnabled as error:
        raise InputError(f"{where}: HF_HUB_OFFLINE is set. Unset it to use the hub.") from error
    except GatedRepoError as error:
        raise InputError(
            f"{where}: its owner gives access on request. Ask on its page, then `hf auth login`."
        ) from error
    except RepositoryNotFoundError as error:
        raise InputError(
            f"{where}: no such repository, or it is private. Check the name, and log in with `hf auth login`."
        ) from error
    except RevisionNotFoundError as error:
        raise InputError(f"{where}: no such revision. Give a branch, a tag or a commit.") from error
    except LocalEntryNotFoundError as error:
        raise InputError(f"{where}: cannot be reached, and is not in the cache. Check the network.") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        advice = "Log in with `hf auth login`, or give a token that may write." if status in (401, 403) else ""
        advice = advice or ("The server fails; try again later." if status >= 500 else "Check the name and the files.")
        raise InputError(f"{where}: refused ({status}). {advice}") from error
    except (HTTPError, RuntimeError) as error:  # the latter where a large file could not be sent
        raise InputError(f"{where}: cannot be reached ({excerpt(str(error))}). Check the network.") from error

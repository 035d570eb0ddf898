"""Gets files from a folder, or from a repository on the Hub."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import TypedDict

from typing_extensions import Unpack

from ...errors import CheckpointError, HubError
from ..shared.packages import huggingface_hub


class Remote(TypedDict, total=False):
    """Options of ``huggingface_hub.hf_hub_download``."""

    revision: str | None
    token: str | bool | None
    cache_dir: str | PathLike[str] | None
    force_download: bool
    local_files_only: bool


def folder_of(name: str | PathLike[str], **remote: Unpack[Remote]) -> Callable[[str], Path]:
    """Returns a function from a file's name to its path; from a repository it downloads the file, unless cached.

    The function raises CheckpointError for a file that the repository lacks, and HubError for a repository that does
    not exist or cannot be reached.
    """
    if os.path.isdir(name):
        return Path(name).joinpath
    return lambda file: _downloaded(str(name), file, **remote)


def _downloaded(repository: str, file: str, **remote: Unpack[Remote]) -> Path:
    library = huggingface_hub()
    errors, asked = library.errors, f"from_pretrained({repository!r})"
    with hub_errors(f"{asked}: there is no such folder, and"):
        try:
            return Path(library.hf_hub_download(repository, file, **remote))
        except errors.LocalEntryNotFoundError as error:
            raise HubError(
                f"{asked}: there is no such folder, {file} of a repository of that name was not downloaded before, and "
                f"the Hub was not asked or not reached: look at the network, at HF_HUB_OFFLINE and local_files_only=. "
                f"{error}"
            ) from error
        except errors.GatedRepoError as error:
            raise HubError(f"{asked}: the repository is gated; ask for access on its page. {error}") from error
        except errors.RepositoryNotFoundError as error:
            raise HubError(
                f"{asked}: there is no such folder, and on the Hub no repository of that name that is open to you; for "
                f"a private one give token=, or log in with hf auth login."
            ) from error
        except errors.RevisionNotFoundError as error:
            raise HubError(
                f"{asked}: has no revision {remote.get('revision')!r}; give a branch, a tag or a commit that it has."
            ) from error
        except errors.EntryNotFoundError as error:
            raise CheckpointError(
                f"{asked}: the repository has no {file}; save_pretrained did not write it, or not all of it."
            ) from error


@contextmanager
def hub_errors(asked: str) -> Iterator[None]:
    """Turns the errors of huggingface_hub and of its HTTP client into ``HubError``.

    Args:
        asked: what was asked for; begins the messages.

    Raises:
        HubError: if the Hub refuses or is not reached, and for an invalid repository id.
    """
    errors = huggingface_hub().errors
    try:
        yield
    except HubError:
        raise
    except errors.HFValidationError as error:
        raise HubError(f"{asked} no repository can be called so: {error}") from error
    # The bases hold the HTTP client's own error class, which depends on the version of huggingface_hub.
    except (OSError, *errors.HfHubHTTPError.__bases__) as error:
        raise HubError(f"{asked} the Hub was not reached, or refused: {error}") from error

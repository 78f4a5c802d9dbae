"""Fetches a few files of a repository on the Hugging Face Hub, or finds them in the Hub client's cache."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import httpx2
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

from nano_export.errors import HubFilesError
from nano_runtime.errors import NetworkError, OutputError
from nano_runtime.errors.escaping import first_line

__all__ = ["fetch_files"]


def fetch_files(repository: str, choose: Callable[[Collection[str]], Sequence[str]]) -> tuple[Path, Sequence[str]]:
    """Download files of a repository's default branch; without a network those that are in the cache are taken.

    Args:
        repository: Hub id.
        choose: from the names of all files to those to fetch; its errors pass.

    Returns:
        The folder that has them, and their names in it.

    Raises:
        HubFilesError: the Hub has no such repository, or wants a login for it.
        OutputError: the cache cannot be written.
        NetworkError: the Hub could not be reached, or refused, and the cache does not have the files.
    """
    try:
        info = HfApi().model_info(repository)
        files = choose([sibling.rfilename for sibling in info.siblings or []])
        # By the branch's name, not by its commit: only then the cache knows without a network which commit it was.
        return Path(snapshot_download(repository, allow_patterns=list(files))), files
    except GatedRepoError as error:
        raise HubFilesError(repository, "its authors want to know who downloads it: run “hf auth login”") from error
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise HubFilesError(repository, "there is no such file or folder, and none so named on the Hub") from error
    except (httpx2.HTTPError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
            raise OutputError(Path(error.filename), error) from error  # a full disk
        found = _cached(repository, choose)
        if found is None:
            raise NetworkError(
                f"{repository} could not be fetched from the Hub: {first_line(error)}",
                "Check the connection and try again; finished downloads are kept. A local file needs no network.",
            ) from error
        return found


def _cached(repository: str, choose: Callable[[Collection[str]], Sequence[str]]) -> tuple[Path, Sequence[str]] | None:
    """Return the files that the cache has; None if it has nothing of the repository."""
    try:
        # A pattern that no file has: the client then asks for no file to be there, and returns the folder.
        folder = Path(snapshot_download(repository, local_files_only=True, allow_patterns=["\n"]))
    except (httpx2.HTTPError, OSError):
        return None
    return folder, choose([path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*"))])

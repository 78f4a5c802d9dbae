"""Finds and fetches a model on the Hugging Face Hub: exactly the needed files, at one commit."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import httpx2
from huggingface_hub import HfApi, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from nano_export.errors import CheckpointError
from nano_export.options import BUILT_IN
from nano_export.source.layout import SMALL_FILES, WEIGHTS, Choice, choose_weights
from nano_export.source.weights import no_weights
from nano_runtime.errors import NetworkError, OutputError
from nano_runtime.errors.escaping import first_line

__all__ = ["Remote", "cached", "fetch", "look_up"]

_CERTAIN_FILES = ("model_index.json", "unet/config.json", "vae/config.json")  # a download that broke off has some

_GATED = "its authors want to know who downloads it: agree on its page of the Hub, then run “hf auth login”"


@dataclass(frozen=True)
class Remote:
    """A model on the Hub; nothing of it was fetched.

    Attributes:
        model: Hub id.
        revision: branch, tag or commit that was asked for; None is the default branch.
        variant: that was asked for.
        weights: the files of each network.
        sizes: path of a file -> bytes, where the Hub says so.
    """

    model: str
    revision: str | None
    variant: str | None
    weights: dict[str, Choice]
    sizes: dict[str, int]


def look_up(model: str, revision: str | None, variant: str | None) -> Remote:
    """Ask the Hub which files a model has.

    Args:
        model: Hub id.
        revision: branch, tag or commit; None is the default branch.
        variant: of the weights' names; None takes the plain ones, or what there is instead.

    Raises:
        CheckpointError: the Hub has no such model or revision, or the model lacks a network.
        PickleOnlyError: the weights are not safetensors.
        NetworkError: the Hub could not be reached, or refused.
    """
    try:
        info = HfApi().model_info(model, revision=revision, files_metadata=True)
    except HFValidationError as error:
        raise CheckpointError(
            model, "there is no such folder, and it cannot be the name of a model on the Hub"
        ) from error
    except RevisionNotFoundError as error:
        raise CheckpointError(model, f"the Hub has no revision {revision!r} of it") from error
    except GatedRepoError as error:
        raise CheckpointError(model, _GATED) from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(model, "there is no such folder, and no such public model on the Hub") from error
    except (httpx2.HTTPError, OSError) as error:
        raise _unreachable(model, error) from error
    siblings = info.siblings or []
    return Remote(
        model=model,
        revision=revision,
        variant=variant,
        weights=_weights(model, [sibling.rfilename for sibling in siblings], variant),
        sizes={sibling.rfilename: sibling.size for sibling in siblings if sibling.size is not None},
    )


def fetch(remote: Remote) -> Path:
    """Download the needed files into the Hub client's cache; files in it are not downloaded again.

    The client notes in its cache which commit the revision was, so that ``cached`` finds it without a network.

    Returns:
        The folder with the files. Its name is the commit that they are from: 40 hex digits.

    Raises:
        CheckpointError: its authors want to know who downloads it.
        OutputError: the cache cannot be written.
        NetworkError: the Hub could not be reached, or refused.
    """
    weights = [f"{folder}/{name}" for folder, choice in remote.weights.items() for name in choice.names]
    try:
        return Path(snapshot_download(remote.model, revision=remote.revision, allow_patterns=[*SMALL_FILES, *weights]))
    except GatedRepoError as error:
        raise CheckpointError(remote.model, _GATED) from error
    except (httpx2.HTTPError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
            raise OutputError(Path(error.filename), error) from error  # a full disk
        raise _unreachable(remote.model, error) from error


def cached(model: str, revision: str | None) -> Path | None:
    """Find a model in the Hub client's cache, without the network.

    Args:
        model: Hub id.
        revision: branch, tag or commit; None is the default branch.

    Returns:
        The folder with its files, as ``fetch`` returns it; None if the cache has none.
    """
    for name in _CERTAIN_FILES:
        if isinstance(path := try_to_load_from_cache(model, name, revision=revision), str):
            return Path(path).parents[name.count("/")]
    return None


def _unreachable(model: str, error: BaseException) -> NetworkError:
    hint = "Check the connection and try again; finished downloads are kept. A local folder needs no network."
    if meant := get_close_matches(model, BUILT_IN, 1):
        hint = f"Did you mean the built-in model {meant[0]}? {hint}"
    return NetworkError(f"{model} could not be fetched from the Hub: {first_line(error)}", hint)


def _weights(model: str, names: list[str], variant: str | None) -> dict[str, Choice]:
    """Choose the weights among all files of a repository; every network has some."""
    weights: dict[str, Choice] = {}
    for folder in WEIGHTS:
        own = [name.removeprefix(f"{folder}/") for name in names if name.startswith(f"{folder}/")]
        choice = choose_weights(folder, own, variant)
        if choice is None:
            raise no_weights(f"{model}/{folder}", folder, own, variant)
        weights[folder] = choice
    if variant is not None and variant not in {choice.variant for choice in weights.values()}:
        raise CheckpointError(model, f"none of its networks has weights of the variant {variant!r}")
    return weights

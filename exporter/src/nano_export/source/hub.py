"""Fetches a model from the Hugging Face Hub: exactly the needed files, at one commit."""

from __future__ import annotations

from pathlib import Path

import httpx2
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

from nano_export.errors import CheckpointError
from nano_export.source.layout import SMALL_FILES, WEIGHTS, choose_weights
from nano_export.source.weights import no_weights
from nano_runtime.bundle.manifest import Source
from nano_runtime.errors import NetworkError, OutputError
from nano_runtime.errors.escaping import first_line

__all__ = ["fetch"]


def fetch(model: str, revision: str | None, variant: str | None) -> tuple[Path, Source]:
    """Download the needed files of a repository into the Hub client's cache; files in it are not downloaded again.

    Args:
        model: Hub id.
        revision: branch, tag or commit, resolved to a commit first; None is the default branch.
        variant: of the weights' names; None takes the plain ones, or what there is instead.

    Returns:
        The folder with the files, and the commit they are from.

    Raises:
        CheckpointError: the Hub has no such model or revision, or the model lacks a network.
        PickleOnlyError: the weights are not safetensors.
        OutputError: the cache cannot be written.
        NetworkError: the Hub could not be reached, or refused.
    """
    try:
        info = HfApi().model_info(model, revision=revision)
        weights = _weights(model, [sibling.rfilename for sibling in info.siblings or []], variant)
        path = snapshot_download(model, revision=info.sha, allow_patterns=[*SMALL_FILES, *weights])
    except HFValidationError as error:
        raise CheckpointError(
            model, "there is no such folder, and it cannot be the name of a model on the Hub"
        ) from error
    except RevisionNotFoundError as error:
        raise CheckpointError(model, f"the Hub has no revision {revision!r} of it") from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(model, "there is no such folder, and no such public model on the Hub") from error
    except (httpx2.HTTPError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
            raise OutputError(Path(error.filename), error.strerror or type(error).__name__) from error  # a full disk
        raise NetworkError(
            f"{model} could not be fetched from the Hub: {first_line(error)}",
            "Check the connection and try again; finished downloads are kept. A local folder needs no network.",
        ) from error
    return Path(path), Source(model=model, revision=info.sha)


def _weights(model: str, names: list[str], variant: str | None) -> list[str]:
    """Return the weights among all files of a repository; every network has some."""
    weights: list[str] = []
    variants: set[str | None] = set()
    for folder in WEIGHTS:
        own = [name.removeprefix(f"{folder}/") for name in names if name.startswith(f"{folder}/")]
        choice = choose_weights(folder, own, variant)
        if choice is None:
            raise no_weights(f"{model}/{folder}", folder, own, variant)
        weights += [f"{folder}/{name}" for name in choice.names]
        variants.add(choice.variant)
    if variant not in {None, *variants}:
        raise CheckpointError(model, f"none of its networks has weights of the variant {variant!r}")
    return weights

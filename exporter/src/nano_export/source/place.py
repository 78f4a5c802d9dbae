"""Finds where a model is: built in, a folder, a file, the Hub's cache, or the Hub. Nothing is loaded or downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nano_export.errors import CheckpointError, PickleOnlyError
from nano_export.options import BUILT_IN, NOTHING_ASKED, SingleFileOptions
from nano_export.source import builtin
from nano_export.source.folder import DiffusersFolder, open_folder
from nano_export.source.hub import Remote, cached, fetch, look_up
from nano_export.source.readable import require_readable
from nano_export.source.single_file.opening import SingleFile
from nano_export.source.single_file.tensors import is_single_file
from nano_runtime.bundle.manifest import Source
from nano_runtime.errors import NetworkError
from nano_runtime.errors.escaping import unseen

__all__ = ["Place", "fetched", "find_model"]

_CACHED = "models--"  # begins the name of a model's folder in the Hub's cache; "--" stands for "/"


@dataclass(frozen=True)
class Place:
    """Where a model is.

    Attributes:
        source: for the manifest; the revision is a commit once the files are on this machine.
        folder: that was checked; None for a model that was not fetched yet, and for seeded random weights.
        file: with all the weights; its folder has none, and its path is not there.
        remote: a repository that was not fetched yet.
        note: a sentence for the user; None if there is nothing to say.
    """

    source: Source
    folder: DiffusersFolder | None = None
    file: SingleFile | None = None
    remote: Remote | None = None
    note: str | None = None


def find_model(
    model: str,
    revision: str | None,
    variant: str | None,
    asked: SingleFileOptions = NOTHING_ASKED,
    vae: Path | None = None,
) -> Place:
    """Find a model by its name.

    Args:
        model: a built-in name, the path of a diffusers folder, of a model's folder in the Hub's cache or of a single
            file, or a Hub id, tried in this order.
        revision: branch, tag or commit on the Hub; None takes the default branch.
        variant: of the weights' names, such as "fp16"; None takes the plain ones, or what there is instead.
        asked: facts that a single file lacks.
        vae: folder of an autoencoder, for a single file without one.

    Raises:
        CheckpointError: nothing has that name, files are missing or damaged, a revision is given for a model that is
            not on the Hub, a variant for one that is built in, or facts for one that is no single file.
        SingleFileError: a single file is something else, or something about it is not known.
        VocabularyNotFoundError: CLIP's vocabulary was not found for it.
        PickleOnlyError: the weights are not safetensors.
        UnsupportedModelError: it is not a Stable Diffusion 1 or 2.
        NetworkError: the Hub could not be reached, and its cache does not have the model.
    """
    single = model not in BUILT_IN and is_single_file(model)
    if asked != NOTHING_ASKED and not single:
        raise CheckpointError(model, "--tokenizer, --config and --prediction-type are for single files")
    if model in BUILT_IN:
        if revision is not None or variant is not None:
            raise CheckpointError(model, f"it is built in, so it has no {revision or variant!r}")
        source = Source(model=model, revision=None)
        return Place(source, open_folder(builtin.DEMO, None) if model == "demo" else None)
    if single:
        if revision is not None or variant is not None:
            raise CheckpointError(model, f"it is one file, so it has no {revision or variant!r}")
        file = SingleFile.open(model, asked, vae)
        source = Source(model=_shown(file.path.stem), revision=None)
        return Place(source, file.folder(), file=file, note=file.note)
    folder = Path(model).expanduser()
    if not _is_folder(folder):
        return _on_the_hub(model, revision, variant)
    if folder.resolve().name.startswith(_CACHED):
        return _in_cache_folder(folder.resolve(), revision, variant)
    if revision is not None:
        raise CheckpointError(model, f"it is not on the Hub, so it has no revision {revision!r}")
    found = open_folder(folder, variant)
    return Place(_source_of(folder.resolve()), found, note=_note_of(found, variant))


def fetched(place: Place) -> Place:
    """Download a model that is on the Hub, and check its folder; other places are returned as they are.

    Raises:
        CheckpointError: files are missing or damaged.
        UnsupportedModelError: it is not a Stable Diffusion 1 or 2.
        NetworkError: the Hub could not be reached, or refused.
        OutputError: the Hub's cache cannot be written.
    """
    if place.remote is None:
        return place
    folder = open_folder(fetch(place.remote), place.remote.variant)
    source = Source(model=place.remote.model, revision=folder.path.name)
    return Place(source, folder, note=_note_of(folder, place.remote.variant))


def _on_the_hub(model: str, revision: str | None, variant: str | None) -> Place:
    """Find a model on the Hub; in its cache if there is no network."""
    try:
        remote = look_up(model, revision, variant)
    except NetworkError as error:
        folder = cached(model, revision)
        if folder is None:
            raise
        try:
            found = open_folder(folder, variant)
        except (CheckpointError, PickleOnlyError) as incomplete:
            raise NetworkError(
                f"{error.what}; of the copy in the Hub's cache, {incomplete.what}",
                "Check the connection and try again, to fetch what the copy lacks.",
            ) from incomplete
        return Place(
            Source(model=model, revision=folder.name),
            found,
            note=f"without the Hub, the copy in its cache is taken (commit {folder.name[:7]})",
        )
    return Place(Source(model=model, revision=revision), remote=remote)


def _in_cache_folder(root: Path, revision: str | None, variant: str | None) -> Place:
    """Open the snapshot that a model's folder in the Hub's cache has of a revision."""
    name = "main" if revision is None else revision
    commit = name
    if not (root / "snapshots" / name).is_dir():
        reference = root / "refs" / name
        require_readable(reference)
        commit = reference.read_text(encoding="utf-8", errors="replace").strip()
    snapshot = root / "snapshots" / commit
    if Path(commit).name != commit or not snapshot.is_dir():
        raise CheckpointError(root, f"it has no snapshot of the revision {name!r}")
    found = open_folder(snapshot, variant)
    return Place(_source_of(snapshot), found, note=_note_of(found, variant))


def _is_folder(path: Path) -> bool:
    """Return whether a folder has that name.

    Raises:
        CheckpointError: the system does not say: the name is too long, or a folder on the way is closed.
    """
    try:
        return path.is_dir()
    except OSError as error:
        raise CheckpointError(path, f"it cannot be looked at ({error.strerror})") from error


def _source_of(folder: Path) -> Source:
    """Name a folder for the manifest: a snapshot in the Hub's cache by its Hub id and commit, others by their name.

    Characters that no terminal shows become underscores, as a manifest holds none.
    """
    root = folder.parent.parent
    if folder.parent.name == "snapshots" and root.name.startswith(_CACHED):
        return Source(model=_shown(root.name.removeprefix(_CACHED).replace("--", "/")), revision=_shown(folder.name))
    return Source(model=_shown(folder.name) or "checkpoint", revision=None)


def _shown(name: str) -> str:
    hidden = set(unseen(name))
    return "".join("_" if index in hidden else letter for index, letter in enumerate(name))


def _note_of(found: DiffusersFolder, variant: str | None) -> str | None:
    """Say which variant was taken where none was asked for."""
    if variant is not None or not found.variants:
        return None
    return f"taking the weights of the variant {', '.join(sorted(found.variants))}: there are no others"

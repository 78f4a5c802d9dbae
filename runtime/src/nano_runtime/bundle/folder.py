"""An open bundle: its manifest, and its files, which are compared with their checksums before anything reads them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from nano_runtime.bundle.checksums import HeldFile, check_file, checked_bytes, fault_of_file, fault_of_size, hold
from nano_runtime.bundle.manifest import MANIFEST_NAME, Backend, Component, FileEntry, Graph, Manifest
from nano_runtime.bundle.reading import manifest_bytes, parse_manifest
from nano_runtime.bundle.safe_paths import MAX_PARTS
from nano_runtime.bundle.wiring import TIMESTEP_COND, UNET, UNET_TIME
from nano_runtime.errors import (
    BackendNotInBundleError,
    DigestError,
    ExtraFileError,
    ManifestError,
    NanoError,
    OptionError,
)
from nano_runtime.system.files import paths_below
from nano_runtime.values import one_of, sha256, text
from nano_runtime.values import path as path_of

__all__ = ["DEMO", "Bundle"]

DEMO = Path(__file__).parents[1] / "demo"
"""The bundle inside this package: a small model that draws emoji on plain backgrounds."""


@dataclass(frozen=True)
class Bundle:
    """A folder with a valid manifest.

    Attributes:
        path: the folder.
        manifest: its manifest.
        digest: lower-case hex sha256 of ``manifest.json``. It identifies the whole bundle, because the manifest lists
            the sha256 of every file.
    """

    path: Path
    manifest: Manifest
    digest: str
    _checked: set[str] = field(default_factory=set, repr=False, compare=False)
    _held: dict[str, HeldFile] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(cls, path: str | Path = DEMO, expect_digest: str | None = None) -> Bundle:
        """Read the manifest; graphs and tokenizer are checked when they are needed.

        Args:
            path: the folder; by default the small demo model that comes with this package.
            expect_digest: the digest that the bundle must have, as 64 hex digits; None takes any.

        Raises:
            NotABundleError: there is no such folder or no manifest in it.
            DigestError: it is another bundle than expected.
            ManifestError: the manifest is damaged or contradicts itself.
            OptionError: the path is none, or the digest not 64 hex digits.
        """
        folder = path_of("path", path)
        expect_digest = None if expect_digest is None else sha256("expect_digest", expect_digest)
        raw = manifest_bytes(folder)
        digest = hashlib.sha256(raw).hexdigest()
        _compare_digest(folder, digest, expect_digest)
        return cls(folder, parse_manifest(raw, folder / MANIFEST_NAME), digest)

    def require_digest(self, expected: str | None) -> None:
        """Check the digest of an open bundle; see ``open``.

        Raises:
            DigestError: it is another bundle than expected.
        """
        _compare_digest(self.path, self.digest, None if expected is None else sha256("expect_digest", expected))

    def component(self, name: str) -> Component:
        """Return one graph's description.

        Raises:
            ManifestError: the bundle has no such graph.
            OptionError: the name is no text.
        """
        if text("name", name) not in self.manifest.components:
            raise ManifestError(self.path / MANIFEST_NAME, f"it has no component {name!r}")
        return self.manifest.components[name]

    @property
    def guidance_width(self) -> int | None:
        """Return the size of the vector that tells the UNet the guidance scale; None where two rows guide instead."""
        graph = UNET_TIME if self.manifest.graph == "hoisted" else UNET
        widths = [tensor.shape[1] for tensor in self.component(graph).inputs if tensor.name == TIMESTEP_COND]
        return widths[0] if widths and isinstance(widths[0], int) else None

    def require(self, backend: Backend) -> None:
        """Check that the bundle was exported for an engine.

        Raises:
            BackendNotInBundleError: it was not.
            OptionError: there is no such engine.
        """
        if one_of("backend", backend, get_args(Backend)) not in self.manifest.backends:
            raise BackendNotInBundleError(backend, self.path, self.manifest.backends)

    def graph(self, component: str, backend: Backend) -> Graph:
        """Return the files of one graph for an engine.

        Raises:
            BackendNotInBundleError: the bundle has no such graph for this engine.
            ManifestError: it has no such graph at all.
            OptionError: there is no such engine.
        """
        graphs = self.component(component).graphs
        if one_of("backend", backend, get_args(Backend)) not in graphs:
            raise BackendNotInBundleError(backend, self.path, self.manifest.backends)
        return graphs[backend]

    def content(self, name: str) -> bytes:
        """Return the content of one file of the manifest, after comparing these bytes with its checksum.

        Raises:
            TamperedFileError: it is not the file the manifest describes.
            OptionError: the manifest has no such file.
        """
        return checked_bytes(self.path, self.entry(name))

    def held(self, name: str) -> HeldFile:
        """Return one file of the manifest, open, after comparing it with its checksum.

        Each file is compared once per open bundle, and again when somebody has written into it since, as ``cp`` of
        another bundle does over the files of this one; it stays open as long. Only who may write into a file can change
        what is read from it later, so a bundle belongs in a folder that only its user can write.

        Raises:
            TamperedFileError: it is not the file the manifest describes.
            OptionError: the manifest has no such file.
        """
        if text("name", name) not in self._held or self.was_written_to(name):
            self._held[name] = hold(self.path, self.entry(name))
        return self._held[name]

    def was_written_to(self, name: str) -> bool:
        """Return whether somebody wrote into a file since ``held`` compared it; False for one that it has not.

        Raises:
            OptionError: the name is no text.
        """
        return text("name", name) in self._held and self._held[name].was_written_to

    def verified_file(self, name: str) -> Path:
        """Return the path of one file of the manifest after comparing it with its checksum.

        Raises:
            TamperedFileError: it is not the file the manifest describes.
            OptionError: the manifest has no such file.
        """
        if text("name", name) not in self._checked:
            check_file(self.path, self.entry(name))
            self._checked.add(name)
        return self.path / name

    def faults(self) -> Iterator[NanoError]:
        """Compare every file with all its checksums, and yield changed, missing and unknown files."""
        for entry in self.manifest.files:
            if (fault := fault_of_file(self.path, entry, all_checksums=True)) is not None:
                yield fault
        known = {MANIFEST_NAME, *(entry.path for entry in self.manifest.files)}
        for path in sorted(paths_below(self.path, levels=MAX_PARTS)):
            place = path.relative_to(self.path)
            is_folder = path.is_dir() and not path.is_symlink() and len(place.parts) < MAX_PARTS
            if not is_folder and place.as_posix() not in known:
                yield ExtraFileError(path)

    def size_bytes(self, backend: Backend | None = None) -> int:
        """Return the size of all listed files, or of those that one engine reads: its graphs and the tokenizer.

        Raises:
            OptionError: there is no such engine.
        """
        if backend is None:
            return sum(entry.size for entry in self.manifest.files)
        return sum(entry.size for entry in self._read_by(one_of("backend", backend, get_args(Backend))))

    def require_files(self, backend: Backend) -> None:
        """Check that every file that an engine reads is there in its size, without reading any.

        What takes long to load is known to be cut short before anybody waits for it. Checksums are compared later.

        Raises:
            TamperedFileError: a file is missing, or of another size.
            OptionError: there is no such engine.
        """
        for entry in self._read_by(one_of("backend", backend, get_args(Backend))):
            if (fault := fault_of_size(self.path, entry)) is not None:
                raise fault

    def _read_by(self, backend: Backend) -> list[FileEntry]:
        """Return the records of the files that an engine reads: its graphs and the tokenizer."""
        names = {self.manifest.tokenizer.file}
        for component in self.manifest.components.values():
            if (graph := component.graphs.get(backend)) is not None:
                names |= {graph.model} if graph.weights is None else {graph.model, graph.weights}
        return [entry for entry in self.manifest.files if entry.path in names]

    def entry(self, name: str) -> FileEntry:
        """Return the checksum record of a file; the rules of a manifest require one for every path in it.

        Raises:
            OptionError: the manifest has no such file.
        """
        for entry in self.manifest.files:
            if entry.path == text("name", name):
                return entry
        raise OptionError("name", name, "the path of a file in the manifest")


def _compare_digest(folder: Path, digest: str, expected: str | None) -> None:
    """Refuse another digest than the expected one; None takes any."""
    if expected is not None and digest != expected:
        raise DigestError(folder, digest, expected)

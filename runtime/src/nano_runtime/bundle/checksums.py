"""Checksums of files: computed for a manifest, and compared with one."""

from __future__ import annotations

import hashlib
import mmap
import os
from pathlib import Path

from blake3 import blake3

from nano_runtime.bundle.manifest import FileEntry
from nano_runtime.bundle.safe_paths import fault_of_place
from nano_runtime.errors import TamperedFileError
from nano_runtime.system.files import open_plain

__all__ = ["blake3_of", "check_file", "entry_of", "fault_of_file", "sha256_of"]

_CHUNK_BYTES = 1 << 20


def entry_of(bundle: Path, path: Path) -> FileEntry:
    """Return the manifest's entry for a file as it is now.

    Args:
        bundle: the bundle's folder.
        path: the file, inside of it.
    """
    name, size = path.relative_to(bundle).as_posix(), path.stat().st_size
    return FileEntry(path=name, size=size, sha256=sha256_of(path), blake3=blake3_of(path))


def check_file(bundle: Path, entry: FileEntry) -> None:
    """Compare a file with its entry: the size, and the faster of the two checksums.

    Raises:
        TamperedFileError: the file is missing, of another size, or has another checksum.
    """
    if (fault := fault_of_file(bundle, entry)) is not None:
        raise fault


def fault_of_file(bundle: Path, entry: FileEntry, *, all_checksums: bool = False) -> TamperedFileError | None:
    """Return the error that ``check_file`` would raise, or None.

    Args:
        bundle: the bundle's folder.
        entry: of the file, from the manifest.
        all_checksums: compare both checksums.
    """
    path = bundle / entry.path
    if (fault := fault_of_place(bundle, entry.path)) is not None:
        return TamperedFileError(path, fault)
    if (size := path.stat().st_size) != entry.size:
        return TamperedFileError(path, f"{size} bytes instead of {entry.size}")
    if entry.blake3 is not None and (digest := blake3_of(path)) != entry.blake3:
        return TamperedFileError(path, f"blake3 {digest[:12]}… instead of {entry.blake3[:12]}…")
    if (all_checksums or entry.blake3 is None) and (digest := sha256_of(path)) != entry.sha256:
        return TamperedFileError(path, f"sha256 {digest[:12]}… instead of {entry.sha256[:12]}…")
    return None


def sha256_of(path: Path) -> str:
    """Return the lower-case hex sha256 of a plain file."""
    return _hex_digest(path, hashlib.sha256())


def blake3_of(path: Path) -> str:
    """Return the lower-case hex BLAKE3 digest of a plain file (github.com/BLAKE3-team/BLAKE3-specs, 256 bits)."""
    return _hex_digest(path, blake3())


def _hex_digest(path: Path, digest: hashlib._Hash | blake3) -> str:
    """Return a digest in hex of a plain file, read in chunks.

    The buffer begins at a page. The C library would put it 16 bytes behind one, and to there Zen 3 copies in four times
    the time.
    """
    with (
        os.fdopen(open_plain(path), "rb", buffering=0) as file,
        mmap.mmap(-1, _CHUNK_BYTES) as buffer,
        memoryview(buffer) as view,
    ):
        while count := file.readinto(view):
            digest.update(view[:count])
    return digest.hexdigest()

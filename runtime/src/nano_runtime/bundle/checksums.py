"""Checksums of files: computed for a manifest, and compared with one."""

from __future__ import annotations

import hashlib
import mmap
import os
import weakref
from pathlib import Path
from typing import BinaryIO

from blake3 import blake3

from nano_runtime.bundle.manifest import FileEntry
from nano_runtime.bundle.safe_paths import fault_of_place
from nano_runtime.errors import TamperedFileError
from nano_runtime.system.files import open_plain

__all__ = [
    "HeldFile",
    "blake3_of",
    "check_file",
    "checked_bytes",
    "entry_of",
    "fault_of_file",
    "fault_of_size",
    "hold",
    "sha256_of",
]

_CHUNK_BYTES = 1 << 20


class HeldFile:
    """A file that was compared with the manifest, and stays open: what is read from it later is the same file.

    Whoever may write into the file can still change it; whoever may only replace it cannot.

    Attributes:
        path: where it was when it was opened.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._written = self._last_written()
        weakref.finalize(self, os.close, descriptor)

    @property
    def open_path(self) -> Path:
        """A path that leads to the open file, whatever lies at ``path`` now; ``path`` where the system has none."""
        name = Path(f"/proc/self/fd/{self._descriptor}")
        return name if name.exists() else self.path

    @property
    def was_written_to(self) -> bool:
        """Whether its time says that somebody wrote into it since: it has to be compared again."""
        return self._written != self._last_written()

    def _last_written(self) -> tuple[int, int]:
        status = os.fstat(self._descriptor)
        return status.st_size, status.st_mtime_ns

    def map(self) -> mmap.mmap | None:
        """Map the file; what is written into the memory does not reach the file. None for an empty file."""
        size = os.fstat(self._descriptor).st_size
        return mmap.mmap(self._descriptor, size, access=mmap.ACCESS_COPY) if size else None

    def require_in_place(self) -> None:
        """Check that the path still leads to this file, and to no link.

        Raises:
            TamperedFileError: something else lies there.
        """
        try:
            same = os.path.samestat(self.path.lstat(), os.fstat(self._descriptor))
        except OSError:
            same = False
        if not same:
            raise TamperedFileError(self.path, "it was replaced after it had been compared")


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
    with _opened(path) as file:
        return _fault(path, file, entry, all_checksums=all_checksums)


def fault_of_size(bundle: Path, entry: FileEntry) -> TamperedFileError | None:
    """Return the error for a file that is missing or of another size than its entry says, or None; reads nothing."""
    path = bundle / entry.path
    if (fault := fault_of_place(bundle, entry.path)) is not None:
        return TamperedFileError(path, fault)
    with _opened(path) as file:
        return _fault_of_size(path, file, entry)


def hold(bundle: Path, entry: FileEntry) -> HeldFile:
    """Open a file and compare it with its entry; raises the errors of ``check_file``."""
    path = bundle / entry.path
    if (place := fault_of_place(bundle, entry.path)) is not None:
        raise TamperedFileError(path, place)
    with _opened(path) as file:
        held = HeldFile(path, os.dup(file.fileno()))  # before it is compared, so that no later writing is missed
        if (fault := _fault(path, file, entry)) is not None:
            raise fault
        return held


def checked_bytes(bundle: Path, entry: FileEntry) -> bytes:
    """Return a file's content, after comparing exactly these bytes with its entry; raises those of ``check_file``."""
    path = bundle / entry.path
    if (place := fault_of_place(bundle, entry.path)) is not None:
        raise TamperedFileError(path, place)
    with _opened(path) as file:
        if (fault := _fault_of_size(path, file, entry)) is not None:
            raise fault
        raw = file.read(entry.size + 1)
    if entry.blake3 is not None:
        kind, digest, wanted = "blake3", blake3(raw).hexdigest(), entry.blake3
    else:
        kind, digest, wanted = "sha256", hashlib.sha256(raw).hexdigest(), entry.sha256
    if digest != wanted:
        raise TamperedFileError(path, _unlike(kind, digest, wanted))
    return raw


def sha256_of(path: Path) -> str:
    """Return the lower-case hex sha256 of a plain file."""
    with _opened(path) as file:
        return _hex_digest(file, hashlib.sha256())


def blake3_of(path: Path) -> str:
    """Return the lower-case hex BLAKE3 digest of a plain file (github.com/BLAKE3-team/BLAKE3-specs, 256 bits)."""
    with _opened(path) as file:
        return _hex_digest(file, blake3())


def _opened(path: Path) -> BinaryIO:
    """Open a plain file, without following a link."""
    return os.fdopen(open_plain(path), "rb", buffering=0)


def _fault(path: Path, file: BinaryIO, entry: FileEntry, *, all_checksums: bool = False) -> TamperedFileError | None:
    """Return the difference between an open file and its entry, or None."""
    if (fault := _fault_of_size(path, file, entry)) is not None:
        return fault
    if entry.blake3 is not None and (digest := _hex_digest(file, blake3())) != entry.blake3:
        return TamperedFileError(path, _unlike("blake3", digest, entry.blake3))
    if (all_checksums or entry.blake3 is None) and (digest := _hex_digest(file, hashlib.sha256())) != entry.sha256:
        return TamperedFileError(path, _unlike("sha256", digest, entry.sha256))
    return None


def _fault_of_size(path: Path, file: BinaryIO, entry: FileEntry) -> TamperedFileError | None:
    if (size := os.fstat(file.fileno()).st_size) != entry.size:
        return TamperedFileError(path, f"{size} bytes instead of {entry.size}")
    return None


def _unlike(kind: str, digest: str, wanted: str) -> str:
    return f"{kind} {digest[:12]}… instead of {wanted[:12]}…"


def _hex_digest(file: BinaryIO, digest: hashlib._Hash | blake3) -> str:
    """Return a digest in hex of an open file, read from its beginning in chunks.

    The buffer begins at a page. The C library would put it 16 bytes behind one, and to there Zen 3 copies in four times
    the time.
    """
    file.seek(0)
    with mmap.mmap(-1, _CHUNK_BYTES) as buffer, memoryview(buffer) as view:
        while count := file.readinto(view):  # type: ignore[attr-defined]  # raw files have it
            digest.update(view[:count])
    return digest.hexdigest()

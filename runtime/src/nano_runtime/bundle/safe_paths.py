"""Refuses names of files that are not safe on every system, and places that are no plain files.

A bundle is made on one system and opened on another, so a name must mean the same file on all of them. Names that
Windows reserves or trims, that macOS folds, or that a shell or terminal interprets are refused everywhere.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

__all__ = ["MAX_PARTS", "collision", "fault_of_name", "fault_of_place"]

_MAX_NAME_CHARACTERS: Final = 200
MAX_PARTS: Final = 4
"""Levels of a name: folders, and the file."""
_NOT_ON_WINDOWS: Final = re.compile(r'[\\:*?"<>|]')
# learn.microsoft.com/windows/win32/fileio/naming-a-file: also with any suffix, and with superscript digits.
_DEVICES: Final = re.compile("(con|prn|aux|nul|conin\\$|conout\\$|(com|lpt)[0-9\xb9\xb2\xb3]) *([.].*)?", re.IGNORECASE)


def fault_of_name(name: str) -> str | None:
    """Return the reason to refuse a POSIX path relative to a bundle, as the end of a sentence; None for a good one."""
    return next(_faults_of_name(name), None)


def _faults_of_name(name: str) -> Iterator[str]:
    """Yield the reasons to refuse a name; each relies on those before it."""
    if not 0 < len(name) <= _MAX_NAME_CHARACTERS:
        yield f"has {len(name)} characters, not 1 to {_MAX_NAME_CHARACTERS}"
    if not name.isascii() or not name.isprintable():  # no file system folds, composes, or is too short for what is left
        yield "has other characters than the printable ones of ASCII"
    if (found := _NOT_ON_WINDOWS.search(name)) is not None:
        yield f"has the character {found.group()}"
    parts = name.split("/")
    if len(parts) > MAX_PARTS:
        yield f"is more than {MAX_PARTS} levels deep"
    if any(part in ("", ".", "..") for part in parts):
        yield "leaves the bundle"
    for part in parts:
        if part[-1] in ". " or part[0] == " ":
            yield "has a part that begins with a space, or ends with one or with a dot"
        if _DEVICES.fullmatch(part) is not None:
            yield f"has the part {part}, a device on Windows"


def collision(names: Iterable[str]) -> tuple[str, str] | None:
    """Return two names that clash: one file where case does not count, or a file with the name of a folder."""
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    for name in names:
        folded = name.casefold()
        if folded in files:
            return files[folded], name
        files[folded] = name
        parts, spelled = folded.split("/"), name.split("/")
        for depth in range(1, len(parts)):
            inner, inner_spelled = "/".join(parts[:depth]), "/".join(spelled[:depth])
            if folders.setdefault(inner, inner_spelled) != inner_spelled:
                return folders[inner], inner_spelled
    for folded, name in files.items():
        if folded in folders:
            return name, folders[folded]
    return None


def fault_of_place(folder: Path, name: str) -> str | None:
    """Return the reason why a safe name is not that of a plain file, or None.

    Symbolic links are refused, also of folders, because they lead out of the bundle. Hard links are not: package
    managers and backups use them to keep equal files once, they cannot be told from other files, and the checksum
    covers their content.
    """
    path = folder
    *folders, _ = name.split("/")
    for part in folders:
        path /= part
        mode = _mode(path)
        if mode is not None and stat.S_ISLNK(mode):
            return f"{part} is a symbolic link"
    mode = _mode(folder / name)
    if mode is None:
        return "it is missing"
    if stat.S_ISLNK(mode):
        return "it is a symbolic link"
    return None if stat.S_ISREG(mode) else "it is not a plain file"


def _mode(path: Path) -> int | None:
    """Return the mode of a path, not following links; None if nothing is there."""
    try:
        return path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None

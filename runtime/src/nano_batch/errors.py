"""Errors of batch jobs: of their rows, and of the folders that they work in."""

from __future__ import annotations

from pathlib import Path

from nano_runtime import MachineError, UsageError

__all__ = [
    "BusyFolderError",
    "ChangedSourceError",
    "DamagedJobError",
    "GonePicturesError",
    "MergeError",
    "MisplacedImageError",
    "NamePatternError",
    "NoJobError",
    "OtherJobError",
    "ShardError",
    "StrangeFolderError",
]


class OtherJobError(UsageError):
    """The folder holds another job.

    Args:
        folder: of the job.
        differences: each says what is one way there and another way here.
        hint: what to do.
    """

    def __init__(
        self,
        folder: Path,
        differences: list[str],
        hint: str = "Give another folder with -o, or what was given before, and this job goes on.",
    ) -> None:
        super().__init__(f"{folder} holds another job: {'; '.join(differences)}", hint)


class GonePicturesError(UsageError):
    """The folder has finished pictures that nobody asks for any more.

    Args:
        folder: of the job.
        options: for each option of the command line that is another now, what it was and what it is.
        what: is gone.
    """

    def __init__(self, folder: Path, options: list[str], what: str) -> None:
        other = f"with other options: {'; '.join(options)}; so" if options else "from other rows:"
        before = "the options of before" if options else "the rows as they were"
        super().__init__(
            f"{folder} was drawn {other} {what}",
            f"There are three ways: another folder with -o, and both stay; {before}, and this job goes on; "
            "or --prune, which deletes those pictures and draws what is asked for now.",
        )


class StrangeFolderError(UsageError):
    """The folder has files under names that a job uses, and no job.

    Args:
        folder: for a job.
        name: that is taken.
    """

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(f"{folder} has {name}, but no job.json: it is no job's folder", "Give another folder with -o.")


class DamagedJobError(UsageError):
    """A file of the job cannot be read.

    Args:
        path: of the file.
        why: in a few words.
        hint: what to do.
    """

    def __init__(
        self,
        path: Path,
        why: str,
        hint: str = "Restore it from a copy, or begin in another folder with -o: the pictures here are whole.",
    ) -> None:
        super().__init__(f"{path} is damaged: {why}", hint)


class BusyFolderError(MachineError):
    """Another process works in the folder.

    Args:
        folder: of the job.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"another process draws in {folder}",
            "Wait for its end, give another folder with -o, or divide the work with --shard.",
        )


class ChangedSourceError(UsageError):
    """A picture to start from, or a mask, that changed while the job ran.

    Args:
        path: of the file.
        what: became of it.
    """

    def __init__(self, path: str, what: str) -> None:
        super().__init__(f"{path} {what}", "Run the job again: it reads the file anew.")


class MisplacedImageError(UsageError):
    """A picture to start from where only prompts are taken.

    Args:
        option: that has it.
    """

    def __init__(self, option: str) -> None:
        super().__init__(
            f"Draw.picture takes no {option}",
            f"Give nano_batch.Wanted({option}=nano_batch.Source(path, digest)) to draw.",
        )


class NamePatternError(UsageError):
    """A pattern of names that cannot be used.

    Args:
        pattern: as it was given.
        why: in a few words.
    """

    def __init__(self, pattern: str, why: str) -> None:
        super().__init__(
            f"--name {pattern!r} cannot be used: {why}",
            "Fields are {id}, {i}, {key}, {prompt} and {seed}, as in '{id}-{i}'; / makes folders.",
        )


class ShardError(UsageError):
    """A shard that is none.

    Args:
        what: is wrong.
        hint: what to do.
    """

    def __init__(self, what: str, hint: str = "Shards are 0/N to (N-1)/N, as in 0/8 for the first of eight.") -> None:
        super().__init__(what, hint)


class NoJobError(UsageError):
    """A folder that holds no job.

    Args:
        folder: it.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(f"there is no job in {folder}", "Give folders that nano-batch has drawn into.")


class MergeError(UsageError):
    """Several folders, and no place for what they hold together."""

    def __init__(self) -> None:
        super().__init__("there are several folders, and none for all", "Give one with -o.")

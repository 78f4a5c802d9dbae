"""Shards of a job: pictures by their keys, so that a picture's shard stays the same when rows are added."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from nano_batch.errors import ShardError

__all__ = ["Shard"]

_MOST: Final = 100_000
_DIGITS_OF_KEY: Final = 12


@dataclass(frozen=True)
class Shard:
    """One of several equal parts of a job.

    Attributes:
        index: from 0.
        count: of all shards.
    """

    index: int
    count: int

    @classmethod
    def of(cls, text: str) -> Shard:
        """Read ``i/N``.

        Raises:
            ShardError: it is none.
        """
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip(), re.ASCII)
        if found is None:
            raise ShardError(f"{text[:40]!r} is no shard")
        index, count = map(int, found.groups())
        if not 1 <= count <= _MOST:
            raise ShardError(f"there cannot be {count} shards")
        if index >= count:
            last = f"{count - 1}/{count}"
            raise ShardError(f"{index}/{count} is no shard: the last of {count} is {last}")
        return cls(index, count)

    @classmethod
    def from_environment(cls, variables: Mapping[str, str]) -> tuple[Shard, str] | None:
        """Return the shard that a scheduler gives this process, and the variable that says so; None without one.

        SLURM's job arrays say how many tasks there are. Kubernetes' indexed jobs do not: the manifest has to, in
        ``JOB_COMPLETIONS`` or with ``--shard``.

        Args:
            variables: the process's environment.

        Raises:
            ShardError: a variable is no number, or the number of shards is not known.
        """
        if (task := variables.get("SLURM_ARRAY_TASK_ID")) is not None:
            ids = [_whole(variables, name) for name in ("SLURM_ARRAY_TASK_ID", *_OF_ARRAY)]
            index, count, least, most, step = (0 if one is None else one for one in ids)
            if step < 1 or (most - least) // step + 1 != count or (index - least) % step:
                hint = "Give --shard i/N for each task, or the array as 0-7."
                raise ShardError(f"SLURM's array has gaps: task {task} of {count}", hint)
            return cls.of(f"{(index - least) // step}/{count}"), "SLURM_ARRAY_TASK_ID"
        index_of_job = _whole(variables, "JOB_COMPLETION_INDEX")
        if index_of_job is None:
            return None
        completions = _whole(variables, "JOB_COMPLETIONS")
        if completions is None:
            hint = f"Give --shard {index_of_job}/N with the completions of the job for N; 0/1 draws all in every pod."
            raise ShardError("JOB_COMPLETION_INDEX is set, and nothing says of how many", hint)
        return cls.of(f"{index_of_job}/{completions}"), "JOB_COMPLETION_INDEX"

    @property
    def whole(self) -> bool:
        """Whether it is all there is."""
        return self.count == 1

    @property
    def worker(self) -> str:
        """Name of its log."""
        return "local" if self.whole else f"shard-{self.index}-of-{self.count}"

    def has(self, key: str) -> bool:
        """Return whether a picture belongs to it."""
        return int(key[:_DIGITS_OF_KEY], 16) % self.count == self.index


_OF_ARRAY: Final = (
    "SLURM_ARRAY_TASK_COUNT",
    "SLURM_ARRAY_TASK_MIN",
    "SLURM_ARRAY_TASK_MAX",
    "SLURM_ARRAY_TASK_STEP",
)


def _whole(variables: Mapping[str, str], name: str) -> int | None:
    """Return a variable that is a whole number; None where it is not set.

    Raises:
        ShardError: it is none.
    """
    text = variables.get(name)
    if text is None:
        if name in _OF_ARRAY:
            raise ShardError(f"SLURM_ARRAY_TASK_ID is set, and {name} is not", "Give --shard i/N.")
        return None
    if re.fullmatch(r"\d{1,9}", text, re.ASCII) is None:
        raise ShardError(f"{name} is {text[:40]!r}, which is no number", "Give --shard i/N.")
    return int(text)

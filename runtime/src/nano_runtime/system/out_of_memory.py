"""Tells the exceptions that mean too little memory from all others."""

from __future__ import annotations

import re

__all__ = ["is_out_of_memory"]

# There is no class for it: the words of glibc and torch, C++, onnxruntime, oneDNN, the loader, of threads that get no
# stack, of those that wait for one which could not be had, and of the interpreter in the middle of an import.
_OUT_OF_MEMORY = re.compile(
    r"(cannot|can't|failed to|unable to|could not) alloc|bad[ _]alloc|out[ _]of[ _]memory|failed to map segment"
    r"|resource temporarily unavailable|can't start new thread|broken promise"
    r"|(error return|returned NULL) without (setting an )?exception",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception, of Python or out of native code, says that memory could not be had."""
    return isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error)) is not None

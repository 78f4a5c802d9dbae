"""Recognises out-of-memory errors, whichever library raised them."""

from __future__ import annotations

import re

__all__ = ["is_out_of_memory"]

# Native code has no exception class for it, only messages: those of glibc and torch, C++, onnxruntime, oneDNN, the
# dynamic loader, of threads that get no stack, of threads that wait for such a thread, and of the interpreter during an
# import.
_OUT_OF_MEMORY = re.compile(
    r"(cannot|can't|failed to|unable to|could not) alloc|bad[ _]alloc|out[ _]of[ _]memory|failed to map segment"
    r"|resource temporarily unavailable|can't start new thread|broken promise"
    r"|(error return|returned NULL) without (setting an )?exception",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception, of Python or of native code, means that memory ran out."""
    return isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error)) is not None

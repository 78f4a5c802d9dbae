"""Keeps transformers and diffusers from writing to the terminal: what they say holds raw text of the checkpoint.

The exporter tells what a user has to know: what is missing, damaged or left out, with control characters escaped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from diffusers.utils import logging as diffusers_bars
from transformers.utils import logging as transformers_bars

__all__ = ["quiet_libraries"]

_SILENT: Final = logging.CRITICAL + 1


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Hide the libraries' messages and progress bars: the caller of an export shows its progress."""

    def hidden(bar: Callable[..., Any], args: Sequence[Any], options: Mapping[str, Any]) -> Any:  # noqa: ANN401 - tqdm
        return bar(*args, **{**options, "disable": True})

    loggers = [logging.getLogger(name) for name in ("transformers", "diffusers")]
    levels = [logger.level for logger in loggers]
    previous = transformers_bars.set_tqdm_hook(hidden)  # its own switch would also hide the Hub's downloads
    shown = diffusers_bars.is_progress_bar_enabled()
    diffusers_bars.disable_progress_bar()
    for logger in loggers:
        logger.setLevel(_SILENT)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        transformers_bars.set_tqdm_hook(previous)
        if shown:
            diffusers_bars.enable_progress_bar()

"""The process that probes this machine: it tells its parent the rates as JSON, and frees all its memory at its end."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import asdict

from nano_runtime.benchmark.probe import probe
from nano_runtime.errors import NanoError
from nano_runtime.errors.told import told
from nano_runtime.system.messages import Channel, ChannelError

__all__ = ["main"]


def main(threads: str, read_bytes: str) -> None:
    """Tell what ``probe`` measures with these arguments."""
    channel = Channel.of_standard_streams()
    with suppress(ChannelError):
        try:
            channel.send({"rates": asdict(probe(int(threads), int(read_bytes)))})
        except (MemoryError, NanoError) as error:
            channel.send(told(error))


if __name__ == "__main__":
    main(*sys.argv[1:])

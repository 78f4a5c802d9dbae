"""Messages between a process and its child: a JSON object and some bytes, over a pair of pipes.

Nothing is unpickled: the child runs native code on a stranger's files, and whatever took it over could write here.
"""

from __future__ import annotations

import json
import os
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

__all__ = ["Channel", "ChannelError", "Message"]

Message: TypeAlias = tuple[dict[str, Any], bytearray]

_LENGTHS: Final = struct.Struct("<IQ")
_MOST_TEXT: Final = 64 << 20  # of the JSON: a prompt, or a report on a hundred thousand pictures
_MOST_BYTES: Final = 4 << 30
_AT_ONCE: Final = 1 << 20


class ChannelError(Exception):
    """The other side is gone, or does not keep to the form of messages."""


@dataclass(eq=False)
class Channel:
    """One end: sends from any thread, and receives in one.

    Attributes:
        reading: descriptor to read from.
        writing: descriptor to write to.
        interrupted: whether ``interrupt`` was called.
    """

    reading: int
    writing: int
    interrupted: bool = False
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _busy: bool = False  # the main thread is in the middle of a message
    _asked: bool = False

    @classmethod
    def of_standard_streams(cls) -> Channel:
        """Return the end of a spawned child; what native code prints from now on is no message, and goes to stderr."""
        channel = cls(os.dup(0), os.dup(1))
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        os.dup2(2, 1)
        return channel

    def interrupt(self) -> None:
        """Raise ``KeyboardInterrupt``, from a signal handler; in the middle of a message, behind it."""
        self.interrupted = True
        if self._busy:
            self._asked = True
        else:
            raise KeyboardInterrupt

    def ask(self, what: Mapping[str, Any], *parts: bytes | bytearray | memoryview) -> Message:
        """Send a message and wait for the answer; raises the error of both."""
        with self._whole():
            self.send(what, *parts)
            return self.receive()

    def send(self, what: Mapping[str, Any], *parts: bytes | bytearray | memoryview) -> None:
        """Send a message; ``parts`` are its bytes, in a row.

        Raises:
            ChannelError: nobody reads.
        """
        text = json.dumps(what).encode()
        views = [memoryview(part).cast("B") for part in parts if len(part)]
        head = _LENGTHS.pack(len(text), sum(map(len, views)))
        try:
            with self._whole():
                for view in (memoryview(head + text), *views):
                    at = 0
                    while at < len(view):
                        at += os.write(self.writing, view[at:])
        except OSError as error:
            raise ChannelError from error

    def receive(self) -> Message:
        """Wait for a message.

        Raises:
            ChannelError: there will be none, or it is none.
        """
        text_length, length = _LENGTHS.unpack(self._exactly(_LENGTHS.size))
        if text_length > _MOST_TEXT or length > _MOST_BYTES:
            raise ChannelError
        try:
            what = json.loads(self._exactly(text_length))
        except (ValueError, RecursionError) as error:
            raise ChannelError from error
        if not isinstance(what, dict):
            raise ChannelError
        return what, self._exactly(length)

    def close(self) -> None:
        """Close both descriptors."""
        for descriptor in (self.reading, self.writing):
            os.close(descriptor)

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Let no other thread, and no interruption, come between."""
        with self._lock:
            main = threading.current_thread() is threading.main_thread()
            before = self._busy
            self._busy = before or main
            try:
                yield
            finally:
                self._busy = before
        if self._asked and main and not before:
            self._asked = False
            raise KeyboardInterrupt

    def _exactly(self, length: int) -> bytearray:
        """Return so many bytes; memory grows with what really comes."""
        content = bytearray()
        while len(content) < length:
            try:
                part = os.read(self.reading, min(_AT_ONCE, length - len(content)))
            except OSError as error:
                raise ChannelError from error
            if not part:
                raise ChannelError
            content += part
        return content

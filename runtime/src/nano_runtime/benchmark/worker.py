"""The near end of a process that holds one loaded pipeline and draws when asked; ``far_end`` is the process.

Each case has one, so its peak of memory is that of one engine, and its graphs stay loaded while others draw. What comes
back is compared with the manifest: a process whose engine was taken over can tell false times, and nothing else.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from nano_runtime.benchmark.records import Case, Settings
from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.wiring import UNET, UNET_SHALLOW
from nano_runtime.engines.base import LayerTime
from nano_runtime.errors import NoProcessError, WorkerDiedError
from nano_runtime.errors.escaping import escaped
from nano_runtime.errors.told import error_of
from nano_runtime.system.confinement import Confinement, memory_for_child
from nano_runtime.system.messages import ChannelError
from nano_runtime.system.spawned import SpawnedChild
from nano_runtime.system.timing import Timings

__all__ = ["About", "End", "Worker", "answer_of", "started"]

_LAST_WORDS_S = 5.0  # for the system to notice the end of a process whose pipe is closed
_MOST_LETTERS = 80  # of an operator's name

_log = logging.getLogger(__name__)

Read = TypeVar("Read")


@dataclass(frozen=True)
class About:
    """The first answer of a worker, when it is ready to draw.

    Attributes:
        bundle: the opened bundle.
        guided: whether each picture takes several rows of a UNet call.
        rows: rows of all calls of one picture, per UNet graph.
        open_ms: opening the bundle, in milliseconds of wall clock.
    """

    bundle: Bundle
    guided: bool
    rows: dict[str, int]
    open_ms: float


@dataclass(frozen=True)
class End:
    """The last answer of a worker; see ``Measured`` for the memory, ``LoadedGraphs.layer_times`` for the layers."""

    peak_rss_bytes: int | None
    anonymous_bytes: int | None
    layers: dict[str, list[LayerTime]]


class Worker:
    """Starts the process, and collects its answers.

    Attributes:
        case: what it draws.
        about: its first answer.
        drawn: timings of its calls, in order.
        end: its last answer, after ``finish``.

    Raises:
        NanoError: the case cannot be drawn, as in ``Pipeline``.
        WorkerDiedError: the process was ended by the system, or does not answer as it should.
    """

    def __init__(self, case: Case, settings: Settings) -> None:
        self.case = case
        self._bundle = Bundle.open(case.bundle)
        self._place = TemporaryDirectory(prefix="nano-bench-")
        folder, place = case.bundle.absolute(), Path(self._place.name).resolve()
        given = json.dumps({**asdict(case), "bundle": str(folder)})
        self._child = started(
            "nano_runtime.benchmark.far_end",
            [given, self._bundle.digest, json.dumps(asdict(settings)), str(place)],
            Confinement((folder,), (place,), memory_for_child()),
        )
        self.drawn: list[Timings] = []
        self.end = End(None, None, {})
        self.about = self._read(None, self._about)

    def draw(self, run: int) -> float:
        """Have the case's pictures drawn once, and return the milliseconds it took."""
        timings = self._read({"draw": run}, self._timings)
        self.drawn.append(timings)
        return timings.total_ms

    def finish(self) -> None:
        """Ask for the last answer."""
        self.end = self._read({"draw": None}, self._end)

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        self._child.kill()
        self._place.cleanup()

    def _read(self, what: dict[str, Any] | None, read: Callable[[dict[str, Any]], Read]) -> Read:
        """Ask, and return what a function reads from the answer."""
        try:
            return answer_of(self._child, str(self.case), what, read)
        except BaseException:
            self.stop()
            raise

    def _about(self, answer: dict[str, Any]) -> About:
        rows = {name: int(answer["rows"][name]) for name in (UNET, UNET_SHALLOW)}
        return About(self._bundle, answer["guided"] is True, rows, float(answer["open_ms"]))

    def _timings(self, answer: dict[str, Any]) -> Timings:
        """Return the timings of a call, which has the same graphs as those before, but for the first."""
        verify, load, run = (
            _samples(answer[kind], self._bundle.manifest.components) for kind in ("verify", "load", "run")
        )
        if UNET not in run or (len(self.drawn) > 1 and run.keys() != self.drawn[1].run_ms.keys()):
            raise ValueError
        return Timings(float(answer["total"]), verify, load, run)

    def _end(self, answer: dict[str, Any]) -> End:
        layers = {
            str(name): [
                LayerTime(escaped(str(operator))[:_MOST_LETTERS], tuple(map(int, shape)), float(ms))
                for operator, shape, ms in found
            ]
            for name, found in answer["layers"].items()
        }
        peak, anonymous = (None if answer[name] is None else int(answer[name]) for name in ("peak", "anonymous"))
        return End(peak, anonymous, layers)


def _samples(found: dict[str, Any], components: Collection[str]) -> dict[str, tuple[float, ...]]:
    """Return samples by component: at least one of each."""
    samples = {str(name): tuple(map(float, values)) for name, values in found.items()}
    if not all(samples.values()) or not samples.keys() <= {*components}:
        raise ValueError
    return samples


def started(module: str, arguments: Sequence[str], within: Confinement) -> SpawnedChild:
    """Start a confined child, whose engine may print to the log.

    Raises:
        NoProcessError: it cannot be started.
    """
    try:
        return SpawnedChild(module, arguments, within, _talk)
    except OSError as error:
        raise NoProcessError(str(error.strerror)) from error


def answer_of(
    child: SpawnedChild, work: str, what: dict[str, Any] | None, read: Callable[[dict[str, Any]], Read]
) -> Read:
    """Have a child answer, and return what a function reads from that.

    Args:
        child: the process.
        work: what it is for, for messages.
        what: to be sent; None waits for what the child says unasked.
        read: raises a KeyError, TypeError, ValueError or AttributeError for an answer that cannot be.

    Raises:
        NanoError: what the child raised.
        WorkerDiedError: it came to an end, or sends nonsense.
    """
    try:
        if what is not None:
            child.channel.send(what)
        answer, _ = child.channel.receive()
    except ChannelError as error:
        raise WorkerDiedError(work, child.wait(_LAST_WORDS_S)) from error
    if (told := error_of(answer)) is not None:
        raise told
    try:
        return read(answer)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise WorkerDiedError(work, None) from error


def _talk(line: str) -> None:
    """Log what native code printed."""
    if line.strip():
        _log.warning("%s", escaped(line))

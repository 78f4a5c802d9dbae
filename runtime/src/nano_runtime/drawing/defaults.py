"""The sampler and the number of steps of a call that names none: the bundle's, as measured when it was exported."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.manifest import MANIFEST_NAME
from nano_runtime.errors import ManifestError, NoNumbersError, UnsupportedScheduleError, UsageError
from nano_runtime.sampling.samplers import FALLBACK, make_sampler, own_sampler
from nano_runtime.sampling.schedule import Schedule

__all__ = ["STEPS", "Defaults"]

STEPS = 20
"""Of samplers that nobody measured."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Defaults:
    """The values that take the place of None.

    Attributes:
        own: name of the sampler that the checkpoint was published with, or ``FALLBACK`` where that is not implemented.
        scheduler: name of the sampler that draws where none is named.
        steps: its number of steps, where none is named; other samplers make ``STEPS``.
    """

    own: str
    scheduler: str
    steps: int

    @classmethod
    def of(cls, bundle: Bundle, schedule: Schedule) -> Defaults:
        """Read the defaults from a bundle; one without any, as all before format 3, has the checkpoint's own.

        Args:
            bundle: with a manifest.
            schedule: of the manifest.

        Raises:
            ManifestError: the manifest names a default that cannot be drawn.
            NoNumbersError: the schedule's numbers lead to none.
        """
        own, default = _own_scheduler(bundle), bundle.manifest.default
        if default is None:
            return cls(own, own, STEPS)
        try:
            make_sampler(default.scheduler, schedule, default.steps)
        except UsageError as error:
            raise ManifestError(bundle.path / MANIFEST_NAME, f"its default cannot be drawn: {error.what}") from error
        return cls(own, default.scheduler, default.steps)

    def settle(self, steps: int | None, scheduler: str | None) -> tuple[int, str]:
        """Return the number of steps and the name of the sampler, with defaults for None."""
        name = self.scheduler if scheduler is None else scheduler
        return (self.steps if name == self.scheduler else STEPS) if steps is None else steps, name


def _own_scheduler(bundle: Bundle) -> str:
    """Return the name of the sampler that the checkpoint was published with."""
    try:
        return own_sampler(bundle.manifest.scheduler)
    except NoNumbersError:
        raise  # no other sampler makes sense of them
    except UnsupportedScheduleError as error:
        _log.warning("%s takes the place of the bundle's own scheduler: %s", FALLBACK, error.what)
        return FALLBACK

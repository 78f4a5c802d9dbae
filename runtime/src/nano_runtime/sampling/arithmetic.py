"""Refuses schedules whose numbers lead to none: a division by zero, the logarithm of zero, a number beyond all floats.

A schedule's values are checked one by one, and a few dozen formulas in the samplers put them together in their own
ways. So what they come to is refused where it happens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from nano_runtime.errors import NanoError, NoNumbersError

__all__ = ["arithmetic"]


@contextmanager
def arithmetic(what: str) -> Iterator[None]:
    """Compute with a schedule's numbers.

    Arrays get infinities and NaN without a warning; whoever draws looks for them in the latents.

    Args:
        what: is computed, for messages.

    Raises:
        NoNumbersError: a number divides by zero, is too large, or has no such function; or a list has no such place.
    """
    try:
        with np.errstate(all="ignore"):
            yield
    except NanoError:
        raise
    except (ArithmeticError, ValueError, IndexError) as error:
        raise NoNumbersError(what, str(error)) from error

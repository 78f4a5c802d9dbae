"""What became of one checkpoint; imports nothing heavy, so that a reader of tables need not."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["FINE", "Outcome"]

FINE = ("drawn", "substituted", "refused", "accepted")
"""Results of generated checkpoints that are as they should be; kinds say what they expect."""


@dataclass(frozen=True)
class Outcome:
    """What became of one checkpoint.

    Attributes:
        name: of the kind, or the seed.
        result: "drawn" equal to diffusers; "substituted": drawn with another sampler or cut timesteps, and said so;
            "differs": drawn otherwise; "refused" at the start; "late": refused after work; "leftover": refused, and
            files stayed; "accepted" though diffusers does not draw it; "unreadable" by the runtime; "fault": a
            traceback; "invalid": diffusers does not draw it.
        form: of the bundle's UNet.
        latents: engine -> largest difference of the latents, as a share of their range.
        pictures: engine -> largest difference of a pixel.
        message: of the refusal, or the traceback.
        said: the exporter's lines.
        valid: whether diffusers draws it.
        note: what is special about the checkpoint.
        short: what falls short of what was expected; None if nothing does.
        seconds: that it took.
        cpu: seconds of a processor that it took.
    """

    name: str
    result: str
    form: str = ""
    latents: dict[str, float] = field(default_factory=dict)
    pictures: dict[str, float] = field(default_factory=dict)
    message: str = ""
    said: list[str] = field(default_factory=list)
    valid: bool = True
    note: str = ""
    short: str | None = None
    seconds: float = 0.0
    cpu: float = 0.0

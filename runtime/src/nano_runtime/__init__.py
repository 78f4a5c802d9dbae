"""Draw pictures with Stable Diffusion Nano on a CPU, from a bundle that ``nano-export`` wrote.

    from nano_runtime import Pipeline
    pipe = Pipeline.from_pretrained("bundle")
    pipe("a red fox", seed=0).images[0].save("fox.png")

Importing this package imports no engine and not even numpy; ``Pipeline`` does when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nano_runtime.pipeline import Pipeline, Progress, Result

__all__ = ["Pipeline", "Progress", "Result", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Import the pipeline when one of its names is first asked for (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from nano_runtime import pipeline  # noqa: PLC0415 - the point of this function

    return getattr(pipeline, name)

"""What the peers load: one seeded checkpoint and its exports by the peers' own tools; each built once, whole or not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.peers.commands import run_logged
from bench.peers.environments import python_of

from nano_export.bundle.publish import staged

__all__ = ["MODELS", "Model", "build", "folder_of", "needed_for"]

_BUILDERS = Path(__file__).parent / "builders"


@dataclass(frozen=True)
class Model:
    """A folder that a builder writes.

    Attributes:
        builder: the file in ``builders/``; it is run with the source, the folder to fill, and ``arguments``.
        environment: as in ``Peer``.
        source: another model's name; None for the architecture's name.
        arguments: more words for the builder.
    """

    builder: str
    environment: str | None
    source: str | None
    arguments: tuple[str, ...] = ()


MODELS = {
    "checkpoint": Model("checkpoint", None, None),
    "openvino-fp16": Model("openvino_export", "optimum", "checkpoint"),
    "openvino-int8": Model("openvino_quantize", "optimum", "openvino-fp16", ("int8",)),
    "openvino-hybrid": Model("openvino_quantize", "optimum", "openvino-fp16", ("hybrid",)),
}


def folder_of(name: str, architecture: str, work: Path) -> Path:
    """Return where a model is, or will be."""
    return work / architecture / name


def needed_for(name: str) -> Iterator[str]:
    """Yield the models that a model is made from, and the model, in the order to build them."""
    source = MODELS[name].source
    if source is not None:
        yield from needed_for(source)
    yield name


def build(name: str, architecture: str, work: Path) -> None:
    """Build a model that is not there yet, from one that is.

    Raises:
        PeerError: the builder failed.
        OutputError: another driver is building it.
    """
    model = MODELS[name]
    source = architecture if model.source is None else folder_of(model.source, architecture, work)
    target = folder_of(name, architecture, work)
    target.parent.mkdir(parents=True, exist_ok=True)
    with staged(target, force=False) as folder:
        run_logged(
            [python_of(model.environment, work), _BUILDERS / f"{model.builder}.py", source, folder, *model.arguments],
            work / "logs" / f"{architecture}-{name}.log",
        )

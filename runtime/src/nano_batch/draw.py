"""Draws pictures of a job and writes their files: the part that every engine has in common.

It loads the bundle once, draws pictures that agree in all but prompts and seeds in UNet calls of up to four, and fails
picture by picture: one that cannot be drawn takes no other with it.
"""

from __future__ import annotations

import json
import logging
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from importlib import metadata
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from blake3 import blake3

from nano_batch.errors import ChangedSourceError, MisplacedImageError
from nano_batch.job import ENDED, make_folder
from nano_batch.wanted import Source, Wanted, changed_options, key_of
from nano_runtime import NanoError, Pipeline, Result, __version__, open_picture, read_parameters, save_png
from nano_runtime.errors import (
    EngineDiedError,
    EngineError,
    NonFiniteError,
    OutOfMemoryError,
    OutputShapeError,
    UsageError,
)
from nano_runtime.errors.escaping import first_line
from nano_runtime.system.files import plain_content, write_whole
from nano_runtime.system.machine import instruction_sets

if TYPE_CHECKING:
    from PIL.Image import Image

    from nano_runtime import DrawOptions, Progress
    from nano_runtime.pictures.parameters import Parameters

__all__ = ["AT_ONCE", "Draw", "units_of"]

AT_ONCE: Final = 4
"""Pictures that share a UNet call; the pipeline takes no more."""

_OF_A_PICTURE: Final = (
    UsageError,
    EngineDiedError,
    EngineError,
    NonFiniteError,
    OutOfMemoryError,
    OutputShapeError,
)
"""Errors that one picture may have and the next one not; all others end the work."""

_VARY: Final = frozenset({"prompt", "negative_prompt", "seed", "variation_seed"})
"""Options in which pictures that share a UNet call may differ."""

_log = logging.getLogger(__name__)


class Draw:
    """Draws pictures of one bundle into one folder. It may be pickled until it has drawn something.

    Args:
        bundle: folder that ``nano-export`` wrote.
        out: folder of the job; pictures are written below it.
        backend: see ``Pipeline.from_pretrained``; also the following.
        threads: processor threads.
        precision: arithmetic of the layers that are not quantized.
        cache: folder for compiled graphs and encoded prompts; None keeps nothing.
        isolated: whether the engine is loaded in a process of its own: a picture that ends it is then one that failed.
        digest: that the bundle must have; None takes any.
    """

    def __init__(
        self,
        bundle: str | Path,
        out: str | Path,
        *,
        backend: str | None = None,
        threads: int | None = None,
        precision: str | None = None,
        cache: str | Path | None = None,
        isolated: bool = False,
        digest: str | None = None,
    ) -> None:
        self.out = Path(out)
        self._opening: dict[str, Any] = {
            "bundle": str(bundle),
            "backend": backend,
            "threads": threads,
            "precision": precision,
            "cache": None if cache is None else str(cache),
            "isolated": isolated,
            "expect_digest": digest,
        }

    def __call__(self, pictures: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Draw pictures, and return what became of each, in their order; see ``draw``.

        Args:
            pictures: as ``Wanted.as_dict`` returns them.
        """
        return self.draw([Wanted.from_dict(one) for one in pictures])

    def apart(self) -> Draw:
        """Return one like it, with its engine in a process of its own, which a picture may end."""
        return type(self)(**{**self.arguments, "isolated": True})

    def picture(self, prompt: str, seed: int, *, name: str | None = None, **options: Any) -> Wanted:  # noqa: ANN401
        """Return the picture that options ask for, for ``draw``.

        Args:
            prompt: what to draw.
            seed: of it.
            name: of its file, below the folder and with slashes; None names it by everything that decides it.
            options: others of ``DrawOptions``, by name, but for pictures to start from.

        Raises:
            MisplacedImageError: there is a picture to start from: ``Wanted`` takes files with their digests.
            NanoError: the bundle cannot be opened, or cannot draw this.
        """
        for place in ("image", "mask_image"):
            if options.get(place) is not None:
                raise MisplacedImageError(place)
        given = changed_options(self.pipeline.plan(prompt, seed=seed, **options).options_of(0))
        key = key_of(given, self.pipeline.bundle.digest)
        return Wanted(key, given, (name or f"images/{key[:2]}/{key}.png",))

    def draw(self, pictures: Sequence[Wanted]) -> list[dict[str, Any]]:
        """Draw pictures and write their files; those whose files are there are not drawn again.

        Returns:
            A record for each picture, in their order, as JSON has it. Of one that is finished: ``key``, ``done`` True,
            ``files`` (for each name its time of change in nanoseconds), ``size`` in bytes, ``blake3`` of the content,
            ``seconds`` (None if it was there), and ``drawn_by``. Of one that is not: ``key``, ``done`` False,
            ``error`` and ``hint``, and ``ended`` True if it ended the engine's process.

        Raises:
            NanoError: no picture can be drawn: the disk is full, the bundle damaged, the engine missing.
        """
        records: dict[str, dict[str, Any]] = {}
        for unit in units_of(list({one.key: one for one in pictures}.values())):
            records |= {record["key"]: record for record in self._unit(unit)}
        return [records[one.key] for one in pictures]

    @property
    def arguments(self) -> dict[str, Any]:
        """What the class was called with, by name and with absolute paths: for one like it in another process."""
        given = {name: value for name, value in self._opening.items() if name != "expect_digest"}
        paths = {
            name: None if given[name] is None else str(Path(given[name]).absolute()) for name in ("bundle", "cache")
        }
        return {**given, **paths, "out": str(self.out.absolute()), "digest": self._opening["expect_digest"]}

    @cached_property
    def pipeline(self) -> Pipeline:
        """The pipeline, opened when it is first asked for.

        Raises:
            NanoError: those of ``Pipeline.from_pretrained``.
        """
        return Pipeline.from_pretrained(**self._opening)

    @cached_property
    def _folder(self) -> Path:
        """The folder of the job, made when the first picture is written; if it is deleted later, it stays so.

        Raises:
            OutputError: it cannot be made.
        """
        make_folder(self.out)
        return self.out

    @cached_property
    def drawn_by(self) -> dict[str, Any]:
        """What draws: engine, its version, precision, version of this program and instruction sets."""
        pipe = self.pipeline
        sets = instruction_sets()
        return {
            "backend": pipe.backend,
            "engine_version": _version_of(pipe.backend),
            "precision": pipe.options.precision,
            "version": __version__,
            "instruction_sets": None if sets is None else list(sets),
        }

    def _unit(self, unit: Sequence[Wanted]) -> list[dict[str, Any]]:
        """Draw pictures in one call; should it fail, each alone."""
        try:
            return self._drawn(unit)
        except Exception as error:
            if not _may_be_of_a_picture(error):
                raise
            if len(unit) > 1:
                return [record for one in unit for record in self._unit([one])]
        return [self._alone(unit[0])]

    def _alone(self, one: Wanted) -> dict[str, Any]:
        """Draw a picture that failed once more, alone: the engine's process may have been ended from outside."""
        try:
            return self._drawn([one])[0]
        except Exception as error:
            if not _may_be_of_a_picture(error):
                raise
            return _failed(one, error)

    def _drawn(self, unit: Sequence[Wanted]) -> list[dict[str, Any]]:
        """Draw pictures in one call and write them; those that are there already are left out."""
        began = time.monotonic()
        pipe = self.pipeline
        records: dict[str, dict[str, Any]] = {}
        image, mask = self._opened(unit[0].image), self._opened(unit[0].mask_image)
        plan = pipe.plan(replace(_joined(unit), image=image, mask_image=mask))
        if plan.variation is not None:  # the options of a call count its seeds up from one
            seeds = tuple(int(one.given["variation_seed"]) for one in unit)
            plan = replace(plan, variation=replace(plan.variation, seeds=seeds))
        expected = {one.key: pipe.parameters_of(plan, i) for i, one in enumerate(unit)}
        for one in unit:
            if (found := self._there(one, expected[one.key])) is not None:
                records[one.key] = found
        left = [i for i, one in enumerate(unit) if one.key not in records]
        if left:
            result = _last(pipe.draw(plan.only(left), more=True))
            seconds = (time.monotonic() - began) / len(left)
            drawn = cast("list[Image]", result.images)
            for i, image, parameters in zip(left, drawn, result.parameters, strict=True):
                records[unit[i].key] = self._written(unit[i], image, parameters, seconds)
        return [records[one.key] for one in unit]

    def _opened(self, source: Source | None) -> Image | None:
        """Open a picture to start from, or a mask.

        Raises:
            ChangedSourceError: it is gone, or not what it was when the key was made.
            ImageError: it is none.
        """
        if source is None:
            return None
        try:
            content = plain_content(Path(source.path))
        except OSError as error:
            raise ChangedSourceError(source.path, f"cannot be read any more: {error.strerror}") from error
        if blake3(content).hexdigest() != source.digest:
            raise ChangedSourceError(source.path, "is not what it was when this job began")
        return open_picture(content)

    def _there(self, one: Wanted, expected: Parameters) -> dict[str, Any] | None:
        """Return the record of a picture that is there, whole, and drawn as it is wanted; None where there is none.

        It is then written under those of its names that lack it.
        """
        found = next((name for name in one.files if (self.out / name).exists()), None)
        if found is None:
            return None
        try:
            content = plain_content(self.out / found)
            by = read_parameters(self.out / found)
            open_picture(content)
        except (OSError, NanoError):
            return None
        if not _is_whole_png(content):
            return None
        same = replace(by, backend=expected.backend, precision=expected.precision, version=expected.version)
        if same.as_json() != expected.as_json():
            return None
        self._write(content, [name for name in one.files if not self._has(name, content)])
        known = {"backend": by.backend, "precision": by.precision, "version": by.version}
        return self._record(one, content, None, {**dict.fromkeys(self.drawn_by), **known})

    def _has(self, name: str, content: bytes) -> bool:
        try:
            return plain_content(self.out / name) == content
        except OSError:
            return False

    def _written(self, one: Wanted, image: Image, parameters: Parameters, seconds: float) -> dict[str, Any]:
        """Write a picture under all its names, whole, and return its record.

        Raises:
            OutputError: the folder is missing, full, or not writable.
        """
        file = BytesIO()
        save_png(image, file, parameters)
        self._write(file.getvalue(), one.files)
        return self._record(one, file.getvalue(), seconds, self.drawn_by)

    def _write(self, content: bytes, names: Iterable[str]) -> None:
        for name in names:
            path = self.out / name
            make_folder(path.parent, self._folder)
            write_whole(path, lambda file: file.write(content))

    def _record(
        self, one: Wanted, content: bytes, seconds: float | None, drawn_by: Mapping[str, Any]
    ) -> dict[str, Any]:
        return {
            "key": one.key,
            "done": True,
            "files": {name: (self.out / name).stat().st_mtime_ns for name in one.files},
            "size": len(content),
            "blake3": blake3(content).hexdigest(),
            "seconds": None if seconds is None else round(seconds, 3),
            "drawn_by": dict(drawn_by),
        }


def units_of(pictures: Sequence[Wanted]) -> list[list[Wanted]]:
    """Sort pictures into units that share UNet calls: first the full ones, so that graphs are loaded for few sizes.

    Args:
        pictures: with keys of their own.
    """
    groups: dict[str, list[Wanted]] = {}
    for one in pictures:
        groups.setdefault(_shared(one), []).append(one)
    units = [of[i : i + AT_ONCE] for of in groups.values() for i in range(0, len(of), AT_ONCE)]
    return sorted(units, key=len, reverse=True)


def _version_of(module: str) -> str | None:
    """Return the version of a package, which may be installed under another name than its module has."""
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(module)
    packages = metadata.packages_distributions().get(module, [])
    return metadata.version(packages[0]) if packages else None


def _shared(one: Wanted) -> str:
    """Name all that the pictures of a call have in common: everything but prompts and seeds."""
    options = {name: value for name, value in one.given.items() if name not in _VARY}
    image = None if one.image is None else one.image.digest
    mask = None if one.mask_image is None else one.mask_image.digest
    return json.dumps([options, "variation_seed" in one.given, image, mask], sort_keys=True)


def _joined(unit: Sequence[Wanted]) -> DrawOptions:
    """Return the options of a call that draws a unit; the seeds of variations are not all in it."""
    return replace(
        unit[0].options,
        prompt=[str(one.given.get("prompt", "")) for one in unit],
        negative_prompt=[str(one.given.get("negative_prompt", "")) for one in unit],
        seed=[int(one.given["seed"]) for one in unit],
    )


def _is_whole_png(content: bytes) -> bool:
    """Return whether every chunk of a PNG has its checksum, and the last one ends the file; decoders pass over much."""
    at = 8  # behind the signature
    while (head := content[at : at + 8]) and len(head) == 8:  # noqa: PLR2004 - length and name
        length = int.from_bytes(head[:4], "big")
        end = at + 8 + length
        if zlib.crc32(content[at + 4 : end]) != int.from_bytes(content[end : end + 4], "big"):
            return False
        at = end + 4
        if head[4:] == b"IEND":
            return at == len(content)
    return False


def _last(events: Iterator[Progress | Result]) -> Result:
    """Go through a drawing and return its result."""
    for event in events:
        if isinstance(event, Result):
            return event
    raise AssertionError("a stream ends with its result")


def _may_be_of_a_picture(error: Exception) -> bool:
    """Return whether an error may be one picture's own: those of the machine and of the whole bundle are not."""
    if isinstance(error, NanoError):
        return isinstance(error, _OF_A_PICTURE)
    return not isinstance(error, OSError)


def _failed(one: Wanted, error: Exception) -> dict[str, Any]:
    """Return the record of a picture that cannot be drawn."""
    if isinstance(error, NanoError):
        what, hint = error.what, error.hint
    elif isinstance(error, MemoryError):
        what, hint = "this machine ran out of memory", "Close other programs, or give this process more."
    else:
        _log.debug("drawing failed", exc_info=error)
        what = f"{type(error).__name__}: {first_line(error)}"
        hint = "This is a fault of this program, or of the engine; please report it with the row."
    failed = {"key": one.key, "done": False, "error": what, "hint": hint}
    return {**failed, ENDED: True} if isinstance(error, EngineDiedError) else failed

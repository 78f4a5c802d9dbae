"""Errors of a bundle that is missing, damaged, unsafe, or computes nonsense: exit code 3."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from nano_runtime.errors.branches import BundleError

__all__ = [
    "DigestError",
    "EngineDiedError",
    "EngineError",
    "ExtraFileError",
    "LoaderDiedError",
    "ManifestError",
    "NoNumbersError",
    "NonFiniteError",
    "NotABundleError",
    "OutputShapeError",
    "SignatureError",
    "TamperedFileError",
    "UnsafeGraphError",
    "UnsupportedScheduleError",
]


class NotABundleError(BundleError):
    """A path without a readable manifest."""

    def __init__(self, path: Path, why: str, hint: str = "Give a folder that nano-export wrote.") -> None:
        super().__init__(f"{path} is not a bundle: {why}", hint)


class ManifestError(BundleError):
    """A manifest that breaks the contract."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path} is not a valid manifest: {why}", "Export the bundle again, or fetch a fresh copy.")


class TamperedFileError(BundleError):
    """A file of the bundle that is not the one the manifest describes."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(
            f"{path} is not the file the manifest describes: {why}",
            "Do not use this bundle; export it again, or fetch a fresh copy.",
        )


class ExtraFileError(BundleError):
    """A file in the bundle's folder that the manifest does not know."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} is not listed in the manifest",
            "Move it out of the bundle; if you did not put it there, export the bundle again or fetch a fresh copy.",
        )


class DigestError(BundleError):
    """Another bundle than the one that was asked for."""

    def __init__(self, path: Path, found: str, expected: str) -> None:
        super().__init__(
            f"{path} is another bundle than expected: its digest is {found}, not {expected}",
            "Check that you gave the right digest; if you did, fetch a fresh copy of the bundle.",
        )


class SignatureError(BundleError):
    """A signature that is damaged, or of other files, or of another key."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"the signature {path} is not valid: {why}", "Fetch the bundle and its own signature again.")


class UnsafeGraphError(BundleError):
    """A graph that is not given to an engine, although its checksum is right."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(
            f"{path} is not a graph to be trusted: {why}",
            "Do not use this bundle; tell whoever made it, or export your own.",
        )


class LoaderDiedError(BundleError):
    """A graph or tokenizer that ended the process in which it was tried."""

    def __init__(self, path: Path, doing: str, how: str) -> None:
        super().__init__(
            f"{path} cannot be trusted: the process that tried to {doing} it {how}",
            "Do not use this bundle; if you know that it is good, check the memory of this machine and try again.",
        )


class EngineDiedError(BundleError):
    """A process that drew from the bundle, and was ended by what its native code did."""

    def __init__(self, path: Path, code: int | None) -> None:
        if code is None:
            super().__init__(
                f"drawing from {path} was ended: the process that did it asked for what it has no business with",
                "Do not use this bundle; tell whoever made it.",
            )
            return
        name = f"signal {-code}" if code < 0 else f"exit code {code}"
        with suppress(ValueError):
            name = signal.Signals(-code).name if code < 0 else name
        memory = "; the kernel does so where memory runs out" if name == "SIGKILL" else ""
        super().__init__(
            f"drawing from {path} ended the process that did it ({name}{memory})",
            "Close other programs, or draw fewer pictures at once."
            if memory
            else "Try the other engine. If you do not know the bundle, try it with: nano-bundle verify --deep.",
        )


class UnsupportedScheduleError(BundleError):
    """A noise schedule this runtime does not implement."""

    def __init__(self, key: str, value: object, known: Iterable[object]) -> None:
        super().__init__(
            f"the schedule asks for {key}={value!r}, which is not implemented",
            f"Supported values of {key}: {', '.join(map(repr, known))}.",
        )


class NoNumbersError(UnsupportedScheduleError):
    """A noise schedule whose values are each within their range, and together lead to no numbers."""

    def __init__(self, what: str, why: str) -> None:
        BundleError.__init__(
            self,
            f"the scheduler in manifest.json cannot be drawn with: {what}: {why}",
            "Draw with another sampler, or do not use this bundle.",
        )


class EngineError(BundleError):
    """A graph that an engine refuses to load or to run."""

    def __init__(self, backend: str, doing: str, model: Path, why: str) -> None:
        super().__init__(
            f"{backend} cannot {doing} {model}: {why}",
            "Export the bundle again with the tool versions of this release, or try the other engine.",
        )


class OutputShapeError(BundleError):
    """A graph whose output differs in shape or type from the manifest."""

    def __init__(self, component: str, tensor: str, found: str, wanted: str) -> None:
        super().__init__(
            f"the {component} computed {found} for {tensor!r}, not the {wanted} of the manifest",
            "Export the bundle again, or fetch a fresh copy.",
        )


class NonFiniteError(BundleError):
    """A graph, or the sampler, that computed NaN or infinity."""

    def __init__(self, component: str, where: str) -> None:
        self.component = component
        super().__init__(
            f"the {component} computed values that are not finite ({where})",
            "Try another engine or an fp32 bundle; if that fails too, the weights are damaged.",
        )

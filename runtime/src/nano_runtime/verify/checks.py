"""The checks of a whole bundle: one ordered table, and the function that runs it.

A new check is one function and one line in ``CHECKS``; ``nano-bundle verify`` prints its results like those of all
others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.unsafe_graphs import unsafe_graphs
from nano_runtime.errors import MissingArgumentError, NanoError, SignatureError
from nano_runtime.values import path, switch
from nano_runtime.verify.signature import check_signature
from nano_runtime.verify.trial import Limits, engines_of, trial_fault

__all__ = ["CHECKS", "Check", "Checking", "Request", "Verification", "verify_bundle", "verify_stream"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """Options of a verification.

    Attributes:
        deep: also load and run every graph with every installed engine, in a process of its own with bounded time
            and memory.
        signature: file to compare with the bundle's files; needs ``public_key``.
        public_key: PEM, of the person who signed; it must not come from whoever sent the bundle.
    """

    deep: bool = False
    signature: Path | None = None
    public_key: Path | None = None

    def __post_init__(self) -> None:
        """Refuse a signature without a key, and a key without a signature.

        Raises:
            MissingArgumentError: one of them is missing.
        """
        if (self.signature is None) != (self.public_key is None):
            names = ("public_key", "signature") if self.signature is None else ("signature", "public_key")
            raise MissingArgumentError(*names)


@dataclass(frozen=True)
class Check:
    """One line of the table.

    Attributes:
        doing: progress while the check runs.
        faults: yields the faults that the check finds.
        passed: result of a check without faults; None adds nothing to what the checks before it say.
        asked: whether a request includes the check.
    """

    doing: str
    faults: Callable[[Bundle, Request], Iterator[NanoError]]
    passed: Callable[[Bundle, Request], str] | None = None
    asked: Callable[[Request], bool] = lambda _: True


@dataclass(frozen=True)
class Checking:
    """Progress: a check begins.

    Attributes:
        doing: of this check.
        done: number of checks before it.
        checks: number of all checks of the request.
    """

    doing: str
    done: int
    checks: int


@dataclass(frozen=True)
class Verification:
    """Result of all checks.

    Attributes:
        bundle: the one that was checked.
        faults: of the first check that found any; the checks after it did not run.
        passed: results of the checks before it, one line each.
    """

    bundle: Bundle
    faults: tuple[NanoError, ...]
    passed: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether no check found a fault."""
        return not self.faults


def verify_bundle(
    bundle: str | Path | Bundle,
    *,
    deep: bool = False,
    expect_digest: str | None = None,
    signature: str | Path | None = None,
    public_key: str | Path | None = None,
) -> Verification:
    """Check a whole bundle: files, signature, graphs.

    Args:
        bundle: a folder, or an open bundle.
        deep: also load and run every graph with every installed engine, in a process of its own.
        expect_digest: the digest that the bundle must have, as 64 hex digits; None takes any.
        signature: file to compare with the bundle's files; needs ``public_key``.
        public_key: PEM of the person who signed; get it from them, and not with the bundle.

    Returns:
        The faults, if there are any; no fault is raised once the manifest is read.

    Raises:
        NotABundleError: there is no such folder or no manifest in it.
        DigestError: it is another bundle than expected.
        ManifestError: the manifest is damaged or contradicts itself.
        MissingArgumentError: only one of signature and key is given.
        KeyFileError: the key cannot be used.
        SigningMissingError: the package that checks signatures is not installed.
        BackendMissingError: ``deep``, and no engine that the bundle serves is installed.
    """
    request = Request(
        deep=switch("deep", deep),
        signature=None if signature is None else path("signature", signature),
        public_key=None if public_key is None else path("public_key", public_key),
    )
    if isinstance(bundle, Bundle):
        bundle.require_digest(expect_digest)
    else:
        bundle = Bundle.open(bundle, expect_digest)
    for event in verify_stream(bundle, request):
        if isinstance(event, Verification):
            return event
    raise AssertionError("a stream ends with its result")


def verify_stream(bundle: Bundle, request: Request) -> Iterator[Checking | Verification]:
    """Check a whole bundle, one check at a time: the caller shows progress, closing the iterator cancels.

    Yields:
        A ``Checking`` before every check and, last, the ``Verification``.

    Raises:
        KeyFileError: the key cannot be used.
        SigningMissingError: the package that checks signatures is not installed.
        BackendMissingError: ``deep``, and no engine that the bundle serves is installed.
    """
    checks = [check for check in CHECKS if check.asked(request)]
    passed: list[str] = []
    for index, check in enumerate(checks):
        yield Checking(check.doing, index, len(checks))
        if faults := tuple(check.faults(bundle, request)):
            yield Verification(bundle, faults, tuple(passed))
            return
        if check.passed is not None:
            passed.append(check.passed(bundle, request))
    yield Verification(bundle, (), tuple(passed))


def _files(bundle: Bundle, _request: Request) -> Iterator[NanoError]:
    """Yield changed, missing and unknown files."""
    return bundle.faults()


def _files_are_right(bundle: Bundle, _request: Request) -> str:
    count, size = len(bundle.manifest.files), bundle.size_bytes()
    return f"all {count} files ({size / 1e6:.1f} MB) are as the manifest says; digest {bundle.digest}"


def _signature(bundle: Bundle, request: Request) -> Iterator[NanoError]:
    """Yield the difference to what was signed."""
    if request.signature is not None and request.public_key is not None:
        try:
            check_signature(bundle, request.signature, request.public_key)
        except SignatureError as error:
            yield error


def _has_signature(request: Request) -> bool:
    return request.signature is not None


def _signature_is_right(_bundle: Bundle, request: Request) -> str:
    return f"{request.signature} signs them for the key {request.public_key}"


def _unsafe_graphs(bundle: Bundle, _request: Request) -> Iterator[NanoError]:
    """Yield graphs that no engine may see."""
    return unsafe_graphs(bundle)


def _trial(bundle: Bundle, _request: Request) -> Iterator[NanoError]:
    """Yield the fault of each engine that cannot load and run the bundle."""
    for backend in engines_of(bundle):
        if (fault := trial_fault(bundle, backend, Limits.of(bundle, backend))) is not None:
            yield fault


def _all_run(bundle: Bundle, _request: Request) -> str:
    usable = engines_of(bundle)
    untried = [backend for backend in bundle.manifest.backends if backend not in usable]
    line = f"every graph loads and runs on {' and '.join(usable)}"
    return line if not untried else f"{line}; not tried: {', '.join(untried)}, which is not installed"


# A check runs only if those before it found nothing, and may rely on it: engines see no file whose checksum is wrong.
CHECKS: Final[tuple[Check, ...]] = (
    Check("comparing files with their checksums", _files, passed=_files_are_right),
    Check("comparing files with the signature", _signature, passed=_signature_is_right, asked=_has_signature),
    Check("looking into the graphs", _unsafe_graphs),
    Check("running every graph", _trial, passed=_all_run, asked=lambda request: request.deep),
)

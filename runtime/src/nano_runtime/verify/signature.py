"""Signs bundles and checks signatures; the only file that imports ``model_signing``, and only when it is needed.

A signature is a file beside the bundle, in the format of the OpenSSF's model signing specification 1.0: a DSSE envelope
over the sha256 of every file. Whoever has that package can check it without this one. Keys are bare elliptic-curve
keys in PEM; no certificate, transparency log or server is asked.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.manifest import MANIFEST_NAME
from nano_runtime.errors import KeyFileError, OutputError, OutputExistsError, SignatureError, SigningMissingError
from nano_runtime.errors.escaping import first_line
from nano_runtime.system.files import open_plain, write_whole

__all__ = ["check_signature", "sign"]

_KEYS = {"mediaType", "verificationMaterial", "dsseEnvelope"}
_MAX_BYTES = 1 << 20  # of a key or a signature; a bundle of thirty files has one of 10 kB


def sign(bundle: Bundle, private_key: Path, signature: Path | None = None, *, force: bool = False) -> Path:
    """Compare a bundle's files with their checksums, and sign all of them.

    Args:
        bundle: the bundle.
        private_key: PEM, without a passphrase, on NIST's curve P-256, P-384 or P-521.
        signature: the file to write; None is the bundle's folder with ``.sig`` behind its name.
        force: replace a signature that exists.

    Returns:
        The path of the signature.

    Raises:
        OutputExistsError: there is such a file.
        OutputError: it would be an unknown file in the bundle, or cannot be written.
        BundleError: a file is not the one the manifest describes.
        SigningMissingError: the package that signs is not installed.
        KeyFileError: the key cannot be used.
        SignatureError: the package leaves out a file: one that git keeps for itself.
    """
    folder = bundle.path.resolve()
    target = folder.parent / f"{folder.name}.sig" if signature is None else signature
    if target.exists() and not force:
        raise OutputExistsError(target)
    if target.resolve().is_relative_to(folder):
        raise OutputError(target, "the signature would be an unknown file in the bundle")
    for fault in bundle.faults():
        raise fault
    _require()
    from model_signing import signing  # noqa: PLC0415 - imports 600 modules

    _read(private_key, KeyFileError)
    try:
        signer = signing.Config().use_elliptic_key_signer(private_key=private_key)
    except Exception as error:  # the package raises nothing more specific
        raise KeyFileError(private_key, _reason(error)) from error
    with TemporaryDirectory() as temporary:
        made = Path(temporary) / "signature"
        signer.sign(bundle.path, made)
        content = made.read_bytes()
    _require_all(bundle, content, target)
    write_whole(target, lambda file: file.write(content))
    return target


def check_signature(bundle: Bundle, signature: Path, public_key: Path) -> None:
    """Compare every file of a bundle with what the owner of a key signed.

    Args:
        bundle: a bundle whose files were compared with their checksums; this check reads them even if they are links or
            devices.
        signature: see ``sign``.
        public_key: PEM.

    Raises:
        SigningMissingError: the package that checks is not installed.
        KeyFileError: the key cannot be used.
        SignatureError: the file is no signature, one of another key or of other files, or leaves out a file.
    """
    _require()
    from model_signing import verifying  # noqa: PLC0415

    _read(public_key, KeyFileError)
    content = _read(signature, SignatureError)
    try:
        verifier = verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    except Exception as error:
        raise KeyFileError(public_key, _reason(error)) from error
    try:
        with _as_file(content) as copy, redirect_stdout(StringIO()):  # it prints warnings about older formats
            verifier.verify(bundle.path, copy)
    except Exception as error:  # a crafted file can raise anything
        raise SignatureError(signature, f"it does not fit {bundle.path} ({_reason(error)})") from error
    _require_all(bundle, content, signature)


def _require_all(bundle: Bundle, content: bytes, signature: Path) -> None:
    """Require that a signature covers the manifest and every file in it: it may name paths that it ignores.

    Args:
        bundle: that is signed.
        content: a signature that the package has taken, or has just made.
        signature: its file, for messages.

    Raises:
        SignatureError: a file is not covered.
    """
    try:
        signed = _covered(content)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SignatureError(signature, f"what it covers cannot be read ({_reason(error)})") from error
    for name in (MANIFEST_NAME, *(entry.path for entry in bundle.manifest.files)):
        if name not in signed:
            raise SignatureError(signature, f"it does not cover {name}")


def _covered(content: bytes) -> set[str]:
    """Return the names of the files that a signature covers: of the in-toto statement in its DSSE envelope.

    Only the usual keys are taken, so that no second envelope stands where the package looks and this function does not.
    """
    document = json.loads(content)
    if not {*document} <= _KEYS:
        raise ValueError(f"unknown keys: {', '.join(sorted({*document} - _KEYS))}")
    statement = json.loads(base64.b64decode(document["dsseEnvelope"]["payload"], validate=True))
    predicate = statement["predicate"]
    if predicate.get("resources") is None:  # of version 0.2 of the package
        return {one["name"] for one in statement["subject"]}
    return {one["name"] for one in predicate["resources"]}


def _require() -> None:
    """Require ``model_signing``, and pyOpenSSL, which it imports but does not require."""
    if find_spec("model_signing") is None or find_spec("OpenSSL") is None:
        raise SigningMissingError


def _read(path: Path, refused: type[KeyFileError | SignatureError]) -> bytes:
    """Return the content of a small plain file."""
    try:
        with os.fdopen(open_plain(path), "rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise refused(path, str(error) if error.strerror is None else error.strerror) from error
    if len(content) > _MAX_BYTES:
        raise refused(path, f"it has more than {_MAX_BYTES} bytes")
    return content


@contextmanager
def _as_file(content: bytes) -> Iterator[Path]:
    """Give the path of a copy with this content, which nobody else can change."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "signature"
        path.write_bytes(content)
        yield path


def _reason(error: Exception) -> str:
    """Return the class of an error of the package, and its message in one line; many messages mean little alone."""
    return f"{type(error).__name__}: {first_line(error)}"

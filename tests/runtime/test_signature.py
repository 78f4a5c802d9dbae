"""Signatures by a bare key: what was signed verifies, anything else does not, and nobody else is asked."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from nano_runtime.bundle.checksums import entry_of
from nano_runtime.bundle.manifest import MANIFEST_NAME
from nano_runtime.cli import bundle as command

pytest.importorskip("model_signing", reason='needs pip install "nano-runtime[signing]"')
pytest.importorskip("OpenSSL")
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
)


def write_keys(folder: Path, name: str, curve: ec.EllipticCurve) -> tuple[Path, Path]:
    """Make a pair of keys and return their files: private, public."""
    key = ec.generate_private_key(curve)
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture
def keys(tmp_path) -> tuple[Path, Path]:
    return write_keys(tmp_path, "mine", ec.SECP256R1())


@pytest.fixture
def signed(folder, keys) -> Path:
    """A bundle with its signature beside it."""
    assert command.main(["sign", str(folder), "--key", str(keys[0])]) == 0
    return folder


def verify(folder: Path, public: Path, signature: Path | None = None) -> int:
    path = folder.with_name(f"{folder.name}.sig") if signature is None else signature
    return command.main(["verify", str(folder), "--signature", str(path), "--public-key", str(public)])


def test_what_was_signed_verifies(signed, keys, capsys):
    assert verify(signed, keys[1]) == 0
    out, err = capsys.readouterr()
    assert "bundle.sig signs them for the key" in out
    assert err == ""
    assert command.main(["verify", str(signed)]) == 0  # and the signature is no unknown file


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_larger_curves(folder, tmp_path, curve):
    private, public = write_keys(tmp_path, curve.name, curve)
    assert command.main(["sign", str(folder), "--key", str(private), "-o", str(tmp_path / "x")]) == 0
    assert verify(folder, public, tmp_path / "x") == 0


def test_the_signature_is_ecdsa_over_the_sha256_of_every_file(signed, keys):
    """Reference: the DSSE protocol, version 1.0.2, by hand, and the manifest's own checksums."""
    import base64  # noqa: PLC0415
    import hashlib  # noqa: PLC0415

    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415

    envelope = json.loads(signed.with_name("bundle.sig").read_bytes())["dsseEnvelope"]
    payload, kind = base64.b64decode(envelope["payload"]), envelope["payloadType"].encode()
    message = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    signature = base64.b64decode(envelope["signatures"][0]["sig"])
    public = load_pem_public_key(keys[1].read_bytes())
    assert isinstance(public, ec.EllipticCurvePublicKey)
    public.verify(signature, message, ec.ECDSA(hashes.SHA256()))
    told = {entry["name"]: entry["digest"] for entry in json.loads(payload)["predicate"]["resources"]}
    files = {path.relative_to(signed).as_posix(): path for path in signed.rglob("*") if path.is_file()}
    assert told == {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}


def seal(folder: Path) -> None:
    """Change a file, and make the manifest right again: what checksums cannot see, and a signature can."""
    licence = folder / "LICENSE"
    licence.write_bytes(b"Draw everything that harms.")
    document = json.loads((folder / MANIFEST_NAME).read_bytes())
    for entry in document["files"]:
        if entry["path"] == "LICENSE":
            entry.update(msgspec.to_builtins(entry_of(folder, licence)))
    (folder / MANIFEST_NAME).write_text(json.dumps(document))


def test_a_bundle_that_was_changed_and_sealed_is_not_what_was_signed(signed, keys, capsys):
    seal(signed)
    assert command.main(["verify", str(signed)]) == 0  # the control: the manifest alone does not tell
    assert verify(signed, keys[1]) == 3
    err = capsys.readouterr().err
    assert "LICENSE" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("at", range(0, 100, 7))
def test_a_changed_signature_is_none(signed, keys, at, capsys):
    """Bytes at equal distances are turned into others; most are letters of base64."""
    path = signed.with_name("bundle.sig")
    content = bytearray(path.read_bytes())
    index = len(content) * at // 100
    content[index] = ord("A") if content[index] != ord("A") else ord("B")
    path.write_bytes(content)
    assert verify(signed, keys[1]) == 3
    assert "is not valid" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[" * 100_000, b"\xff", b'{"verificationMaterial": {}}', b"x" * 2_000_000],
    ids=["empty", "object", "deep", "not text", "half", "huge"],
)
def test_what_is_no_signature_is_refused(signed, keys, tmp_path, content, capsys):
    (tmp_path / "other.sig").write_bytes(content)
    assert verify(signed, keys[1], tmp_path / "other.sig") == 3
    out, err = capsys.readouterr()
    assert "is not valid" in err
    assert "Traceback" not in err
    assert "WARNING" not in out


def test_another_key_does_not_verify(signed, tmp_path, capsys):
    _, other = write_keys(tmp_path, "other", ec.SECP256R1())
    assert verify(signed, other) == 3
    assert "bundle.sig" in capsys.readouterr().err


def test_a_signature_that_says_it_is_by_another_key_does_not_verify(signed, tmp_path):
    """The hint about the key is not signed; what it says must not decide."""
    import hashlib  # noqa: PLC0415

    _, other = write_keys(tmp_path, "other", ec.SECP256R1())
    path = signed.with_name("bundle.sig")
    document = json.loads(path.read_bytes())
    document["verificationMaterial"]["publicKey"]["hint"] = hashlib.sha256(other.read_bytes()).hexdigest()
    path.write_text(json.dumps(document))
    assert verify(signed, other) == 3


def test_a_signature_of_another_bundle_does_not_verify(signed, keys, tmp_path):
    other = Path(shutil.copytree(signed, tmp_path / "more" / "bundle"))
    seal(other)
    assert command.main(["sign", str(other), "--key", str(keys[0])]) == 0
    assert verify(signed, keys[1], other.with_name("bundle.sig")) == 3


@pytest.mark.parametrize("left_out", ["LICENSE", MANIFEST_NAME, "all but LICENSE"])
def test_a_signature_that_ignores_a_file_is_not_one_of_the_bundle(folder, keys, tmp_path, left_out, capsys):
    """Which paths it ignores stands in the signature itself, and the package obeys it."""
    from model_signing import hashing, signing, verifying  # noqa: PLC0415

    others = [path for path in folder.iterdir() if path.name != "LICENSE"]
    ignored = others if left_out == "all but LICENSE" else [folder / left_out]
    config = hashing.Config().set_ignored_paths(paths=ignored)
    signer = signing.Config().use_elliptic_key_signer(private_key=keys[0]).set_hashing_config(config)
    signer.sign(folder, tmp_path / "part.sig")
    verifying.Config().use_elliptic_key_verifier(public_key=keys[1]).verify(
        folder, tmp_path / "part.sig"
    )  # the control
    assert verify(folder, keys[1], tmp_path / "part.sig") == 3
    assert "does not cover" in capsys.readouterr().err


def test_a_second_envelope_beside_the_one_that_the_package_reads_does_not_help(signed, keys):
    path = signed.with_name("bundle.sig")
    document = json.loads(path.read_bytes())
    path.write_text(json.dumps({**document, "dsse_envelope": document["dsseEnvelope"]}))
    assert verify(signed, keys[1]) == 3


def test_keys_that_are_none(folder, keys, tmp_path, capsys):
    (tmp_path / "text").write_text("no key")
    other = rsa.generate_private_key(65537, 2048)
    (tmp_path / "rsa").write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    key = ec.generate_private_key(ec.SECP256R1())
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    (tmp_path / "locked").write_bytes(locked)
    for name in ("text", "rsa", "locked", "none", "mine.pub"):
        assert command.main(["sign", str(folder), "--key", str(tmp_path / name)]) == 2, name
        assert name in capsys.readouterr().err
    assert not folder.with_name("bundle.sig").exists()
    assert command.main(["sign", str(folder), "--key", str(keys[0])]) == 0
    for name in ("text", "rsa", "none"):
        assert verify(folder, tmp_path / name) == 2, name


def test_only_a_bundle_that_is_whole_is_signed_and_nothing_is_replaced_unasked(folder, keys, capsys):
    sign = ["sign", str(folder), "--key", str(keys[0])]
    assert command.main([*sign, "-o", str(folder / "signature")]) == 4
    assert command.main(sign) == 0
    assert command.main(sign) == 2
    assert command.main([*sign, "--force"]) == 0
    (folder / "LICENSE").write_bytes(b"")
    assert command.main([*sign, "--force"]) == 3
    assert "LICENSE" in capsys.readouterr().err


@pytest.mark.parametrize("half", [["--signature", "x"], ["--public-key", "x"]])
def test_signature_and_key_belong_together(folder, half):
    assert command.main(["verify", str(folder), *half]) == 2


def test_without_the_package_the_error_names_what_installs_it(folder, keys, tmp_path):
    program = (
        "import sys; sys.modules['model_signing'] = None\n"
        "from nano_runtime.cli.bundle import main; sys.exit(main(sys.argv[1:]))"
    )
    for arguments in (["sign", folder, "--key", keys[0]], ["verify", folder, "--signature", "x", "--public-key", "y"]):
        command_line = [sys.executable, "-c", program, *map(str, arguments)]
        done = subprocess.run(command_line, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert done.returncode == 4
        assert 'pip install "model-signing"' in done.stderr
        assert "Traceback" not in done.stderr

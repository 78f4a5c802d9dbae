"""``nano-bundle``: what is in a bundle, and whether it is what its manifest says."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.manifest import Default
from nano_runtime.cli import digest, make_parser, megabytes, run_command
from nano_runtime.errors import MissingArgumentError, NanoError, OutputError, OutputExistsError, SignatureError
from nano_runtime.errors.escaping import escaped

__all__ = ["main"]

_EXAMPLES = """\
  nano-bundle verify nano-int8               compare every file with its checksum; exit code 3 if one differs
  nano-bundle verify nano-int8 --deep        and run every graph once, in a process that may die of it
  nano-bundle sign nano-int8 --key my.pem    write nano-int8.sig, which nano-bundle verify --signature compares
  nano-bundle info nano-int8                 model, licence, precision, graphs, sizes
"""


class _Options(argparse.Namespace):
    """The command line, typed."""

    act: Callable[[_Options], int]
    bundle: Path
    json: bool
    deep: bool
    expect_digest: str | None
    signature: Path | None
    public_key: Path | None
    key: Path
    output: Path | None
    force: bool


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(_parser(), _Options(), lambda options: options.act(options), argv)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("nano-bundle", "Look into a bundle that nano-export wrote.", _EXAMPLES)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, act, what in (
        ("verify", _verify, "compare every file with its checksum"),
        ("info", _info, "show what the bundle holds"),
        ("sign", _sign, "sign every file, for those who have your public key"),
    ):
        command = commands.add_parser(name, help=what, description=what)
        command.add_argument("bundle", type=Path, metavar="DIR", help="a folder that nano-export wrote")
        command.add_argument("--json", action="store_true", help="print one JSON document")
        command.add_argument(
            "--expect-digest", type=digest, metavar="SHA256", help="refuse a bundle that has another digest"
        )
        command.set_defaults(act=act)
        add = command.add_argument
        if act is _verify:
            deep = "also load and run every graph once, in a process of its own with bounded time and memory"
            add("--deep", action="store_true", help=deep)
            add("--signature", type=Path, metavar="FILE", help="also compare every file with what was signed")
            add(
                "--public-key",
                type=Path,
                metavar="PEM",
                help="of whoever signed, got from them and not with the bundle",
            )
        if act is _sign:
            add("--key", type=Path, required=True, metavar="PEM", help="your private elliptic-curve key")
            add("-o", "--output", type=Path, metavar="FILE", help="the signature (default: DIR.sig)")
            add("--force", action="store_true", help="replace a signature that exists")
    return parser


def _verify(options: _Options) -> int:
    """Report every changed, missing, unknown or hostile file; the exit code is that of the first fault."""
    bundle = Bundle.open(options.bundle, options.expect_digest)
    faults: list[NanoError] = list(bundle.faults())
    if not faults:
        faults += _signature(bundle, options.signature, options.public_key)
    if not faults:
        faults += _unsafe(bundle)
    if not faults and options.deep:
        faults += _deep(bundle)
    if options.json:
        report = {"bundle": str(bundle.path), "digest": bundle.digest, "faults": [fault.what for fault in faults]}
        print(json.dumps(report, indent=1))
    elif not faults:
        count, size = len(bundle.manifest.files), f"{megabytes(bundle.size_bytes())} MB"
        print(f"{bundle.path}: all {count} files ({size}) are as the manifest says; digest {bundle.digest}")
        print(*_also(options), sep="", end="")
    for fault in faults:
        print(f"nano-bundle: {fault.what}", file=sys.stderr)
    if not faults:
        return 0
    print(faults[0].hint, file=sys.stderr)
    return faults[0].exit_code


def _also(options: _Options) -> Iterator[str]:
    """Yield lines about what else was found to be right."""
    if options.signature is not None:
        yield f"{options.signature} signs them for the key {options.public_key}\n"
    if options.deep:
        yield "every graph loads and runs\n"


def _signature(bundle: Bundle, signature: Path | None, public_key: Path | None) -> list[NanoError]:
    """Return what is wrong with a signature, if one is to be looked at."""
    if signature is None and public_key is None:
        return []
    if signature is None or public_key is None:
        given, needed = ("--public-key", "--signature") if signature is None else ("--signature", "--public-key")
        raise MissingArgumentError(given, needed)
    from nano_runtime.verify.signature import check_signature

    try:
        check_signature(bundle, signature, public_key)
    except SignatureError as error:
        return [error]
    return []


def _sign(options: _Options) -> int:
    """Sign a bundle that is what its manifest says."""
    from nano_runtime.verify.signature import sign

    bundle = Bundle.open(options.bundle, options.expect_digest)
    folder = bundle.path.resolve()
    signature = folder.with_name(f"{folder.name}.sig") if options.output is None else options.output
    if signature.exists() and not options.force:
        raise OutputExistsError(signature)
    if signature.resolve().is_relative_to(folder):
        raise OutputError(signature, "the signature would be an unknown file in the bundle")
    for fault in bundle.faults():
        raise fault
    sign(bundle, options.key, signature)
    document = {"bundle": str(bundle.path), "digest": bundle.digest, "signature": str(signature)}
    print(json.dumps(document, indent=1) if options.json else signature)
    return 0


def _unsafe(bundle: Bundle) -> list[NanoError]:
    """Return what keeps engines from seeing a graph."""
    from nano_runtime.bundle.unsafe_graphs import unsafe_graphs

    return [*unsafe_graphs(bundle)]


def _deep(bundle: Bundle) -> list[NanoError]:
    """Return what every installed engine makes of the bundle."""
    from nano_runtime.verify.trial import Limits, deep_fault, engines_of

    faults = (deep_fault(bundle, backend, Limits.of(bundle, backend)) for backend in engines_of(bundle))
    return [fault for fault in faults if fault is not None]


def _info(options: _Options) -> int:
    """Show the manifest: as a table, or whole as JSON."""
    bundle = Bundle.open(options.bundle, options.expect_digest)
    if options.json:
        print(json.dumps(_facts(bundle), indent=1))
        return 0
    manifest = bundle.manifest
    revision = "" if manifest.source.revision is None else f" at {manifest.source.revision}"
    height, width = manifest.image_size
    lines = {
        "name": manifest.name,
        "source": f"{manifest.source.model}{revision}",
        "licence": f"{manifest.licence.id} ({manifest.licence.file})",
        "pictures": f"{width} x {height} pixels",
        "weights": manifest.precision,
        "graph": manifest.graph,
        "scheduler": str(manifest.scheduler.get("_class_name")),
        "default": _default(manifest.default),
        "engines": ", ".join(f"{name} ({megabytes(bundle.size_bytes(name))} MB)" for name in manifest.backends),
        "digest": bundle.digest,
    }
    for key, value in lines.items():
        print(f"{key:<12}{escaped(value)}")
    print()
    _print_components(bundle)
    return 0


def _default(default: Default | None) -> str:
    """Say how a call draws that does not say how."""
    if default is None:
        return "20 steps of the scheduler"
    fidelity = ", ".join(f"{key} {value:.4g}" for key, value in default.fidelity.items())
    return f"{default.steps} steps of {default.scheduler} ({fidelity})"


def _print_components(bundle: Bundle) -> None:
    """Print one row per graph: precision, tensors, and its distance to the original where the exporter measured it."""
    for name, component in bundle.manifest.components.items():
        tensors = f"{len(component.inputs)} in, {len(component.outputs)} out"
        fidelity = ", ".join(f"{key} {value:.4g}" for key, value in component.fidelity.items())
        print(escaped(f"{name:<14}{component.precision:<6}{tensors:<16}{fidelity}".rstrip()))
    for key, value in bundle.manifest.fidelity.items():
        print(escaped(f"{'whole images':<36}{key} {value:.4g}"))
    for name, preset in bundle.manifest.presets.items():
        low, high = preset.guidance_interval
        meant = f"1 UNet call in {preset.cache_interval} whole, guided from {low:.0%} to {high:.0%}"
        distance = ", ".join(f"{key} {value:.4g}" for key, value in preset.fidelity.items())
        print(escaped(f"{name:<14}{meant}: {preset.work:.0%} of the work, {distance} to exact"))


def _facts(bundle: Bundle) -> dict[str, Any]:
    """Return digest, sizes and the manifest itself."""
    import msgspec

    return {
        "path": str(bundle.path),
        "digest": bundle.digest,
        "size_bytes": bundle.size_bytes(),
        "size_bytes_by_backend": {name: bundle.size_bytes(name) for name in bundle.manifest.backends},
        "manifest": msgspec.to_builtins(bundle.manifest),
    }


if __name__ == "__main__":
    sys.exit(main())

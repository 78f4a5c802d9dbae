"""``nano-bundle``: what is in a bundle, and whether it is what its manifest says."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nano_runtime.bundle import Bundle
from nano_runtime.cli import digest, make_parser, run_command
from nano_runtime.errors import NanoError
from nano_runtime.manifest import Default
from nano_runtime.text import escaped

__all__ = ["main"]

_EXAMPLES = """\
  nano-bundle verify nano-int8               compare every file with its checksum; exit code 3 if one differs
  nano-bundle verify nano-int8 --deep        and run every graph once, in a process that may die of it
  nano-bundle info nano-int8                 model, licence, precision, graphs, sizes
"""


class _Options(argparse.Namespace):
    """The command line, typed."""

    act: Callable[[_Options], int]
    bundle: Path
    json: bool
    deep: bool
    expect_digest: str | None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(_parser(), _Options(), lambda options: options.act(options), argv)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("nano-bundle", "Look into a bundle that nano-export wrote.", _EXAMPLES)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, act, what in (
        ("verify", _verify, "compare every file with its checksum"),
        ("info", _info, "show what the bundle holds"),
    ):
        command = commands.add_parser(name, help=what, description=what)
        command.add_argument("bundle", type=Path, metavar="DIR", help="a folder that nano-export wrote")
        command.add_argument("--json", action="store_true", help="print one JSON document")
        command.add_argument(
            "--expect-digest", type=digest, metavar="SHA256", help="refuse a bundle that has another digest"
        )
        command.set_defaults(act=act, deep=False)
        if act is _verify:
            command.add_argument(
                "--deep",
                action="store_true",
                help="also load and run every graph once, in a process of its own with bounded time and memory",
            )
    return parser


def _verify(options: _Options) -> int:
    """Report every changed, missing, unknown or hostile file; the exit code is that of the first fault."""
    bundle = Bundle.open(options.bundle, options.expect_digest)
    faults: list[NanoError] = list(bundle.faults())
    if not faults:
        faults += _unsafe(bundle)
    if not faults and options.deep:
        faults += _deep(bundle)
    if options.json:
        report = {"bundle": str(bundle.path), "digest": bundle.digest, "faults": [fault.what for fault in faults]}
        print(json.dumps(report, indent=1))
    elif not faults:
        count, size = len(bundle.manifest.files), bundle.size_bytes()
        print(f"{bundle.path}: all {count} files ({_megabytes(size)}) are as the manifest says; digest {bundle.digest}")
        if options.deep:
            print("every graph loads and runs")
    for fault in faults:
        print(f"nano-bundle: {fault.what}", file=sys.stderr)
    if not faults:
        return 0
    print(faults[0].hint, file=sys.stderr)
    return faults[0].exit_code


def _unsafe(bundle: Bundle) -> list[NanoError]:
    """Return what keeps engines from seeing a graph."""
    from nano_runtime.graph_check import unsafe_graphs

    return [*unsafe_graphs(bundle)]


def _deep(bundle: Bundle) -> list[NanoError]:
    """Return what every installed engine makes of the bundle."""
    from nano_runtime.deep import Limits, deep_fault, engines_of

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
        "engines": ", ".join(f"{name} ({_megabytes(bundle.size_bytes(name))})" for name in manifest.backends),
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


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


if __name__ == "__main__":
    sys.exit(main())

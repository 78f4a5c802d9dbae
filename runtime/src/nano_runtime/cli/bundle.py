"""``nano-bundle``: parses the command line and prints; the checks are in ``verify``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nano_runtime.bundle.folder import DEMO, Bundle
from nano_runtime.cli import Parser, digest, make_parser, run_command
from nano_runtime.errors import MissingArgumentError

if TYPE_CHECKING:
    from nano_runtime.verify.checks import Request, Verification

__all__ = ["main"]

_EXAMPLES = """\
  nano-bundle info                           the demo's model, licence, precision, graphs, sizes
  nano-bundle verify nano-int8               compare every file with its checksums; exit code 3 if one differs
  nano-bundle verify nano-int8 --deep        also run every graph, in a process of its own
  nano-bundle sign nano-int8 --key my.pem    write nano-int8.sig, which nano-bundle verify --signature compares
  nano-bundle info nano-int8                 model, licence, precision, graphs, sizes
  nano-bundle card nano-int8 --hub           metadata of a model card, to publish the bundle on the Hugging Face Hub
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
    hub: bool
    key: Path
    output: Path | None
    force: bool


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(_parser(), _Options(), lambda options: options.act(options), argv)


def _parser() -> Parser:
    parser = make_parser("nano-bundle", "Look into a bundle that nano-export wrote.", _EXAMPLES)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = _command(commands, "verify", _verify, "compare every file with its checksums")
    deep = "also load and run every graph, in a process of its own with bounded time and memory"
    command.add_argument("--deep", action="store_true", help=deep)
    command.add_argument("--signature", type=Path, metavar="FILE", help="also compare every file with this signature")
    key = "public key of the person who signed; do not take it from whoever sent the bundle"
    command.add_argument("--public-key", type=Path, metavar="PEM", help=key)

    _command(commands, "info", _info, "show the contents of a bundle")

    command = _command(commands, "card", _card, "show the model card of a bundle, its README.md")
    hub = "show only the metadata for the Hugging Face Hub, made from the manifest"
    command.add_argument("--hub", action="store_true", help=hub)

    command = _command(commands, "sign", _sign, "sign every file, for people who have your public key", demo=False)
    command.add_argument("--key", type=Path, required=True, metavar="PEM", help="your private elliptic-curve key")
    command.add_argument("-o", "--output", type=Path, metavar="FILE", help="the signature (default: DIR.sig)")
    command.add_argument("--force", action="store_true", help="replace a signature that exists")
    return parser


def _command(
    commands: argparse._SubParsersAction[Parser],
    name: str,
    act: Callable[[_Options], int],
    job: str,
    *,
    demo: bool = True,
) -> Parser:
    """Return the parser of one command, with the options that all commands have; ``demo``: it takes no folder, too."""
    command = commands.add_parser(name, help=job, description=job)
    folder = "a folder that nano-export wrote"
    if demo:
        folder = f"{folder} (default: the demo)"
        command.add_argument("bundle", nargs="?", type=Path, default=DEMO, metavar="DIR", help=folder)
    else:
        command.add_argument("bundle", type=Path, metavar="DIR", help=folder)
    command.add_argument("--json", action="store_true", help="print one JSON document")
    command.add_argument("--expect-digest", type=digest, metavar="SHA256", help="refuse a bundle with another digest")
    command.set_defaults(act=act)
    return command


def _open(options: _Options) -> Bundle:
    return Bundle.open(options.bundle, options.expect_digest)


def _verify(options: _Options) -> int:
    """Print the faults, or the checks that passed; the exit code is that of the first fault."""
    from nano_runtime.verify.checks import Request

    if (options.signature is None) != (options.public_key is None):
        flags = ("--public-key", "--signature") if options.signature is None else ("--signature", "--public-key")
        raise MissingArgumentError(*flags)
    result = _checked(
        _open(options), Request(deep=options.deep, signature=options.signature, public_key=options.public_key)
    )
    if options.json:
        faults = [fault.what for fault in result.faults]
        print(
            json.dumps({"bundle": str(result.bundle.path), "digest": result.bundle.digest, "faults": faults}, indent=1)
        )
    elif result.ok:
        print(f"{result.bundle.path}: ", "\n".join(result.passed), sep="")
    for fault in result.faults:
        print(f"nano-bundle: {fault.what}", file=sys.stderr)
    if result.ok:
        return 0
    print(result.faults[0].hint, file=sys.stderr)
    return result.faults[0].exit_code


def _checked(bundle: Bundle, request: Request) -> Verification:
    """Run the checks and show their progress, on a terminal only."""
    from tqdm import tqdm

    from nano_runtime.verify.checks import Verification, verify_stream

    with tqdm(bar_format="{desc} [{elapsed}]", leave=False, file=sys.stderr, disable=not sys.stderr.isatty()) as bar:
        for event in verify_stream(bundle, request):
            if isinstance(event, Verification):
                return event
            bar.set_description_str(f"check {event.done + 1} of {event.checks}: {event.doing}")
    raise AssertionError("a stream ends with its result")


def _sign(options: _Options) -> int:
    """Print the path of the new signature."""
    from nano_runtime.verify.signature import sign

    bundle = _open(options)
    signature = sign(bundle, options.key, options.output, force=options.force)
    document = {"bundle": str(bundle.path), "digest": bundle.digest, "signature": str(signature)}
    print(json.dumps(document, indent=1) if options.json else signature)
    return 0


def _card(options: _Options) -> int:
    """Print the model card, or the metadata of one."""
    from nano_runtime.bundle.card import front_matter, read_card
    from nano_runtime.errors.escaping import escaped_lines

    bundle = _open(options)
    card = front_matter(bundle.manifest) if options.hub else read_card(bundle)
    if options.json:
        print(json.dumps({"bundle": str(bundle.path), "digest": bundle.digest, "card": card}, indent=1))
    else:
        print(escaped_lines(card), end="" if card.endswith("\n") else "\n")
    return 0


def _info(options: _Options) -> int:
    """Print the contents: as a table, or the whole manifest as JSON."""
    from nano_runtime.cli.bundle_info import facts, print_info

    bundle = _open(options)
    if options.json:
        print(json.dumps(facts(bundle), indent=1))
    else:
        print_info(bundle)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""``nano-serve``: a page and HTTP APIs for pictures, on this machine."""

from __future__ import annotations

import argparse
import logging
import math
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nano_runtime.cli import Parser, make_parser, run_command
from nano_runtime.cli.cache_options import CacheOptions, add_cache_options, cache_folder

if TYPE_CHECKING:
    from nano_serve.fit import Fit
    from nano_serve.http.guard import Access
    from nano_serve.http.watch import Watch
    from nano_serve.studio import Studio

__all__ = ["main"]

_EXAMPLES = """\
  nano-serve --open                                    the built-in demo model, in your browser
  nano-serve --bundle nano-int8                        a bundle of your own, at http://localhost:7860
  nano-serve --bundle nano-int8 --bundle other-int8    several; one is loaded at a time
  TOKEN=$(openssl rand -hex 24); echo $TOKEN           for other machines: they send it, or open /?token=...
  nano-serve --host 0.0.0.0 --token "$TOKEN" --allow-host studio.lan
"""
_DEFAULT_PORT = 7860
_MOST_PORT = 65535
_NEVER = -1  # seconds after which memory is freed
_MOST_MEGABYTES = 100_000_000
_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - addresses that others do not use as a name
_VARIABLE = "NANO_SERVE_TOKEN"
_TOKEN = re.compile("[!-~]{16,}")
_ABOUT_PROMPTS = ("nano_runtime.networks.conditioning", "nano_runtime.pipeline")


class _Options(CacheOptions):
    """The command line, typed."""

    bundle: list[Path]
    backend: str | None
    threads: int | None
    isolate: bool
    host: str
    port: int
    token: str | None
    allow_host: list[str]
    allow_origin: list[str]
    open: bool
    history: Path | None
    history_size: int | None
    keep_history: bool
    queue: int
    idle: float
    fit: Fit
    log: Literal["text", "json"] | None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(_parser(), _Options(), _serve, argv)


def _parser() -> Parser:
    parser = make_parser("nano-serve", "Serve a page and HTTP APIs that draw pictures, on this machine.", _EXAMPLES)
    drawing = parser.add_argument_group("drawing")
    drawing.add_argument(
        "--bundle", type=Path, action="append", default=[], metavar="DIR",
        help="folder of a bundle; repeat it for several, the first is the default (default: the built-in demo)",
    )  # fmt: skip
    drawing.add_argument(
        "--backend", choices=("onnxruntime", "openvino"), help="the engine (default: as nano-generate takes it)"
    )
    drawing.add_argument("--threads", type=int, metavar="N", help="processor threads (default: one per core)")
    drawing.add_argument(
        "--isolate", action="store_true",
        help="run the engine in a process of its own: an engine that crashes, hangs or fills the memory does not end "
        "the server; pictures take a little longer",
    )  # fmt: skip
    drawing.add_argument(
        "--idle", type=_seconds, default=300.0, metavar="SECONDS",
        help="free a model's memory after this long without a job; -1 keeps it (default: %(default)g)",
    )  # fmt: skip
    drawing.add_argument(
        "--queue", type=_count, default=16, metavar="N", help="jobs that may wait (default: %(default)s)"
    )
    drawing.add_argument(
        "--history", type=Path, metavar="DIR", help="folder for finished pictures (default: in the user's data folder)"
    )
    drawing.add_argument(
        "--history-size", type=_megabytes, metavar="MB",
        help="delete the oldest pictures when all together are larger (default: never)",
    )  # fmt: skip
    drawing.add_argument(
        "--no-history", dest="keep_history", action="store_false", help="delete all pictures when the server stops"
    )
    drawing.add_argument(
        "--fit", choices=("asked", "native", "strict"), default="asked",
        help="when a program asks for another size than the bundle draws: enlarge to it, return what was drawn, or "
        "refuse (default: %(default)s)",
    )  # fmt: skip
    add_cache_options(parser)
    network = parser.add_argument_group("who may ask")
    network.add_argument(
        "--host", default="localhost", help="address to listen on; any beyond this machine needs --token"
    )
    network.add_argument(
        "--port", type=_port, default=_DEFAULT_PORT, help="0 takes any that is free (default: %(default)s)"
    )
    network.add_argument(
        "--token", default=os.environ.get(_VARIABLE),
        help="requests must carry it: at least 16 characters (default: the environment variable NANO_SERVE_TOKEN, "
        "which other users of the machine cannot read)",
    )  # fmt: skip
    network.add_argument(
        "--allow-host", type=_host, action="append", default=[], metavar="NAME[:PORT]",
        help="a further name of this server; with a port, that of a proxy, which may speak TLS",
    )  # fmt: skip
    network.add_argument(
        "--allow-origin", type=_origin, action="append", default=[], metavar="ORIGIN",
        help="a page of another server that may use the API, as http://name:port",
    )  # fmt: skip
    network.add_argument("--log", choices=("text", "json"), help="print a line for every request, without its content")
    network.add_argument("--open", action="store_true", help="open the page in your browser")
    return parser


def _serve(options: _Options) -> int:
    from nano_serve.errors import BadRequestError
    from nano_serve.extra import require

    require()
    from nano_serve.http.guard import Access
    from nano_serve.http.server import is_loopback, listen, serve

    if options.token is not None and not _TOKEN.fullmatch(options.token):
        hint = "Give at least 16 letters, digits and signs without blanks, as openssl rand -hex 24 prints."
        raise BadRequestError("--token is short, or has characters that not every program sends", hint)
    if options.token is None and not is_loopback(options.host):
        raise BadRequestError(
            f"--host {options.host} lets others reach this server, and there is no --token",
            'Choose one (TOKEN=$(openssl rand -hex 24)), add --token "$TOKEN", and --allow-host with the name that '
            "others use; or leave --host out.",
        )
    with _without_prompts(), _history(options) as history:
        if options.log is not None:
            _log_to_stderr(options.log)
        sockets = listen(options.host, options.port)
        host, port = sockets[0].getsockname()[:2]
        shown = "localhost" if options.host == "localhost" else f"[{host}]" if ":" in host else host
        url = f"http://{shown}:{port}"
        if host in _EVERYWHERE and not options.allow_host:
            _warn("nobody on another machine is let in until --allow-host names this one as they call it")
        access = Access(options.token, [*options.allow_host, options.host, host], options.allow_origin)

        def started() -> None:
            print(f"nano-serve: {url} (Ctrl-C stops it)")
            kept = f"Pictures are kept in {history}" if options.keep_history else "Pictures are deleted when it stops"
            print(kept, flush=True)
            if options.open:
                import webbrowser
                from urllib.parse import quote

                webbrowser.open(url if options.token is None else f"{url}/?token={quote(options.token, safe='')}")

        serve(sockets, access, lambda: _opened(options, history, access), started)
    return 0


def _opened(options: _Options, history: Path, access: Access) -> tuple[Watch, Studio]:
    """Open the bundles; return the application, and what draws for it."""
    from nano_runtime import Bundle, Pipeline
    from nano_serve.http.app import application
    from nano_serve.studio import Settings, Studio

    cache = cache_folder(options)

    def pipeline(folder: Path) -> Pipeline:
        opened = Pipeline.from_pretrained(
            folder,
            options.backend,  # type: ignore[arg-type] # argparse has checked it
            options.threads,
            cache=cache,
            isolated=options.isolate,
        )
        opened.bundle.require_files(opened.backend)  # its graphs are loaded with the first job, or never
        return opened

    bundles = options.bundle or [Bundle.open().path]
    keep = None if options.idle == _NEVER else options.idle
    settings = Settings(bundles, history, queue=options.queue, keep_seconds=keep, history_bytes=options.history_size)
    studio = Studio(settings, pipeline)
    for copy in studio.shelf.copies:
        _warn(f"{copy} is a copy of another bundle, which is offered once")
    return application(studio, access, options.fit), studio


def _warn(what: str) -> None:
    print(f"nano-serve: warning: {what}", file=sys.stderr, flush=True)


def _log_to_stderr(form: Literal["text", "json"]) -> None:
    """Print every request, and the server's own errors, on standard error."""
    from nano_serve.http.watch import JsonLines

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else logging.Formatter("%(asctime)s %(message)s"))
    logger = logging.getLogger("nano_serve")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)


@contextmanager
def _without_prompts() -> Iterator[None]:
    """Keep prompts out of the log: what the runtime says of them, whoever asked is told (``notes``)."""
    loggers = [logging.getLogger(name) for name in _ABOUT_PROMPTS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _history(options: _Options) -> Iterator[Path]:
    """Give the folder for pictures; without history it is gone afterwards."""
    if not options.keep_history:
        with tempfile.TemporaryDirectory(prefix="nano-serve-") as folder:
            yield Path(folder)
    elif options.history is not None:
        yield options.history
    else:
        from platformdirs import user_data_path

        yield user_data_path("nano-runtime", appauthor=False) / "pictures"


def _seconds(text: str) -> float:
    """Read a time."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found) or (found < 0 and found != _NEVER):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds, or {_NEVER} for never")
    return found


def _megabytes(text: str) -> int:
    """Read a size; return it in bytes."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= _MOST_MEGABYTES):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of MB")
    return int(text) * 1_000_000


def _host(text: str) -> str:
    """Read a name of the server."""
    if re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[0-9a-zA-Z_.-]+)(:[0-9]{1,5})?", text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a name or an address, perhaps with :PORT")
    return text


def _origin(text: str) -> str:
    """Read the origin of a page, as browsers send it: scheme, name and port."""
    found = text.rstrip("/").lower()
    if re.fullmatch(r"[a-z][a-z0-9+.-]*://[^\s/?#@*]+", found) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not an origin: give http://NAME:PORT or https://NAME")
    return found


def _port(text: str) -> int:
    """Read a port."""
    if not (text.isascii() and text.isdigit() and int(text[:6]) <= _MOST_PORT):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, 0 to {_MOST_PORT}")
    return int(text)


def _count(text: str) -> int:
    """Read a number of jobs."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= 10_000):  # noqa: PLR2004
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 10000")
    return int(text)

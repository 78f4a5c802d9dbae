"""Times Nano beside other ways to draw with the same checkpoint on this processor: picture, start, memory, likeness.

All draw with the same seeded weights from the same noise, with the same threads, guidance and number of UNet calls
(counted while they run; a wrong count is an error; ours with their own steps make fewer). Every library has an
environment of its own with exact versions. Environments, exports and the checkpoint are kept in build/peers: about
15 GB, and half an hour the first time; a second run takes minutes. Linux only: memory is read from /proc.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

from bench.peers import environments, models
from bench.peers.catalogue import OURS, PEERS, Peer
from bench.peers.chart import draw_chart
from bench.peers.commands import PeerError
from bench.peers.measure import measure_draws, measure_starts, write_noise
from bench.peers.processes import Conditions, Setup
from bench.peers.report import control_psnr_db, markdown, rows

from nano_runtime.bundle.folder import Bundle
from nano_runtime.errors import NanoError
from nano_runtime.system.machine import describe_machine, instruction_sets
from nano_runtime.system.processors import usable_cores

_ROOT = Path(__file__).parents[2]
_NAMED = (*PEERS, *(peer for peer in OURS if peer.optional))
_EXAMPLES = """\
examples:
  nano-export synthetic --int8 -o build/synthetic-int8    what the peers are compared with, first
  python -m bench.peers                                   everybody but the optional ones
  python -m bench.peers --only genai-hybrid --only diffusers --runs 3
  python -m bench.peers --only sdcpp-q8_0 --prepare       only install and convert
  python -m bench.peers --architecture tiny --bundle build/tiny --output /tmp/try    the driver itself
"""


def main() -> int:
    """Prepare, measure, write; return the exit code."""
    options = _parser().parse_args()
    try:
        return _run(options)
    except (NanoError, PeerError) as error:
        print(f"bench.peers: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.peers",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--bundle", type=Path, default=_ROOT / "build/synthetic-int8", metavar="DIR",
        help="our bundle of the same checkpoint (default: build/synthetic-int8)")  # fmt: skip
    add("--only", action="append", choices=[peer.name for peer in _NAMED], metavar="NAME",
        help=f"whom to time beside ours, repeatable: {', '.join(peer.name for peer in _NAMED)}")  # fmt: skip
    add("--architecture", choices=("synthetic", "tiny"), default="synthetic",
        help="of the checkpoint; tiny has no speed to speak of (default: synthetic)")  # fmt: skip
    add("--runs", type=int, default=5, metavar="N", help="warm pictures of each (default: %(default)s)")
    add("--starts", type=int, default=2, metavar="N", help="warm starts of each (default: %(default)s)")
    add("--threads", type=int, default=usable_cores(), metavar="N", help="(default: performance cores, %(default)s)")
    add("--steps", type=int, default=20, metavar="N", help="of PNDM, one UNet call more (default: %(default)s)")
    add("--guidance", type=float, default=7.5, metavar="X", help="over 1 (default: %(default)s)")
    add("--work", type=Path, default=_ROOT / "build/peers", metavar="DIR", help="(default: build/peers)")
    add("--output", type=Path, default=_ROOT / "bench/results", metavar="DIR",
        help="where peers.md, peers.json and peers.png go (default: bench/results)")  # fmt: skip
    add("--prepare", action="store_true", help="install and export what is missing, and measure nothing")
    return parser


def _run(options: argparse.Namespace) -> int:
    """Do the work; a peer that cannot be made is left out, and named in the results."""
    source = Bundle.open(options.bundle).manifest.source.model
    if source != options.architecture:
        raise SystemExit(f"{options.bundle} was made from {source}, the peers from {options.architecture}.")
    named = options.only or [peer.name for peer in PEERS if not peer.optional]
    wanted = [peer for peer in PEERS if peer.name in named]
    left_out = dict(_prepare(wanted, options.architecture, options.work))
    able = [peer for peer in OURS if not peer.needs or peer.needs in (instruction_sets() or ())]
    ours = [peer for peer in able if not peer.optional or peer.name in named]
    peers = [*ours, *(peer for peer in wanted if peer.name not in left_out)]
    if not options.prepare:
        _measure(peers, left_out, options)
    return 1 if left_out else 0


def _prepare(peers: Sequence[Peer], architecture: str, work: Path) -> Iterator[tuple[str, str]]:
    """Make environments and models that are missing; yield the name of a peer for which that failed, and why."""
    for peer in peers:
        needed = list(models.needed_for(peer.model))
        wanted = [*(models.MODELS[name].environment for name in needed), peer.environment]
        try:
            for name in dict.fromkeys(filter(None, wanted)):
                if not environments.is_ready(name, work):
                    _say(f"installing the environment {name}, minutes")
                    environments.make_ready(name, work)
            for name in needed:
                if not models.folder_of(name, architecture, work).is_dir():
                    _say(f"building {name} of {architecture}, minutes")
                    models.build(name, architecture, work)
        except PeerError as error:
            _say(f"{peer.name} is left out: {error}")
            yield peer.name, str(error)


def _measure(peers: Sequence[Peer], left_out: dict[str, str], options: argparse.Namespace) -> None:
    """Measure, and write the table, the samples and the chart."""
    conditions = Conditions("a red fox", options.threads, options.steps, options.guidance, size=128)
    setup = Setup(
        conditions=conditions,
        models={
            peer.name: options.bundle
            if peer in OURS
            else models.folder_of(peer.model, options.architecture, options.work)
            for peer in peers
        },
        noise=options.work / "noise.npy",
        work=options.work,
    )
    write_noise(setup.noise, options.runs, conditions.size)
    for folder in ("logs", "pictures"):
        (options.work / folder).mkdir(exist_ok=True)
    starts = []
    for start in measure_starts(peers, setup, options.starts):
        cached = ", cached" if start.cached else ""
        _say(f"start {start.run} of {start.peer}{cached}: {start.ms / 1e3:.1f} s, {start.peak_rss_bytes / 1e9:.2f} GB")
        starts.append(start)
    samples = []
    for sample in measure_draws(peers, starts, setup, options.runs):
        _say(f"picture {sample.run} of {sample.peer}: {sample.ms / 1e3:.2f} s")
        samples.append(sample)

    table = rows(peers, starts, samples, setup)
    control = control_psnr_db(samples, setup)
    text = markdown(table, control)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "peers.md").write_text(text, encoding="utf-8")
    document = {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "machine": asdict(describe_machine()),
        "architecture": options.architecture,
        "conditions": {**asdict(conditions), "unet_calls": conditions.calls},
        "rows": [asdict(row) for row in table],
        "control_psnr_db": control,
        "left_out": left_out,
        "requirements": {
            name: environments.requirements_of(name).splitlines()
            for name in sorted({peer.environment for peer in peers if peer.environment is not None})
        },
        "starts": [asdict(start) for start in starts],
        "samples": [asdict(sample) for sample in samples],
    }
    (options.output / "peers.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    draw_chart(table, options.output / "peers.png")
    print(text, end="")


def _say(line: str) -> None:
    """Tell the person that waits, on stderr: stdout carries the table."""
    print(f"{datetime.now().astimezone():%H:%M:%S}  {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

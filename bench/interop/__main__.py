"""Opens standard bundles with other libraries, and adopts the folders that other tools write: pictures, compared.

Exports the demo model (fp32 and INT8, ``--graph standard``), draws one picture from one noise with Nano and with each
library in an environment of its own, and compares it with Nano's fp32 picture. Then each tool writes a folder from the
same checkpoint; its own pipeline draws from it, and so does Nano from the bundle that ``nano-export --adopt`` makes of
it. Environments and folders are kept in build/peers and build/interop: 4 GB, and some minutes the first time.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import numpy as np
from bench.interop.catalogue import FOLDERS, READERS, Folder
from bench.interop.report import Adopted, Opened, markdown, write_into
from bench.peers import environments
from bench.peers.catalogue import Peer
from bench.peers.commands import PeerError, run_logged
from bench.peers.measure import write_noise
from bench.peers.processes import Conditions, Setup, Worker
from PIL import Image

from nano_export.source.builtin import DEMO
from nano_runtime.pipeline import Pipeline
from nano_runtime.system.machine import describe_machine
from nano_runtime.system.processors import usable_cores

_ROOT = Path(__file__).parents[2]
_BUILDERS = _ROOT / "bench/peers/builders"
_PAGE = _ROOT / "docs/how-to/other-libraries.md"
_NANO = {
    engine: Peer(f"nano-{engine}", f"Nano, {engine}", "nano", None, "bundle", {"backend": engine})
    for engine in ("onnxruntime", "openvino")
}


def main() -> int:
    """Prepare, draw, compare, write; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.interop", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--work", type=Path, default=_ROOT / "build/interop", metavar="DIR", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--environments", type=Path, default=_ROOT / "build/peers", metavar="DIR", help="(default: %(default)s)"
    )
    parser.add_argument("--only", action="append", metavar="NAME", help="a library or a folder; nothing is written")
    options = parser.parse_args()
    try:
        _run(options.work, options.environments, options.only)
    except PeerError as error:
        print(f"bench.interop: {error}", file=sys.stderr)
        return 1
    return 0


def _run(work: Path, place: Path, only: list[str] | None) -> None:
    """Do the work, and write the tables unless only a part was asked for."""
    for folder in (work / "logs", work / "pictures"):
        folder.mkdir(parents=True, exist_ok=True)
    conditions = Conditions("a red apple", usable_cores(), steps=20, guidance=2.0, size=128)
    noise = work / "noise.npy"
    write_noise(noise, 1, conditions.size)
    if not (work / "environments").exists():
        (place / "environments").mkdir(parents=True, exist_ok=True)
        (work / "environments").symlink_to((place / "environments").absolute())
    setup = Setup(conditions, models={}, noise=noise, work=work)
    opened = [*_open(setup, only)]
    adopted = [*_adopt(setup, only)]
    if only is None:
        text = markdown(opened, adopted)
        document = {
            "date": datetime.now(timezone.utc).date().isoformat(),
            "machine": asdict(describe_machine()),
            "conditions": asdict(conditions),
            "opened": [asdict(row) for row in opened],
            "adopted": [asdict(row) for row in adopted],
        }
        results = _ROOT / "bench/results"
        (results / "interop.md").write_text(text, encoding="utf-8")
        (results / "interop.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        write_into(_PAGE, opened, adopted)


def _open(setup: Setup, only: list[str] | None) -> Iterator[Opened]:
    """Draw standard bundles with us and with each library."""
    bundles = {precision: _bundle(setup.work, precision) for precision in ("fp32", "int8")}
    colours = _colours(bundles["fp32"], setup)
    reference, cut = np.rint(colours), np.floor(colours)
    for engine, peer in _NANO.items():
        fp32, int8 = (_db(reference, _drawn(peer, bundle, setup, precision)) for precision, bundle in bundles.items())
        row = Opened(f"Nano on {engine}", _version("nano-runtime", None), "`Pipeline.from_pretrained`", fp32, int8, "")
        _say(row)
        yield row
    for reader in READERS:
        if only is not None and reader.distribution not in only:
            continue
        _ready(reader.peer.environment, setup)
        fp32, int8 = (
            _db(cut if reader.cuts else reference, _drawn(reader.peer, bundle, setup, precision))
            for precision, bundle in bundles.items()
        )
        number = _version(reader.distribution, reader.peer.environment)
        row = Opened(reader.distribution, number, reader.call, fp32, int8, reader.ignores)
        _say(row)
        yield row


def _adopt(setup: Setup, only: list[str] | None) -> Iterator[Adopted]:
    """Have each tool write its folder and draw from it, and draw from what we make of it."""
    for folder in FOLDERS:
        if only is not None and folder.name not in only:
            continue
        try:
            db = _likeness(folder, setup)
        except PeerError as error:
            print(f"bench.interop: {folder.name} is left out: {error}", file=sys.stderr, flush=True)
            continue
        library = "diffusers" if folder.peer.name == "diffusers-onnx" else folder.peer.name
        row = Adopted(folder.title, _version(library, folder.peer.environment), folder.engine, db)
        _say(row)
        yield row


def _likeness(folder: Folder, setup: Setup) -> float:
    """Return the PSNR in dB between a tool's own picture from its folder and ours from the adopted bundle."""
    theirs, ours = _written(folder, setup), setup.work / "adopted" / folder.name
    ours.parent.mkdir(exist_ok=True)
    export = Path(sys.executable).with_name("nano-export")
    size = str(setup.conditions.size)  # diffusers' script writes no config, and would draw 512
    run_logged([export, "--adopt", theirs, "-o", ours, "--size", size, "--force"], setup.log("adopt", folder.name))
    _ready(folder.peer.environment, setup)
    own = _drawn(folder.peer, theirs, setup, folder.name)
    return _db(own, _drawn(_NANO[folder.engine], ours, setup, f"adopted-{folder.name}"))


def _bundle(work: Path, precision: str) -> Path:
    """Return the standard bundle of the demo model, exported if it is not there."""
    target = work / f"demo-{precision}"
    if not target.is_dir():
        command: list[str | Path] = [
            Path(sys.executable).with_name("nano-export"),
            "demo",
            "--graph",
            "standard",
            "-o",
            target,
        ]
        run_logged([*command, "--precision", precision], work / "logs" / f"export-{precision}.log")
    return target


def _written(folder: Folder, setup: Setup) -> Path:
    """Return the folder that a tool writes, written if it is not there."""
    target = setup.work / "folders" / folder.name
    if not target.is_dir():
        source = DEMO if folder.source is None else setup.work / "folders" / folder.source
        _ready(folder.environment, setup)
        unfinished = target.with_suffix(".unfinished")
        unfinished.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(unfinished, ignore_errors=True)
        python = environments.python_of(folder.environment, setup.work)
        command: list[str | Path] = [python, _BUILDERS / f"{folder.builder}.py", source, unfinished, *folder.arguments]
        run_logged(command, setup.log("build", folder.name))
        unfinished.rename(target)
    return target


def _ready(environment: str | None, setup: Setup) -> None:
    """Make an environment that is not there."""
    if environment is not None and not environments.is_ready(environment, setup.work):
        print(f"installing the environment {environment}, minutes", file=sys.stderr, flush=True)
        environments.make_ready(environment, setup.work)


def _drawn(peer: Peer, model: Path, setup: Setup, name: str) -> np.ndarray:
    """Return the picture that a peer draws from a folder, uint8 [height, width, 3]."""
    here = replace(setup, models={peer.name: model})
    picture = setup.picture(peer.name, name)
    with closing(Worker(peer, here, cached=False)) as worker:
        worker.loaded()
        worker.draw(0, picture)
    return np.asarray(Image.open(picture).convert("RGB"))


def _colours(bundle: Path, setup: Setup) -> np.ndarray:
    """Return Nano's picture on ONNX Runtime as floats from 0 to 255, before they become bytes."""
    conditions = setup.conditions
    pipe = Pipeline.from_pretrained(bundle, backend="onnxruntime", threads=conditions.threads)
    result = pipe(
        f"{conditions.prompt} 0",
        latents=np.load(setup.noise)[:1],
        num_inference_steps=conditions.steps,
        scheduler="pndm",
        guidance_scale=conditions.guidance,
        output_type="np",
    )
    return 255 * np.asarray(result.images[0], np.float64)


def _db(one: np.ndarray, other: np.ndarray) -> float:
    """Return the PSNR of two pictures; infinite for equal ones."""
    error = float(np.mean((one.astype(np.float64) - other) ** 2))
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))


def _version(library: str, environment: str | None) -> str:
    """Return the version of a library in an environment, as its list of versions has it."""
    if environment is None:
        return version(library)
    for line in environments.requirements_of(environment).splitlines():
        name, _, found = line.partition("==")
        if name == library:
            return found
    raise AssertionError(f"{library} is not in the list of {environment}")


def _say(row: Opened | Adopted) -> None:
    """Tell the person that waits."""
    print(row, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

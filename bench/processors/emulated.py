"""The processors that can be compared here: this one, and those that qemu emulates for single programs.

qemu 7.2 emulates x86 up to AVX2, and not AVX512. The interpreter of this environment runs on an emulated x86; for
aarch64, Debian's is unpacked into a folder, with the runtime's packages beside it. qemu shows programs this machine's
`/proc/cpuinfo`, from which onnxruntime would take features that the emulated processor lacks: hence a file of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Processor", "processors"]

ROOT = Path(__file__).parents[2]
PACKAGES = ("python3.11-minimal", "libpython3.11-stdlib", "libstdc++6")
WHEELS = ("onnxruntime", "numpy", "blake3", "msgspec", "platformdirs", "pillow", "tokenizers", "tqdm")
_CPUINFO = """processor	: 0
BogoMIPS	: 243.75
Features	: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp ssbs
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x3
CPU part	: 0xd0c
CPU revision	: 1
"""


@dataclass(frozen=True)
class Processor:
    """A processor and how to run Python on it.

    Attributes:
        name: for the table.
        interpreter: the command, with the emulator if there is one.
        site: further folders to import from.
    """

    name: str
    interpreter: tuple[str, ...]
    site: tuple[Path, ...] = ()

    def run(self, *arguments: str | Path) -> None:
        """Run the worker.

        Raises:
            subprocess.CalledProcessError: it failed; its output went to ours.
        """
        paths = [str(path) for path in (ROOT / "runtime" / "src", *self.site)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        worker = Path(__file__).with_name("worker.py")
        subprocess.run([*self.interpreter, str(worker), *map(str, arguments)], check=True, env=environment)


def processors(folder: Path) -> Iterator[Processor]:
    """Yield this machine's processor, and those that can be emulated; the aarch64 one is set up in ``folder``."""
    yield Processor("here", (sys.executable,))
    if (emulator := shutil.which("qemu-x86_64-static")) is not None:
        yield Processor("SSE4.2", (emulator, "-cpu", "Nehalem", sys.executable))
    if (emulator := shutil.which("qemu-aarch64-static")) is not None:
        root, site = _aarch64(folder)
        python = root / "usr" / "bin" / "python3.11"
        yield Processor("aarch64", (emulator, "-L", str(root), "-cpu", "neoverse-n1", str(python)), (site,))


def _aarch64(folder: Path) -> tuple[Path, Path]:
    """Unpack Debian's Python for aarch64 and the runtime's wheels, 250 MB, unless they are there. Installs nothing."""
    root, site = folder / "root", folder / "site"
    if (folder / "ready").exists():
        return root, site
    for name in ("state/lists/partial", "cache/archives/partial", "root/proc"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "status").touch()
    tools = [shutil.which(name) for name in ("apt-get", "dpkg")]
    apt_get, dpkg = (tool for tool in tools if tool is not None)
    places = {"State": "state", "State::status": "status", "Cache": "cache"}
    options = [f"Dir::{key}={folder.resolve() / place}" for key, place in places.items()]
    options += ["APT::Architecture=arm64", "APT::Architectures=arm64", "APT::Sandbox::User=root"]
    apt = [apt_get, "-qq", *(word for option in options for word in ("-o", option))]
    subprocess.run([*apt, "update"], check=True)
    subprocess.run([*apt, "--yes", "--download-only", "--no-install-recommends", "install", *PACKAGES], check=True)
    for package in sorted((folder / "cache" / "archives").glob("*.deb")):
        subprocess.run([dpkg, "-x", str(package), str(root)], check=True)
    platforms = [f"--platform=manylinux_2_{glibc}_aarch64" for glibc in (28, 27, 17)]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--only-binary=:all:", "--python-version=3.11"]
    pip += ["--constraint", str(ROOT / "constraints.txt"), "--target", str(site), *platforms]
    subprocess.run([*pip, *WHEELS], check=True)
    (root / "proc" / "cpuinfo").write_text(_CPUINFO)
    (folder / "ready").touch()
    return root, site

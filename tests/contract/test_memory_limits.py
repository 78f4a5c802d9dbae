"""Whatever the system's limit on memory is, the command draws, fewer pictures at once if need be, or says why not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from tests.contract.conftest import export

resource = pytest.importorskip("resource", reason="needs a system with limits")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds to a limit on address space")

PICTURES, MB = 4, 1 << 20
FEWER = "fewer at once take longer"
LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)
from nano_runtime.cli.generate import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """``tiny`` for pictures of 384 pixels: attention over 2,304 positions takes hundreds of megabytes."""
    return export("tiny", tmp_path_factory.mktemp("bundles") / "large", "--size", "384")


def draw(bundle: Path, backend: str, most_bytes: int, folder: Path) -> tuple[int, str]:
    """Draw four pictures under a limit; return the exit code and what was said, and check what both hold to."""
    folder.mkdir()
    options = ["--steps=1", f"-n{PICTURES}", "--scheduler=ddim", "--threads=1", "--no-cache", f"-o{folder}"]
    options += [f"--bundle={bundle}", f"--backend={backend}"]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(most_bytes), "a fox", *options],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    case = (most_bytes // MB, done.returncode, done.stderr)
    assert done.returncode in {0, 4}, case
    assert "Traceback" not in done.stderr, case
    assert "\x1b" not in done.stderr, case
    assert done.returncode == 0 or "memory" in done.stderr, case
    drawn = list(folder.iterdir())
    assert len(drawn) == (PICTURES if done.returncode == 0 else 0), case
    for path in drawn:
        with Image.open(path, formats=("PNG",)) as image:
            image.load()
    return done.returncode, done.stderr


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_far_too_little_is_4(fp32, backend, tmp_path):
    code, _ = draw(fp32, backend, 220 * MB, tmp_path / "drawn")  # at 300, one start in some fits
    assert code == 4


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_under_any_limit(large, backend, full, tmp_path):
    """From far too little in steps to enough; somewhere in between, some pictures fit and four do not."""
    codes, fewer = [], 0
    for megabytes in range(150, 4000, 25 if full else 100):
        code, said = draw(large, backend, megabytes * MB, tmp_path / str(megabytes))
        codes.append(code)
        fewer += FEWER in said
        if code == 0 and FEWER not in said:
            break
    print(backend, codes, fewer)  # noqa: T201 - with -s
    assert set(codes) == {0, 4}
    assert codes[-1] == 0
    assert fewer > 0

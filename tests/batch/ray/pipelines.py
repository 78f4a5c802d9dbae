"""The examples in docs/how-to/batch-ray.md, run as they stand there."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable

from tests.batch.ray.cases import Case

from nano_runtime import Bundle, open_picture, read_parameters

__all__ = ["CASES"]

PAGE = "docs/how-to/batch-ray.md"
COUNT = 4


def example_with_ray_data(case: Case) -> str:
    """Draws on an actor pool, and a cluster of its own: without an address, Ray joins the last one of the machine.

    If kill -9 ended that one, Ray waits for it for minutes. The pool takes a processor, tasks that read the other.
    """
    case.prepare(nodes=2)
    with case.cluster():
        return _run(case, "Ray Data", RAY_ADDRESS=(case.folder / "address").read_text())


def example_with_daft(case: Case) -> str:
    """Draws in a class of Daft."""
    return _run(case, "Daft")


def example_with_spark(case: Case) -> str:
    """Draws in ``mapInPandas``."""
    return _run(case, "Spark")


def _run(case: Case, title: str, **variables: str) -> str:
    """Run the example below a heading twice, with a folder for ``/shared``: the second time draws nothing."""
    page = (case.root / PAGE).read_text(encoding="utf-8")
    found = re.search(rf"^### {title}\n.*?^```py\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert found is not None, f"{PAGE} has no example with {title}"
    shutil.copytree(Bundle.open().path, case.folder / "nano-int8")
    script = case.folder / "example.py"
    script.write_text(found[1].replace("/shared", str(case.folder)))
    for _ in range(2):
        output = case.folder / "output.txt"
        with output.open("ab") as file:
            command = [str(case.python), str(script)]
            spark = {"PYSPARK_PYTHON": str(case.python), "SPARK_LOCAL_IP": "127.0.0.1"}
            environment = {**case.environment(), **spark, **variables}
            done = subprocess.run(command, stdout=file, stderr=file, env=environment, check=False, timeout=600)
        assert done.returncode == 0, output.read_text(errors="replace")[-3000:]
        paths = sorted((case.out / "images").rglob("*.png"))
        assert len(paths) == COUNT
        for path in paths:
            open_picture(path).load()
        times = {path.stat().st_mtime_ns for path in paths}
        prompts = {read_parameters(path).options.prompt for path in paths}
        assert len(prompts) == COUNT
        if _ == 0:
            before = times
    assert times == before, "the second run drew again"
    return f"{COUNT} pictures"


CASES: list[Callable[[Case], str]] = [example_with_ray_data, example_with_daft, example_with_spark]

"""The job files of the document do what they say: parsed, and run with the variables that a scheduler sets."""

from __future__ import annotations

import re
import shlex

import yaml
from tests.batch.toy import lines, toy_batch, write_rows
from tests.docs.documents import ROOT

DOCUMENT = (ROOT / "docs/how-to/batch.md").read_text(encoding="utf-8")


def block(language):
    (found,) = re.findall(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)
    return found


def rows_of(folder):
    write_rows(folder / "rows.jsonl", [{"id": str(i), "prompt": "a fox"} for i in range(30)])


def draw(command, folder, formulas):
    """Run a command of the document in a folder, with the formulas' bundle."""
    words = [re.sub(r"^(/job/)?(?=rows|out|nano-int8)", f"{folder}/", word) for word in command]
    assert words[0] == "nano-batch"
    return toy_batch(*[str(formulas.path) if word == f"{folder}/nano-int8" else word for word in words[1:]])


def test_the_indexed_job_draws_all_rows(formulas, tmp_path, monkeypatch):
    rows_of(tmp_path)
    job = yaml.safe_load(block("yaml"))
    spec = job["spec"]
    assert (job["apiVersion"], job["kind"], spec["completionMode"]) == ("batch/v1", "Job", "Indexed")
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["restartPolicy"] == "Never"  # as backoffLimitPerIndex wants it
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"] == {"containerName": container["name"], "operator": "In", "values": [2, 3, 6]}
    assert {one["name"] for one in container["volumeMounts"]} == {one["name"] for one in pod["volumes"]}
    for one in container["env"]:
        monkeypatch.setenv(one["name"], one["value"])
    for index in range(spec["completions"]):
        monkeypatch.setenv("JOB_COMPLETION_INDEX", str(index))
        assert draw(container["command"], tmp_path, formulas) == 0
    assert [one["id"] for one in lines(tmp_path / "out" / "metadata.jsonl")] == [str(i) for i in range(30)]


def test_the_job_array_draws_all_rows(formulas, tmp_path, monkeypatch):
    rows_of(tmp_path)
    script = block("bash").splitlines()
    assert script[0] == "#!/bin/bash"
    (array,) = [line.partition("=")[2] for line in script if line.startswith("#SBATCH --array")]
    first, last = map(int, array.split("-"))
    variables = {"COUNT": last - first + 1, "MIN": first, "MAX": last, "STEP": 1}  # as `man sbatch` lists them
    for name, value in variables.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
    for task in range(first, last + 1):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(task))
        for command in (line for line in script if not line.startswith("#")):
            assert draw(shlex.split(command), tmp_path, formulas) == 0
    assert len(lines(tmp_path / "out" / "metadata.jsonl")) == 30

"""Nothing that is read is ever run: no source of ours has a pickle, an ``eval`` or a shell (see test_quiet.py, too)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import nano_export
import nano_runtime

SOURCES = [Path(package.__path__[0]) for package in (nano_runtime, nano_export)]
MODULES = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "imp", "code"}
CALLS = {"eval", "exec", "compile", "__import__", "load_pickle", "read_pickle", "unsafe_load", "full_load"}
LOADERS = {"torch.load", "numpy.load", "np.load", "yaml.load", "torch.jit.load", "torch.hub.load"}


def dangers_in(source: str) -> list[str]:
    """Return the imports and calls of a source text that could run what they read."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.partition(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom):
            module = "" if node.module is None else node.module
            found += [module] if module.partition(".")[0] in MODULES else []
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            last = name.rpartition(".")[2]
            method = (last == "compile" and name != last) or (last == "eval" and not node.args)  # re's, and a network's
            found += [name] if name in LOADERS or (last in CALLS and not method) else []
            found += [word.arg for word in node.keywords if word.arg in {"shell", "allow_pickle", "trust_remote_code"}]
    return found


@pytest.mark.parametrize("folder", SOURCES, ids=lambda folder: folder.name)
def test_no_source_could_run_what_it_reads(folder):
    files = sorted(folder.rglob("*.py"))
    assert len(files) > 20
    assert {path.name: found for path in files if (found := dangers_in(path.read_text(encoding="utf-8")))} == {}


@pytest.mark.parametrize(
    "source",
    ["import pickle", "from joblib import load", "eval(text)", "exec(code)", "torch.load(path)", "np.load(p)",
     "run(x, shell=True)", "load(x, allow_pickle=True)", "builtins.eval(x)", "pandas.read_pickle(x)",
     "def f():\n    import marshal", "AutoModel.from_pretrained(x, trust_remote_code=True)"],
)  # fmt: skip
def test_the_check_above_can_fail(source):
    assert dangers_in(source) != []


@pytest.mark.parametrize("source", ["model.eval()", "re.compile(x)", "ast.literal_eval(x)", "network.eval().half()"])
def test_the_check_above_knows_its_limits(source):
    assert dangers_in(source) == []

"""Everything in the documents that a reader could type or run, run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.docs.documents import DOCUMENTS, ROOT, Block, blocks_of
from tests.docs.running import NOT_RUN, run, run_block

SLOW = {f"docs/how-to/{name}.md" for name in ("engines", "seeds", "speed", "trust-a-bundle")} | {
    "models/demo/README.md"
}
WITH_BLOCKS = [path for path in DOCUMENTS if any(block.language in ("sh", "python") for block in blocks_of(path))]


def cases() -> list[object]:
    """Return the documents, by their names; those whose commands take longest are slow."""
    names = {path.relative_to(ROOT).as_posix(): path for path in WITH_BLOCKS}
    return [
        pytest.param(path, id=name, marks=[pytest.mark.slow] if name in SLOW else []) for name, path in names.items()
    ]


@pytest.mark.parametrize("document", cases())
def test_every_block_runs(document, workshop):
    folder = workshop()
    names: dict[str, object] = {}
    for block in blocks_of(document):
        run_block(block, folder, names)


def test_a_wrong_option_is_found(workshop):
    with pytest.raises(AssertionError, match="there is no option --stepz"):
        run('nano-generate "a red fox" --bundle nano-int8 --stepz 4', workshop())


def test_a_file_that_nothing_made_is_found(workshop):
    with pytest.raises(AssertionError, match="is not a bundle"):
        run('nano-generate "a red fox" --bundle elsewhere', workshop())


@pytest.mark.parametrize(
    "command",
    [
        "nano-bench nano-int8 --profil-e",
        "nano-export --int9 -o x",
        "make everything",
        "python -m models.demo.draw BUNDLE --cuality fast --quality fast",
        "python -m models.demo.train unet --stepz 4",
        'pip install "./runtime[tensorflow]"',
        'echo "a red fox" | nano-generate - --bundle elsewhere',
    ],
)
def test_a_wrong_command_that_is_not_run_is_found(command, workshop):
    with pytest.raises(AssertionError):
        run(command, workshop())


def test_a_wrong_name_in_python_is_found(tmp_path):
    with pytest.raises(ImportError):
        run_block(Block(Path(__file__), 1, "python", "from nano_runtime import Pipelin\n"), tmp_path, {})


def test_every_excuse_is_needed():
    commands = [
        command
        for path in WITH_BLOCKS
        for block in blocks_of(path)
        if block.language == "sh"
        for command in block.commands()
    ]
    assert [one.pattern for one in NOT_RUN if not any(re.match(one.pattern, command) for command in commands)] == []

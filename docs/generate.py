"""Writes the parts of the documents that come from the code: the file map, commands, samplers and Python names.

    python -m docs.generate           # write them anew; `make docs` does this
    python -m docs.generate --check   # change nothing; name the documents that are out of date, and leave with 1

A part stands between two markers, ``<!-- NAME: made by make docs -->`` and ``<!-- /NAME -->``. Everything outside the
markers is written by hand and stays.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import nano_batch.cli
import nano_export.cli
import nano_runtime
import nano_runtime.cli.bench
import nano_runtime.cli.bundle
import nano_runtime.cli.generate
import nano_serve.cli
from nano_runtime.sampling.sampler_table import SAMPLERS

__all__ = ["PARTS", "job_of", "outdated", "parsers", "with_part", "write"]

ROOT: Final = Path(__file__).parents[1]
_PACKAGES: Final = tuple(
    ROOT / path
    for path in (
        "runtime/src/nano_runtime",
        "runtime/src/nano_batch",
        "runtime/src/nano_serve",
        "exporter/src/nano_export",
    )
)
_WIDEST_SIGNATURE: Final = 100
_SECTIONS: Final = ("Args", "Attributes", "Returns", "Yields", "Raises")
_TABLES: Final = {"Args": "argument", "Attributes": "attribute", "Raises": "raises"}


def parsers() -> dict[str, argparse.ArgumentParser]:
    """Return the real parser of every command, by the command's name; ``nano-bundle``'s by those of its parts."""
    found: dict[str, argparse.ArgumentParser] = {}
    commands = nano_runtime.cli.generate, nano_runtime.cli.bench, nano_runtime.cli.bundle
    modules = nano_export.cli, *commands, nano_batch.cli, nano_serve.cli
    made = [module._parser() for module in modules]  # noqa: SLF001 - the one reader besides the commands themselves
    for parser in (*made, nano_batch.cli._merge_parser()):  # noqa: SLF001 - see above
        parts = [action.choices for action in _actions(parser) if isinstance(action.choices, dict)]
        for one in parts[0].values() if parts else [parser]:
            found[one.prog] = one
    return found


def job_of(path: Path) -> str:
    """Return the job of a source file: the first line of its docstring, without the full stop."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return _markdown(docstring.partition("\n")[0].removesuffix("."))


def file_map() -> str:
    """Return a table of files and jobs for every room of all packages."""
    parts = []
    for package in _PACKAGES:
        parts.append(f"### {package.name}\n")
        rooms: dict[Path, list[Path]] = {}
        for path in sorted(package.rglob("*.py")):
            rooms.setdefault(path.parent, []).append(path)
        rows = ["| file | job |", "|---|---|"]
        for room, paths in rooms.items():
            shown = "" if room == package else f"{room.relative_to(package).as_posix()}/"
            for path in paths:
                if path.name == "__init__.py":
                    name = f"**`{shown}`**" if shown else "`__init__.py`"
                else:
                    name = f"`{shown}{path.name}`"
                rows.append(f"| {name} | {_cell(job_of(path))} |")
        parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)


def commands() -> str:
    """Return a section for every command: what it does, and a table of its options."""
    return "\n".join(_command(parser) for parser in parsers().values())


def samplers() -> str:
    """Return a table of all samplers."""
    heads = ("name", "with levels", "adds noise", "UNet calls per step", "diffusers' class", "A1111's name")
    rows = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for name, one in SAMPLERS.items():
        levels, noisy = ("yes" if value else "" for value in (one.spreadable, one.noisy))
        elsewhere = "" if one.a1111 is None else one.a1111
        rows.append(f"| `{name}` | {levels} | {noisy} | {one.calls_per_step} | {one.diffusers} | {elsewhere} |")
    return "\n".join(rows) + "\n"


def public_names() -> str:
    """Return a section for every public name of ``nano_runtime``: signature, arguments, attributes, errors."""
    names = [name for name in nano_runtime.__all__ if not name.startswith("__")]
    return "\n".join(_name(name, getattr(nano_runtime, name)) for name in names)


PARTS: Final[Mapping[tuple[str, str], Callable[[], str]]] = MappingProxyType(
    {
        ("ARCHITECTURE.md", "files"): file_map,
        ("docs/reference/commands.md", "commands"): commands,
        ("docs/reference/python.md", "names"): public_names,
        ("docs/reference/samplers.md", "samplers"): samplers,
    }
)


def with_part(document: str, name: str, part: str) -> str:
    """Return a document with the text between the markers of ``name`` replaced.

    Raises:
        ValueError: the document has no such markers.
    """
    begin, end = f"<!-- {name}: made by make docs -->\n", f"<!-- /{name} -->"
    before, found, rest = document.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found or not found_end:
        raise ValueError(f"there are no markers named {name!r}")
    return f"{before}{begin}\n{part}\n{end}{after}"


def outdated() -> Iterator[tuple[Path, str]]:
    """Yield every document that is not what the code says, with the text that it should have."""
    for (document, name), make in PARTS.items():
        path = ROOT / document
        text = path.read_text(encoding="utf-8")
        if (wanted := with_part(text, name, make())) != text:
            yield path, wanted


def write() -> None:
    """Write the documents that are not what the code says."""
    for path, text in outdated():
        path.write_text(text, encoding="utf-8")
        print(f"{path.relative_to(ROOT)} is written anew")


def _command(parser: argparse.ArgumentParser) -> str:
    """Return the section of one command."""
    rows = ["| option | meaning |", "|---|---|"]
    for action in _actions(parser):
        if action.dest in {"help", "version"}:
            continue
        value = "" if action.nargs == 0 else _metavar(action)
        names = ", ".join(f"`{f'{option} {value}'.strip()}`" for option in action.option_strings) or f"`{value}`"
        meaning = (action.help or "") % {**vars(action), "prog": parser.prog}
        rows.append(f"| {names} | {_cell(meaning)} |")
    about = _cell(parser.description or "")
    return f"## {parser.prog}\n\n{about[:1].upper()}{about[1:].removesuffix('.')}.\n\n" + "\n".join(rows) + "\n"


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return the options and arguments of a parser."""
    return parser._actions  # noqa: SLF001 - argparse has no public list of them


def _metavar(action: argparse.Action) -> str:
    """Return the word for an option's value."""
    if action.metavar is None and action.choices is not None:
        return f"{{{','.join(map(str, action.choices))}}}"
    value = action.metavar if action.metavar is not None else action.dest.upper()
    return value if isinstance(value, str) else " ".join(value)


def _name(name: str, value: object) -> str:
    """Return the section of one public name."""
    parts = [f"## {name}\n"]
    if not inspect.isclass(value):
        parts.append(_signature(name, value))
    types = dict(_typed_fields(value)) if is_dataclass(value) else {}
    parts.append(_documented(inspect.getdoc(value) or "", types))
    if inspect.isclass(value) and not issubclass(value, BaseException):
        for method, raw in vars(value).items():
            parts.extend(_member(name, value, method, raw))
    return "\n".join(part for part in parts if part)


def _member(owner: str, kind: type, name: str, raw: object) -> Iterator[str]:
    """Yield the section of one method or property; nothing for private and inherited ones."""
    if name.startswith("_") and name != "__call__":
        return
    if isinstance(raw, property):
        yield f"### {owner}.{name}\n"
        yield _documented(inspect.getdoc(raw) or "")
    elif callable(raw) or isinstance(raw, classmethod | staticmethod):
        if is_dataclass(kind) and name in {"__init__", "__eq__"}:
            return
        called = "pipe" if name == "__call__" else f"{owner}.{name}"
        yield f"### {owner}.{name}\n" if name != "__call__" else f"### Calling a {owner}\n"
        yield _signature(called, getattr(kind, name))
        yield _documented(inspect.getdoc(raw) or "")


def _signature(name: str, value: object) -> str:
    """Return how something is called, as a block of text; one argument a line if it is long."""
    if not callable(value):
        return ""
    signature = inspect.signature(value)
    arguments = list(_arguments(signature.parameters.values()))
    answer = signature.return_annotation
    text = f"{name}({', '.join(arguments)}) -> {answer}"
    if len(text) > _WIDEST_SIGNATURE:
        text = f"{name}(\n" + "".join(f"    {argument},\n" for argument in arguments) + f") -> {answer}"
    return f"```text\n{text}\n```\n"


def _arguments(parameters: Iterable[inspect.Parameter]) -> Iterator[str]:
    """Yield the arguments of a signature one by one, as they stand in the code, with the star before named ones."""
    kinds = inspect.Parameter
    starred = False
    for parameter in parameters:
        if parameter.name in {"self", "cls"}:
            continue
        if parameter.kind is kinds.KEYWORD_ONLY and not starred:
            starred = True
            yield "*"
        stars = "**" if parameter.kind is kinds.VAR_KEYWORD else "*" if parameter.kind is kinds.VAR_POSITIONAL else ""
        starred = starred or parameter.kind is kinds.VAR_POSITIONAL
        default = parameter.default
        shown = "DEMO" if isinstance(default, Path) else repr(default)  # a path of this machine
        yield f"{stars}{parameter.name}: {parameter.annotation}" + ("" if default is kinds.empty else f" = {shown}")


def _typed_fields(kind: object) -> Iterator[tuple[str, str]]:
    """Yield the fields of a dataclass, each with its type and, if it has one, its default."""
    for field in fields(kind):  # type: ignore[arg-type]  # the caller knows that it is one
        default = "" if field.default is MISSING else f" = {field.default!r}"
        yield field.name, f"{field.type}{default}"


def _documented(docstring: str, types: Mapping[str, str] = MappingProxyType({})) -> str:
    """Return a Google docstring as Markdown: its text, then a table or a line for each section.

    Args:
        docstring: without indentation.
        types: what to show beside the names in it; nothing for those that are not there.
    """
    text: list[str] = []
    sections: dict[str, list[str]] = {}
    current = text
    for line in docstring.splitlines():
        if (heading := line.removesuffix(":")) in _SECTIONS and line.endswith(":"):
            current = sections.setdefault(heading, [])
        else:
            current.append(line)
    parts = [_markdown("\n".join(text).strip()) + "\n"]
    for heading, lines in sections.items():
        body = inspect.cleandoc("\n".join(["", *lines]))
        if heading in _TABLES:
            rows = [f"| {_TABLES[heading]} | meaning |", "|---|---|"]
            rows += [f"| {_typed(key, types)} | {_cell(meaning)} |" for key, meaning in _entries(body)]
            parts.append("\n".join(rows) + "\n")
        else:
            parts.append(f"{heading}: {_cell(body)}\n")
    return "\n".join(parts)


def _typed(name: str, types: Mapping[str, str]) -> str:
    """Return a name as code, with its type if that is known."""
    return f"`{name}`: `{_cell(types[name])}`" if name in types else f"`{name}`"


def _entries(body: str) -> Iterator[tuple[str, str]]:
    """Yield the names and meanings of a docstring's section."""
    for entry in re.split(r"\n(?=\S)", body):
        name, _, meaning = entry.partition(":")
        if name:
            yield name.strip(), meaning


def _cell(text: str) -> str:
    """Return text that fits into one line of a table."""
    return _markdown(" ".join(text.split())).replace("|", "\\|")


def _markdown(text: str) -> str:
    """Return a docstring's text with Markdown's single backticks."""
    return text.replace("``", "`")


def main() -> int:
    """Write the documents, or compare them; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m docs.generate", description="Write what documents say of the code."
    )
    parser.add_argument("--check", action="store_true", help="only name the documents that are out of date")
    if not parser.parse_args().check:
        write()
        return 0
    stale = [path.relative_to(ROOT) for path, _ in outdated()]
    print(*(f"{path} is out of date: run make docs" for path in stale), sep="\n", end="\n" if stale else "")
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(main())

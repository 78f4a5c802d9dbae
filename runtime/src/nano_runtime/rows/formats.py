"""The formats of lists: plain text, JSON lines, CSV and TSV. Each yields the rows as they stand in the file."""

from __future__ import annotations

import csv
import io
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from json import JSONDecodeError
from pathlib import Path
from typing import Final, TypeAlias

from nano_runtime.bundle.strict_json import parsed_json
from nano_runtime.errors import RowsFileError
from nano_runtime.errors.wording import shown
from nano_runtime.rows.columns import check_columns, field_of
from nano_runtime.rows.row import Fault, Record

__all__ = ["TEXT_FORMATS", "Found", "lines_of_text"]

_log = logging.getLogger(__name__)

Found: TypeAlias = Iterator[Record | Fault]

_DASHED: Final = re.compile(r"(?<!\S)--[A-Za-z][\w-]*")
_COMMENT: Final = re.compile(r"^#")
_DELIMITER: Final = re.compile(r"[,;\t]")
_SEPARATOR: Final = re.compile(r'"?sep=([^\w\n "])"? *(?:\n|\Z)', re.IGNORECASE)
_MOST_PLACES: Final = 5
_NOTHING_ELSE: Final = "a line of text is a prompt and nothing else"
_OBJECT: Final = 'Each line is one object, as in {"prompt": "a red fox", "seed": 7}.'


def lines_of_text(text: str) -> Found:
    """Yield a row for each line that is not blank: the line is the prompt, without the space around it.

    A line that is no prompt is a fault; see ``_no_prompt``. Other words that other programs do not draw, ``--ar`` and
    ``# text``, are drawn, and the log says so.
    """
    marked: dict[str, list[int]] = {}
    first = True
    for number, line in enumerate(text.split("\n"), 1):
        prompt = line.strip()
        if not prompt:
            continue
        if (fault := _no_prompt(prompt, first=first)) is not None:
            yield Fault(f"line {number}", *fault)
        else:
            for word in dict.fromkeys((*_COMMENT.findall(prompt), *_DASHED.findall(prompt))):
                marked.setdefault(word, []).append(number)
            yield Record(number, f"line {number}", {"prompt": prompt})
        first = False
    for word, numbers in marked.items():
        places = ", ".join(map(str, numbers[:_MOST_PLACES])) + (", ..." if len(numbers) > _MOST_PLACES else "")
        what = "begin with #, which makes no comment here" if word == "#" else f"have {word}, which is no option here"
        _log.warning("these lines %s, and are drawn as they stand: %s", what, places)


def _no_prompt(line: str, *, first: bool) -> tuple[str, str] | None:
    """Return what a line of text is if it is no prompt, and what to do; None for a prompt.

    Options are those of A1111's script for prompts from files and ours, and JSON lines and tables have other names.
    """
    options = [word for word in _DASHED.findall(line) if field_of(word.removeprefix("--")) is not None]
    if line.startswith("--") or options:
        what = f"{shown(line if line.startswith('--') else options[0])} looks like an option, and {_NOTHING_ELSE}"
        return what, "Save prompts with options as CSV or JSON lines, with a column for each."
    if line.startswith("{") and _is_json(line):
        return f"it is a JSON object, and {_NOTHING_ELSE}", "Save the rows in a file whose name ends in .jsonl."
    names = [field_of(cell) for cell in _DELIMITER.split(line)] if first else []
    if "prompt" in names and (None not in names or len(names) - names.count(None) > 1):
        hint = "Save the table in a file whose name ends in .csv or .tsv."
        return f"it is the first line of a table, and {_NOTHING_ELSE}", hint
    return None


def _json_lines(text: str, path: Path) -> Found:
    """Yield a row for each line that is not blank.

    Raises:
        RowsFileError: the whole text is one document.
    """
    begin = text.lstrip()
    if begin.partition("\n")[0].rstrip() in ("[", "{") and _is_json(begin):
        raise RowsFileError(path, "it is one JSON document over several lines", _OBJECT)
    for number, line in enumerate(text.split("\n"), 1):
        place = f"line {number}"
        if not line.strip():
            continue
        try:
            document = parsed_json(line)
            if "\\u" in line:
                json.dumps(document, ensure_ascii=False).encode()
        except JSONDecodeError as error:
            yield Fault(f"{place}, character {error.colno}", f"it is not JSON: {error.msg}", _OBJECT)
        except UnicodeEncodeError:
            yield Fault(place, "a text has half of a pair of surrogates", "Write the whole character.")
        except ValueError as error:
            yield Fault(place, str(error), "Correct the line; a long number, or NaN, can be a text in quotes.")
        else:
            if isinstance(document, dict):
                yield Record(number, place, document)
            else:
                kind = "an array" if isinstance(document, list) else "a value"
                yield Fault(place, f"it is {kind}, not an object", _OBJECT)


def _is_json(text: str) -> bool:
    try:
        parsed_json(text)
    except ValueError:
        return False
    return True


def _csv(text: str, path: Path) -> Found:
    """Yield the rows of a table with commas; or semicolons, which spreadsheets write where decimals have a comma.

    A first line ``sep=;`` says what divides the columns, as Excel writes and reads it.
    """
    if (said := _SEPARATOR.match(text)) is not None:
        yield from _table(said[1], "\n" + text[said.end() :], path)
        return
    header = text.lstrip().partition("\n")[0].replace('"', "")
    delimiter = next((mark for mark in ",;" if "prompt" in map(field_of, header.split(mark))), ",")
    yield from _table(delimiter, text, path)


def _table(delimiter: str, text: str, path: Path) -> Found:
    """Yield a row for each record below the header; empty cells are left out, and so are records of nothing else."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    begin, header, options = 1, None, []
    try:
        for cells in reader:
            number, begin = begin, reader.line_num + 1
            place = f"line {number}"
            if not any(map(str.strip, cells)):
                continue
            if header is None:
                header = _header(cells, delimiter, path)
                options = [field_of(name) is not None for name in header]
            elif list(map(str.strip, cells)) == header:
                yield Fault(place, "it is the header once more", "Remove it.")
            elif len(cells) != len(header):
                yield Fault(
                    place,
                    f"it has {len(cells)} cell{'s' * (len(cells) != 1)}, and the header has {len(header)}",
                    "Put a text that has the delimiter in double quotes.",
                )
            else:
                values = {
                    name: None if is_option and not cell.strip() else cell
                    for name, is_option, cell in zip(header, options, cells, strict=True)
                }
                yield Record(number, place, values, as_text=True)
    except csv.Error as error:
        long = "field limit" in str(error)
        hint = "Leave the column out." if long else 'Quotes inside of quotes are doubled, as in ""this"".'
        yield Fault(f"line {begin}", f"it is not CSV: {error}", hint)


def _header(cells: list[str], delimiter: str, path: Path) -> list[str]:
    """Return the names of the columns; raises the error of ``check_columns``."""
    names = [cell.strip() for cell in cells]
    other = next((mark for mark in ";\t,|" if mark != delimiter and mark in "".join(names)), None)
    divide = "Divide the columns of .csv with commas or semicolons, and those of .tsv with tabs."
    check_columns(path, names, None if other is None else divide)
    return names


TEXT_FORMATS: Final[Mapping[str, Callable[[str, Path], Found]]] = {
    ".txt": lambda text, _path: lines_of_text(text),
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".csv": _csv,
    ".tsv": partial(_table, "\t"),
}
"""By how a file's name ends; each takes the text and the file's path."""

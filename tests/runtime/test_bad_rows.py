"""Lists that cannot be drawn: each kind of bad row or file is told with its place; exit code 2; nothing is written."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image
from tests.faults import failing
from tests.runtime.fakes import FakeGraphs, pipeline_of

from nano_runtime.cli import generate
from nano_runtime.pipeline import Pipeline

GOOD = {
    "good.txt": "a red fox\nan owl\n",
    "good.jsonl": '{"prompt": "a red fox", "seed": 7}\n{"prompt": "an owl"}\n',
    "good.ndjson": '{"prompt": "a red fox", "negative_prompt": ""}\n{"prompt": "snow\\nand ice"}',
    "good.csv": 'prompt,seed,steps\n"a red fox,\non snow",7,\nan owl,,3\n',
    "good.TSV": "prompt\tguidance_interval\tstrange\na red fox\t0:1\tx\n\t\t\nan owl\t\t\n",
}


@dataclass(frozen=True)
class Bad:
    """A list that cannot be drawn.

    Attributes:
        file: its name.
        content: of the file; a function makes it.
        told: what the message says, in this order.
    """

    file: str
    content: bytes | str | Callable[[Path], object]
    told: tuple[str, ...]


def txt(content: bytes | str | Callable[[Path], object], *told: str) -> Bad:
    return Bad("rows.txt", content, told)


def csv(content: bytes | str | Callable[[Path], object], *told: str) -> Bad:
    return Bad("rows.csv", content, told)


def jsonl(content: bytes | str | Callable[[Path], object], *told: str) -> Bad:
    return Bad("rows.jsonl", content, told)


def json_row(told: str, /, place: str = "line 1", **values: object) -> Bad:
    """A list with one row."""
    return jsonl(json.dumps({"prompt": "fox", **values}), place, told)


def csv_row(header: str, row: str, *told: str) -> Bad:
    """A table with one row."""
    return csv(f"{header}\n{row}\n", *told)


def sparse(path: Path) -> None:
    """Make a file of 10 GB that takes no space."""
    with path.open("wb") as file:
        file.truncate(10 << 30)


WHOLE, SEEDS, COUNT = (
    "Give a whole number.",
    "Choose a whole number from 0 to 2^64 - 1",
    "a whole number from 1 to 100000",
)
KINDS = {
    # files
    "missing": csv(lambda _path: None, "No such file", "Check its name"),
    "folder": csv(lambda path: path.mkdir(), "it is a folder", "Give a file"),
    "pipe": txt(os.mkfifo if hasattr(os, "mkfifo") else os.mkdir, "it is", "- reads prompts"),
    "link to itself": txt(lambda path: path.symlink_to(path), "cannot be read"),
    "10 GB": jsonl(sparse, "it has 10,737 MB, more than 268", "Divide it"),
    "no suffix": Bad("rows", "fox", ("its name has no ending", ".csv, .tsv, .parquet")),
    "unknown suffix": Bad("rows.json", '["fox"]', ("its name ends in .json", "one of: .txt, .jsonl")),
    "workbook": csv(b"PK\x03\x04\x14\0", "a workbook", "Save the sheet as CSV"),
    "compressed": csv(b"\x1f\x8b\x08\0", "it is compressed", "gzip -d"),
    "Parquet as CSV": csv(b"PAR1\0\0PAR1", "it is a Parquet file", ".parquet"),
    "text as Parquet": Bad("rows.parquet", "prompt\nfox\n", ("it is no Parquet file", "as its format says")),
    "empty": csv(b"", "it has no rows"),
    "empty text": txt(b"\xef\xbb\xbf", "it has no rows"),
    "only blanks": txt(" \n\t\r\n\n", "it has no rows", "for each prompt"),
    "only blanks in JSON": jsonl("\n \n", "it has no rows"),
    "header alone": csv("prompt,seed\n,\n", "it has no rows"),
    "Latin 1": txt("fox\nchâteau\n".encode("latin-1"), "line 2 is not UTF-8 (byte 0xe2)", "as UTF-8", "CSV UTF-8"),
    "half a UTF-16": txt(b"\xff\xfef", "line 1 is not UTF-16"),
    "UTF-16 without mark": txt("a fox".encode("utf-16-le"), "line 1 has a NUL", "needs a byte order mark"),
    "UTF-32": txt("a fox".encode("utf-32"), "NUL"),
    "NUL": csv(b"prompt\nfox\nan \0owl\n", "line 3 has a NUL"),
    # tables
    "no prompt column": csv_row("text,seed", "fox,1", "it has no column prompt, but 'text', 'seed'", "Name the column"),
    "two tables in one": csv("prompt\nfox\n\ufeffprompt\nowl\n", "line 3: it is the header once more", "Remove it"),
    "no header": csv_row("a red fox", "an owl", "it has no column prompt, but 'a red fox'"),
    "tabs": csv_row("prompt\tseed", "fox\t1", "it has no column prompt", "Divide the columns of .csv with commas or"),
    "semicolons, no prompt": csv_row("text;seed", "fox;1", "it has no column prompt, but 'text;seed'", "Divide"),
    "what divides the columns does not": csv("sep=;\nprompt,steps\nfox,1\n", "column prompt, but 'prompt,steps'"),
    "a letter divides the columns": csv("sep=x\npromptxsteps\n", "it has no column prompt, but 'sep=x'"),
    "a bad row below what divides": csv("sep=|\nprompt|steps\nfox|0\n", "line 3, steps: steps 0 cannot be used"),
    "thousands": csv_row("prompt;guidance", "fox;1.000,5", "line 2, guidance: guidance '1.000,5' cannot be used"),
    "header twice": csv_row("prompt,note,note", "fox,1,2", "the column 'note' stands there twice", "Rename"),
    "column without name": csv_row(",prompt", "0,fox", "column 1 has no name", "index=False"),
    "too many cells": csv_row("prompt,seed", "a fox, red,1", "line 2: it has 3 cells, and the header has 2", "quotes"),
    "too few cells": csv_row("prompt,seed", "fox", "line 2: it has 1 cell,"),
    "open quote": csv_row("prompt,seed", '"fox,1\nowl,2', "line 2: it is not CSV: unexpected end", "doubled"),
    "text behind a quote": csv_row("prompt,seed", '"fox" red,1', "line 2: it is not CSV"),
    "a million letters": csv_row("prompt,note", f"fox,{'x' * 1_000_000}", "line 2: it is not CSV: field larger"),
    "two names of one thing": csv_row("prompt,steps,CFG,cfg_scale", "fox,2,3,4", "line 2, cfg_scale", "the same as"),
    "two spellings": csv_row("prompt,Prompt", "fox,owl", "line 2, Prompt: it is the same as the column 'prompt'"),
    "mistyped column": csv_row("prompt,sead", "fox,7", "line 2, sead: there is no option 'sead'", "Did you mean seed?"),
    "mistyped prompt": csv_row("prompt,promt", "fox,owl", "Did you mean prompt?"),
    "mistyped alias": csv_row("prompt,cfg_scal", "fox,7", "Did you mean cfg_scale?"),
    "column of our command": csv_row("prompt,size", "fox,64x64", "no option 'size'", "Did you mean width and height?"),
    "column of A1111": csv_row("prompt,subseed strength", "fox,1", "line 2, subseed st", "mean variation_strength?"),
    "column in one word": csv_row("prompt,numInferenceSteps", "fox,1", "Did you mean num_inference_steps?"),
    "column of Python alone": csv_row("prompt,latents", "fox,0", "line 2, latents: a list cannot hold it"),
    "cell without prompt": csv_row("prompt,seed", ",7", "line 2: it has no prompt"),
    "rounded with a comma": csv_row("prompt;seed", "fox;1,2E+12", "line 2, seed: seed '1,2E+12'", "rounded"),
    "rounded by a spreadsheet": csv_row("prompt,seed", "fox,1.2E+12", "line 2, seed: seed '1.2E+12'", "rounded"),
    "word for a switch": csv_row("prompt,weights", "fox,maybe", "line 2, weights: weights 'maybe'", "True or False"),
    "not a number": csv_row("prompt,guidance", "fox,nan", "line 2, guidance"),
    "one or a thousand": csv_row("prompt;seed;steps", "fox;1.000;7.0", "line 2, seed: seed '1.000' cannot be used"),
    "a thousand or one": csv_row("prompt;guidance", "fox;1,000", "line 2, guidance", "1,000"),
    # JSON
    "broken JSON": jsonl('{"prompt": "fox"}\n{"prompt": "owl",}', "line 2, character 18: it is not JSON", "one object"),
    "single quotes": jsonl("{'prompt': 'fox'}", "line 1, character 2: it is not JSON"),
    "JSON over several lines": jsonl(json.dumps([{"prompt": "fox"}], indent=1), "it is one JSON document", "Each line"),
    "array": jsonl('[{"prompt": "fox"}]', "line 1: it is an array, not an object"),
    "text as a row": jsonl('"fox"', "line 1: it is a value, not an object"),
    "key twice": jsonl('{"prompt": "fox", "seed": 1, "seed": 2}', "line 1: the key 'seed' stands there twice"),
    "NaN": jsonl('{"prompt": "fox", "guidance": NaN}', "line 1: NaN is not a number in JSON"),
    "number of 400 digits": jsonl(f'{{"prompt": "fox", "x": {"9" * 400}}}', "line 1: the number", "64 bits"),
    "1e999": jsonl('{"prompt": "fox", "guidance": 1e999}', "line 1: the number 1e999", "double"),
    "nested too deep": jsonl(f'{{"prompt": "fox", "x": {"[" * 9999}{"]" * 9999}}}', "line 1: more than 32 levels"),
    "nested deep": jsonl(f'{{"prompt": "fox", "x": {"[" * 40}{"]" * 40}}}', "line 1: more than 32 levels"),
    "surrogate in a carried column": jsonl('{"prompt": "fox", "x": ["\\ud800"]}', "line 1: a text has half of a pair"),
    # text
    "options in a text": txt('fox\n--prompt "owl" --steps 3\n', "line 2: ", "looks like an option", "CSV or JSON"),
    "an option in a text": txt("a fox --seed 3\n", "line 1: '--seed' looks like an option", "a column for each"),
    "an option of A1111": txt("a fox --cfg_scale 7\n", "line 1: '--cfg_scale' looks like an option"),
    "JSON lines as text": txt('{"prompt": "fox", "seed": 3}\n', "line 1: it is a JSON object", "ends in .jsonl"),
    "CSV as text": txt("\nid;Prompt;label\na;fox;7\n", "line 2: it is the first line of a table", ".csv or .tsv"),
    # values
    "no prompt": jsonl('{"seed": 1}', "line 1: it has no prompt", "Give it one"),
    "prompt null": json_row("it has no prompt", prompt=None),
    "prompt number": json_row("the prompt cannot be used: 7 is no text", "line 1, prompt", prompt=7),
    "prompt list": json_row("is no text", "line 1, prompt", prompt=["fox"]),
    "prompt too long": json_row("it has 20001 bytes, more than 20000", "line 1, prompt", prompt="x" * 20_001),
    "prompt with a bell": json_row("character 2 is a control character (U+0007)", "line 1, prompt", prompt="a\a"),
    "prompt with NUL": json_row("a control character (U+0000)", "line 1, prompt", prompt="a\0"),
    "prompt with half a pair": json_row("half of a pair", prompt="a\ud83e"),
    "negative prompt number": json_row("the negative prompt cannot be used: 7", "line 1, negative", negative=7),
    "n 0": json_row(f"n 0 cannot be used. Give {COUNT}", "line 1, n", n=0),
    "n -1": json_row(f"n -1 cannot be used. Give {COUNT}", "line 1, n", n=-1),
    "n 1.5": json_row("n 1.5 cannot be used", "line 1, n", n=1.5),
    "n text": json_row("n '2' cannot be used", "line 1, n", n="2"),
    "n true": json_row("n True cannot be used", "line 1, n", n=True),
    "n 10^9": json_row("n 1000000000 cannot be used", "line 1, n", n=10**9),
    "n 10^9 in CSV": csv_row("prompt,n", "fox,1000000000", "line 2, n: n 1000000000 cannot be used"),
    "too many pictures": csv("prompt,n\n" + "fox,60000\n" * 2, "it asks for 120000 pictures", "nano-batch"),
    "seed -2": json_row("the seed -2", "line 1, seed", seed=-2),
    "seed 2^64": csv_row("prompt,seed", f"fox,{2**64}", f"line 2, seed: the seed {2**64} is out of range"),
    "seed 2^64 in JSON": jsonl(f'{{"prompt": "fox", "seed": {2**64}}}', "line 1: the number", "64 bits"),
    "seeds beyond 2^64": json_row("seed", seed=2**64 - 1, n=2),
    "seed 1.5": json_row(f"seed 1.5 cannot be used. {WHOLE}", "line 1, seed", seed=1.5),
    "seed text": json_row("seed 'abc' cannot be used", "line 1, seed", seed="abc"),
    "seed list": json_row("seed [1, 2] cannot be used", "line 1, seed", seed=[1, 2]),
    "seed rounded": json_row("rounded it", "line 1, seed", seed=1.2345e18),
    "steps 0": json_row("steps 0 cannot be used", "line 1, steps", steps=0),
    "guidance -1": json_row("the guidance scale -1.0", "line 1, CFG Scale", **{"CFG Scale": -1}),
    "scheduler": json_row("there is no scheduler 'eulr'", "line 1, sampler", sampler="eulr"),
    "quality": json_row("quality 'best' cannot be used", "line 1, quality", quality="best"),
    "interval": json_row("the guidance interval", "line 1, guidance_interval", guidance_interval=[0.5, 0.1]),
    "interval in CSV": csv_row("prompt,guidance_interval", "fox,0.5", "line 2, guidance_interval", "interval"),
    "strength without image": json_row("strength means nothing without image", strength=0.5),
    "variation 2": json_row("2.0", "line 1, variation_strength", variation_strength=2),
    "variation seeds beyond 2^64": json_row("of picture 2", variation_seed=2**64 - 1, variation_strength=0.1, n=2),
    "variation seed alone": json_row("variation_seed means nothing without variation_strength", variation_seed=2),
    "mask without image": json_row("mask means nothing without image", mask="there.png"),
    "missing image": json_row("cannot be opened: No such file or directory", "line 1, image", image="thare.png"),
    "image is a folder": json_row("cannot be opened: Is a directory", "line 1, image", image="."),
    "image number": json_row("image 7 cannot be used. Give a text", "line 1, image", image=7),
    "image with NUL": json_row("Give a path", "line 1, image", image="a\0.png"),
    "image of another format": json_row("cannot be used", image="rows.jsonl"),
    "id twice": csv("prompt,id\nfox,a\nowl,a\n", "line 3, id: line 2 has the id 'a', too"),
    "id of a place": jsonl('{"prompt": "a", "id": "1"}\n{"prompt": "b"}', "line 2: line 1 has the id '1', too"),
    "id with a slash": json_row("id '../x' cannot be used", "line 1, id", id="../x"),
    "id with a bell": json_row("cannot be used", "line 1, custom_id", custom_id="a\a"),
    "id with an override": json_row("cannot be used", "line 1, id", id="a\u202eb"),
    "id too long": json_row("cannot be used", "line 1, id", id="x" * 201),
    "id a dot": json_row("id '.' cannot be used", "line 1, id", id="."),
    "id 1.5": json_row("id 1.5 cannot be used", "line 1, id", id=1.5),
    "id true": json_row("id True cannot be used", "line 1, id", id=True),
}  # fmt: skip


@pytest.fixture
def run(hoisted, tmp_path, monkeypatch):
    """The command with a list, whose pictures would go to an empty folder; formulas draw."""
    monkeypatch.setattr(Pipeline, "from_pretrained", lambda *_, **__: pipeline_of(FakeGraphs(hoisted)))
    (tmp_path / "lists").mkdir()
    (tmp_path / "out").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "lists" / "there.png")
    monkeypatch.chdir(tmp_path)
    return lambda file, *words: generate.main(["--prompts", str(file), "-o", "out", "--no-cache", *words])


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_list_is_told_and_nothing_is_drawn(run, tmp_path, capsys, kind):
    bad = KINDS[kind]
    path = tmp_path / "lists" / bad.file
    if callable(bad.content):
        bad.content(path)
    else:
        path.write_bytes(bad.content if isinstance(bad.content, bytes) else bad.content.encode(errors="surrogatepass"))
    assert run(path) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("nano-generate: ")
    assert str(path) in err.partition("\n")[0]
    place = 0
    for words in bad.told:
        assert words in err[place:], err
        place = err.index(words, place)
    assert "Traceback" not in err
    assert err.endswith(".\n")
    assert 2 <= len(err.splitlines()) <= 4
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", GOOD)
def test_a_good_list_of_each_format_is_drawn(run, tmp_path, capsys, name, encoding):
    """The negative control: nothing of this is refused, and neither a mark nor the ends of lines change anything."""
    path = tmp_path / "lists" / name
    path.write_bytes(GOOD[name].replace("\n", "\r\n").encode(encoding))
    assert run(path) == 0
    said = capsys.readouterr()
    assert ("columns that change no picture: 'strange'\n" in said.err) == (name == "good.TSV")
    assert len(said.out.splitlines()) == len(list((tmp_path / "out").iterdir())) == 2


def test_a_list_that_may_not_be_read_is_told(run, tmp_path, capsys):
    path = tmp_path / "lists" / "rows.csv"
    path.write_text("prompt\nfox\n", encoding="utf-8")
    with failing(tmp_path / "lists", 1, errno.EACCES, lasting=True):
        assert run(path) == 2
    assert "rows.csv cannot be read as a list of prompts: Permission denied\nCheck" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--size", "512"), "nano-generate: the bundle draws 32 x 32 pixels, not 512 x 512\nLeave"),
        (("--strength", "0.5"), "nano-generate: --strength means nothing without --image\nGive"),
        (("--mask", "lists/there.png"), "nano-generate: --mask means nothing without --image\nGive"),
        (("--image", "nowhere.png"), "nano-generate: nowhere.png cannot be opened"),
        (("--image", "lists/rows.csv"), "nano-generate: lists/rows.csv cannot be used: it is none of PNG"),
    ],
)
def test_what_is_wrong_with_the_command_line_is_told_once(run, tmp_path, capsys, words, told):
    path = tmp_path / "lists" / "rows.csv"
    path.write_text("prompt,steps\nfox,2\nowl,3\nsnow,\n", encoding="utf-8")
    assert run(path, *words) == 2
    err = capsys.readouterr().err
    assert err.startswith(told)
    assert len(err.splitlines()) == 2


def test_a_list_that_grows_while_it_is_read_is_not_cut(run, tmp_path, monkeypatch, capsys):
    path = tmp_path / "lists" / "rows.csv"
    path.write_text("prompt\nfox\n", encoding="utf-8")
    monkeypatch.setattr("nano_runtime.rows.content.opened", lambda path: path.open("rb"))  # as it was a moment before
    monkeypatch.setattr("nano_runtime.rows.content._MOST_BYTES", 9)
    assert run(path) == 2
    assert "it grew while it was read" in capsys.readouterr().err


def test_a_thousand_faults_are_twenty_lines_and_a_count(run, tmp_path, capsys):
    path = tmp_path / "lists" / "rows.csv"
    path.write_text("prompt,seed,n\n" + "fox,a,b\n" * 500, encoding="utf-8")
    assert run(path) == 2
    told = capsys.readouterr().err.splitlines()
    assert (told[0].endswith("has 1000 faults"), len(told), told[-2]) == (True, 23, "and 980 more")


def test_parquet_without_its_package_says_how_to_install_it(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("nano_runtime.rows.parquet.find_spec", lambda _name: None)
    path = tmp_path / "lists" / "rows.parquet"
    path.write_bytes(b"PAR1")
    assert run(path) == 4
    told = capsys.readouterr().err.splitlines()
    assert told[0].endswith("pyarrow, which is not installed")
    install = 'pip install "./runtime[parquet]" in the clone of the repository, or else pip install "pyarrow>=18"'
    assert told[1] == f"Install it with: {install}; or save the rows as CSV or JSON lines."
    assert list((tmp_path / "out").iterdir()) == []

"""Lists of pictures: every format gives the same rows, and every kind of bad file is told before anything is drawn."""

from __future__ import annotations

import pytest

from nano_runtime import DrawOptions, RowsError, read_rows

HEADER = "id,Prompt,Negative prompt,steps,CFG scale,Seed,n,weights,kind"
OWL = '{"custom_id": "owl", "prompt": "an owl", "seed": null, "kind": "bird"}'
SAME = {
    "rows.csv": f'{HEADER}\r\nfox,"a red fox, sitting",blurry,8,4.5,7,2,yes,mammal\r\nowl,an owl,,,,,,,bird\r\n',
    "rows.tsv": f"{HEADER}\nfox,a red fox; sitting,blurry,8,4.5,7,2,TRUE,mammal\n\nowl,an owl,,,,-1,,,bird"
    .replace(",", "\t").replace(";", ","),
    "rows.jsonl": '{"id": "fox", "prompt": "a red fox, sitting", "negative_prompt": "blurry", "guidance_scale": 4.5, '
    '"num_inference_steps": 8, "seed": 7, "num_images_per_prompt": 2, "prompt_weighting": true, "kind": "mammal"}'
    f"\r\n\r\n{OWL}\r\n",
}  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", SAME)
def test_all_formats_and_encodings_give_the_same_rows(tmp_path, name, encoding):
    path = tmp_path / name
    path.write_bytes(SAME[name].encode(encoding))
    fox, owl = read_rows(path, DrawOptions(num_inference_steps=20, quality="fast"))
    assert (fox.id, fox.has_id, fox.image, fox.extra) == ("fox", True, None, {"kind": "mammal"})
    assert (owl.id, owl.extra) == ("owl", {"kind": "bird"})
    assert fox.options == DrawOptions(
        prompt="a red fox, sitting",
        negative_prompt="blurry",
        num_inference_steps=8,
        guidance_scale=4.5,
        seed=7,
        num_images_per_prompt=2,
        prompt_weighting=True,
        quality="fast",
    )
    assert owl.options == DrawOptions(prompt="an owl", num_inference_steps=20, quality="fast")


@pytest.mark.parametrize("mark", [";", "\t"])
def test_tables_are_read_as_spreadsheets_write_them_where_a_comma_is_the_decimal_mark(tmp_path, mark):
    path = tmp_path / ("rows.csv" if mark == ";" else "rows.tsv")
    cells = ["Prompt", "Seed", "CFG scale", "guidance_interval"], ["ein Fuchs, rot; ein Bär", "7", "5,5", "0,2:,8"]
    table = "".join(mark.join(f'"{one}"' if ";" in one else one for one in row) + "\r\n" for row in cells)
    path.write_bytes(table.encode("utf-8-sig"))
    (row,) = read_rows(path)
    assert row.options == DrawOptions(prompt=cells[1][0], seed=7, guidance_scale=5.5, guidance_interval=(0.2, 0.8))


def test_commas_divide_where_the_header_has_a_prompt_with_them(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("note;prompt;x,prompt\na;b;c,a fox\n")
    (row,) = read_rows(path)
    assert (row.options.prompt, row.extra) == ("a fox", {"note;prompt;x": "a;b;c"})


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("mark", [";", ",", "\t", "|"])
def test_a_first_line_says_what_divides_the_columns_as_excel_has_it(tmp_path, mark, encoding):
    path = tmp_path / "rows.csv"
    for first in (f"sep={mark}", f'"sep={mark}"', f"SEP={mark} "):
        path.write_bytes(f"{first}\r\nprompt{mark}steps\r\nan owl{mark}3\r\n".encode(encoding))
        (row,) = read_rows(path)
        assert (row.number, row.options.prompt, row.options.num_inference_steps) == (3, "an owl", 3)


def test_a_line_of_text_is_a_prompt(tmp_path):
    path = tmp_path / "rows.txt"
    path.write_bytes(b"\xef\xbb\xbfa red fox, sitting\r\n\r\n\xef\xbb\xbf  # an owl \n")  # of two files
    rows = read_rows(path)
    assert [(row.number, row.id, row.has_id, row.options.prompt) for row in rows] == [
        (1, "0", False, "a red fox, sitting"),
        (3, "1", False, "# an owl"),
    ]


def test_words_that_other_programs_do_not_draw_are_drawn_and_told(tmp_path, caplog):
    path = tmp_path / "rows.txt"
    prompts = ["# foxes", "a fox --ar 16:9", "an owl -- at night", "#owls --ar 1:1 --no-moon", "a--seed fox"]
    path.write_text("\n".join([*prompts, "{a|b} prompt, # id", "prompt, seed"]))
    assert [row.options.prompt for row in read_rows(path)] == path.read_text().splitlines()
    assert caplog.messages == [
        "these lines begin with #, which makes no comment here, and are drawn as they stand: 1, 4",
        "these lines have --ar, which is no option here, and are drawn as they stand: 2, 4",
        "these lines have --no-moon, which is no option here, and are drawn as they stand: 4",
    ]


def test_all_faults_are_told_at_once(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("prompt,seed,id\nan owl,1.5,a\na fox,7,a\nan otter\n,3,d\n")
    with pytest.raises(RowsError) as caught:
        read_rows(path)
    assert str(caught.value).split("\n") == [
        f"{path} has 4 faults",
        "line 2, seed: seed '1.5' cannot be used. Give a whole number.",
        "line 3, id: line 2 has the id 'a', too. Give each row another, or none to any.",
        "line 4: it has 1 cell, and the header has 3. Put a text that has the delimiter in double quotes.",
        "line 5: it has no prompt. Give it one, or remove the row.",
        "Nothing was drawn: correct the file, and begin again.",
    ]

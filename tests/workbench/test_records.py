"""Prompts and pairs from files, every row in its exact characters."""

import csv
import io
import json
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.long_run import examples
from workbench.errors import InputError, Note
from workbench.models.prompt import Prompt
from workbench.records import FORMATS, Pair, read_json, read_pairs, read_prompts

ODD = [
    "NA",
    "null",
    "nan",
    "007",
    "1e5",
    "True",
    " leading",
    "trailing ",
    "-starts",
    "a\u2028b",
    "c\x0bd\x85e",
    '"q"',
    "日本",
]
LINES = [*ODD, "two\nlines", "carriage\r\nreturn", 'a,b\t"c"', "x\rlone"]


def table(rows, delimiter=","):
    """A CSV as a spreadsheet writes it."""
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter).writerows(rows)
    return out.getvalue()


def texts_of(path, **options):
    """The texts that a file gives."""
    return [prompt.text for prompt in read_prompts(path, **options)]


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("ending", ["\n", ""])
def test_every_row_is_its_characters_in_every_format(tmp_path, mark, ending):
    def write(name, text):
        (tmp_path / name).write_bytes((mark + text).encode())
        return tmp_path / name

    assert texts_of(write("a.TXT", "\n".join(ODD) + ending)) == ODD
    assert texts_of(write("a.txt", "\r\n".join(ODD) + ending)) == ODD
    lines = "\n".join(json.dumps({"prompt": text}, ensure_ascii=False) for text in LINES)
    assert texts_of(write("a.jsonl", lines + ending)) == LINES
    assert texts_of(write("a.NDJSON", "\n".join(map(json.dumps, LINES)) + ending)) == LINES
    assert texts_of(write("a.json", json.dumps(LINES, ensure_ascii=False) + ending)) == LINES
    for name, delimiter in (("a.csv", ","), ("a.TSV", "\t")):
        rows = table([["id", "text"], *([n, text] for n, text in enumerate(LINES))], delimiter)
        assert texts_of(write(name, rows.removesuffix("\r\n") + ending)) == LINES


def test_columns_and_kinds_of_records(tmp_path):
    path = tmp_path / "mixed.jsonl"
    chat = [{"role": "user", "content": "Hi"}]
    rows = [{"q": "text", "n": 3}, {"q": chat, "n": 4}, {"q": [1, 2], "n": 5}]
    path.write_text("\n\n".join(map(json.dumps, rows)))
    assert read_prompts(path, column="q") == [Prompt("text"), Prompt.chat(chat), Prompt.ids([1, 2])]
    path.write_text("\n".join(map(json.dumps, [{"messages": chat}, {"ids": [7]}, chat, [3, 4], chat[0]])))
    assert read_prompts(path) == [
        Prompt.chat(chat),
        Prompt.ids([7]),
        Prompt.chat(chat),
        Prompt.ids([3, 4]),
        Prompt.chat(chat),
    ]
    assert texts_of(io.BytesIO(b"one\ntwo")) == ["one", "two"]
    assert texts_of(io.BytesIO(b'{"text": "one"}'), format="jsonl") == ["one"]


def test_pairs(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text(
        table([["clean", "corrupt", "answer", "wrong answer"], ["a b", "a c", " 007", "NA"], ["d", "e", "", ""]])
    )
    assert read_pairs(path) == [Pair("a b", "a c", " 007", "NA"), Pair("d", "e")]
    assert read_pairs(path)[0].parameters == {"corrupt": "a c", "target": " 007", "against": "NA"}
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"x": "a", "y": "b", "answer": null}\n')
    assert read_pairs(path, columns={"clean": "x", "corrupt": "y"}) == [Pair("a", "b")]
    with pytest.raises(InputError, match=r"line 1 of .* called wrong one"):
        read_pairs(path, columns={"clean": "x", "corrupt": "y", "wrong": "wrong one"})
    with pytest.raises(InputError, match=r"called clean or prompt"):
        read_pairs(path)
    with pytest.raises(InputError, match="one of clean"):
        read_pairs(path, columns={"dirty": "x"})


@pytest.mark.parametrize("header", ["clean,corrupt,Answer,wrong", "clean,corrupt,answer, wrong"])
def test_a_column_in_another_spelling_is_not_passed_over(tmp_path, header):
    """The answers that somebody wrote down would not be measured, without a word."""
    path = tmp_path / "pairs.csv"
    path.write_text(f"{header}\na b,a c, Paris, Rome\n")
    with pytest.raises(InputError, match=r"the column '(Answer| wrong)' in line 2 of"):
        read_pairs(path)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (
            "clean,corrupt,correct,incorrect",
            r"called answer or wrong; not read: 'correct', 'inc.*answer=correct",
        ),
        ("clean,corrupt,answer,label", r"called wrong; not read: 'label'.*wrong=label"),
    ],
)
def test_answers_in_columns_by_another_name_are_not_passed_over(tmp_path, header, said):
    """The model's own tokens would be measured in their place, without a word."""
    path = tmp_path / "pairs.csv"
    path.write_text(f"{header}\na b,a c, Paris, Rome\na d,a e, Bonn, Oslo\n")
    with pytest.warns(Note, match=said) as told:
        read_pairs(path)
    assert len(told) == 1 and told[0].filename == __file__
    named = dict(zip(("clean", "corrupt", "answer", "wrong"), header.split(","), strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_pairs(path, columns=named)[1] == Pair("a d", "a e", " Bonn", " Oslo")
        path.write_text("clean,corrupt\na b,a c\n")
        assert read_pairs(path) == [Pair("a b", "a c")]


BAD = [
    ("a.txt", b"caf\xe9", "not UTF-8 in line 1"),
    ("a.txt", "\ufeffok\nno".encode("utf-16"), "not UTF-8"),
    ("a.txt", b"\n\r\n", "no prompt"),
    ("a.csv", b"", "header"),
    ("a.csv", b"text\n", "no prompt"),
    ("a.csv", b"text,text\na,b\n", "a different name for each column"),
    ("a.csv", b"text;n\na;b\n", "whose columns ';' parts; expected commas"),
    ("a.csv", b'\xef\xbb\xbf"text";"n"\r\n"a";"b"\r\n', "whose columns ';' parts"),
    ("a.csv", b"text\tn\na\tb\n", "or name it .tsv"),
    ("a.tsv", b"text;n\na;b\n", "expected tabs between columns"),
    ("a.csv", b"words\nhello\n", "columns words; expected one called prompt or text"),
    ("a.csv", b"text,n\nhello\n", r"line 2 of .* with 1 cells"),
    ("a.csv", b'text\n"ok\nok"\n"torn', "line "),
    ("a.jsonl", b'"ok"\n{"text": ', "line 2 of .* not JSON"),
    ("a.jsonl", b'{"text": 7}', "7 in line 1"),
    ("a.jsonl", b'{"text": null}', "null in line 1"),
    ("a.jsonl", b'{"text": "\\ud800"}', "in line 1"),
    ("a.jsonl", b'{"words": "a"}', "columns words"),
    ("a.jsonl", b'["a", "b"]', "2 prompts in line 1"),
    ("a.jsonl", b"[" * 100_000, "not JSON"),
    ("a.json", b'{"text": "a"}', "holds no list"),
    ("a.docx", b"PK", "unknown format"),
    ("missing.txt", None, "No such file"),
]


@pytest.mark.parametrize(("name", "content", "said"), BAD, ids=lambda value: str(value)[:24])
def test_what_cannot_be_read_is_said_with_its_line(tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=said):
        read_prompts(tmp_path / name)


def test_folders_and_formats_are_refused(tmp_path):
    (tmp_path / "folder.txt").mkdir()
    for given_source, options in ((tmp_path / "folder.txt", {}), (io.BytesIO(b"a"), {"format": "xml"})):
        with pytest.raises(InputError):
            read_prompts(given_source, **options)
    with pytest.raises(InputError, match="not JSON"):
        (tmp_path / "chat.json").write_text("[nope")
        read_json(tmp_path / "chat.json")


_TEXTS = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip), min_size=1, max_size=5
)


@settings(max_examples=examples(60), deadline=None)
@given(_TEXTS)
def test_texts_come_back_from_tables_and_json(texts):
    read = lambda text, format: [one.text for one in read_prompts(io.BytesIO(text.encode()), format=format)]
    assert read(table([["text"], *([text] for text in texts)]), "csv") == texts
    assert read(json.dumps(texts, ensure_ascii=False), "json") == texts
    assert read("\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in texts), "jsonl") == texts


@settings(max_examples=examples(120), deadline=None)
@given(st.binary(max_size=60), st.sampled_from(FORMATS))
def test_any_bytes_are_prompts_or_a_sentence(raw, format):
    for head in (b"", b"text\n", b'{"text": ', b'[{"role": "user", "content": '):
        for read in (read_prompts, read_pairs):
            try:
                assert read(io.BytesIO(head + raw), format=format)
            except InputError as error:
                assert "; expected " in str(error)


@pytest.mark.parametrize("name", ["x.jsonl", "x.json"])
def test_a_key_that_stands_twice_in_a_record_is_refused(tmp_path, name):
    record = '{"id": 1, "prompt": "one", "prompt": "two"}'
    (tmp_path / name).write_text(f"[{record}]" if name == "x.json" else record)
    with pytest.raises(InputError, match="'prompt' twice"):
        read_prompts(tmp_path / name)


@pytest.mark.parametrize(("name", "lines"), [("a.csv", 'ids,n\n"[5, 9]",1\n'), ("a.jsonl", '{"messages": "hello"}\n')])
def test_a_column_of_lists_holds_no_texts_unless_it_is_named(tmp_path, name, lines):
    """Its letters would be run, and nobody would see it."""
    (tmp_path / name).write_text(lines)
    with pytest.raises(
        InputError, match=r"Got a text in the column '(ids|messages)' of line \d of .*; expected JSON Lines"
    ):
        read_prompts(tmp_path / name)
    column = "ids" if "ids" in lines else "messages"
    assert read_prompts(tmp_path / name, column=column)[0].text in ("[5, 9]", "hello")


def test_ids_of_a_tokenised_data_set_are_read_without_their_padding(tmp_path):
    """Padding was run as tokens, though the mask stood beside it; and a table's text of ids as its letters."""
    rows = [{"input_ids": [5, 6, 0], "attention_mask": [1, 1, 0]}, {"input_ids": [0, 7], "attention_mask": [0, 1]}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, [*rows, {"input_ids": [8]}])))
    wanted = [Prompt.ids(ids) for ids in ([5, 6], [7], [8])]
    assert read_prompts(tmp_path / "a.jsonl", column="input_ids") == wanted
    (tmp_path / "a.csv").write_text('input_ids,n\n"[5, 6]",1\n')
    with pytest.raises(InputError, match=r"a text in the column 'input_ids' of line 2 .*; expected JSON Lines"):
        read_prompts(tmp_path / "a.csv", column="input_ids")


def test_a_table_of_pairs_without_a_name_asks_for_its_format():
    """Piped in, it was told to be a table, which it was."""
    table = b"clean,corrupt\nab,ac\n"
    with pytest.raises(InputError, match=r"name its format, such as csv"):
        read_pairs(io.BytesIO(table))
    assert read_pairs(io.BytesIO(table), format="csv")[0].corrupt == "ac"

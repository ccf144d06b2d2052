"""Rows of prompt files: exact characters in every format, and a line for whatever is wrong."""

import csv
import itertools
import json

import pytest

from workbench.batch.prompts.records import records
from workbench.errors import InputError, UnavailableError

# What readers of tables make something else of: missing values, numbers, line ends inside a text, a formula, a quote.
HARD = ["NA", "null", "007", "1e5", "True", "a\nb", "a\u2028b\x85c\x0cd", " spaces ", '=1+1 "quoted", yes', "é😀"]


def texts(path, column="text", **options):
    return [row[column] for _, row in records(path, **options)]


def test_every_format_gives_the_same_characters(tmp_path):
    lines = tmp_path / "a.jsonl"
    lines.write_bytes(b"\xef\xbb\xbf" + b"\n".join(json.dumps({"text": t}, ensure_ascii=False).encode() for t in HARD))
    table = tmp_path / "a.csv"
    with open(table, "w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([["text"], *([t] for t in HARD)])
    assert texts(lines) == texts(table) == HARD
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.table({"text": HARD}), tmp_path / "a.parquet")
    assert texts(tmp_path / "a.parquet") == HARD


def test_text_files_are_a_prompt_a_line_without_the_last_newline(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\n\n two\x0c \xe2\x80\xa8x\nlast")
    assert list(records(path)) == [(1, {"text": "one"}), (3, {"text": " two\x0c \u2028x"}), (4, {"text": "last"})]


def test_a_long_field_is_read_and_the_limit_of_csv_left_as_it_was(tmp_path):
    path, before = tmp_path / "a.csv", csv.field_size_limit()
    path.write_text("text\n" + "x" * 200_000 + "\n")
    assert len(texts(path)[0]) == 200_000 and csv.field_size_limit() == before


def test_a_million_lines_are_not_read_for_the_first_three(tmp_path):
    path = tmp_path / "a.txt"
    with open(path, "w") as file:
        file.writelines(f"{i}\n" for i in range(1000))
    with open(path, "ab") as file:
        file.write(b"\xff\n")
    assert len(list(itertools.islice(records(path), 3))) == 3  # the bad byte of line 1002 was not met
    with pytest.raises(InputError, match="line 1001"):
        list(records(path))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', "line 2, which is not JSON"),
        ("a.jsonl", b'["a"]\n', "line 1.*an object"),
        ("a.csv", b"text,label\na,1\nb\n", "line 3: 1 fields"),
        ("a.csv", b"text,text\na,1\n", "'text' twice"),
        ("a.csv", b'text\n"open\n', "expected CSV"),
        ("a.txt", "grün\n".encode("utf-16"), "UTF-16"),
        ("a.txt", b"fine\ngr\xfcn\n", "line 2: byte 0xfc"),
        ("a.docx", b"x", "one of .txt"),
        ("a.parquet", b"no", "not Parquet"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    with pytest.raises(InputError, match=said):
        list(records(tmp_path / name))


def test_another_encoding_is_read_where_it_is_named(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"gr\xfcn\n")
    assert texts(tmp_path / "a.txt", encoding="latin-1") == ["grün"]
    with pytest.raises(InputError, match="one that Python knows"):
        texts(tmp_path / "a.txt", encoding="klingon")
    with pytest.raises(UnavailableError, match="no file at"):
        texts(tmp_path / "b.txt")

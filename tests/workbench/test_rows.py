"""Rows of prompt files: exact characters in every format, and a line for whatever is wrong."""

import csv
import gc
import gzip
import itertools
import json
import subprocess
import sys
from io import BytesIO

import pytest

from workbench.errors import InputError
from workbench.records import read_json, read_prompts
from workbench.rows import rows, whole

# What readers of tables make something else of: missing values, numbers, line ends inside a text, a formula, a quote.
HARD = ["NA", "null", "007", "1e5", "True", "a\nb", "a\u2028b\x85c\x0cd", " spaces ", '=1+1 "quoted", yes', "é😀"]


def texts(path, column="text", **options):
    return [row.value[column] for row in rows(path, **options)]


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


def test_parquet_is_read_through_a_pipe(tmp_path):
    """It begins at its end, which a pipe has not: `cat a.parquet | workbench run ... --prompt-file -`."""
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.table({"text": HARD}), tmp_path / "a.parquet")
    with subprocess.Popen(["cat", tmp_path / "a.parquet"], stdout=subprocess.PIPE) as cat:
        assert texts(cat.stdout, format="parquet") == HARD


def test_text_files_are_a_prompt_a_line_without_the_last_newline(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\n\n two\x0c \xe2\x80\xa8x\nlast")
    found = [(row.place, row.value) for row in rows(path)]
    assert found == [("line 1", "one"), ("line 3", " two\x0c \u2028x"), ("line 4", "last")]


def test_a_column_that_stands_twice_and_numbers_that_no_reader_has_are_refused(tmp_path):
    """A row is by the names of its columns: of two of one name, one would be dropped without a word."""
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.table([["a"], ["b"]], names=["text", "text"]), tmp_path / "twice.parquet")
    (tmp_path / "twice.tsv").write_text("text\ttext\na\tb\n")
    for name in ("twice.parquet", "twice.tsv"):
        with pytest.raises(InputError, match="a different name for each column"):
            read_prompts(tmp_path / name)


def test_what_arrow_has_not_made_is_a_sentence(tmp_path, monkeypatch):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.table({"text": ["a"]}), tmp_path / "a.parquet")

    def unmade(*args, **options):
        raise pa.ArrowNotImplementedError("Integers with more than 64 bits not implemented")  # of one flipped bit

    monkeypatch.setattr(parquet, "ParquetFile", unmade)
    with pytest.raises(InputError, match="64 bits not implemented"):
        read_prompts(tmp_path / "a.parquet")


def test_a_line_that_never_ends_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr("workbench.rows._LINE", 1_000)
    (tmp_path / "a.txt").write_text(f"short\n{1_000 * 'x'}\n")
    for source, format in (("/dev/zero", "text"), ("/dev/zero", "json"), (tmp_path / "a.txt", "")):
        with pytest.raises(InputError, match="over 1,000 bytes"):
            read_prompts(source, format=format)


def test_a_wide_table_that_is_refused_halfway_leaves_no_traceback(tmp_path, recwarn):
    path, said = tmp_path / "a.csv", []
    path.write_bytes("text\na\nb,c\n".encode("utf-16"))
    before, sys.unraisablehook = sys.unraisablehook, said.append
    try:
        with pytest.raises(InputError, match="2 cells"):
            read_prompts(path, encoding="utf-16")
        gc.collect()
    finally:
        sys.unraisablehook = before
    assert said == []


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
    assert len(list(itertools.islice(rows(path), 3))) == 3  # the bad byte of line 1002 was not met
    with pytest.raises(InputError, match="line 1001"):
        list(rows(path))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', "line 2 of .*, which is not JSON"),
        ("a.jsonl", b'{"text": "a", "text": "b"}\n', "the key 'text' twice"),
        ("a.csv", b"text,label\na,1\nb\n", "line 3 of .* with 1 cells"),
        ("a.csv", b"text,text\na,1\n", "a different name for each column"),
        ("a.csv", b'text\n"open\n', "well-formed table"),
        ("a.txt", "grün\n".encode("utf-16"), "UTF-16"),
        ("a.txt", b"fine\ngr\xfcn\n", "in line 2 .byte 0xfc"),
        ("a.docx", b"x", "ends in .txt"),
        ("a.jsonl.gz", gzip.compress(b'"a"\n', mtime=0), "Unpack it"),
        ("a.xlsx", b"PK\x03\x04", "save it as CSV"),
        ("a.csv", gzip.compress(b"text\na\n", mtime=0), r"compressed \(gzip\)"),
        ("a.csv", b"PK\x03\x04\x14\x00\xff", "as of Excel"),
        ("a.parquet", b"no", "not Parquet"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    with pytest.raises(InputError, match=said):
        list(rows(tmp_path / name))


def test_another_encoding_is_read_where_it_is_named(tmp_path):
    path, lines = (
        tmp_path / "a.jsonl",
        ["gr\u00fcn", "\u2028 \u0a0a x"],
    )  # the last has bytes that are newlines in UTF-16
    text = "\n".join(json.dumps({"text": line}, ensure_ascii=False) for line in lines)
    for encoding in ("utf-16", "utf-16-le", "utf-32", "gb18030", "utf-8-sig"):
        path.write_bytes(text.encode(encoding))
        assert texts(path, encoding=encoding) == lines
    path.write_bytes(b'{"text": "gr\xfcn"}')
    assert texts(path, encoding="latin-1") == ["gr\u00fcn"]
    for encoding, said in (("klingon", "one that Python knows"), ("utf-16", "which is not utf-16")):
        with pytest.raises(InputError, match=said):
            texts(path, encoding=encoding)
    with pytest.raises(InputError, match="No such file"):
        texts(tmp_path / "b.txt")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", b'{"prompt": "one", "text": "other"}\n{"prompt": [3, 4]}\n"two"\n[5, 6]\n'),
        ("a.csv", b'id,text\n1,"a\nb"\n2,007\n'),
        ("a.txt", b"one\r\n  \nNA\n"),
        ("a.json", b'["x", {"messages": [{"role": "user", "content": "hi"}]}]'),
    ],
)
def test_a_batch_reads_what_the_shell_reads(tmp_path, name, content):
    from tests.tiny_models import tiny_model
    from workbench.batch.prompts import sources
    from workbench.batch.spec import PromptSource

    (tmp_path / name).write_bytes(content)
    model = tiny_model("llama")
    found = list(sources.rows(PromptSource(file=name), tmp_path, model, 0))
    assert [row.wrong for row in found] == [""] * len(found)
    assert [row.prompt for row in found] == read_prompts(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"text": 7}', "7 in line 1"), (b'{"text": null}', "null in line 1"), (b'["a", "b"]', "2 prompts in line 1"),
        (b'{"text": "\\ud800"}', "in line 1"),
    ],
)  # fmt: skip
def test_a_batch_refuses_what_the_shell_refuses_and_goes_on(tmp_path, content, said):
    from tests.tiny_models import tiny_model
    from workbench.batch.prompts import sources
    from workbench.batch.spec import PromptSource

    (tmp_path / "a.jsonl").write_bytes(content + b'\n{"text": "fine"}\n')
    with pytest.raises(InputError, match=said) as refused:
        read_prompts(tmp_path / "a.jsonl")
    found = list(sources.rows(PromptSource(file="a.jsonl"), tmp_path, tiny_model("llama"), 0))
    assert [row.wrong for row in found] == [str(refused.value), ""]


@pytest.mark.parametrize(
    ("kind", "encoding", "said"),
    [("text", "utf-16-le", "line 1 of .* with over 1,000 characters"), ("json", "utf-32-be", "over 1,000 characters"),
     ("json", "utf-8", "line 1 of .* with over 1,000 bytes")],
)  # fmt: skip
def test_a_line_that_never_ends_is_refused_in_every_encoding(monkeypatch, kind, encoding, said):
    monkeypatch.setattr("workbench.rows._LINE", 1_000)
    with pytest.raises(InputError, match=said):
        list(rows("/dev/zero", format=kind, encoding=encoding))


class Endless:
    """Short lines for ever, as a device or a program writes them; or a stop, long behind where a reader should."""

    def __init__(self):
        self.said = 0

    def read(self, size):
        self.said += size
        assert self.said < 100 << 20, "read on"
        return b"[1,\n" * (size // 4)

    def readline(self, size=-1):
        self.said += 4
        assert self.said < 100_000, "read on"
        return b"[1,\n"


def test_json_that_never_ends_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr("workbench.rows._WHOLE", 10_000)
    with pytest.raises(InputError, match="the input with over 10,000 bytes; expected a file that fits into memory"):
        list(rows(Endless(), format="json"))
    with pytest.raises(InputError, match="/dev/zero with over 10,000 bytes"):
        read_json("/dev/zero")
    assert whole(BytesIO(b"x" * 10_000), "it") == b"x" * 10_000


@pytest.mark.parametrize(("mark", "kind"), [(";", "csv"), ("\t", "csv"), (";", "tsv")])
def test_columns_that_another_character_parts_are_named(mark, kind):
    """What spreadsheets of half of Europe call CSV."""
    raw = f'text{mark}answer\n"Rain; wind"{mark}cold\n'.encode()
    expected = {"csv": "commas", "tsv": "tabs"}[kind]
    with pytest.raises(InputError, match=f"expected {expected} between columns"):
        list(rows(BytesIO(raw), format=kind))
    assert [row.value for row in rows(BytesIO(b"text\na;b\n"), format=kind)] == [{"text": "a;b"}]
